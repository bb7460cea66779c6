use std::fmt;
use std::ops::Index;

use bytes::Bytes;

use crate::frame::Span;

/// The arguments of one request, the command's name first: a view that is copied freely and owns nothing.
///
/// It looks at a [`Frame`](crate::Frame) and the buffer it was decoded from, or at slices that came another way.
#[derive(Clone, Copy)]
pub struct Args<'a>(View<'a>);

#[derive(Clone, Copy)]
enum View<'a> {
    /// `is_frame`: the bytes begin with a request in RESP, and these are all of its arguments.
    Spans {
        bytes: &'a [u8],
        spans: &'a [Span],
        is_frame: bool,
    },
    SharedSpans {
        bytes: &'a Bytes,
        spans: &'a [Span],
    },
    Slices(&'a [&'a [u8]]),
    Shared(&'a [Bytes]),
}

impl<'a> Args<'a> {
    /// Arguments that lie anywhere in `bytes`.
    pub(crate) fn from_spans(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self(View::Spans { bytes, spans, is_frame: false })
    }

    /// The arguments of the request in RESP that `bytes` begins with.
    #[inline]
    pub(crate) fn from_frame(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self(View::Spans { bytes, spans, is_frame: true })
    }

    pub(crate) fn from_shared_spans(bytes: &'a Bytes, spans: &'a [Span]) -> Self {
        Self(View::SharedSpans { bytes, spans })
    }

    #[inline]
    pub fn len(&self) -> usize {
        match self.0 {
            View::Spans { spans, .. } | View::SharedSpans { spans, .. } => spans.len(),
            View::Slices(slices) => slices.len(),
            View::Shared(shared) => shared.len(),
        }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        match self.0 {
            View::Spans { bytes, spans, .. } => bytes.get(spans.get(index)?.range()),
            View::SharedSpans { bytes, spans } => bytes.get(spans.get(index)?.range()),
            View::Slices(slices) => slices.get(index).copied(),
            View::Shared(shared) => shared.get(index).map(Bytes::as_ref),
        }
    }

    /// An argument that may be kept without copying it: one that is nearly all of a request in memory that can be shared, for that
    /// memory is kept with it.
    pub fn shared(&self, index: usize) -> Option<Bytes> {
        match self.0 {
            View::Spans { .. } | View::Slices(_) => None,
            View::SharedSpans { bytes, spans } => {
                let range = spans.get(index)?.range();
                let is_nearly_all = range.len() >= bytes.len() - bytes.len() / 8;
                (is_nearly_all && range.end <= bytes.len()).then(|| bytes.slice(range))
            }
            View::Shared(shared) => shared.get(index).cloned(),
        }
    }

    /// The whole request in RESP, if it came so.
    #[inline]
    pub fn frame(&self) -> Option<&'a [u8]> {
        match self.0 {
            View::Spans { bytes, spans, is_frame: true } => bytes.get(..spans.last()?.range().end + "\r\n".len()),
            _ => None,
        }
    }

    /// The command's name as the client spelt it; empty where there are no arguments.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.get(0).unwrap_or_default()
    }

    /// The arguments behind the first `count`; none where there are fewer.
    #[inline]
    pub fn skip(&self, count: usize) -> Args<'a> {
        Args(match self.0 {
            View::Spans { bytes, spans, is_frame } => {
                let spans = spans.get(count..).unwrap_or_default();
                View::Spans { bytes, spans, is_frame: is_frame && count == 0 }
            }
            View::SharedSpans { bytes, spans } => {
                View::SharedSpans { bytes, spans: spans.get(count..).unwrap_or_default() }
            }
            View::Slices(slices) => View::Slices(slices.get(count..).unwrap_or_default()),
            View::Shared(shared) => View::Shared(shared.get(count..).unwrap_or_default()),
        })
    }

    /// Everything after the command's name.
    #[inline]
    pub fn tail(&self) -> Args<'a> {
        self.skip(1)
    }

    #[inline]
    pub fn iter(&self) -> ArgsIter<'a> {
        ArgsIter { args: *self, next: 0 }
    }
}

impl<'a> From<&'a [&'a [u8]]> for Args<'a> {
    fn from(slices: &'a [&'a [u8]]) -> Self {
        Self(View::Slices(slices))
    }
}

impl<'a, const N: usize> From<&'a [&'a [u8]; N]> for Args<'a> {
    fn from(slices: &'a [&'a [u8]; N]) -> Self {
        Self(View::Slices(slices))
    }
}

impl<'a> From<&'a [Bytes]> for Args<'a> {
    fn from(shared: &'a [Bytes]) -> Self {
        Self(View::Shared(shared))
    }
}

impl<'a> From<&'a Vec<Bytes>> for Args<'a> {
    fn from(shared: &'a Vec<Bytes>) -> Self {
        Self(View::Shared(shared))
    }
}

/// # Panics
/// Past the last argument, as slices do: arity is checked before a handler indexes.
impl Index<usize> for Args<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        match self.0 {
            View::Spans { bytes, spans, .. } => &bytes[spans[index].range()],
            View::SharedSpans { bytes, spans } => &bytes[spans[index].range()],
            View::Slices(slices) => slices[index],
            View::Shared(shared) => &shared[index],
        }
    }
}

impl fmt::Debug for Args<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|arg| arg.escape_ascii().to_string())).finish()
    }
}

impl<'a> IntoIterator for Args<'a> {
    type Item = &'a [u8];
    type IntoIter = ArgsIter<'a>;

    fn into_iter(self) -> ArgsIter<'a> {
        self.iter()
    }
}

/// See [`Args::iter`].
#[derive(Debug, Clone)]
pub struct ArgsIter<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Iterator for ArgsIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let arg = self.args.get(self.next)?;
        self.next += 1;
        Some(arg)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.args.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for ArgsIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&[u8]; 3] = [b"SET", b"key", b""];

    #[test]
    fn a_request_that_came_as_resp_is_told_as_it_came() {
        let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nPING\r\n";
        let spans = [Span::new(8, 3), Span::new(17, 1)];
        let args = Args::from_frame(input, &spans);
        assert_eq!(args.frame(), Some(&input[..20]));
        assert_eq!(args.skip(0).frame(), Some(&input[..20]));
        assert_eq!((args.tail().frame(), Args::from_spans(input, &spans).frame()), (None, None));
        assert_eq!(Args::from_frame(&input[..18], &spans).frame(), None, "it was cut");
        assert_eq!(Args::from_frame(input, &[]).frame(), None);
    }

    fn check(args: Args<'_>) {
        assert_eq!(args.len(), 3);
        assert_eq!(args.name(), b"SET");
        assert_eq!(&args[1], b"key");
        assert_eq!(args.get(3), None);
        assert_eq!(args.tail().iter().collect::<Vec<_>>(), [&b"key"[..], b""]);
        assert_eq!(args.iter().len(), 3);
        assert!(args.skip(3).is_empty() && args.skip(4).is_empty());
        assert_eq!(args.skip(4).name(), b"");
        assert_eq!(format!("{args:?}"), r#"["SET", "key", ""]"#);
    }

    #[test]
    fn what_can_be_shared_is_not_copied() {
        let request = Bytes::from([b"SET", &[b'x'; 100][..]].concat());
        let spans = [Span::new(0, 3), Span::new(3, 100), Span::new(103, 1)];
        let args = Args::from_shared_spans(&request, &spans);
        assert_eq!(args.shared(1).map(|value| value.as_ptr()), Some(request[3..].as_ptr()));
        assert_eq!([args.shared(0), args.shared(2), args.shared(3)], [None, None, None]);
        assert_eq!(Args::from_spans(&request, &spans).shared(1), None);
        assert_eq!(Args::from(&WORDS).shared(1), None);
    }

    #[test]
    fn every_source_is_viewed_alike() {
        let spans = [Span::new(0, 3), Span::new(3, 3), Span::new(6, 0)];
        check(Args::from_spans(b"SETkey", &spans));
        check(Args::from_shared_spans(&Bytes::from_static(b"SETkey"), &spans));
        check(Args::from(&WORDS));
        check(Args::from(&WORDS.map(Bytes::from_static)[..]));
    }
}
