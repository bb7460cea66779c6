//! What a node that listens and an owner say to each other. It goes the way of forwarded requests.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::clients::ClientId;

/// The first byte of what a listener sends; forwarded requests, [`TAKE_BACK`](crate::hot::TAKE_BACK) and [`LOOK`](crate::freshness::meter::LOOK) have
/// others.
pub const LISTEN: u8 = 0x81;

const BEGIN: u8 = 1;
const PREFIXES: u8 = 2;
const NEWS: u8 = 3;

/// The first byte of an answer: the owner knows the token, or does not.
const KNOWN: u8 = 1;
const UNKNOWN: u8 = 0;

const KEY: u8 = 1;
const OF_PREFIX: u8 = 2;
const EVERYTHING: u8 = 3;

/// What a listener wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// A token, and to be told of keys with these prefixes, whoever has read them.
    Begin { prefixes: Vec<Bytes> },
    /// Other prefixes from now on.
    Prefixes { token: u64, prefixes: Vec<Bytes> },
    /// What is to be told, or nothing after a while.
    News { token: u64 },
}

/// What an owner tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) what: What,
    /// The listener's connection that has made the change and is not to be told of it; 0 for none.
    pub(super) quiet: ClientId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// A key that was read by way of the listener.
    Key(Bytes),
    /// One with a prefix that it has named.
    OfPrefix(Bytes),
    Everything,
}

impl Ask {
    pub(super) fn write(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(LISTEN);
        match self {
            Ask::Begin { prefixes } => {
                out.put_u8(BEGIN);
                put_all(&mut out, prefixes);
            }
            Ask::Prefixes { token, prefixes } => {
                out.put_u8(PREFIXES);
                out.put_u64_le(*token);
                put_all(&mut out, prefixes);
            }
            Ask::News { token } => {
                out.put_u8(NEWS);
                out.put_u64_le(*token);
            }
        }
        out
    }

    /// `None` for what no node of this version sends.
    pub(super) fn read(mut content: Bytes) -> Option<Ask> {
        if content.len() < 2 || content.get_u8() != LISTEN {
            return None;
        }
        match content.get_u8() {
            BEGIN => Some(Ask::Begin { prefixes: take_all(content)? }),
            PREFIXES => Some(Ask::Prefixes { token: take_u64(&mut content)?, prefixes: take_all(content)? }),
            NEWS => Some(Ask::News { token: take_u64(&mut content)? }),
            _ => None,
        }
    }
}

/// The answer to [`Ask::Begin`].
pub(super) fn begun(token: u64) -> BytesMut {
    let mut out = known();
    out.put_u64_le(token);
    out
}

/// The answer to [`Ask::Prefixes`], and to [`Ask::News`] when there are none.
pub(super) fn known() -> BytesMut {
    BytesMut::from(&[KNOWN][..])
}

/// The answer to any question with a token that is not one, or not any more.
pub(super) fn unknown() -> BytesMut {
    BytesMut::from(&[UNKNOWN][..])
}

pub(super) fn put_news(out: &mut BytesMut, news: &News) {
    let (kind, key): (u8, &[u8]) = match &news.what {
        What::Key(key) => (KEY, key),
        What::OfPrefix(key) => (OF_PREFIX, key),
        What::Everything => (EVERYTHING, b""),
    };
    out.put_u8(kind);
    out.put_u64_le(news.quiet);
    put(out, key);
}

/// What an answer says behind [`known`]; `None` if the token is not known, or it is not what a node of this version sends.
pub(super) fn of_known(mut answer: Bytes) -> Option<Bytes> {
    (answer.has_remaining() && answer.get_u8() == KNOWN).then_some(answer)
}

pub(super) fn take_token(mut answer: Bytes) -> Option<u64> {
    take_u64(&mut answer).filter(|_| answer.is_empty())
}

pub(super) fn take_news(mut answer: Bytes) -> Option<Vec<News>> {
    let mut all = Vec::new();
    while answer.has_remaining() {
        let kind = answer.get_u8();
        let quiet = take_u64(&mut answer)?;
        let key = take(&mut answer)?;
        let what = match kind {
            KEY => What::Key(key),
            OF_PREFIX => What::OfPrefix(key),
            EVERYTHING => What::Everything,
            _ => return None,
        };
        all.push(News { what, quiet });
    }
    Some(all)
}

fn put(out: &mut BytesMut, bytes: &[u8]) {
    out.reserve(size_of::<u32>() + bytes.len());
    // Keys are at most as long as a message, which fits.
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

fn put_all(out: &mut BytesMut, all: &[Bytes]) {
    all.iter().for_each(|bytes| put(out, bytes));
}

fn take_u64(content: &mut Bytes) -> Option<u64> {
    (content.len() >= size_of::<u64>()).then(|| content.get_u64_le())
}

fn take(content: &mut Bytes) -> Option<Bytes> {
    if content.len() < size_of::<u32>() {
        return None;
    }
    let length = content.get_u32_le() as usize;
    (length <= content.len()).then(|| content.split_to(length))
}

fn take_all(mut content: Bytes) -> Option<Vec<Bytes>> {
    let mut all = Vec::new();
    while content.has_remaining() {
        all.push(take(&mut content)?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes() -> Vec<Bytes> {
        vec![Bytes::new(), Bytes::from("a:"), Bytes::from("ö")]
    }

    #[test]
    fn what_is_asked_and_told_comes_as_it_was() {
        let asks = [
            Ask::Begin { prefixes: prefixes() },
            Ask::Begin { prefixes: Vec::new() },
            Ask::Prefixes { token: 7, prefixes: prefixes() },
            Ask::News { token: u64::MAX },
        ];
        for ask in asks {
            assert_eq!(Ask::read(ask.write().freeze()), Some(ask));
        }
        let all = [What::Key(Bytes::from("k")), What::OfPrefix(Bytes::new()), What::Everything];
        let all = all.map(|what| News { what, quiet: 9 });
        let mut answer = known();
        all.iter().for_each(|news| put_news(&mut answer, news));
        let answer = of_known(answer.freeze()).expect("it is known");
        assert_eq!(take_news(answer), Some(all.to_vec()));
        assert_eq!(of_known(begun(5).freeze()).and_then(take_token), Some(5));
        assert_eq!(of_known(unknown().freeze()), None);
        assert_eq!(of_known(Bytes::new()), None, "the owner has no answer");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ask = Ask::read(Bytes::from([&[LISTEN], &bytes[..]].concat()));
            let _news = take_news(Bytes::from(bytes));
        }
    }
}
