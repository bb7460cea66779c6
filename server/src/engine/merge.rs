//! How the replies to the parts of a request become one.

use bytes::{Buf, Bytes};
use forebay_resp::Reply;

use super::forward;
use crate::command::error::CommandError;
use crate::command::spec::Merge;

/// What the parts have answered so far.
pub(super) enum Merged {
    /// For each key.
    Elements(Vec<Bytes>),
    /// One after the other, as they stand.
    Appended {
        count: i64,
        elements: Vec<Bytes>,
    },
    Sum(i64),
    AllOk,
}

impl Merged {
    pub(super) fn of(merge: Merge, keys: usize) -> Merged {
        match merge {
            Merge::Elements => Merged::Elements(vec![Bytes::new(); keys]),
            Merge::Append => Merged::Appended { count: 0, elements: Vec::new() },
            Merge::Sum => Merged::Sum(0),
            // The replies of the last two are not made of parts.
            Merge::AllOk | Merge::Any | Merge::Scan => Merged::AllOk,
        }
    }

    /// Adds what the owner of `keys` has answered.
    ///
    /// # Errors
    /// When it was an error, or not what the command answers.
    pub(super) fn add(&mut self, keys: &[usize], mut content: Bytes) -> Result<(), CommandError> {
        forward::error_in(&content)?;
        let understood = match self {
            Merged::AllOk => content.first() == Some(&b'+'),
            Merged::Appended { count, elements } => {
                let more = number(&mut content, b'*');
                elements.push(content);
                more.map(|more| *count += more).is_some()
            }
            Merged::Sum(sum) => number(&mut content, b':').map(|part| *sum += part).is_some(),
            Merged::Elements(elements) => {
                number(&mut content, b'*') == Some(keys.len() as i64)
                    && keys.iter().all(|&key| element(&mut content).map(|found| elements[key] = found).is_some())
            }
        };
        understood.then_some(()).ok_or_else(not_understood)
    }

    pub(super) fn write(self, reply: &mut Reply) {
        match self {
            Merged::AllOk => reply.ok(),
            Merged::Sum(sum) => reply.integer(sum),
            Merged::Appended { count, elements } => {
                reply.array(usize::try_from(count).unwrap_or_default());
                elements.into_iter().for_each(|part| forward::conclude(reply, part));
            }
            Merged::Elements(elements) => {
                reply.array(elements.len());
                elements.into_iter().for_each(|element| forward::conclude(reply, element));
            }
        }
    }
}

/// The error for a part's answer that is not what the command answers.
pub(super) fn not_understood() -> CommandError {
    CommandError::text("ERR a node answered a part of this request in a way that is not understood")
}

/// Takes a line with a number.
pub(super) fn number(content: &mut Bytes, kind: u8) -> Option<i64> {
    let end = content.windows(2).position(|window| window == b"\r\n")?;
    let line = content.split_to(end);
    content.advance(2);
    let (first, digits) = line.split_first()?;
    if *first != kind {
        return None;
    }
    forebay_store::parse_integer(digits)
}

/// Takes a string or a null, as it stands.
fn element(content: &mut Bytes) -> Option<Bytes> {
    let line = content.windows(2).position(|window| window == b"\r\n")? + 2;
    let length = match content.first()? {
        b'$' => match forebay_store::parse_integer(&content[1..line - 2])? {
            -1 => 0,
            length => usize::try_from(length).ok()?.checked_add(2)?,
        },
        b'_' => 0,
        _ => return None,
    };
    (line + length <= content.len()).then(|| content.split_to(line + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_find_their_places() {
        let mut merged = Merged::of(Merge::Elements, 3);
        merged.add(&[2, 0], Bytes::from_static(b"*2\r\n$1\r\nc\r\n$-1\r\n")).expect("understood");
        merged.add(&[1], Bytes::from_static(b"*1\r\n$3\r\nb\r\n\r\n")).expect("understood");
        let mut reply = Reply::new();
        merged.write(&mut reply);
        assert_eq!(&reply.copy_to_bytes(reply.remaining())[..], b"*3\r\n$-1\r\n$3\r\nb\r\n\r\n$1\r\nc\r\n");
    }

    #[test]
    fn sums_add_up_and_errors_stay() {
        let mut merged = Merged::of(Merge::Sum, 3);
        merged.add(&[0, 2], Bytes::from_static(b":2\r\n")).expect("understood");
        merged.add(&[1], Bytes::from_static(b":1\r\n")).expect("understood");
        assert!(merged.add(&[1], Bytes::from_static(b"-OOM no\r\n")).is_err_and(|error| error.to_string() == "OOM no"));
        assert!(merged.add(&[1], Bytes::from_static(b"+OK\r\n")).is_err());
        let mut reply = Reply::new();
        merged.write(&mut reply);
        assert_eq!(&reply.copy_to_bytes(reply.remaining())[..], b":3\r\n");
    }
}
