use std::fmt;

/// Bytes that are not a request. The connection cannot find its place again: answer with
/// [`Reply::protocol_error`](crate::Reply::protocol_error), then close it.
///
/// `Display` gives the words of redis-server 7.0.15, without the `ERR` in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is not one, or is above [`Limits::arguments`](crate::Limits::arguments).
    InvalidMultibulkLength,
    /// The number after `$` is not one, is negative, or is above [`Limits::bulk`](crate::Limits::bulk).
    InvalidBulkLength,
    /// An argument has to begin with `$`, and began with this byte.
    ExpectedBulk(u8),
    /// A line of text went on past [`Limits::inline`](crate::Limits::inline).
    TooBigInline,
    /// A line that begins with `*` went on past [`Limits::inline`](crate::Limits::inline).
    TooBigMultibulkCount,
    /// The line before an argument went on past [`Limits::inline`](crate::Limits::inline).
    TooBigBulkCount,
    /// A quote in a line of text is never closed, or its closing quote is not followed by a blank.
    UnbalancedQuotes,
    /// More than [`UNAUTHENTICATED_ARGUMENTS_MAX`](crate::UNAUTHENTICATED_ARGUMENTS_MAX) arguments before `AUTH`.
    UnauthenticatedMultibulkLength,
    /// More than [`UNAUTHENTICATED_BULK_MAX`](crate::UNAUTHENTICATED_BULK_MAX) bytes in one argument before `AUTH`.
    UnauthenticatedBulkLength,
    /// The arguments of one request reach past 4 GiB, where offsets end. Redis has no such limit: its query buffer
    /// limit (1 GiB by default) closes the connection long before.
    TooBigRequest,
}

impl ProtocolError {
    fn words(self) -> &'static str {
        match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::InvalidBulkLength => "invalid bulk length",
            Self::ExpectedBulk(_) => "expected '$', got",
            Self::TooBigInline => "too big inline request",
            Self::TooBigMultibulkCount => "too big mbulk count string",
            Self::TooBigBulkCount => "too big bulk count string",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::TooBigRequest => "too big request",
        }
    }

    /// The words as bytes: the byte that stood where `$` was due is repeated as it came, whatever it is.
    pub(crate) fn text(self) -> Vec<u8> {
        let mut text = format!("Protocol error: {}", self.words()).into_bytes();
        if let Self::ExpectedBulk(got) = self {
            text.extend_from_slice(&[b' ', b'\'', got, b'\'']);
        }
        text
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

impl std::error::Error for ProtocolError {}
