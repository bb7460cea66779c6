use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use crate::{ProtocolError, format_double};

/// Which wording of replies a connection has asked for (`HELLO 2`, `HELLO 3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Shared values of at least this many bytes are linked into the output; smaller ones are cheaper to copy than to
/// keep alive and to write as a slice of their own.
pub const LINK_MIN: usize = 16 * 1024;

/// Replies waiting to be written, in order: what was formatted here lies in one buffer, and large shared values are
/// linked in between without being copied.
///
/// It is a [`Buf`], so any vectored writer can drain it; [`advance`](Buf::advance) past its end panics, as `Buf` has
/// it. It grows with what is appended: the connection's output limit is the caller's, by [`len`](Self::len).
#[derive(Debug, Default)]
pub struct Reply {
    protocol: Protocol,
    text: Vec<u8>,
    /// Bytes at the front of `text` that have been written out.
    written: usize,
    links: VecDeque<Link>,
    /// Bytes left in `links`.
    linked: usize,
    /// What was ever in `text`, and is no more: keeps marks meaningful when the front is dropped.
    dropped_text: u64,
    /// Likewise of `links`.
    dropped_links: u64,
}

/// A shared value that stands in the output where `text` has reached offset `at`.
#[derive(Debug)]
struct Link {
    at: usize,
    value: Bytes,
}

/// A place in the output to go back to: see [`Reply::rewind`].
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    text: u64,
    links: u64,
}

/// The buffer itself.
impl Reply {
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
        self.text.len() - self.written + self.linked
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&mut self) {
        self.dropped_text += self.text.len() as u64;
        self.dropped_links += self.links.len() as u64;
        self.text.clear();
        self.written = 0;
        self.links.clear();
        self.linked = 0;
    }

    /// Where the output ends now.
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark {
            text: self.dropped_text + self.text.len() as u64,
            links: self.dropped_links + self.links.len() as u64,
        }
    }

    /// Takes back what was appended since `mark`, as far as it has not been written out.
    pub fn rewind(&mut self, mark: Mark) {
        let links = mark.links.saturating_sub(self.dropped_links) as usize;
        for link in self.links.drain(links.min(self.links.len())..) {
            self.linked -= link.value.len();
        }
        let text = mark.text.saturating_sub(self.dropped_text) as usize;
        self.text.truncate(text.max(self.written));
    }

    /// Slices of what is waiting, in order, as many as fit; returns how many were set.
    pub fn fill_io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, chunk) in slices.iter_mut().zip(self.chunks()) {
            *slot = IoSlice::new(chunk);
            filled += 1;
        }
        filled
    }

    /// What is waiting, in order, in pieces that are not empty.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(self.written).chain(self.links.iter().map(|link| link.at));
        let ends = self
            .links
            .iter()
            .map(|link| link.at)
            .chain(std::iter::once(self.text.len()));
        let values = self
            .links
            .iter()
            .map(|link| &link.value[..])
            .chain(std::iter::once(&[][..]));
        starts
            .zip(ends)
            .zip(values)
            .flat_map(|((start, end), value)| [&self.text[start..end], value])
            .filter(|chunk| !chunk.is_empty())
    }

    /// Gives back the room that earlier replies needed, down to `capacity` bytes and what is still waiting.
    pub fn shrink_to(&mut self, capacity: usize) {
        self.drop_written();
        self.text.shrink_to(capacity);
        self.links.shrink_to(0);
    }

    /// Bytes held for replies formatted here, used or not; linked values are not counted.
    pub fn allocated(&self) -> usize {
        self.text.capacity() + self.links.capacity() * size_of::<Link>()
    }

    /// Moves what waits in `text` to its front.
    fn drop_written(&mut self) {
        self.dropped_text += self.written as u64;
        self.text.drain(..self.written);
        for link in &mut self.links {
            link.at -= self.written;
        }
        self.written = 0;
    }

    /// A client that reads slowly never lets the buffer run empty. Moving the rest costs no more than writing what is
    /// dropped has cost.
    fn drop_written_if_worthwhile(&mut self) {
        if self.is_empty() {
            self.clear();
        } else if self.written >= COMPACT_MIN && self.written >= self.text.len() / 2 {
            self.drop_written();
        }
    }
}

/// Written bytes that are kept before the rest is moved to the front.
const COMPACT_MIN: usize = 64 * 1024;

impl Buf for Reply {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.chunks().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.fill_io_slices(slices)
    }

    fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "advanced by {count} bytes where {} are waiting",
            self.len()
        );
        let mut left = count;
        while let Some(link) = self.links.front_mut() {
            let text = left.min(link.at - self.written);
            self.written += text;
            left -= text;
            let value = left.min(link.value.len());
            link.value.advance(value);
            self.linked -= value;
            left -= value;
            if self.written < link.at || !link.value.is_empty() {
                break;
            }
            self.links.pop_front();
            self.dropped_links += 1;
        }
        self.written += left;
        self.drop_written_if_worthwhile();
    }
}

/// What can be said in both protocols alike.
impl Reply {
    #[inline]
    pub fn ok(&mut self) {
        self.text.extend_from_slice(b"+OK\r\n");
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
        self.number(b':', value);
    }

    #[inline]
    pub fn bulk(&mut self, value: &[u8]) {
        self.text.reserve(HEAD_MAX + value.len() + 2);
        self.head(b'$', value.len());
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
    }

    /// [`bulk`](Self::bulk) of a value that others hold too: from [`LINK_MIN`] bytes on it is not copied.
    #[inline]
    pub fn bulk_shared(&mut self, value: Bytes) {
        self.head(b'$', value.len());
        self.raw_shared(value);
        self.text.extend_from_slice(b"\r\n");
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
        let start = self.text.len();
        // Fails only if a `Display` of the caller does; what it wrote until then is the reply.
        let _ = TextWriter(&mut self.text).write_fmt(text);
        let end = self.text.len();
        self.head(b'$', end - start);
        let head = self.text.len() - end;
        self.text[start..].rotate_right(head);
        self.text.extend_from_slice(b"\r\n");
    }

    /// The head of an array: `count` replies have to follow.
    #[inline]
    pub fn array(&mut self, count: usize) {
        self.head(b'*', count);
    }

    /// A reply that is complete already, such as a peer's, as it is.
    #[inline]
    pub fn raw(&mut self, reply: &[u8]) {
        self.text.extend_from_slice(reply);
    }

    /// [`raw`](Self::raw) for bytes that others hold too: from [`LINK_MIN`] bytes on they are not copied.
    #[inline]
    pub fn raw_shared(&mut self, reply: Bytes) {
        if reply.len() < LINK_MIN {
            return self.raw(&reply);
        }
        self.linked += reply.len();
        self.links.push_back(Link {
            at: self.text.len(),
            value: reply,
        });
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
        let letters = format
            .bytes()
            .chain(std::iter::repeat(b' '))
            .take(FORMAT_LETTERS);
        self.text.extend(letters);
        self.text.push(b':');
        self.text.extend_from_slice(text);
        self.text.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn either(&mut self, resp2: &[u8], resp3: &[u8]) {
        self.text.extend_from_slice(match self.protocol {
            Protocol::Resp2 => resp2,
            Protocol::Resp3 => resp3,
        });
    }

    #[inline]
    fn array_like(&mut self, resp3: u8, count: usize) {
        self.head(
            if self.protocol == Protocol::Resp3 {
                resp3
            } else {
                b'*'
            },
            count,
        );
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
        self.text.reserve(text.len() + 3);
        self.text.push(kind);
        append_one_line(&mut self.text, text);
        self.text.extend_from_slice(b"\r\n");
    }

    /// `<kind><count>`
    #[inline]
    fn head(&mut self, kind: u8, count: usize) {
        match SMALL_HEADS.get(count) {
            Some(&small) => self.small_head(kind, small),
            // No length in memory is above `i64::MAX`.
            None => self.long_head(kind, count as i64),
        }
    }

    /// `<kind><value>`
    #[inline]
    fn number(&mut self, kind: u8, value: i64) {
        match usize::try_from(value)
            .ok()
            .and_then(|value| SMALL_HEADS.get(value))
        {
            Some(&small) => self.small_head(kind, small),
            None => self.long_head(kind, value),
        }
    }

    /// All eight bytes are stored, which is one instruction, and the surplus is cut off.
    #[inline]
    fn small_head(&mut self, kind: u8, small: SmallHead) {
        let end = self.text.len() + usize::from(small.len);
        let mut bytes = small.bytes;
        bytes[0] = kind;
        self.text.extend_from_slice(&bytes);
        self.text.truncate(end);
    }

    #[inline(never)]
    fn long_head(&mut self, kind: u8, value: i64) {
        self.text.push(kind);
        self.text
            .extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.text.extend_from_slice(b"\r\n");
    }
}

/// Bytes of the longest head: a kind, 20 digits and sign, `\r\n`.
const HEAD_MAX: usize = 23;

/// `?<number>\r\n`, with a kind to be put in front, for the lengths and numbers that most replies have.
static SMALL_HEADS: [SmallHead; 256] = small_heads();

#[derive(Clone, Copy)]
struct SmallHead {
    bytes: [u8; 8],
    len: u8,
}

const fn small_heads() -> [SmallHead; 256] {
    let mut heads = [SmallHead {
        bytes: [0; 8],
        len: 0,
    }; 256];
    let mut value = 0;
    while value < heads.len() {
        heads[value] = small_head(value);
        value += 1;
    }
    heads
}

const fn small_head(value: usize) -> SmallHead {
    let digits = if value < 10 {
        1
    } else if value < 100 {
        2
    } else {
        3
    };
    let mut bytes = [0; 8];
    let mut rest = value;
    let mut at = digits;
    while at > 0 {
        bytes[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        at -= 1;
    }
    bytes[digits + 1] = b'\r';
    bytes[digits + 2] = b'\n';
    SmallHead {
        bytes,
        len: digits as u8 + 3,
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
    let start = text
        .iter()
        .position(|&byte| !is_line_end(byte))
        .unwrap_or(text.len());
    let end = text
        .iter()
        .rposition(|&byte| !is_line_end(byte))
        .map_or(start, |last| last + 1);
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
