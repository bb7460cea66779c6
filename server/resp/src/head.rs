//! The lines that begin nearly every reply: a kind, a number, `\r\n`.

/// Appends `<kind><number>\r\n`. Small numbers are copied from a table, which takes a handful of instructions.
#[inline]
pub(crate) fn append(output: &mut Vec<u8>, kind: u8, number: i64) {
    match usize::try_from(number).ok().and_then(|number| SMALL.get(number)) {
        Some(&head) => append_small(output, kind, head),
        None => append_any(output, kind, number),
    }
}

/// Bytes of the longest head: kind, sign, 19 digits, `\r\n`.
pub(crate) const HEAD_MAX: usize = 23;

/// All eight bytes are stored, which is one instruction, and the surplus is cut off.
#[inline]
fn append_small(output: &mut Vec<u8>, kind: u8, head: u64) {
    let end = output.len() + (head >> LENGTH_SHIFT) as usize;
    output.extend_from_slice(&(head | u64::from(kind)).to_le_bytes());
    output.truncate(end);
}

#[inline(never)]
fn append_any(output: &mut Vec<u8>, kind: u8, number: i64) {
    output.push(kind);
    output.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    output.extend_from_slice(b"\r\n");
}

/// The lengths and numbers that most replies have. From the lowest byte on: room for the kind, the digits, `\r\n`; in
/// the highest byte the length of all that.
static SMALL: [u64; 256] = small_heads();

const LENGTH_SHIFT: u32 = 56;

const fn small_heads() -> [u64; 256] {
    let mut heads = [0; 256];
    let mut number = 0;
    while number < heads.len() {
        heads[number] = small_head(number);
        number += 1;
    }
    heads
}

/// `number` has at most four digits, or there is no room.
const fn small_head(number: usize) -> u64 {
    let digits = digits(number);
    let mut bytes = [0; 8];
    let mut rest = number;
    let mut at = digits;
    while at > 0 {
        bytes[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        at -= 1;
    }
    bytes[digits + 1] = b'\r';
    bytes[digits + 2] = b'\n';
    bytes[7] = digits as u8 + 3;
    u64::from_le_bytes(bytes)
}

const fn digits(number: usize) -> usize {
    if number < 10 { 1 } else { 1 + digits(number / 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(number: i64) -> String {
        let mut output = b"before".to_vec();
        append(&mut output, b':', number);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn heads_of_every_size() {
        for number in (-300..300).chain([999, 1000, 12345, i64::MAX, i64::MIN]) {
            assert_eq!(appended(number), format!("before:{number}\r\n"));
        }
    }

    #[test]
    fn the_longest_head_is_known() {
        assert_eq!(format!(":{}\r\n", i64::MIN).len(), HEAD_MAX);
    }
}
