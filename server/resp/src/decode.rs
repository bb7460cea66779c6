use crate::frame::{Frame, Span};
use crate::{ProtocolError, inline, number, ordinary};

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one argument: Redis' `proto-max-bulk-len`, 512 MiB.
    pub bulk: usize,
    /// Arguments in one request: 2³¹−1, as Redis has it.
    pub arguments: usize,
    /// Bytes in a line, be it a request as text or the header of an array or an argument: 64 KiB. Lines of 32 bytes
    /// are always taken, since that is what headers may need.
    pub inline: usize,
    /// False while the connection still owes an `AUTH`: strangers get
    /// [`UNAUTHENTICATED_ARGUMENTS_MAX`] and [`UNAUTHENTICATED_BULK_MAX`].
    pub authenticated: bool,
}

/// Arguments of one request before `AUTH`.
pub const UNAUTHENTICATED_ARGUMENTS_MAX: usize = 10;

/// Bytes of one argument before `AUTH`.
pub const UNAUTHENTICATED_BULK_MAX: usize = 16 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self { bulk: 512 * 1024 * 1024, arguments: i32::MAX as usize, inline: 64 * 1024, authenticated: true }
    }
}

/// What [`Decoder::decode`] found at the start of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded {
    /// A request, of `consumed` bytes; [`Frame::args`] has its arguments, at least one.
    Request { consumed: usize },
    /// `consumed` bytes that ask for nothing: an empty line, or an array of no elements.
    Nothing { consumed: usize },
    /// The request goes on. It takes `missing` bytes more, at the least, before anything new can be said. A stranger
    /// chose that number: grow towards it as bytes arrive, not at once.
    Incomplete { missing: usize },
}

/// Finds requests in a connection's read buffer.
///
/// It remembers how far it got in a request that is still arriving, so that the cost of a request is linear in its
/// bytes however they trickle in.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Offset of the header or argument that comes next, from the start of the request.
    position: usize,
    /// Offset up to which the line at `position` has been searched for its end.
    searched: usize,
    /// Arguments still to come; known once the request's own header is behind `position`.
    remaining: usize,
    /// Length of the argument at `position`; `None` while its header has not been read.
    bulk: Option<usize>,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes the request that `buf` begins with.
    ///
    /// After [`Decoded::Incomplete`] call again with the same `frame` and with a buffer that begins with the same
    /// bytes and has more of them (it may have moved in memory). Otherwise drop `consumed` bytes once the arguments
    /// have been used. After an error the connection is lost: see [`ProtocolError`].
    #[inline]
    pub fn decode(&mut self, buf: &[u8], limits: &Limits, frame: &mut Frame) -> Result<Decoded, ProtocolError> {
        if self.position > 0 {
            return self.decode_arguments(buf, limits, frame);
        }
        frame.clear();
        // Offsets of a shorter buffer fit without looking; a stranger's request is looked at more closely.
        if limits.authenticated && buf.len() <= REQUEST_MAX {
            if let Some(consumed) = ordinary::whole_request(buf, limits, frame) {
                return Ok(self.finish(Decoded::Request { consumed }));
            }
            frame.clear();
        }
        match buf.first() {
            Some(b'*') => self.decode_array(buf, limits, frame),
            Some(_) => self.decode_inline(buf, limits, frame),
            None => Ok(Decoded::Incomplete { missing: 1 }),
        }
    }

    /// `*<count>`, then the arguments.
    #[inline]
    fn decode_array(&mut self, buf: &[u8], limits: &Limits, frame: &mut Frame) -> Result<Decoded, ProtocolError> {
        let (count, next) = match self.read_header(buf, b'*', limits.inline) {
            Header::Number { value, next } => (value, next),
            Header::Unfinished => return Ok(Decoded::Incomplete { missing: 1 }),
            Header::TooLong => return Err(ProtocolError::TooBigMultibulkCount),
            Header::NotANumber | Header::OtherKind(_) => {
                return Err(ProtocolError::InvalidMultibulkLength);
            }
        };
        let count = accept_count(count, limits)?;
        if count == 0 {
            return Ok(self.finish(Decoded::Nothing { consumed: next }));
        }
        self.position = next;
        self.remaining = count;
        self.decode_arguments(buf, limits, frame)
    }

    #[inline]
    fn decode_arguments(&mut self, buf: &[u8], limits: &Limits, frame: &mut Frame) -> Result<Decoded, ProtocolError> {
        while self.remaining > 0 {
            let length = match self.bulk {
                Some(length) => length,
                None => match self.read_header(buf, b'$', limits.inline) {
                    Header::Number { value, next } => self.accept_bulk(value, next, limits)?,
                    Header::Unfinished => return Ok(Decoded::Incomplete { missing: 1 }),
                    Header::TooLong => return Err(ProtocolError::TooBigBulkCount),
                    Header::NotANumber => return Err(ProtocolError::InvalidBulkLength),
                    Header::OtherKind(got) => return Err(ProtocolError::ExpectedBulk(got)),
                },
            };
            let end = self.position + length + LINE_END;
            if end > buf.len() {
                self.bulk = Some(length);
                return Ok(Decoded::Incomplete { missing: end - buf.len() });
            }
            frame.push(Span::new(self.position, length));
            self.position = end;
            self.bulk = None;
            self.remaining -= 1;
        }
        let consumed = self.position;
        Ok(self.finish(Decoded::Request { consumed }))
    }

    /// Takes the length that a header promises, and moves on to the argument behind the header at `next`.
    #[inline]
    fn accept_bulk(&mut self, length: i64, next: usize, limits: &Limits) -> Result<usize, ProtocolError> {
        let length = usize::try_from(length).map_err(|_| ProtocolError::InvalidBulkLength)?;
        if length > limits.bulk {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if length > UNAUTHENTICATED_BULK_MAX && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        if next.saturating_add(length) > REQUEST_MAX - LINE_END {
            return Err(ProtocolError::TooBigRequest);
        }
        self.position = next;
        Ok(length)
    }

    /// A line of text. Kept out of the way of the requests that programs send.
    #[cold]
    #[inline(never)]
    fn decode_inline(&mut self, buf: &[u8], limits: &Limits, frame: &mut Frame) -> Result<Decoded, ProtocolError> {
        let line = match self.find_line(buf, b'\n', limits.inline) {
            Line::Ended(line) => line,
            Line::Unfinished => return Ok(Decoded::Incomplete { missing: 1 }),
            Line::TooLong => return Err(ProtocolError::TooBigInline),
        };
        let consumed = line.len() + 1;
        inline::split(line.strip_suffix(b"\r").unwrap_or(line), frame)?;
        Ok(self.finish(match frame.len() {
            0 => Decoded::Nothing { consumed },
            _ => Decoded::Request { consumed },
        }))
    }

    /// Reads the header at `position`: `kind`, a number, `\r` and one byte that Redis takes for a line feed unseen.
    #[inline]
    fn read_header(&mut self, buf: &[u8], kind: u8, limit: usize) -> Header {
        match buf.get(self.position..) {
            Some([first, digits @ ..]) if *first == kind => match number::ordinary(digits) {
                Some((value, width)) => Header::Number { value: value as i64, next: self.position + 1 + width },
                None => self.read_unusual_header(buf, kind, limit),
            },
            _ => self.read_unusual_header(buf, kind, limit),
        }
    }

    #[cold]
    #[inline(never)]
    fn read_unusual_header(&mut self, buf: &[u8], kind: u8, limit: usize) -> Header {
        let line = match self.find_line(buf, b'\r', limit) {
            Line::Ended(line) => line,
            Line::Unfinished => return Header::Unfinished,
            Line::TooLong => return Header::TooLong,
        };
        let next = self.position + line.len() + LINE_END;
        if next > buf.len() {
            return Header::Unfinished;
        }
        // A header is judged only once its line is whole: until then even a wrong first byte waits.
        match line.split_first() {
            Some((first, digits)) if *first == kind => {
                number::canonical(digits).map_or(Header::NotANumber, |value| Header::Number { value, next })
            }
            Some((&first, _)) => Header::OtherKind(first),
            None => Header::OtherKind(b'\r'),
        }
    }

    /// Looks for `end` in the line at `position`, going on where the last look stopped. A NUL hides what is behind
    /// it, as it does from Redis, so that such a line only ever ends by being too long.
    fn find_line<'a>(&mut self, buf: &'a [u8], end: u8, limit: usize) -> Line<'a> {
        let limit = limit.max(LINE_MIN);
        let text = buf.get(self.position..).unwrap_or_default();
        let window = &text[..text.len().min(limit.saturating_add(1))];
        let from = self.searched.saturating_sub(self.position).min(window.len());
        let stop = window[from..].iter().position(|&byte| byte == end || byte == 0);
        let stop = stop.map_or(window.len(), |offset| from + offset);
        if window.get(stop) == Some(&end) {
            return Line::Ended(&text[..stop]);
        }
        self.searched = self.position + stop;
        if text.len() > limit { Line::TooLong } else { Line::Unfinished }
    }

    /// Ready for the next request.
    #[inline]
    fn finish(&mut self, decoded: Decoded) -> Decoded {
        *self = Self::default();
        decoded
    }
}

/// Bytes of `\r\n`.
const LINE_END: usize = 2;

/// Lines of so many bytes are taken whatever the limit.
const LINE_MIN: usize = 32;

/// Bytes that one request may take: what [`Span`] can point at.
const REQUEST_MAX: usize = u32::MAX as usize;

/// Arguments that an array's header asks for: less than none is none.
#[inline]
fn accept_count(count: i64, limits: &Limits) -> Result<usize, ProtocolError> {
    let count = usize::try_from(count.max(0)).map_err(|_| ProtocolError::InvalidMultibulkLength)?;
    if count > limits.arguments {
        return Err(ProtocolError::InvalidMultibulkLength);
    }
    if count > UNAUTHENTICATED_ARGUMENTS_MAX && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulkLength);
    }
    Ok(count)
}

enum Header {
    Number { value: i64, next: usize },
    NotANumber,
    OtherKind(u8),
    Unfinished,
    TooLong,
}

enum Line<'a> {
    /// Without its end.
    Ended(&'a [u8]),
    Unfinished,
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(stream: &[u8], limits: &Limits) -> Result<Decoded, ProtocolError> {
        Decoder::new().decode(stream, limits, &mut Frame::new())
    }

    #[test]
    fn what_is_missing_is_told() {
        let limits = Limits::default();
        for (stream, missing) in [
            (&b""[..], 1),
            (b"PING", 1),
            (b"*1\r", 1),
            (b"*1\r\n", 1),
            (b"*1\r\n$4\r\n", 6),
            (b"*1\r\n$4\r\nPING\r", 1),
            (b"*2\r\n$3\r\nGET\r\n$536870912\r\nx", (512 << 20) + 1),
        ] {
            assert_eq!(decode(stream, &limits), Ok(Decoded::Incomplete { missing }), "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn offsets_that_do_not_fit_are_refused_by_the_header() {
        let limits = Limits { bulk: usize::MAX, ..Limits::default() };
        for (length, fits) in [(REQUEST_MAX - 19, true), (REQUEST_MAX - 18, false), (i64::MAX as usize, false)] {
            let found = decode(format!("*1\r\n${length}\r\n").as_bytes(), &limits);
            assert_eq!(found == Err(ProtocolError::TooBigRequest), !fits, "{length}: {found:?}");
        }
    }

    #[test]
    fn an_error_stays_one() {
        let limits = Limits::default();
        for stream in [&b"*x\r\n"[..], b"*1\r\n$x\r\n", b"*1\r\nPING\r\n", b"\"\r\n", b"*2\r\n$1\r\na\r\n*\r\n"] {
            let (mut decoder, mut frame) = (Decoder::new(), Frame::new());
            let first = decoder.decode(stream, &limits, &mut frame);
            assert!(first.is_err());
            assert_eq!(decoder.decode(stream, &limits, &mut frame), first);
        }
    }

    #[test]
    fn a_buffer_that_shrank_is_not_read_past_its_end() {
        let (mut decoder, mut frame, limits) = (Decoder::new(), Frame::new(), Limits::default());
        for stream in [&b"*2\r\n$4\r\nECHO\r\n$9"[..], b"*2\r\n", b""] {
            let found = decoder.decode(stream, &limits, &mut frame);
            assert!(matches!(found, Ok(Decoded::Incomplete { .. })), "{found:?}");
        }
        assert_eq!(frame.args(b"*2").get(0), None);
    }
}
