//! What is asked: the workloads, how their requests are written on each wire, and what has to be there before.

use std::fmt;
use std::io::Write;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::replies::Wire;

/// Keys of one MGET.
const MGET_KEYS: usize = 10;

/// Fields of a hash.
const FIELDS: usize = 5;

/// Seconds, as text, after which no measurement is still under way; memcached takes more than 30 days for a date.
const FAR_AWAY: &[u8] = b"1000000";

/// What every request of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    Get,
    Set,
    /// Ten keys a request.
    Mget,
    Incr,
    /// One field of a hash of five is replaced.
    Hset,
    /// A hash of five fields.
    Hgetall,
}

/// What a server holds before a workload runs, which no workload changes but in its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dataset {
    pub(crate) kind: Kind,
    pub(crate) value_bytes: usize,
    pub(crate) keys: usize,
}

/// What the keys of a dataset hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Strings,
    Counters,
    /// Strings with a deadline that is far away.
    MortalStrings,
    /// Of five fields, each of a value's size.
    Hashes,
}

/// Writes requests.
pub(crate) struct Writer {
    wire: Wire,
    value: Vec<u8>,
}

impl Workload {
    pub(crate) const ALL: [Workload; 6] =
        [Workload::Get, Workload::Set, Workload::Mget, Workload::Incr, Workload::Hset, Workload::Hgetall];

    /// Whether the wire has such requests.
    pub(crate) fn is_on(self, wire: Wire) -> bool {
        self.kind().is_on(wire)
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Workload::Get | Workload::Set | Workload::Mget => Kind::Strings,
            Workload::Incr => Kind::Counters,
            Workload::Hset | Workload::Hgetall => Kind::Hashes,
        }
    }

    /// Keys that one request names.
    pub(crate) fn keys(self) -> usize {
        if self == Workload::Mget { MGET_KEYS } else { 1 }
    }

    /// Values that the reply to one request has.
    pub(crate) fn values(self) -> u64 {
        match self {
            Workload::Get => 1,
            Workload::Mget => MGET_KEYS as u64,
            Workload::Hgetall => 2 * FIELDS as u64,
            Workload::Set | Workload::Incr | Workload::Hset => 0,
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Workload::Get => "GET",
            Workload::Set => "SET",
            Workload::Mget => "MGET 10",
            Workload::Incr => "INCR",
            Workload::Hset => "HSET",
            Workload::Hgetall => "HGETALL",
        })
    }
}

impl Kind {
    /// Values of a dataset's size that a key holds.
    pub(crate) fn values(self) -> usize {
        if self == Kind::Hashes { FIELDS } else { 1 }
    }

    /// Whether servers of this wire can hold such keys.
    pub(crate) fn is_on(self, wire: Wire) -> bool {
        wire == Wire::Resp || self != Kind::Hashes
    }
}

impl Dataset {
    /// Bytes of a key with its fields and values.
    pub(crate) fn bytes_each(&self) -> usize {
        let fields = if self.kind == Kind::Hashes { FIELDS * fields()[0].len() } else { 0 };
        name(self.kind, 0).len() + fields + self.kind.values() * self.value_bytes
    }
}

impl Writer {
    /// Writes for `wire`, with values of `value_bytes` that no compression makes smaller.
    pub(crate) fn new(wire: Wire, value_bytes: usize) -> Writer {
        let mut random = SmallRng::seed_from_u64(value_bytes as u64);
        let value = (0..value_bytes).map(|_| random.random_range(b'!'..=b'~')).collect();
        Writer { wire, value }
    }

    /// Appends a request of `workload` that names `keys`.
    pub(crate) fn request(&self, workload: Workload, keys: &[usize], out: &mut Vec<u8>) {
        match self.wire {
            Wire::Resp => self.resp(workload, keys, out),
            Wire::Memcached => self.memcached(workload, keys, out),
        }
    }

    /// Appends the request that makes `key` of a dataset.
    pub(crate) fn creation(&self, kind: Kind, key: usize, out: &mut Vec<u8>) {
        match (kind, self.wire) {
            (Kind::Strings, _) => self.request(Workload::Set, &[key], out),
            (Kind::Counters, Wire::Resp) => resp(out, &[b"SET", &name(Kind::Counters, key), b"0"]),
            (Kind::Counters, Wire::Memcached) => memcached_set(out, &name(Kind::Counters, key), b"0", b"0"),
            (Kind::MortalStrings, Wire::Resp) => resp(out, &[b"SET", &name(kind, key), &self.value, b"EX", FAR_AWAY]),
            (Kind::MortalStrings, Wire::Memcached) => memcached_set(out, &name(kind, key), FAR_AWAY, &self.value),
            (Kind::Hashes, _) => {
                let (key, fields) = (name(Kind::Hashes, key), fields());
                let mut words: Vec<&[u8]> = vec![b"HSET", &key];
                fields.iter().for_each(|field| words.extend([&field[..], &self.value]));
                resp(out, &words);
            }
        }
    }

    fn resp(&self, workload: Workload, keys: &[usize], out: &mut Vec<u8>) {
        let key = &name(workload.kind(), keys[0]);
        match workload {
            Workload::Get => resp(out, &[b"GET", key]),
            Workload::Set => resp(out, &[b"SET", key, &self.value]),
            Workload::Incr => resp(out, &[b"INCR", key]),
            Workload::Hset => resp(out, &[b"HSET", key, &fields()[keys[0] % FIELDS], &self.value]),
            Workload::Hgetall => resp(out, &[b"HGETALL", key]),
            Workload::Mget => {
                let keys: Vec<_> = keys.iter().map(|&key| name(Kind::Strings, key)).collect();
                let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..]).chain(keys.iter().map(|key| &key[..])).collect();
                resp(out, &words);
            }
        }
    }

    fn memcached(&self, workload: Workload, keys: &[usize], out: &mut Vec<u8>) {
        let kind = workload.kind();
        match workload {
            Workload::Set => memcached_set(out, &name(kind, keys[0]), b"0", &self.value),
            Workload::Incr => {
                out.extend_from_slice(b"incr ");
                out.extend_from_slice(&name(kind, keys[0]));
                out.extend_from_slice(b" 1\r\n");
            }
            Workload::Get | Workload::Mget => {
                out.extend_from_slice(b"get");
                for &key in keys {
                    out.push(b' ');
                    out.extend_from_slice(&name(kind, key));
                }
                out.extend_from_slice(b"\r\n");
            }
            Workload::Hset | Workload::Hgetall => unreachable!("memcached has no hashes"),
        }
    }
}

/// A key of 15 bytes.
pub(crate) fn name(kind: Kind, number: usize) -> [u8; 15] {
    let prefix = match kind {
        Kind::Strings => b"key:",
        Kind::Counters => b"ctr:",
        Kind::MortalStrings => b"ttl:",
        Kind::Hashes => b"hsh:",
    };
    let mut name = *b"....00000000000";
    name[..4].copy_from_slice(prefix);
    let mut rest = number;
    for digit in name[4..].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    name
}

fn fields() -> [[u8; 6]; FIELDS] {
    std::array::from_fn(|number| {
        let mut field = *b"field0";
        field[5] += number as u8;
        field
    })
}

fn resp(out: &mut Vec<u8>, words: &[&[u8]]) {
    number(out, b'*', words.len());
    for word in words {
        number(out, b'$', word.len());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

fn number(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    write!(out, "{number}\r\n").expect("a vector takes what is written");
}

fn memcached_set(out: &mut Vec<u8>, key: &[u8], ttl: &[u8], value: &[u8]) {
    out.extend_from_slice(b"set ");
    out.extend_from_slice(key);
    out.extend_from_slice(b" 0 ");
    out.extend_from_slice(ttl);
    write!(out, " {}\r\n", value.len()).expect("a vector takes what is written");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(wire: Wire, workload: Workload, keys: &[usize]) -> String {
        let mut out = Vec::new();
        let writer = Writer { wire, value: b"v".to_vec() };
        writer.request(workload, keys, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn requests_on_both_wires() {
        assert_eq!(written(Wire::Resp, Workload::Get, &[42]), "*2\r\n$3\r\nGET\r\n$15\r\nkey:00000000042\r\n");
        assert_eq!(written(Wire::Memcached, Workload::Get, &[1, 2]), "get key:00000000001 key:00000000002\r\n");
        assert_eq!(written(Wire::Memcached, Workload::Set, &[7]), "set key:00000000007 0 0 1\r\nv\r\n");
        assert_eq!(written(Wire::Memcached, Workload::Incr, &[7]), "incr ctr:00000000007 1\r\n");
        let hset = "*4\r\n$4\r\nHSET\r\n$15\r\nhsh:00000000007\r\n$6\r\nfield2\r\n$1\r\nv\r\n";
        assert_eq!(written(Wire::Resp, Workload::Hset, &[7]), hset);
    }
}
