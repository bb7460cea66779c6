//! From a key to its slot, exactly as the Redis Cluster specification has it: CRC16 (XMODEM) of the key, or of its hash tag, modulo
//! 16384. Cluster-aware clients compute the same function, so a difference of one bit would send them to the wrong node.

/// Number of slots of a cluster (Redis Cluster specification, "Key distribution model").
pub const SLOT_COUNT: u16 = 16384;

/// The generator polynomial of CRC16-XMODEM, x^16 + x^12 + x^5 + 1.
const POLYNOMIAL: u16 = 0x1021;

/// `TABLE[b]` is the remainder that the byte `b` leaves when it is shifted through the register.
static TABLE: [u16; 256] = remainder_table();

/// The slot of `key`, in `0..SLOT_COUNT`.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key)) % SLOT_COUNT
}

/// The part of `key` between its first `{` and the next `}`, when it is not empty: keys that share a tag share a slot.
#[inline]
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |register, &byte| (register << 8) ^ TABLE[usize::from((register >> 8) as u8 ^ byte)])
}

const fn remainder_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut register = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            let overflow = register & 0x8000 != 0;
            register <<= 1;
            if overflow {
                register ^= POLYNOMIAL;
            }
            bit += 1;
        }
        table[byte] = register;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_check_value_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn slots_that_redis_server_gives() {
        for (key, slot) in [("foo", 12182), ("bar", 5061), ("hello", 866), ("", 0)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn only_the_first_non_empty_tag_counts() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(hash_tag(b"foo{}{bar}"), None);
        assert_eq!(hash_tag(b"foo{{bar}}zap"), Some(&b"{bar"[..]));
        assert_eq!(hash_tag(b"foo{bar}{zap}"), Some(&b"bar"[..]));
        assert_eq!(hash_tag(b"foo{bar"), None);
    }

    proptest! {
        #[test]
        fn the_table_divides_like_the_polynomial(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let by_bit = bytes.iter().fold(0u16, |mut register, &byte| {
                register ^= u16::from(byte) << 8;
                for _ in 0..8 {
                    register = if register & 0x8000 != 0 { (register << 1) ^ POLYNOMIAL } else { register << 1 };
                }
                register
            });
            prop_assert_eq!(crc16(&bytes), by_bit);
        }

        #[test]
        fn a_tag_decides_alone(tag in "[a-z]{1,8}", before in "[a-z]{0,8}", after in "[a-z{}]{0,8}") {
            let key = format!("{before}{{{tag}}}{after}");
            prop_assert_eq!(slot_of(key.as_bytes()), slot_of(tag.as_bytes()));
        }
    }
}
