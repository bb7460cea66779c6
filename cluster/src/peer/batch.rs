//! How requests and replies lie in a stream: each with its call's number and its length in front, both in little-endian order. The stream is cut
//! into batches, which begin and end anywhere, so that a large call does not make a large message.

use std::cmp::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::Status;

use super::MAX_CALL;

/// Bytes in front of each.
pub(super) const HEADER: usize = size_of::<u64>() + size_of::<u32>();

/// A peer announces a call that is longer than any may be: what it sends is no stream of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a peer announces a call of {0} bytes, and none is larger than {MAX_CALL}")]
pub(super) struct TooLong(usize);

impl From<TooLong> for Status {
    fn from(too_long: TooLong) -> Status {
        Status::data_loss(too_long.to_string())
    }
}

/// Adds a call of at most [`MAX_CALL`] bytes.
pub(super) fn put(batch: &mut BytesMut, number: u64, content: &[u8]) {
    batch.reserve(HEADER + content.len());
    put_header(batch, number, content.len());
    batch.put_slice(content);
}

/// Adds what stands in front of a call of `length` bytes, at most [`MAX_CALL`].
pub(super) fn put_header(batch: &mut BytesMut, number: u64, length: usize) {
    debug_assert!(length <= MAX_CALL, "the length would be told wrong");
    batch.put_u64_le(number);
    batch.put_u32_le(length as u32);
}

/// Takes the calls out of a stream's batches. Most lie whole in one, and are given out where they lie.
#[derive(Default)]
pub(super) struct Calls {
    /// The beginning of a call whose end has not come yet, with its header. Grows with what has come, not with what is announced.
    begun: Vec<u8>,
}

impl Calls {
    /// Takes the next call out of `batch`; `None` when the batch is used up.
    ///
    /// # Errors
    /// When a call is announced that is longer than any may be.
    #[inline]
    pub(super) fn next(&mut self, batch: &mut Bytes) -> Result<Option<(u64, Bytes)>, TooLong> {
        if batch.is_empty() {
            return Ok(None);
        }
        let Some((number, length)) = header(batch).filter(|_| self.begun.is_empty()) else {
            return self.next_in_parts(batch);
        };
        // The last one takes the memory over, instead of sharing it.
        let mut content = match (HEADER + length).cmp(&batch.len()) {
            Ordering::Less => batch.split_to(HEADER + length),
            Ordering::Equal => std::mem::take(batch),
            Ordering::Greater => return self.next_in_parts(batch),
        };
        content.advance(HEADER);
        Ok(Some((number, content)))
    }

    /// The same for a call that does not begin and end in this batch.
    #[cold]
    fn next_in_parts(&mut self, batch: &mut Bytes) -> Result<Option<(u64, Bytes)>, TooLong> {
        loop {
            let whole = whole_length(&self.begun)?;
            if self.begun.len() == whole {
                let mut call = Bytes::from(std::mem::take(&mut self.begun));
                let number = call.get_u64_le();
                call.advance(HEADER - size_of::<u64>());
                return Ok(Some((number, call)));
            }
            if batch.is_empty() {
                return Ok(None);
            }
            let missing = whole - self.begun.len();
            self.take_in(&batch.split_to(missing.min(batch.len())), whole);
        }
    }

    fn take_in(&mut self, more: &[u8], whole: usize) {
        let (length, capacity) = (self.begun.len(), self.begun.capacity());
        if capacity - length < more.len() {
            // Doubled, but not beyond what it will be: a value is kept in the memory that its request came in.
            let wanted = (2 * capacity).max(length + more.len()).min(whole);
            self.begun.reserve_exact(wanted - length);
        }
        self.begun.extend_from_slice(more);
    }
}

/// The number of the call that begins here, and the length of its content; `None` if these are not all there.
fn header(mut bytes: &[u8]) -> Option<(u64, usize)> {
    (bytes.len() >= HEADER).then(|| (bytes.get_u64_le(), bytes.get_u32_le() as usize))
}

/// How long the beginning of a call has to become, as far as that is known: its header at least.
fn whole_length(begun: &[u8]) -> Result<usize, TooLong> {
    match header(begun) {
        None => Ok(HEADER),
        Some((_, length)) if length <= MAX_CALL => Ok(HEADER + length),
        Some((_, length)) => Err(TooLong(length)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Found = Vec<(u64, Vec<u8>)>;

    /// What comes out of a stream that is cut at these distances.
    fn found(mut stream: Bytes, cuts: Vec<usize>) -> Result<Found, TooLong> {
        let (mut calls, mut cuts, mut found) = (Calls::default(), cuts.into_iter(), Vec::new());
        while !stream.is_empty() {
            let mut batch = stream.split_to(cuts.next().unwrap_or(usize::MAX).min(stream.len()));
            while let Some((number, content)) = calls.next(&mut batch)? {
                found.push((number, content.to_vec()));
            }
            assert!(batch.is_empty(), "it waits for more, and there is some");
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn calls_come_out_however_the_stream_is_cut(
            calls in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..50)), 0..20),
            cuts in proptest::collection::vec(0..40usize, 0..60),
        ) {
            let mut stream = BytesMut::new();
            calls.iter().for_each(|(number, content)| put(&mut stream, *number, content));
            prop_assert_eq!(found(stream.freeze(), cuts), Ok(calls));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0)], 0..200),
            cuts in proptest::collection::vec(0..40usize, 0..20),
        ) {
            let length = bytes.len();
            let taken = found(Bytes::from(bytes), cuts).map(|calls| calls.iter().map(|(_, content)| HEADER + content.len()).sum());
            prop_assert!(taken.is_err() || taken.is_ok_and(|taken: usize| taken <= length));
        }
    }

    #[test]
    fn calls_that_lie_whole_in_a_batch_are_not_copied() {
        let mut stream = BytesMut::new();
        (1..=3).for_each(|number| put(&mut stream, number, b"content"));
        let mut batch = stream.freeze();
        let (memory, mut calls) = (batch.as_ptr_range(), Calls::default());
        while let Some((_, content)) = calls.next(&mut batch).expect("calls") {
            assert!(memory.contains(&content.as_ptr()));
        }
        assert_eq!(calls.begun.capacity(), 0);
    }

    #[test]
    fn what_is_put_together_takes_no_more_memory_than_it_needs() {
        let mut stream = BytesMut::new();
        put(&mut stream, 1, &[7; 1000]);
        let (mut stream, mut calls) = (stream.freeze(), Calls::default());
        while stream.len() > 100 {
            assert_eq!(calls.next(&mut stream.split_to(100)), Ok(None));
            assert!(calls.begun.capacity() <= 2 * calls.begun.len() && calls.begun.capacity() <= HEADER + 1000);
        }
        assert_eq!(calls.next(&mut stream), Ok(Some((1, Bytes::from(vec![7; 1000])))));
        assert_eq!(calls.begun.capacity(), 0);
    }

    #[test]
    fn a_call_of_monstrous_length_is_refused_before_it_comes() {
        let announced = |length: u32| [&1u64.to_le_bytes()[..], &length.to_le_bytes()].concat();
        for cut in [1, HEADER - 1, HEADER] {
            assert_eq!(found(announced(u32::MAX).into(), vec![cut]), Err(TooLong(u32::MAX as usize)));
            assert_eq!(found(announced(MAX_CALL as u32 + 1).into(), vec![cut]), Err(TooLong(MAX_CALL + 1)));
            assert_eq!(found(announced(MAX_CALL as u32).into(), vec![cut]), Ok(Vec::new()));
        }
    }
}
