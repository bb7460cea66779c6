//! The pieces that Kafka's requests and responses are made of: numbers in network order, texts and lists with their lengths before them.
//!
//! *Compact* versions of requests write lengths as varints of one more than they are, and have tagged fields behind each structure.
//! <https://kafka.apache.org/protocol#protocol_types>

/// What was sent is not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it ends too early, or a length in it cannot be")]
pub(super) struct Malformed;

/// Reads from a response. Nothing is reserved for what a length promises and the bytes do not hold.
#[derive(Debug, Clone)]
pub(super) struct Reader<'b> {
    bytes: &'b [u8],
    is_compact: bool,
}

impl<'b> Reader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Reader { bytes, is_compact: false }
    }

    pub(super) fn compact(bytes: &'b [u8]) -> Self {
        Reader { bytes, is_compact: true }
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn rest(self) -> &'b [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Malformed)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(super) fn int8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn int32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn int64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn unsigned_varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// The same of a number with its sign in the lowest bit.
    pub(super) fn varint(&mut self) -> Result<i64, Malformed> {
        self.unsigned_varint().map(|number| (number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// As many bytes as a varint before them says; `None` for a negative number.
    pub(super) fn varint_bytes(&mut self) -> Result<Option<&'b [u8]>, Malformed> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.take(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// How many follow; none for a list that is null.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = match self.is_compact {
            true => self.unsigned_varint()?.saturating_sub(1),
            false => self.int32()?.max(0) as u64,
        };
        // Each takes a byte at least.
        usize::try_from(count).ok().filter(|count| *count <= self.left()).ok_or(Malformed)
    }

    /// A text; an empty one for null.
    pub(super) fn text(&mut self) -> Result<String, Malformed> {
        let length = match self.is_compact {
            true => self.unsigned_varint()?.saturating_sub(1),
            false => self.int16()?.max(0) as u64,
        };
        let bytes = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Bytes with their number before them; none for null.
    pub(super) fn blob(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.int32()?.max(0);
        self.take(length as usize)
    }

    /// Passes what is behind a structure in compact versions.
    pub(super) fn tags(&mut self) -> Result<(), Malformed> {
        if !self.is_compact {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            let _tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()?;
            self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
        }
        Ok(())
    }

    /// A list of what `read` reads.
    pub(super) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        (0..self.count()?).map(|_| read(self)).collect()
    }
}

/// Writes a request.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) bytes: Vec<u8>,
    pub(super) is_compact: bool,
}

impl Writer {
    pub(super) fn int8(&mut self, number: i8) -> &mut Self {
        self.put(&number.to_be_bytes())
    }

    pub(super) fn int16(&mut self, number: i16) -> &mut Self {
        self.put(&number.to_be_bytes())
    }

    pub(super) fn int32(&mut self, number: i32) -> &mut Self {
        self.put(&number.to_be_bytes())
    }

    pub(super) fn int64(&mut self, number: i64) -> &mut Self {
        self.put(&number.to_be_bytes())
    }

    fn unsigned_varint(&mut self, mut number: u64) -> &mut Self {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
        self
    }

    pub(super) fn count(&mut self, count: usize) -> &mut Self {
        match self.is_compact {
            true => self.unsigned_varint(count as u64 + 1),
            false => self.int32(count as i32),
        }
    }

    /// Names of topics and users; they are shorter than the 32,767 bytes that can be said.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        match self.is_compact {
            true => self.unsigned_varint(text.len() as u64 + 1),
            false => self.int16(text.len() as i16),
        };
        self.put(text.as_bytes())
    }

    pub(super) fn blob(&mut self, bytes: &[u8]) -> &mut Self {
        self.int32(bytes.len() as i32).put(bytes)
    }

    pub(super) fn tags(&mut self) -> &mut Self {
        if self.is_compact {
            self.bytes.push(0);
        }
        self
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_that_cannot_be_takes_no_memory() {
        assert_eq!(Reader::new(&[0x7f, 0xff, 0xff, 0xff]).count(), Err(Malformed));
        assert_eq!(Reader::compact(&[0xff, 0xff, 0xff, 0xff, 0x7f]).count(), Err(Malformed));
        assert_eq!(Reader::compact(&[0xff; 12]).unsigned_varint(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff, 0xff]).text(), Ok(String::new()), "null");
        assert_eq!(Reader::new(&[0, 3, b'a']).text(), Err(Malformed));
    }

    #[test]
    fn varints_have_their_sign_in_the_lowest_bit() {
        for (bytes, number) in [(&[0_u8][..], 0), (&[1], -1), (&[2], 1), (&[0x80, 0x01], 64), (&[0xff, 0x01], -128)] {
            assert_eq!(Reader::new(bytes).varint(), Ok(number));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(is_compact: bool, text in "[a-z]{0,200}", count in 0_usize..50, number: i64) {
            let mut writer = Writer { is_compact, ..Writer::default() };
            writer.text(&text).count(count).int64(number).tags().put(&[7; 50]);
            let mut reader = Reader { bytes: &writer.bytes, is_compact };
            prop_assert_eq!(reader.text(), Ok(text));
            prop_assert_eq!(reader.count(), Ok(count));
            prop_assert_eq!(reader.int64(), Ok(number));
            prop_assert_eq!(reader.tags(), Ok(()));
            prop_assert_eq!(reader.left(), 50);
        }
    }
}
