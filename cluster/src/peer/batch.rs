//! How requests and replies lie in a batch: each with its call's number and its length in front, both in little-endian order.

use std::cmp::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes in front of each.
const HEADER: usize = size_of::<u64>() + size_of::<u32>();

/// A batch that ends within a call: it was cut or made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch of a peer ends within a call")]
pub(super) struct Cut;

pub(super) fn put(batch: &mut BytesMut, number: u64, content: &[u8]) {
    batch.reserve(HEADER + content.len());
    batch.put_u64_le(number);
    // Contents are at most as large as a message, which fits.
    batch.put_u32_le(content.len() as u32);
    batch.put_slice(content);
}

/// The calls of a batch, in order.
pub(super) struct Calls(pub(super) Bytes);

impl Iterator for Calls {
    type Item = Result<(u64, Bytes), Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let taken = take(&mut self.0);
        if taken.is_none() {
            self.0.clear();
        }
        Some(taken.ok_or(Cut))
    }
}

fn take(batch: &mut Bytes) -> Option<(u64, Bytes)> {
    if batch.len() < HEADER {
        return None;
    }
    let (number, length) = (batch.get_u64_le(), batch.get_u32_le() as usize);
    // The last one takes the memory over, instead of sharing it.
    let content = match length.cmp(&batch.len()) {
        Ordering::Less => batch.split_to(length),
        Ordering::Equal => std::mem::take(batch),
        Ordering::Greater => return None,
    };
    Some((number, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_found(calls in proptest::collection::vec((any::<u64>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..20)) {
            let mut batch = BytesMut::new();
            calls.iter().for_each(|(number, content)| put(&mut batch, *number, content));
            let found: Result<Vec<_>, _> = Calls(batch.freeze()).collect();
            let found: Vec<_> = found.expect("whole").into_iter().map(|(number, content)| (number, content.to_vec())).collect();
            prop_assert_eq!(found, calls);
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let length = bytes.len();
            let taken: usize = Calls(Bytes::from(bytes)).map_while(Result::ok).map(|(_, content)| HEADER + content.len()).sum();
            prop_assert!(taken <= length);
        }
    }

    #[test]
    fn a_cut_batch_is_refused_once() {
        let mut batch = BytesMut::new();
        put(&mut batch, 1, b"whole");
        put(&mut batch, 2, b"cut");
        batch.truncate(batch.len() - 1);
        let calls: Vec<_> = Calls(batch.freeze()).collect();
        assert_eq!(calls, [Ok((1, Bytes::from_static(b"whole"))), Err(Cut)]);
    }
}
