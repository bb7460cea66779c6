//! Hashes: maps of fields to values under one key.

mod compact;
mod fields;

use crate::compact::{Buffer, EMPTY, MAX_ITEMS};
use crate::entry::{Embedded, Entry, Value, ValueMut, ValueView};
use crate::key::HashSeed;
use crate::object_type::Encoding;
use crate::settings::Settings;

pub(crate) use compact::CompactHash;
pub(crate) use fields::FieldTable;

/// A hash in the store: one sequence in its entry while it is small, and a table from then on; it never goes back.
#[derive(Clone, Copy)]
pub struct HashRef<'a> {
    form: Form<'a>,
}

#[derive(Clone, Copy)]
enum Form<'a> {
    Compact(CompactHash<'a>),
    Table(&'a FieldTable),
}

/// Both forms answer alike: `$form` is matched and `$each` evaluated with the one that it is.
macro_rules! either {
    ($form:expr, $each:ident => $answer:expr) => {
        match $form {
            Form::Compact($each) => $answer,
            Form::Table($each) => $answer,
        }
    };
}

impl<'a> HashRef<'a> {
    /// `None` if it is no hash.
    #[inline]
    pub(crate) fn of(value: ValueView<'a>) -> Option<Self> {
        let form = match value {
            ValueView::CompactHash(hash) => Form::Compact(hash),
            ValueView::HashTable(table) => Form::Table(table),
            ValueView::Absent | ValueView::Integer(_) | ValueView::Short { .. } | ValueView::Big(_) => return None,
        };
        Some(HashRef { form })
    }

    /// How many fields it has; never 0 for one that is stored.
    #[inline]
    pub fn len(&self) -> usize {
        either!(self.form, hash => hash.len())
    }

    /// Whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field's value.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<&'a [u8]> {
        either!(self.form, hash => hash.get(field))
    }

    /// Whether it has the field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// All fields with their values: in the order in which they were first set while the hash is compact, in no order
    /// otherwise.
    #[inline]
    pub fn iter(&self) -> Pairs<'a> {
        Pairs(match self.form {
            Form::Compact(hash) => EitherPairs::Compact(hash.iter()),
            Form::Table(table) => EitherPairs::Table(Box::new(table.iter())),
        })
    }

    /// A field picked at random with its value; `draw` is 64 random bits. `None` if there is none.
    pub fn random(&self, draw: u64) -> Option<(&'a [u8], &'a [u8])> {
        either!(self.form, hash => hash.random(draw))
    }

    /// Visits some fields, about `count`, and says where to go on: 0 when all have been visited. A scan starts at 0. A
    /// field that is there from the start of a scan to its end is visited at least once. Compact hashes are visited
    /// whole.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        match self.form {
            Form::Compact(hash) => {
                hash.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Table(table) => table.scan(cursor, count, visit),
        }
    }

    /// What `OBJECT ENCODING` says.
    pub fn encoding(&self) -> Encoding {
        match self.form {
            Form::Compact(_) => Encoding::Compact,
            Form::Table(_) => Encoding::Table,
        }
    }
}

/// The fields of a hash with their values.
pub struct Pairs<'a>(EitherPairs<'a>);

enum EitherPairs<'a> {
    Compact(compact::Pairs<'a>),
    Table(Box<dyn Iterator<Item = (&'a [u8], &'a [u8])> + 'a>),
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            EitherPairs::Compact(pairs) => pairs.next(),
            EitherPairs::Table(pairs) => pairs.next(),
        }
    }
}

/// A hash that has no entry yet.
pub(crate) enum NewHash {
    Compact(Vec<u8>),
    Table(Box<FieldTable>),
}

impl NewHash {
    /// One without fields, to be put together in `buffer`.
    pub(crate) fn new(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(&EMPTY);
        NewHash::Compact(buffer)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.view().is_empty()
    }

    /// To be stored, with what is left of the buffer.
    pub(crate) fn with_value<R>(self, store: impl FnOnce(Value<'_>) -> R) -> (R, Vec<u8>) {
        match self {
            NewHash::Compact(sequence) => (store(Value::CompactHash(&sequence)), sequence),
            NewHash::Table(table) => (store(Value::HashTable(table)), Vec::new()),
        }
    }

    fn view(&self) -> HashRef<'_> {
        HashRef {
            form: match self {
                NewHash::Compact(sequence) => Form::Compact(CompactHash::new(sequence)),
                NewHash::Table(table) => Form::Table(table),
            },
        }
    }
}

/// A hash being changed, by [`Keyspace::update_hash`](crate::Keyspace::update_hash).
pub struct HashMut<'a> {
    place: HashPlace<'a>,
    limits: CompactLimits,
    seed: HashSeed,
    changed: bool,
    /// Whether a field has been removed.
    shrunk: bool,
}

/// Where the hash is.
enum HashPlace<'a> {
    /// In an entry that holds one.
    Entry(&'a mut Entry),
    New(&'a mut NewHash),
}

/// Evaluates the one expression for a compact hash's buffer, the other for a table.
macro_rules! change_form {
    ($place:expr, $buffer:ident => $compact:expr, $table:ident => $in_table:expr) => {
        match $place {
            HashPlace::New(NewHash::Compact($buffer)) => $compact,
            HashPlace::New(NewHash::Table($table)) => $in_table,
            HashPlace::Entry(entry) => match entry.value_mut() {
                ValueMut::CompactHash(mut embedded) => {
                    let $buffer: &mut Embedded<'_> = &mut embedded;
                    $compact
                }
                ValueMut::HashTable($table) => $in_table,
                _ => unreachable!("the entry holds a hash"),
            },
        }
    };
}

/// Up to where a hash stays compact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactLimits {
    entries: usize,
    value: usize,
}

impl CompactLimits {
    #[inline]
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        CompactLimits {
            entries: settings.hash_max_compact_entries().min(MAX_ITEMS / 2),
            value: settings.hash_max_compact_value(),
        }
    }

    #[inline]
    fn allow_lengths(self, field: &[u8], value: &[u8]) -> bool {
        field.len() <= self.value && value.len() <= self.value
    }
}

impl<'a> HashMut<'a> {
    /// `None` if the entry holds no hash.
    #[inline]
    pub(crate) fn of_entry(entry: &'a mut Entry, limits: CompactLimits, seed: HashSeed) -> Option<Self> {
        entry.is_hash().then_some(HashMut {
            place: HashPlace::Entry(entry),
            limits,
            seed,
            changed: false,
            shrunk: false,
        })
    }

    pub(crate) fn of_new(hash: &'a mut NewHash, limits: CompactLimits, seed: HashSeed) -> Self {
        HashMut { place: HashPlace::New(hash), limits, seed, changed: false, shrunk: false }
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether it had fields and has none any more.
    #[inline]
    pub(crate) fn is_emptied(&self) -> bool {
        self.shrunk && self.is_empty()
    }

    /// The same hash, for reading.
    #[inline]
    pub fn as_ref(&self) -> HashRef<'_> {
        match &self.place {
            HashPlace::New(hash) => hash.view(),
            HashPlace::Entry(entry) => HashRef::of(entry.value()).expect("the entry holds a hash"),
        }
    }

    /// How many fields it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether it has no fields. If so in the end, the key is removed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field's value.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.as_ref().get(field)
    }

    /// Whether it has the field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Sets a field. Returns whether it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.changed = true;
        if !self.limits.allow_lengths(field, value) {
            self.become_table();
        }
        let most = self.limits.entries;
        let inserted = change_form!(&mut self.place,
            buffer => insert_compact(buffer, field, value, most),
            table => Some(table.insert(field, value))
        );
        inserted.unwrap_or_else(|| self.insert_into_table(field, value))
    }

    /// Removes a field. Returns whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = change_form!(&mut self.place,
            buffer => compact::remove(buffer, field),
            table => table.remove(field)
        );
        self.changed |= removed;
        self.shrunk |= removed;
        removed
    }

    fn insert_into_table(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.become_table();
        change_form!(&mut self.place, _buffer => unreachable!("it is a table"), table => table.insert(field, value))
    }

    #[cold]
    fn become_table(&mut self) {
        if self.as_ref().encoding() == Encoding::Table {
            return;
        }
        let mut table = Box::new(FieldTable::new(self.seed));
        for (field, value) in self.as_ref().iter() {
            table.insert(field, value);
        }
        match &mut self.place {
            HashPlace::New(hash) => **hash = NewHash::Table(table),
            HashPlace::Entry(entry) => entry.overwrite(&entry.meta(), Value::HashTable(table)),
        }
    }
}

/// `None` if that would be more than `most` fields. Otherwise whether the field is new.
#[inline]
fn insert_compact(buffer: &mut impl Buffer, field: &[u8], value: &[u8], most: usize) -> Option<bool> {
    let hash = CompactHash::new(buffer.bytes());
    let len = hash.len();
    if len > most {
        return None;
    }
    let known = hash.locate(field);
    match &known {
        Some(place) => compact::replace(buffer, place, value),
        None if len == most => return None,
        None => compact::append(buffer, field, value),
    }
    Some(known.is_none())
}

/// A hash with these fields, for a fill.
pub(crate) fn hash_of<'p>(
    pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    limits: CompactLimits,
    seed: HashSeed,
) -> NewHash {
    let mut hash = NewHash::new(Vec::new());
    let mut filler = HashMut::of_new(&mut hash, limits, seed);
    for (field, value) in pairs {
        filler.insert(field, value);
    }
    hash
}

#[cfg(test)]
mod tests;
