//! What is written is read back: requests by this crate's decoder, replies by a decoder that is not ours.

use bytes::Bytes;
use forebay_resp::{LINK_MIN, Limits, Protocol, Reply};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::{decode::decode as decode_resp2, types::OwnedFrame as Resp2};
use redis_protocol::resp3::{decode::complete::decode as decode_resp3, types::OwnedFrame as Resp3};

use crate::transcript;

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let argument = prop_oneof![
        8 => vec(any::<u8>(), 0..24),
        2 => vec(prop::sample::select(&b"*$\r\n0123456789"[..]), 0..24),
        1 => vec(any::<u8>(), 0..3000),
    ];
    vec(argument, 1..20)
}

fn encode(request: &[Vec<u8>]) -> Vec<u8> {
    let mut output = Reply::new();
    output.array(request.len());
    for argument in request {
        output.bulk(argument);
    }
    bytes_of(&output)
}

fn bytes_of(reply: &Reply) -> Vec<u8> {
    reply.chunks().flatten().copied().collect()
}

proptest! {
    #[test]
    fn requests_are_found_in_chunks_of_any_size(
        requests in vec(request(), 0..6),
        sizes in vec(1usize..200, 1..50),
    ) {
        let stream: Vec<u8> = requests.iter().flat_map(|request| encode(request)).collect();
        let mut sizes = sizes.into_iter().cycle();
        let found = transcript::read(&stream, &Limits::default(), || sizes.next().unwrap_or(1));
        prop_assert_eq!(found.error, None);
        prop_assert_eq!(found.consumed, stream.len());
        prop_assert!(found.requests == requests);
    }
}

/// A reply as a handler would write it.
#[derive(Debug, Clone)]
enum Said {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Shared(Vec<u8>),
    BulkInteger(i64),
    Text(String, i64),
    Null,
    NullArray,
    Boolean(bool),
    Double(f64),
    BigNumber(String),
    Verbatim(String),
    Array(Vec<Said>),
    Push(Vec<Said>),
    Set(Vec<Said>),
    Map(Vec<(Said, Said)>),
}

/// Within what the other decoder takes: no text that begins like a redirect, hashable members for sets and maps.
fn said() -> impl Strategy<Value = Said> {
    let key = hashable().boxed();
    scalar().prop_recursive(3, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Said::Array),
            vec(key.clone(), 0..6).prop_map(Said::Set),
            vec((key.clone(), inner), 0..6).prop_map(|pairs| Said::Map(with_keys_once(pairs))),
        ]
    })
}

/// Of two values for one key a reader may keep either.
fn with_keys_once(pairs: Vec<(Said, Said)>) -> Vec<(Said, Said)> {
    let mut seen = std::collections::HashSet::new();
    pairs.into_iter().filter(|(key, _)| seen.insert(said_in(Protocol::Resp3, key))).collect()
}

fn hashable() -> impl Strategy<Value = Said> {
    prop_oneof![
        any::<i64>().prop_map(Said::Integer),
        (-300i64..300).prop_map(Said::Integer),
        vec(any::<u8>(), 0..300).prop_map(Said::Bulk),
        any::<i64>().prop_map(Said::BulkInteger),
        ("[ -~]{0,20}", any::<i64>()).prop_map(|(text, number)| Said::Text(text, number)),
    ]
}

fn scalar() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => hashable(),
        1 => "[a-z][ -~]{0,20}".prop_map(Said::Simple),
        1 => "ERR [ -~]{0,20}[!-~]".prop_map(Said::Error),
        1 => (LINK_MIN - 2..LINK_MIN + 2).prop_map(|len| Said::Shared(vec![b'v'; len])),
        1 => Just(Said::Null),
        1 => Just(Said::NullArray),
        1 => any::<bool>().prop_map(Said::Boolean),
        1 => prop::num::f64::NORMAL.prop_map(Said::Double),
        1 => "[1-9][0-9]{0,40}".prop_map(Said::BigNumber),
        1 => "[ -~]{0,40}".prop_map(Said::Verbatim),
    ]
}

impl Said {
    fn say(&self, reply: &mut Reply) {
        match self {
            Self::Simple(text) => reply.simple(text),
            Self::Error(text) => reply.error(text),
            Self::Integer(value) => reply.integer(*value),
            Self::Bulk(value) => reply.bulk(value),
            Self::Shared(value) => reply.bulk_shared(Bytes::copy_from_slice(value)),
            Self::BulkInteger(value) => reply.bulk_integer(*value),
            Self::Text(text, number) => reply.bulk_text(format_args!("{text}:{number}")),
            Self::Null => reply.null(),
            Self::NullArray => reply.null_array(),
            Self::Boolean(value) => reply.boolean(*value),
            Self::Double(value) => reply.double(*value),
            Self::BigNumber(digits) => reply.big_number(digits),
            Self::Verbatim(text) => reply.verbatim("txt", text.as_bytes()),
            Self::Array(items) => say_all(items, reply, Reply::array),
            Self::Push(items) => say_all(items, reply, Reply::push),
            Self::Set(items) => say_all(items, reply, Reply::set),
            Self::Map(pairs) => {
                reply.map(pairs.len());
                for (key, value) in pairs {
                    key.say(reply);
                    value.say(reply);
                }
            }
        }
    }

    fn in_resp2(&self) -> Resp2 {
        match self {
            Self::Simple(text) => Resp2::SimpleString(text.clone().into_bytes()),
            Self::Error(text) => Resp2::Error(text.clone()),
            Self::Integer(value) => Resp2::Integer(*value),
            Self::Boolean(value) => Resp2::Integer(i64::from(*value)),
            Self::Null | Self::NullArray => Resp2::Null,
            Self::Array(items) | Self::Push(items) | Self::Set(items) => {
                Resp2::Array(items.iter().map(Self::in_resp2).collect())
            }
            Self::Map(pairs) => {
                Resp2::Array(pairs.iter().flat_map(|(key, value)| [key.in_resp2(), value.in_resp2()]).collect())
            }
            other => Resp2::BulkString(other.text()),
        }
    }

    fn in_resp3(&self) -> Resp3 {
        match self {
            Self::Simple(text) => Resp3::SimpleString { data: text.clone().into_bytes(), attributes: None },
            Self::Error(text) => Resp3::SimpleError { data: text.clone(), attributes: None },
            Self::Integer(value) => Resp3::Number { data: *value, attributes: None },
            Self::Null | Self::NullArray => Resp3::Null,
            Self::Boolean(value) => Resp3::Boolean { data: *value, attributes: None },
            Self::Double(value) => Resp3::Double { data: *value, attributes: None },
            Self::BigNumber(digits) => Resp3::BigNumber { data: digits.clone().into_bytes(), attributes: None },
            Self::Verbatim(text) => Resp3::VerbatimString {
                data: text.clone().into_bytes(),
                format: redis_protocol::resp3::types::VerbatimStringFormat::Text,
                attributes: None,
            },
            Self::Array(items) => Resp3::Array { data: items.iter().map(Self::in_resp3).collect(), attributes: None },
            Self::Push(items) => Resp3::Push { data: items.iter().map(Self::in_resp3).collect(), attributes: None },
            Self::Set(items) => Resp3::Set { data: items.iter().map(Self::in_resp3).collect(), attributes: None },
            Self::Map(pairs) => Resp3::Map {
                data: pairs.iter().map(|(key, value)| (key.in_resp3(), value.in_resp3())).collect(),
                attributes: None,
            },
            other => Resp3::BlobString { data: other.text(), attributes: None },
        }
    }

    /// What is a bulk string where there is no better word for it.
    fn text(&self) -> Vec<u8> {
        match self {
            Self::Bulk(value) | Self::Shared(value) => value.clone(),
            Self::BulkInteger(value) => value.to_string().into_bytes(),
            Self::Text(text, number) => format!("{text}:{number}").into_bytes(),
            Self::Double(value) => forebay_resp::format_double(*value).as_bytes().to_vec(),
            Self::BigNumber(text) | Self::Verbatim(text) => text.clone().into_bytes(),
            other => unreachable!("{other:?} has a word of its own"),
        }
    }
}

fn say_all(items: &[Said], reply: &mut Reply, head: fn(&mut Reply, usize)) {
    head(reply, items.len());
    for item in items {
        item.say(reply);
    }
}

fn said_in(protocol: Protocol, said: &Said) -> Vec<u8> {
    let mut reply = Reply::new();
    reply.set_protocol(protocol);
    said.say(&mut reply);
    assert_eq!(reply.len(), bytes_of(&reply).len());
    bytes_of(&reply)
}

proptest! {
    #[test]
    fn replies_are_understood_in_resp2(said in said()) {
        let bytes = said_in(Protocol::Resp2, &said);
        let (frame, read) = decode_resp2(&bytes).unwrap().expect("a whole frame");
        prop_assert_eq!(read, bytes.len());
        prop_assert!(frame == said.in_resp2(), "{:?}", frame);
    }

    #[test]
    fn replies_are_understood_in_resp3(said in said()) {
        let bytes = said_in(Protocol::Resp3, &said);
        let (frame, read) = decode_resp3(&bytes).unwrap().expect("a whole frame");
        prop_assert_eq!(read, bytes.len());
        prop_assert!(frame == said.in_resp3(), "{:?}", frame);
    }

    #[test]
    fn pushes_are_understood(items in vec(scalar(), 1..5)) {
        let said = Said::Push(items);
        let bytes = said_in(Protocol::Resp3, &said);
        let (frame, _) = decode_resp3(&bytes).unwrap().expect("a whole frame");
        prop_assert!(frame == said.in_resp3(), "{:?}", frame);
    }
}
