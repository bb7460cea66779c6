//! From a key to its slot, exactly as the Redis Cluster specification has it: CRC16 (XMODEM) of the key, or of its hash tag, modulo
//! 16384. Cluster-aware clients compute the same function, so a difference of one bit would send them to the wrong node.

/// Number of slots of a cluster (Redis Cluster specification, "Key distribution model").
pub const SLOT_COUNT: u16 = 16384;

/// The generator polynomial of CRC16-XMODEM, x^16 + x^12 + x^5 + 1.
const POLYNOMIAL: u16 = 0x1021;

/// Bytes that are shifted through the register at once.
const STRIDE: usize = 8;

/// `TABLES[n][b]` is the remainder that the byte `b` leaves when `n` more bytes come after it. With one table for each byte of a stride
/// the look-ups of a stride do not wait for one another ("slicing-by-8": M. E. Kounavis, F. L. Berry, "A Systematic Approach to Building
/// High Performance, Software-Based, CRC Generators", ISCC 2005).
static TABLES: [[u16; 256]; STRIDE] = remainder_tables();

/// The slot of `key`, in `0..SLOT_COUNT`.
#[inline]
pub fn slot_of(key: &[u8]) -> u16 {
    let (head, strides) = strides(key);
    let mut register = if head == 0 { 0 } else { shift_through(0, head) };
    let mut found = braces(head);
    for stride in strides {
        register = shift_through(register, stride);
        found |= braces(stride);
    }
    let checksum = if found == 0 { register } else { checksum_of_tag(key) };
    checksum % SLOT_COUNT
}

/// The checksum of the hash tag, if there is one, or of the whole key.
#[cold]
fn checksum_of_tag(key: &[u8]) -> u16 {
    crc16(hash_tag(key).unwrap_or(key))
}

/// The part of `key` between its first `{` and the next `}`, when it is not empty: keys that share a tag share a slot.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|&byte| byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|&byte| byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

/// Bits that are set if one of the eight bytes is `{`, by looking for a zero byte after cancelling it out.
#[inline]
fn braces(stride: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; STRIDE]);
    let difference = stride ^ (ONES * b'{' as u64);
    difference.wrapping_sub(ONES) & !difference & (ONES << 7)
}

fn crc16(bytes: &[u8]) -> u16 {
    let (head, strides) = strides(bytes);
    strides.fold(shift_through(0, head), shift_through)
}

/// The bytes eight at a time, each eight as a big-endian number: first those that are more than whole strides, with zeros before them,
/// which change nothing in a register that starts at 0.
#[inline]
fn strides(bytes: &[u8]) -> (u64, impl Iterator<Item = u64>) {
    let (head, whole) = bytes.split_at(bytes.len() % STRIDE);
    let number = |stride: &[u8]| stride.try_into().map_or(0, u64::from_be_bytes);
    let head = match bytes.get(..STRIDE) {
        // What is not the head's is shifted out again. Two steps, since a shift by all 64 bits is none.
        Some(first) => number(first) >> 8 >> (8 * (STRIDE - 1 - head.len())),
        None => head.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)),
    };
    (head, whole.chunks_exact(STRIDE).map(number))
}

/// The register after eight more bytes.
#[inline]
fn shift_through(register: u16, stride: u64) -> u16 {
    let [a, b, c, d, e, f, g, h] = (stride ^ u64::from(register) << 48).to_be_bytes().map(usize::from);
    let [behind_0, behind_1, behind_2, behind_3, behind_4, behind_5, behind_6, behind_7] = &TABLES;
    let front = behind_7[a] ^ behind_6[b] ^ behind_5[c] ^ behind_4[d];
    front ^ behind_3[e] ^ behind_2[f] ^ behind_1[g] ^ behind_0[h]
}

const fn remainder_tables() -> [[u16; 256]; STRIDE] {
    let mut tables = [[0; 256]; STRIDE];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u16;
        let mut behind = 0;
        // Each step shifts one zero byte in: the first makes the remainder of the byte itself.
        while behind < STRIDE {
            remainder = shift_zero_byte(if behind == 0 { remainder << 8 } else { remainder });
            tables[behind][byte] = remainder;
            behind += 1;
        }
        byte += 1;
    }
    tables
}

const fn shift_zero_byte(register: u16) -> u16 {
    let mut register = register;
    let mut bit = 0;
    while bit < 8 {
        let overflow = register & 0x8000 != 0;
        register <<= 1;
        if overflow {
            register ^= POLYNOMIAL;
        }
        bit += 1;
    }
    register
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
        fn a_brace_is_found_wherever_it_stands(key in "[a-c{}|]{0,24}") {
            prop_assert_eq!(slot_of(key.as_bytes()), checksum_of_tag(key.as_bytes()) % SLOT_COUNT);
        }

        #[test]
        fn a_tag_decides_alone(tag in "[a-z]{1,8}", before in "[a-z]{0,8}", after in "[a-z{}]{0,8}") {
            let key = format!("{before}{{{tag}}}{after}");
            prop_assert_eq!(slot_of(key.as_bytes()), slot_of(tag.as_bytes()));
        }
    }
}
