use std::ops::Range;

use bytes::Bytes;

use crate::Args;

/// Where the arguments of one request lie. One per connection, used again for every request of it: it keeps what it
/// has allocated, and a half-received request keeps its arguments in it between two reads.
#[derive(Debug, Default)]
pub struct Frame {
    spans: Vec<Span>,
    /// The arguments of a line of text, quotes and escapes taken away: they are not in the read buffer as such.
    unquoted: Vec<u8>,
    is_inline: bool,
}

impl Frame {
    pub fn new() -> Self {
        Self::default()
    }

    /// The request that [`Decoder::decode`](crate::Decoder::decode) found in `buf`, which must begin with the same
    /// bytes that the decoder was given. Arguments that lie outside `buf` are absent from the view.
    #[inline]
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        match self.is_inline {
            true => Args::from_spans(&self.unquoted, &self.spans),
            false => Args::from_frame(buf, &self.spans),
        }
    }

    /// As [`args`](Self::args), over memory that an argument may be kept in: see [`Args::shared`].
    pub fn shared_args<'a>(&'a self, buf: &'a Bytes) -> Args<'a> {
        match self.is_inline {
            true => Args::from_spans(&self.unquoted, &self.spans),
            false => Args::from_shared_spans(buf, &self.spans),
        }
    }

    /// Gives back what a large request has left behind, down to room for `arguments` arguments.
    pub fn shrink_to(&mut self, arguments: usize) {
        self.spans.shrink_to(arguments);
        self.unquoted.shrink_to(arguments);
    }

    /// Bytes held, used or not.
    pub fn allocated(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.unquoted.capacity()
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.unquoted.clear();
        self.is_inline = false;
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Room grows with the arguments that have come, never with the number that a header promises.
    #[inline]
    pub(crate) fn push(&mut self, span: Span) {
        self.spans.push(span);
    }

    /// Begins an argument of a line of text; its bytes follow by [`push_inline_byte`](Self::push_inline_byte).
    pub(crate) fn begin_inline_argument(&mut self) {
        self.is_inline = true;
        self.spans.push(Span::new(self.unquoted.len(), 0));
    }

    pub(crate) fn push_inline_byte(&mut self, byte: u8) {
        self.unquoted.push(byte);
        if let Some(span) = self.spans.last_mut() {
            span.len += 1;
        }
    }
}

/// A stretch of a buffer. Offsets of 32 bits halve what a request of many arguments costs; the decoder refuses
/// requests that reach further.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// `start + len` must fit 32 bits.
    #[inline]
    pub(crate) fn new(start: usize, len: usize) -> Self {
        debug_assert!(start + len <= u32::MAX as usize);
        Self { start: start as u32, len: len as u32 }
    }

    #[inline]
    pub(crate) fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}
