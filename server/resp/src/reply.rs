use std::fmt::{self, Write};
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::output::{Mark, Output};
use crate::{ProtocolError, format_double, head};

/// Which wording of replies a connection has asked for (`HELLO 2`, `HELLO 3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Replies waiting to be written, in order: what is put together here lies in one buffer, and large shared values are
/// linked in between without being copied.
///
/// It is a [`Buf`], so any vectored writer can drain it; [`advance`](Buf::advance) past its end panics, as `Buf` has
/// it. It grows with what is appended: the connection's output limit is the caller's, by [`len`](Self::len).
#[derive(Debug, Default)]
pub struct Reply {
    protocol: Protocol,
    output: Output,
}

/// What is waiting.
impl Reply {
    /// Speaks RESP2 until told otherwise, as connections do.
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Holds for what is appended from now on.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn len(&self) -> usize {
        self.output.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops what is waiting; the protocol stays.
    pub fn clear(&mut self) {
        self.output.clear();
    }

    /// Where the output ends now.
    #[inline]
    pub fn mark(&self) -> Mark {
        self.output.mark()
    }

    /// Takes back what was appended since `mark`, as far as it has not been written out.
    pub fn rewind(&mut self, mark: Mark) {
        self.output.rewind(mark);
    }

    /// What is waiting, in order, in pieces that are not empty.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.output.chunks()
    }

    /// What is waiting, in order, in as many slices as fit; returns how many were set.
    pub fn fill_io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.chunks_vectored(slices)
    }

    /// Gives back the room that earlier replies needed, down to `capacity` bytes and what is still waiting.
    pub fn shrink_to(&mut self, capacity: usize) {
        self.output.shrink_to(capacity);
    }

    /// Bytes held for replies, used or not; linked values are not counted.
    pub fn allocated(&self) -> usize {
        self.output.allocated()
    }
}

impl Buf for Reply {
    fn remaining(&self) -> usize {
        self.output.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.output.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.output.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.output.advance(count);
    }
}

/// What can be said in both protocols alike.
impl Reply {
    #[inline]
    pub fn ok(&mut self) {
        self.output.text().extend_from_slice(b"+OK\r\n");
    }

    /// A status, such as `PONG`. Line ends within it become blanks.
    #[inline]
    pub fn simple(&mut self, status: &str) {
        self.line(b'+', status.as_bytes());
    }

    /// An error, its code first: `ERR no such key`. Line ends within it become blanks, at its ends they go.
    #[inline]
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'-', text.as_ref());
    }

    /// What a client is told before its connection is closed.
    pub fn protocol_error(&mut self, error: ProtocolError) {
        let mut text = b"ERR ".to_vec();
        text.extend_from_slice(&error.text());
        self.error(text);
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        head::append(self.output.text(), b':', value);
    }

    #[inline]
    pub fn bulk(&mut self, value: &[u8]) {
        let text = self.output.text();
        text.reserve(head::HEAD_MAX + value.len() + 2);
        head::append(text, b'$', value.len() as i64);
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }

    /// [`bulk`](Self::bulk) of a value that others hold too: from [`LINK_MIN`](crate::LINK_MIN) bytes on it is not copied.
    #[inline]
    pub fn bulk_shared(&mut self, value: Bytes) {
        self.head(b'$', value.len());
        self.raw_shared(value);
        self.output.text().extend_from_slice(b"\r\n");
    }

    /// A number as a bulk string.
    #[inline]
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Formatted text as a bulk string, without a string of its own in between.
    pub fn bulk_text(&mut self, text: fmt::Arguments<'_>) {
        if let Some(text) = text.as_str() {
            return self.bulk(text.as_bytes());
        }
        let output = self.output.text();
        let start = output.len();
        // Fails only if a `Display` of the caller does; what it wrote until then is the reply.
        let _ = TextWriter(output).write_fmt(text);
        let end = output.len();
        head::append(output, b'$', (end - start) as i64);
        let head = output.len() - end;
        output[start..].rotate_right(head);
        output.extend_from_slice(b"\r\n");
    }

    /// The head of an array: `count` replies have to follow.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.head(b'*', count);
    }

    /// A reply that is complete already, such as a peer's, as it is.
    #[inline]
    pub fn raw(&mut self, reply: &[u8]) {
        self.output.text().extend_from_slice(reply);
    }

    /// [`raw`](Self::raw) for bytes that others hold too: from [`LINK_MIN`](crate::LINK_MIN) bytes on they are not copied.
    #[inline]
    pub fn raw_shared(&mut self, reply: Bytes) {
        self.output.link(reply);
    }
}

/// What RESP3 has a word for, and RESP2 says otherwise.
impl Reply {
    /// No such value: `$-1` or `_`.
    #[inline]
    pub fn null(&mut self) {
        self.either(b"$-1\r\n", b"_\r\n");
    }

    /// No such list: `*-1` or `_`.
    #[inline]
    pub fn null_array(&mut self) {
        self.either(b"*-1\r\n", b"_\r\n");
    }

    /// A truth: `:1` and `:0`, or `#t` and `#f`.
    #[inline]
    pub fn boolean(&mut self, value: bool) {
        if value {
            self.either(b":1\r\n", b"#t\r\n");
        } else {
            self.either(b":0\r\n", b"#f\r\n");
        }
    }

    /// The head of a map of `pairs` pairs: twice as many replies have to follow. In RESP2 it is an array.
    #[inline]
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.head(b'*', pairs.saturating_mul(2)),
            Protocol::Resp3 => self.head(b'%', pairs),
        }
    }

    /// The head of a set of `count` members; in RESP2 an array.
    #[inline]
    pub fn set(&mut self, count: usize) {
        self.array_like(b'~', count);
    }

    /// The head of `count` replies that nobody asked for; in RESP2 an array.
    #[inline]
    pub fn push(&mut self, count: usize) {
        self.array_like(b'>', count);
    }

    /// The head of `pairs` remarks on the reply that comes after them. RESP2 knows none: then nothing is appended, the
    /// answer is false, and the pairs have to be left out.
    #[must_use = "without RESP3 the pairs must not be appended"]
    pub fn attribute(&mut self, pairs: usize) -> bool {
        let known = self.protocol == Protocol::Resp3;
        if known {
            self.head(b'|', pairs);
        }
        known
    }

    /// A double as [`format_double`] has it; in RESP2 a bulk string.
    pub fn double(&mut self, value: f64) {
        let text = format_double(value);
        self.bulk_or_line(b',', text.as_bytes());
    }

    /// A whole number of any size, in decimal digits; in RESP2 a bulk string.
    pub fn big_number(&mut self, digits: &str) {
        self.bulk_or_line(b'(', digits.as_bytes());
    }

    /// Text that says what it is by three letters, such as `txt` or `mkd`; in RESP2 a bulk string. Letters that lack
    /// are blanks, letters beyond three go.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if self.protocol == Protocol::Resp2 {
            return self.bulk(text);
        }
        self.head(b'=', FORMAT_LETTERS + 1 + text.len());
        let letters = format.bytes().chain(std::iter::repeat(b' ')).take(FORMAT_LETTERS);
        self.output.text().extend(letters);
        self.output.text().push(b':');
        self.output.text().extend_from_slice(text);
        self.output.text().extend_from_slice(b"\r\n");
    }

    #[inline]
    fn either(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.output.text().extend_from_slice(match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        });
    }

    #[inline]
    fn array_like(&mut self, resp3: u8, count: usize) {
        self.head(if self.protocol == Protocol::Resp3 { resp3 } else { b'*' }, count);
    }

    fn bulk_or_line(&mut self, resp3: u8, text: &[u8]) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => self.line(resp3, text),
        }
    }
}

/// Letters that name a verbatim string's format.
const FORMAT_LETTERS: usize = 3;

/// How lines are put together.
impl Reply {
    /// `<kind><text>`, which must not end early: see [`append_one_line`].
    #[inline]
    fn line(&mut self, kind: u8, text: &[u8]) {
        let output = self.output.text();
        output.reserve(text.len() + 3);
        output.push(kind);
        append_one_line(output, text);
        output.extend_from_slice(b"\r\n");
    }

    /// `<kind><count>`
    #[inline]
    fn head(&mut self, kind: u8, count: usize) {
        head::append(self.output.text(), kind, count as i64);
    }
}

/// Text that came from elsewhere must not look like the end of its line: what follows it would be read as a reply.
#[inline]
fn append_one_line(output: &mut Vec<u8>, text: &[u8]) {
    let start = output.len();
    output.extend_from_slice(trim_line_ends(text));
    for byte in &mut output[start..] {
        if is_line_end(*byte) {
            *byte = b' ';
        }
    }
}

fn trim_line_ends(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_line_end(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|&byte| !is_line_end(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Lets the formatting machinery append to bytes.
struct TextWriter<'a>(&'a mut Vec<u8>);

impl Write for TextWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
