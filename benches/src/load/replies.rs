//! Finding where replies end, as they come in pieces of any size, without keeping any of it.

use std::ops::AddAssign;

/// A wire protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Redis' RESP2.
    Resp,
    /// memcached's classic text protocol.
    Memcached,
}

/// What came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Whole replies.
    pub(crate) replies: u64,
    /// Values in them; what is not there is not counted.
    pub(crate) values: u64,
    /// Errors in them.
    pub(crate) errors: u64,
}

impl AddAssign for Arrived {
    fn add_assign(&mut self, next: Arrived) {
        self.replies += next.replies;
        self.values += next.values;
        self.errors += next.errors;
    }
}

/// The state of one connection's stream of replies.
#[derive(Debug)]
pub(crate) struct Replies {
    wire: Wire,
    line: Line,
    /// Bytes of a value, and its line end, that are still to come.
    payload: usize,
    /// Elements that the reply under way still has, itself included.
    elements: u64,
}

/// A line, as far as it has come.
#[derive(Debug, Default)]
struct Line {
    /// Its first bytes.
    head: [u8; 2],
    length: usize,
    /// The number that it ends with so far.
    number: u64,
    is_negative: bool,
}

impl Replies {
    pub(crate) fn new(wire: Wire) -> Replies {
        Replies { wire, line: Line::default(), payload: 0, elements: 1 }
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Arrived {
        let mut arrived = Arrived::default();
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = self.payload.min(bytes.len());
                self.payload -= skipped;
                bytes = &bytes[skipped..];
                if self.payload == 0 {
                    arrived.values += 1;
                    self.value_has_ended(&mut arrived);
                }
            } else {
                bytes = self.line.take(bytes);
                if self.line.is_whole() {
                    let line = std::mem::take(&mut self.line);
                    match self.wire {
                        Wire::Resp => self.resp_line(&line, &mut arrived),
                        Wire::Memcached => self.memcached_line(&line, &mut arrived),
                    }
                }
            }
        }
        arrived
    }

    fn value_has_ended(&mut self, arrived: &mut Arrived) {
        // In memcached's protocol the reply goes on until its END.
        if self.wire == Wire::Resp {
            self.element_has_ended(arrived);
        }
    }

    fn element_has_ended(&mut self, arrived: &mut Arrived) {
        self.elements -= 1;
        if self.elements == 0 {
            self.elements = 1;
            arrived.replies += 1;
        }
    }

    fn resp_line(&mut self, line: &Line, arrived: &mut Arrived) {
        match line.head[0] {
            b'$' if !line.is_negative => {
                self.payload = line.number as usize + 2;
                return;
            }
            b'*' if !line.is_negative => self.elements += line.number,
            b'-' => arrived.errors += 1,
            _ => {}
        }
        self.element_has_ended(arrived);
    }

    fn memcached_line(&mut self, line: &Line, arrived: &mut Arrived) {
        match &line.head {
            b"VA" => {
                self.payload = line.number as usize + 2;
                return;
            }
            // ERROR, CLIENT_ERROR, SERVER_ERROR, NOT_FOUND; END and STORED are well.
            b"ER" | b"CL" | b"SE" | b"NO" => arrived.errors += 1,
            _ => {}
        }
        arrived.replies += 1;
    }
}

impl Line {
    /// Takes the line's bytes, up to its end; returns what is behind it.
    #[inline]
    fn take<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        for (at, &byte) in bytes.iter().enumerate() {
            if let Some(head) = self.head.get_mut(self.length) {
                *head = byte;
            }
            self.length += 1;
            match byte {
                b'0'..=b'9' => self.number = self.number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
                b'\r' => {}
                b'\n' => {
                    self.length = Line::WHOLE;
                    return &bytes[at + 1..];
                }
                _ => (self.number, self.is_negative) = (0, byte == b'-'),
            }
        }
        &[]
    }

    const WHOLE: usize = usize::MAX;

    #[inline]
    fn is_whole(&self) -> bool {
        self.length == Line::WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of each size and checks that the outcome is always the same.
    fn arrived(wire: Wire, text: &[u8]) -> Arrived {
        let outcomes: Vec<_> = (1..=text.len())
            .map(|size| {
                let mut replies = Replies::new(wire);
                let mut sum = Arrived::default();
                text.chunks(size).for_each(|piece| sum += replies.feed(piece));
                sum
            })
            .collect();
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        outcomes[0]
    }

    fn expected(replies: u64, values: u64, errors: u64) -> Arrived {
        Arrived { replies, values, errors }
    }

    #[test]
    fn resp_replies_of_every_kind() {
        let text = b"+OK\r\n:42\r\n$5\r\nab\r\nc\r\n$-1\r\n$0\r\n\r\n-ERR no 7\r\n";
        assert_eq!(arrived(Wire::Resp, text), expected(6, 2, 1));
    }

    #[test]
    fn resp_arrays_are_one_reply_however_deep() {
        let text = b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n$1\r\nb\r\n*0\r\n*-1\r\n+OK\r\n";
        assert_eq!(arrived(Wire::Resp, text), expected(4, 2, 0));
    }

    #[test]
    fn memcached_replies_of_every_kind() {
        let text =
            b"VALUE key:1 0 3\r\na\nb\r\nVALUE key:2 0 0\r\n\r\nEND\r\nEND\r\nSTORED\r\n12\r\nNOT_FOUND\r\nERROR\r\n";
        assert_eq!(arrived(Wire::Memcached, text), expected(6, 2, 2));
    }
}
