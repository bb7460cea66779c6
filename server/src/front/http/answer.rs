//! Reading the engine's replies back: the few kinds that the API's commands give.

use bytes::{Buf, Bytes};
use forebay_resp::Reply;
use serde::ser::{Serialize, Serializer};

/// A reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Status(Bytes),
    Value(Bytes),
    Integer(i64),
    Null,
    /// A flat array of values; numbers among them in digits.
    Array(Vec<Bytes>),
    /// The error line.
    Error(String),
    /// None of the kinds above.
    Other,
}

/// Fields and values in turn, as a JSON object. What is not UTF-8 is replaced.
pub(super) struct Fields<'a>(pub(super) &'a [Bytes]);

impl Answer {
    /// Reads a reply in RESP2.
    pub(super) fn read(mut reply: Reply) -> Answer {
        let mut bytes = reply.copy_to_bytes(reply.remaining());
        Answer::parse(&mut bytes).unwrap_or(Answer::Other)
    }

    pub(super) fn is_wrong_type(&self) -> bool {
        matches!(self, Answer::Error(line) if line.starts_with("WRONGTYPE "))
    }

    fn parse(bytes: &mut Bytes) -> Option<Answer> {
        let line = line(bytes)?;
        let rest = line.slice(1..);
        Some(match line[0] {
            b'+' => Answer::Status(rest),
            b'-' => Answer::Error(String::from_utf8_lossy(&rest).into_owned()),
            b':' => Answer::Integer(number(&rest)?),
            b'$' => bulk(number(&rest)?, bytes)?,
            b'*' => Answer::Array((0..number(&rest)?).map(|_| value(bytes)).collect::<Option<_>>()?),
            _ => Answer::Other,
        })
    }
}

/// Takes a line, at least one byte long, and its end.
fn line(bytes: &mut Bytes) -> Option<Bytes> {
    let end = bytes.windows(2).position(|window| window == b"\r\n").filter(|end| *end > 0)?;
    let line = bytes.split_to(end);
    bytes.advance(2);
    Some(line)
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes a bulk string and the line end after it.
fn bulk(length: i64, bytes: &mut Bytes) -> Option<Answer> {
    let Ok(length) = usize::try_from(length) else {
        return Some(Answer::Null);
    };
    if bytes.len() < length + 2 {
        return None;
    }
    let value = bytes.split_to(length);
    bytes.advance(2);
    Some(Answer::Value(value))
}

fn value(bytes: &mut Bytes) -> Option<Bytes> {
    match Answer::parse(bytes)? {
        Answer::Value(value) => Some(value),
        Answer::Integer(number) => Some(number.to_string().into()),
        _ => None,
    }
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.0.chunks_exact(2);
        serializer.collect_map(pairs.map(|pair| (String::from_utf8_lossy(&pair[0]), String::from_utf8_lossy(&pair[1]))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Reply)) -> Answer {
        let mut reply = Reply::new();
        write(&mut reply);
        Answer::read(reply)
    }

    #[test]
    fn what_the_engine_writes_is_read_back() {
        assert_eq!(written(Reply::ok), Answer::Status("OK".into()));
        assert_eq!(written(Reply::null), Answer::Null);
        assert_eq!(written(|reply| reply.integer(-3)), Answer::Integer(-3));
        assert_eq!(written(|reply| reply.bulk(b"a\r\nb")), Answer::Value("a\r\nb".into()));
        assert_eq!(written(|reply| reply.error("ERR no")), Answer::Error("ERR no".to_owned()));
        let pairs = written(|reply| {
            reply.map(1);
            reply.bulk(b"f");
            reply.bulk(b"v");
        });
        assert_eq!(pairs, Answer::Array(vec!["f".into(), "v".into()]));
    }

    #[test]
    fn anything_else_is_no_answer() {
        for bytes in ["", "\r\n", "$5\r\nab\r\n", "$x\r\n", "*2\r\n:1\r\n", "*1\r\n+OK\r\n", "?\r\n"] {
            let answer = Answer::parse(&mut Bytes::from_static(bytes.as_bytes()));
            assert!(matches!(answer, None | Some(Answer::Other)), "{bytes:?}");
        }
    }

    #[test]
    fn a_hash_is_a_json_object_in_the_order_of_its_fields() {
        let items = ["b", "1", "a", "say \"hi\""].map(Bytes::from_static_str);
        assert_eq!(serde_json::to_string(&Fields(&items)).expect("json"), r#"{"b":"1","a":"say \"hi\""}"#);
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }
}
