//! What is kept of a key whose value the database does not have yet, or has had written by us lately.

use bytes::{Buf, BufMut, Bytes};
use forebay_origin::{NewValue, Write, WriteChange};

/// In which order writes of one key were made. A later owner has a higher epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub epoch: u64,
    pub sequence: u64,
}

/// What there is to say of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The database is to be told.
    Pending { version: Version, changes: Changes, entry: Option<Bytes> },
    /// The database, or the file of dead letters, has all up to this version.
    Done { version: Version },
}

/// All that is to be written for a key, in one: a removal, then a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub removes: bool,
    pub saves: Option<NewValue>,
}

const PENDING: u8 = 1;
const DONE: u8 = 2;
const NOTHING: u8 = 0;
const WHOLE: u8 = 1;
const FIELDS: u8 = 2;

impl Changes {
    /// These, and then that.
    pub fn and(self, change: WriteChange) -> Changes {
        match (self.saves, change) {
            (_, WriteChange::Remove) => Changes { removes: true, saves: None },
            (Some(NewValue::Fields(mut fields)), WriteChange::Save(NewValue::Fields(later))) => {
                for (field, value) in later {
                    match fields.iter_mut().find(|(known, _)| *known == field) {
                        Some((_, known)) => *known = value,
                        None => fields.push((field, value)),
                    }
                }
                Changes { removes: self.removes, saves: Some(NewValue::Fields(fields)) }
            }
            (_, WriteChange::Save(value)) => Changes { removes: self.removes, saves: Some(value) },
        }
    }

    /// As the origin is told; they belong together.
    pub fn writes(&self, key: &Bytes) -> Vec<Write> {
        let removes = self.removes.then_some(WriteChange::Remove);
        let changes = removes.into_iter().chain(self.saves.clone().map(WriteChange::Save));
        changes.map(|change| Write { key: key.clone(), change }).collect()
    }
}

impl Record {
    pub fn version(&self) -> Version {
        match self {
            Record::Pending { version, .. } | Record::Done { version } => *version,
        }
    }

    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let Version { epoch, sequence } = self.version();
        let kind = if matches!(self, Record::Pending { .. }) { PENDING } else { DONE };
        out.put_u8(kind);
        out.put_u64_le(epoch);
        out.put_u64_le(sequence);
        let Record::Pending { changes, entry, .. } = self else { return out.into() };
        out.put_u8(u8::from(changes.removes));
        match &changes.saves {
            None => out.put_u8(NOTHING),
            Some(NewValue::Whole(value)) => {
                out.put_u8(WHOLE);
                put(&mut out, Some(value));
            }
            Some(NewValue::Fields(fields)) => {
                out.put_u8(FIELDS);
                out.put_u32_le(fields.len() as u32);
                for (field, value) in fields {
                    put(&mut out, Some(field));
                    put(&mut out, value.as_ref());
                }
            }
        }
        put(&mut out, entry.as_ref());
        out.into()
    }

    /// `None` if the bytes are no record.
    pub fn decode(bytes: impl Into<Bytes>) -> Option<Record> {
        let mut bytes = bytes.into();
        let kind = bytes.try_get_u8().ok()?;
        let version = Version { epoch: bytes.try_get_u64_le().ok()?, sequence: bytes.try_get_u64_le().ok()? };
        if kind == DONE {
            return bytes.is_empty().then_some(Record::Done { version });
        }
        let removes = bytes.try_get_u8().ok().filter(|_| kind == PENDING)? != 0;
        let saves = match bytes.try_get_u8().ok()? {
            NOTHING => None,
            WHOLE => Some(NewValue::Whole(take(&mut bytes)??)),
            FIELDS => {
                let count = bytes.try_get_u32_le().ok()?;
                let mut fields = Vec::new();
                for _ in 0..count {
                    fields.push((take(&mut bytes)??, take(&mut bytes)?));
                }
                Some(NewValue::Fields(fields))
            }
            _ => return None,
        };
        let entry = take(&mut bytes)?;
        bytes.is_empty().then_some(Record::Pending { version, changes: Changes { removes, saves }, entry })
    }
}

/// Nothing is written as a length that no value has.
fn put(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    out.put_u32_le(bytes.map_or(u32::MAX, |bytes| bytes.len() as u32));
    out.extend_from_slice(bytes.map_or(&[], |bytes| bytes));
}

fn take(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match bytes.try_get_u32_le().ok()? {
        u32::MAX => Some(None),
        length if length as usize <= bytes.len() => Some(Some(bytes.split_to(length as usize))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from)
    }

    fn name() -> impl Strategy<Value = Bytes> {
        (b'a'..b'e').prop_map(|letter| Bytes::from(vec![letter]))
    }

    fn fields() -> impl Strategy<Value = NewValue> {
        prop::collection::btree_map(name(), prop::option::of(value()), 0..4)
            .prop_map(|fields| NewValue::Fields(fields.into_iter().collect()))
    }

    fn changes() -> impl Strategy<Value = Vec<WriteChange>> {
        let change = prop_oneof![fields().prop_map(WriteChange::Save), Just(WriteChange::Remove)];
        prop::collection::vec(change, 1..8)
    }

    type Row = Option<std::collections::BTreeMap<Bytes, Bytes>>;

    /// What a database does with a row.
    fn carry_out(row: &mut Row, change: &WriteChange) {
        match change {
            WriteChange::Remove => *row = None,
            WriteChange::Save(NewValue::Whole(_)) => unreachable!("rows are hashes here"),
            WriteChange::Save(NewValue::Fields(fields)) => {
                let row = row.get_or_insert_default();
                for (field, value) in fields {
                    match value {
                        Some(value) => drop(row.insert(field.clone(), value.clone())),
                        None => drop(row.remove(field)),
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_record_is_read_back_and_other_bytes_are_not(
            epoch in any::<u64>(), sequence in any::<u64>(), removes in any::<bool>(),
            saves in prop::option::of(prop_oneof![fields(), value().prop_map(NewValue::Whole)]),
            entry in prop::option::of(value()), done in any::<bool>(), rest in value(),
        ) {
            let version = Version { epoch, sequence };
            let record = match done {
                true => Record::Done { version },
                false => Record::Pending { version, changes: Changes { removes, saves }, entry },
            };
            let bytes = record.encode();
            prop_assert_eq!(Record::decode(bytes.clone()), Some(record));
            for length in 0..bytes.len() {
                prop_assert_eq!(Record::decode(bytes.slice(..length)), None);
            }
            let _read = Record::decode(rest);
        }

        /// Whatever was written at the time when only some of the changes had been made, the row is the same in the end; also if it is written twice.
        #[test]
        fn changes_in_one_do_what_they_do_one_by_one(changes in changes(), first in 0_usize..8, old in fields()) {
            let mut one_by_one: Row = None;
            carry_out(&mut one_by_one, &WriteChange::Save(old));
            let mut in_one = one_by_one.clone();
            let mut merged = Changes::default();
            for (place, change) in changes.iter().enumerate() {
                carry_out(&mut one_by_one, change);
                merged = merged.and(change.clone());
                if place <= first {
                    merged.writes(&Bytes::new()).iter().for_each(|write| carry_out(&mut in_one, &write.change));
                }
            }
            for _ in 0..2 {
                merged.writes(&Bytes::new()).iter().for_each(|write| carry_out(&mut in_one, &write.change));
            }
            prop_assert_eq!(in_one, one_by_one);
        }
    }
}
