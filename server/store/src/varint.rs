//! Lengths in as few bytes as they need: seven bits a byte, low ones first, the top bit says that more follow (LEB128).

/// The longest that a length of 32 bits can get.
const MAX_VARINT: usize = 5;

/// The encoded form and its length.
#[inline]
pub(crate) fn encode_varint(mut length: u32) -> ([u8; MAX_VARINT], usize) {
    let mut bytes = [0; MAX_VARINT];
    let mut len = 0;
    loop {
        let more = length > 0x7f;
        bytes[len] = (length & 0x7f) as u8 | u8::from(more) << 7;
        length >>= 7;
        len += 1;
        if !more {
            return (bytes, len);
        }
    }
}

/// Reads a length with `byte_at`, which gives the bytes in order. Returns it and how many bytes it took.
#[inline]
pub(crate) fn decode_varint(byte_at: impl Fn(usize) -> u8) -> (u32, usize) {
    let first = byte_at(0);
    if first < 0x80 {
        return (u32::from(first), 1);
    }
    let mut length = u32::from(first & 0x7f);
    for at in 1..MAX_VARINT {
        let byte = byte_at(at);
        length |= u32::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return (length, at + 1);
        }
    }
    (length, MAX_VARINT)
}

/// As [`decode_varint`], for bytes that others have sent. `None` if they end within it, or say more than 32 bits.
pub(crate) fn checked_varint(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut length = 0u64;
    for (at, byte) in bytes.iter().take(MAX_VARINT).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            return Some((u32::try_from(length).ok()?, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trips(bits in 0u32..=32, number: u32) {
            let length = number.checked_shr(bits).unwrap_or(0);
            let (bytes, len) = encode_varint(length);
            let bits = 32 - (length | 1).leading_zeros();
            prop_assert_eq!(len, bits.div_ceil(7) as usize);
            prop_assert_eq!(decode_varint(|at| bytes[..len][at]), (length, len));
            prop_assert_eq!(checked_varint(&bytes[..len]), Some((length, len)));
            prop_assert_eq!(checked_varint(&bytes[..len - 1]), None);
        }
    }
}
