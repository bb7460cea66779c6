//! What an owner tells the holders of its slots, and what they answer: records in one ordered stream each way.
//!
//! ```text
//! u32   length of the rest, little endian
//! u8    kind
//! u16   slot, little endian
//!       the kind's fields: numbers as varints (LEB128), byte strings behind their lengths, the last one up to the record's end
//! ```
//!
//! The stream is cut into frames anywhere, so that a large record does not make a large message ([`super::frames`]).

use bytes::Bytes;
use forebay_cluster::state::Position;
use forebay_store::UnixMillis;
use smallvec::SmallVec;

/// Bytes of the length before each record.
pub(super) const LENGTH: usize = 4;

/// A longer record is not sent and not accepted. An entry of that size cannot be copied.
pub(super) const MAX_RECORD: usize = 1 << 31;

/// What an owner tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'r> {
    /// From now on the slot's effects come. Who has come as far as `position`, or as far in the history of epoch `was`, which the owner
    /// took over at that point, holds what the owner holds, and goes on from `position`; all others ask for the slot.
    Follow { slot: u16, view: u64, was: u64, position: Position },
    /// The slot comes whole. A receiver without a whole copy forgets what it has; one with a whole copy keeps it, entry by entry, until it has
    /// come anew. `view` is the epoch at which it was made a holder.
    Begin { slot: u16, view: u64, position: Position },
    /// One entry of a slot that comes whole.
    Entry { slot: u16, db: u16, key: &'r [u8], entry: &'r [u8] },
    /// That was all: with the effects that came in between, the receiver holds what the owner holds.
    End { slot: u16, position: Position },
    /// A change of the slot.
    Effect { slot: u16, sequence: u64, effect: Effect<'r> },
    /// The digest of the slot after `sequence` effects, without what is late at `horizon`.
    Digest { slot: u16, sequence: u64, horizon: UnixMillis, digest: u64 },
}

/// A change, told so that carrying it out gives the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<'r> {
    /// The key has this entry.
    Put { db: u16, key: &'r [u8], entry: &'r [u8] },
    /// Nothing is remembered of the key.
    Remove { db: u16, key: &'r [u8] },
    /// This command was carried out. The key is argument `key_at`, and its value has this size afterwards.
    Run { db: u16, now: UnixMillis, key_at: u64, size: u64, args: SmallVec<[&'r [u8]; 8]> },
    /// The database is empty, or all of them.
    Flush { db: Option<u16> },
}

/// What a holder answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many records of this feed have been dealt with, from its beginning.
    Dealt { records: u64 },
    /// The holder does not hold what the owner holds of the slot: it asks for it whole.
    Astray { slot: u16 },
    /// Said of the record of that number in this feed, from 1 on: its sender is not the slot's owner, or the receiver no holder, as the
    /// receiver knows it.
    Refused { slot: u16, record: u64 },
}

/// Bytes that are no record or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer has sent what is no record of replication")]
pub struct Malformed;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Follow = 0,
    Begin = 1,
    Entry = 2,
    End = 3,
    Put = 4,
    Remove = 5,
    Run = 6,
    Flush = 7,
    Digest = 8,
    Dealt = 9,
    Astray = 10,
    Refused = 11,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Follow,
        Kind::Begin,
        Kind::Entry,
        Kind::End,
        Kind::Put,
        Kind::Remove,
        Kind::Run,
        Kind::Flush,
        Kind::Digest,
        Kind::Dealt,
        Kind::Astray,
        Kind::Refused,
    ];
}

/// Writes one record at the end of a buffer. Apart from [`Record::write`], for entries that are encoded where they are to be.
pub(super) struct Writer<'w> {
    out: &'w mut Vec<u8>,
    start: usize,
}

impl<'w> Writer<'w> {
    fn new(out: &'w mut Vec<u8>, kind: Kind, slot: u16) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH]);
        out.push(kind as u8);
        out.extend_from_slice(&slot.to_le_bytes());
        Writer { out, start }
    }

    /// A put whose entry `encode` adds.
    pub(super) fn put<R>(
        out: &'w mut Vec<u8>,
        (slot, sequence): (u16, u64),
        (db, key): (u16, &[u8]),
        encode: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> R {
        let writer = Writer::new(out, Kind::Put, slot).number(sequence).number(u64::from(db)).bytes(key);
        let encoded = encode(writer.out);
        writer.finish();
        encoded
    }

    /// An entry of a slot that is sent whole.
    pub(super) fn entry(out: &'w mut Vec<u8>, slot: u16, (db, key): (u16, &[u8]), encode: impl FnOnce(&mut Vec<u8>)) {
        let writer = Writer::new(out, Kind::Entry, slot).number(u64::from(db)).bytes(key);
        encode(writer.out);
        writer.finish();
    }

    fn number(self, mut number: u64) -> Self {
        while number > 0x7f {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
        self
    }

    fn position(self, position: Position) -> Self {
        self.number(position.epoch).number(position.sequence)
    }

    fn time(self, at: UnixMillis) -> Self {
        self.out.extend_from_slice(&at.to_le_bytes());
        self
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        let writer = self.number(bytes.len() as u64);
        writer.out.extend_from_slice(bytes);
        writer
    }

    fn rest(self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// Writes the length. One that does not fit is cut off here: who has the record written (`write_effect`, `send_entries`) looks at its
    /// true length and drops it.
    fn finish(self) {
        let length = (self.out.len() - self.start - LENGTH) as u32;
        self.out[self.start..self.start + LENGTH].copy_from_slice(&length.to_le_bytes());
    }
}

impl<'r> Record<'r> {
    /// The slot that it is about.
    pub fn slot(&self) -> u16 {
        match self {
            Record::Follow { slot, .. }
            | Record::Begin { slot, .. }
            | Record::Entry { slot, .. }
            | Record::End { slot, .. }
            | Record::Effect { slot, .. }
            | Record::Digest { slot, .. } => *slot,
        }
    }

    /// The database that it is about, if it is about one.
    pub fn db(&self) -> Option<u16> {
        match self {
            Record::Entry { db, .. } => Some(*db),
            Record::Effect { effect, .. } => match effect {
                Effect::Put { db, .. } | Effect::Remove { db, .. } | Effect::Run { db, .. } => Some(*db),
                Effect::Flush { db } => *db,
            },
            Record::Follow { .. } | Record::Begin { .. } | Record::End { .. } | Record::Digest { .. } => None,
        }
    }

    /// Adds the record with its length.
    pub fn write(&self, out: &mut Vec<u8>) {
        let writer = match self {
            Record::Follow { slot, view, was, position } => {
                Writer::new(out, Kind::Follow, *slot).number(*view).number(*was).position(*position)
            }
            Record::Begin { slot, view, position } => {
                Writer::new(out, Kind::Begin, *slot).number(*view).position(*position)
            }
            Record::Entry { slot, db, key, entry } => {
                Writer::new(out, Kind::Entry, *slot).number(u64::from(*db)).bytes(key).rest(entry)
            }
            Record::End { slot, position } => Writer::new(out, Kind::End, *slot).position(*position),
            Record::Effect { slot, sequence, effect } => effect.write(*slot, *sequence, out),
            Record::Digest { slot, sequence, horizon, digest } => {
                let writer = Writer::new(out, Kind::Digest, *slot).number(*sequence).time(*horizon);
                writer.rest(&digest.to_le_bytes())
            }
        };
        writer.finish();
    }

    /// # Errors
    /// When the bytes are no record. `bytes` are those behind the length.
    pub fn read(bytes: &'r [u8]) -> Result<Record<'r>, Malformed> {
        let (kind, mut reader) = Reader::new(bytes)?;
        let slot = reader.slot()?;
        let record = match kind {
            Kind::Follow => {
                Record::Follow { slot, view: reader.number()?, was: reader.number()?, position: reader.position()? }
            }
            Kind::Begin => Record::Begin { slot, view: reader.number()?, position: reader.position()? },
            Kind::Entry => Record::Entry { slot, db: reader.db()?, key: reader.bytes()?, entry: reader.rest() },
            Kind::End => Record::End { slot, position: reader.position()? },
            Kind::Put | Kind::Remove | Kind::Run | Kind::Flush => {
                let sequence = reader.number()?;
                Record::Effect { slot, sequence, effect: Effect::read(kind, &mut reader)? }
            }
            Kind::Digest => Record::Digest {
                slot,
                sequence: reader.number()?,
                horizon: reader.time()?,
                digest: u64::from_le_bytes(reader.array()?),
            },
            Kind::Dealt | Kind::Astray | Kind::Refused => return Err(Malformed),
        };
        reader.end(record)
    }
}

impl<'r> Effect<'r> {
    fn write<'w>(&self, slot: u16, sequence: u64, out: &'w mut Vec<u8>) -> Writer<'w> {
        let kind = match self {
            Effect::Put { .. } => Kind::Put,
            Effect::Remove { .. } => Kind::Remove,
            Effect::Run { .. } => Kind::Run,
            Effect::Flush { .. } => Kind::Flush,
        };
        let writer = Writer::new(out, kind, slot).number(sequence);
        match self {
            Effect::Put { db, key, entry } => writer.number(u64::from(*db)).bytes(key).rest(entry),
            Effect::Remove { db, key } => writer.number(u64::from(*db)).bytes(key),
            Effect::Run { db, now, key_at, size, args } => {
                let head = writer.number(u64::from(*db)).time(*now).number(*key_at).number(*size);
                args.iter().fold(head.number(args.len() as u64), |writer, arg| writer.bytes(arg))
            }
            Effect::Flush { db } => writer.number(db.map_or(0, |db| u64::from(db) + 1)),
        }
    }

    fn read(kind: Kind, reader: &mut Reader<'r>) -> Result<Effect<'r>, Malformed> {
        Ok(match kind {
            Kind::Put => Effect::Put { db: reader.db()?, key: reader.bytes()?, entry: reader.rest() },
            Kind::Remove => Effect::Remove { db: reader.db()?, key: reader.bytes()? },
            Kind::Run => {
                let (db, now, key_at, size) = (reader.db()?, reader.time()?, reader.number()?, reader.number()?);
                let count = reader.number()?;
                // Not allocated for ahead: the number is the peer's word.
                let mut args = SmallVec::new();
                for _ in 0..count {
                    args.push(reader.bytes()?);
                }
                if key_at >= count {
                    return Err(Malformed);
                }
                Effect::Run { db, now, key_at, size, args }
            }
            Kind::Flush => {
                let db = reader.number()?.checked_sub(1);
                Effect::Flush { db: db.map(u16::try_from).transpose().map_err(|_| Malformed)? }
            }
            _ => return Err(Malformed),
        })
    }
}

impl Answer {
    /// Adds the answer with its length.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Answer::Dealt { records } => Writer::new(out, Kind::Dealt, 0).number(records),
            Answer::Astray { slot } => Writer::new(out, Kind::Astray, slot),
            Answer::Refused { slot, record } => Writer::new(out, Kind::Refused, slot).number(record),
        }
        .finish();
    }

    /// # Errors
    /// As [`Record::read`].
    pub fn read(bytes: &Bytes) -> Result<Answer, Malformed> {
        let (kind, mut reader) = Reader::new(bytes)?;
        let slot = reader.slot()?;
        let answer = match kind {
            Kind::Dealt => Answer::Dealt { records: reader.number()? },
            Kind::Astray => Answer::Astray { slot },
            Kind::Refused => Answer::Refused { slot, record: reader.number()? },
            _ => return Err(Malformed),
        };
        reader.end(answer)
    }
}

struct Reader<'r> {
    rest: &'r [u8],
}

impl<'r> Reader<'r> {
    fn new(bytes: &'r [u8]) -> Result<(Kind, Self), Malformed> {
        let (kind, rest) = bytes.split_first().ok_or(Malformed)?;
        let kind = Kind::ALL.get(usize::from(*kind)).ok_or(Malformed)?;
        Ok((*kind, Reader { rest }))
    }

    /// Nothing may follow.
    fn end<T>(&self, whole: T) -> Result<T, Malformed> {
        if self.rest.is_empty() { Ok(whole) } else { Err(Malformed) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*array)
    }

    fn slot(&mut self) -> Result<u16, Malformed> {
        let slot = u16::from_le_bytes(self.array()?);
        if slot < forebay_cluster::SLOT_COUNT { Ok(slot) } else { Err(Malformed) }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position { epoch: self.number()?, sequence: self.number()? })
    }

    fn db(&mut self) -> Result<u16, Malformed> {
        u16::try_from(self.number()?).map_err(|_| Malformed)
    }

    fn time(&mut self) -> Result<UnixMillis, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'r [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn rest(&mut self) -> &'r [u8] {
        std::mem::take(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a record is made from: its parts must outlive it.
    type Parts = (u8, u16, [u64; 4], u16, Vec<Vec<u8>>);

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = prop::collection::vec(any::<u8>(), 0..200);
        let number = || prop_oneof![0..300u64, any::<u64>()];
        let numbers = (number(), number(), number(), number()).prop_map(|(a, b, c, d)| [a, b, c, d]);
        (0..9u8, 0..16384u16, numbers, any::<u16>(), prop::collection::vec(bytes, 2..10))
    }

    fn record((kind, slot, [a, b, c, d], db, bytes): &Parts) -> Record<'_> {
        let (slot, db, position) = (*slot, *db, Position { epoch: *a, sequence: *b });
        let (key, entry) = (&bytes[0][..], &bytes[1][..]);
        let effect = |effect| Record::Effect { slot, sequence: *c, effect };
        match kind {
            0 => Record::Follow { slot, view: *c, was: *d, position },
            1 => Record::Begin { slot, view: *c, position },
            2 => Record::Entry { slot, db, key, entry },
            3 => Record::End { slot, position },
            4 => effect(Effect::Put { db, key, entry }),
            5 => effect(Effect::Remove { db, key }),
            6 => {
                let args: SmallVec<[&[u8]; 8]> = bytes.iter().map(|arg| &arg[..]).collect();
                effect(Effect::Run { db, now: *a as i64, key_at: b % args.len() as u64, size: *d, args })
            }
            7 => effect(Effect::Flush { db: (a % 2 == 0).then_some(db) }),
            _ => Record::Digest { slot, sequence: *a, horizon: *b as i64, digest: *c },
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(parts in parts()) {
            let mut bytes = Vec::new();
            let record = record(&parts);
            record.write(&mut bytes);
            let (length, body) = bytes.split_first_chunk::<LENGTH>().unwrap();
            prop_assert_eq!(u32::from_le_bytes(*length) as usize, body.len());
            prop_assert_eq!(Record::read(body), Ok(record));
        }

        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..60), kind in 0..14u8) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let mut again = Vec::new();
            if let Ok(record) = Record::read(&bytes) {
                record.write(&mut again);
                prop_assert_eq!(Record::read(&again[LENGTH..]), Ok(record));
            }
            let _read = Answer::read(&Bytes::from(bytes));
        }

        #[test]
        fn a_cut_record_is_refused_or_another(parts in parts(), cut: prop::sample::Index) {
            let mut bytes = Vec::new();
            let record = record(&parts);
            record.write(&mut bytes);
            let body = &bytes[LENGTH..];
            prop_assert_ne!(Record::read(&body[..cut.index(body.len())]), Ok(record));
        }

        #[test]
        fn answers_are_read(slot in 0..16384u16, records: u64) {
            let refused = Answer::Refused { slot, record: records };
            for answer in [Answer::Dealt { records }, Answer::Astray { slot }, refused] {
                let mut bytes = Vec::new();
                answer.write(&mut bytes);
                prop_assert_eq!(Answer::read(&Bytes::from(bytes).slice(LENGTH..)), Ok(answer));
            }
        }
    }
}
