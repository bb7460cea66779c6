//! Comparing keys and fields, which are short: where a call to the C library would cost more than the comparison.

/// The longest that is compared without a loop or call.
const SHORT: usize = 16;

/// Whether two byte strings are equal.
#[inline]
pub(crate) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (if a.len() <= SHORT { same_short(a, b) } else { a == b })
}

/// Compares first and last words, which overlap unless the strings are as long as two of them. Both are of one length,
/// up to [`SHORT`].
#[inline]
fn same_short(a: &[u8], b: &[u8]) -> bool {
    if let (Some(ends), Some(others)) = (ends::<8>(a), ends::<8>(b)) {
        return ends == others;
    }
    if let (Some(ends), Some(others)) = (ends::<4>(a), ends::<4>(b)) {
        return ends == others;
    }
    if let (Some(ends), Some(others)) = (ends::<2>(a), ends::<2>(b)) {
        return ends == others;
    }
    a.first() == b.first()
}

#[inline]
fn ends<const WORD: usize>(bytes: &[u8]) -> Option<([u8; WORD], [u8; WORD])> {
    Some((*bytes.first_chunk()?, *bytes.last_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_seen_wherever_it_is() {
        for len in 0..40 {
            let bytes: Vec<u8> = (0..len).collect();
            assert!(same_bytes(&bytes, &bytes.clone()));
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert!(!same_bytes(&bytes, &other), "byte {at} of {len}");
                assert!(!same_bytes(&bytes, &bytes[..at]));
            }
        }
    }
}
