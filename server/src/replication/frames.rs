//! From frames, which are cut anywhere, back to records.

use bytes::{Buf, Bytes, BytesMut};

use super::effect::{LENGTH, MAX_RECORD, Malformed};

/// Puts records together. Most lie whole in one frame, and are then given out where they lie.
#[derive(Default)]
pub(super) struct Assembler {
    /// The beginning of a record whose end has not come yet, with its length. Grows with what has come, not with what is announced.
    begun: BytesMut,
}

impl Assembler {
    /// Takes the next record out of `frame`, without its length; `None` when the frame is used up.
    ///
    /// # Errors
    /// When a record is announced that is longer than any may be.
    pub(super) fn next(&mut self, frame: &mut Bytes) -> Result<Option<Bytes>, Malformed> {
        if self.begun.is_empty() {
            if let Some(whole) = whole_length(frame)?.filter(|whole| *whole <= frame.len()) {
                let mut record = frame.split_to(whole);
                record.advance(LENGTH);
                return Ok(Some(record));
            }
        }
        loop {
            let wanted = whole_length(&self.begun)?.unwrap_or(LENGTH) - self.begun.len();
            if wanted == 0 {
                let mut record = self.begun.split().freeze();
                record.advance(LENGTH);
                return Ok(Some(record));
            }
            if frame.is_empty() {
                return Ok(None);
            }
            let more = frame.split_to(wanted.min(frame.len()));
            self.begun.extend_from_slice(&more);
        }
    }
}

/// The length of the record that begins here, with the length's own bytes; `None` if those are not all there.
fn whole_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(length) = bytes.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > MAX_RECORD { Err(Malformed) } else { Ok(Some(LENGTH + length)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_out_however_the_stream_is_cut(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20),
            cuts in prop::collection::vec(1..40usize, 0..60),
        ) {
            let mut stream = BytesMut::new();
            for record in &records {
                stream.extend_from_slice(&(record.len() as u32).to_le_bytes());
                stream.extend_from_slice(record);
            }
            let (mut stream, mut assembler, mut seen) = (stream.freeze(), Assembler::default(), Vec::new());
            let mut cuts = cuts.into_iter();
            while !stream.is_empty() {
                let mut frame = stream.split_to(cuts.next().unwrap_or(usize::MAX).min(stream.len()));
                while let Some(record) = assembler.next(&mut frame).unwrap() {
                    seen.push(record.to_vec());
                }
            }
            prop_assert_eq!(seen, records);
        }
    }

    #[test]
    fn a_record_of_no_or_of_monstrous_length_is_refused() {
        for length in [0, u32::MAX] {
            let mut frame = Bytes::copy_from_slice(&length.to_le_bytes());
            assert_eq!(Assembler::default().next(&mut frame), Err(Malformed));
        }
    }
}
