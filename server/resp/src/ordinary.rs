//! Whole requests of programs: an array of bulk strings, all of it there. They are read in one pass that keeps nothing
//! to go on with; whatever is not like that is left to the [`Decoder`](crate::Decoder)'s long way.

use crate::frame::{Frame, Span};
use crate::{Limits, number};

/// Bytes of `\r\n`.
const LINE_END: usize = 2;

/// What an array of more arguments saves here is not worth finding out at its end that it is not whole.
const ARGUMENTS_MAX: usize = 1024;

/// Finds the arguments of the request that `buf` begins with, and answers its bytes. `None` means only that the short
/// way does not apply.
#[inline]
pub(crate) fn whole_request(buf: &[u8], limits: &Limits, frame: &mut Frame) -> Option<usize> {
    let (count, mut position) = header(buf, 0, b'*')?;
    if !(1..=ARGUMENTS_MAX.min(limits.arguments)).contains(&count) {
        return None;
    }
    for _ in 0..count {
        let (length, start) = header(buf, position, b'$')?;
        position = start + length + LINE_END;
        if length > limits.bulk || position > buf.len() {
            return None;
        }
        frame.push(Span::new(start, length));
    }
    Some(position)
}

/// The number in the header at `position`, and the offset of what follows it.
#[inline]
fn header(buf: &[u8], position: usize, kind: u8) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
    match *buf.get(position..)? {
        // One digit and two, which is nearly all there are. The byte behind `\r` is not looked at, as in Redis.
        [first, ones, b'\r', _, ..] if first == kind && digit(ones) <= 9 => Some((digit(ones), position + 4)),
        [first, tens, ones, b'\r', _, ..] if first == kind && matches!(digit(tens), 1..=9) && digit(ones) <= 9 => {
            Some((digit(tens) * 10 + digit(ones), position + 5))
        }
        [first, ref digits @ ..] if first == kind => {
            let (value, width) = number::ordinary(digits)?;
            Some((value, position + 1 + width))
        }
        _ => None,
    }
}
