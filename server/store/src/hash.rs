//! Hashes: maps of fields to values under one key.

mod compact;
mod fields;

use crate::allocation::allocated_size;
use crate::key::HashSeed;
use crate::object_type::Encoding;
use crate::settings::Settings;
use compact::CompactHash;
use fields::FieldTable;

/// A hash is one buffer while it is small and a table from then on; it never goes back.
pub(crate) enum Hash {
    Compact(CompactHash),
    Table(FieldTable),
}

/// Both encodings answer alike: `$hash` is matched and `$each` evaluated with the one that it is.
macro_rules! either {
    ($hash:expr, $each:ident => $answer:expr) => {
        match $hash {
            Hash::Compact($each) => $answer,
            Hash::Table($each) => $answer,
        }
    };
}

impl Hash {
    pub(crate) fn new() -> Self {
        Hash::Compact(CompactHash::new())
    }

    pub(crate) fn len(&self) -> usize {
        either!(self, hash => hash.len())
    }

    pub(crate) fn is_large(&self) -> bool {
        matches!(self, Hash::Table(_))
    }

    pub(crate) fn duplicate(&self) -> Hash {
        match self {
            Hash::Compact(hash) => Hash::Compact(hash.clone()),
            Hash::Table(hash) => Hash::Table(hash.duplicate()),
        }
    }

    /// The bytes that it takes, estimated from `samples` fields where each has an allocation of its own; all of them
    /// for `None`.
    pub(crate) fn allocated(&self, samples: Option<usize>) -> usize {
        let inner = match self {
            Hash::Compact(hash) => hash.allocated(),
            Hash::Table(hash) => hash.allocated(samples),
        };
        allocated_size(size_of::<Hash>()) + inner
    }

    fn become_table(&mut self, seed: HashSeed) {
        if let Hash::Compact(compact) = self {
            let mut table = FieldTable::new(seed);
            for (field, value) in compact.iter() {
                table.insert(field, value);
            }
            *self = Hash::Table(table);
        }
    }
}

/// A hash in the store.
#[derive(Clone, Copy)]
pub struct HashRef<'a> {
    hash: &'a Hash,
}

impl<'a> HashRef<'a> {
    pub(crate) fn new(hash: &'a Hash) -> Self {
        HashRef { hash }
    }

    /// How many fields it has; never 0 for one that is stored.
    pub fn len(&self) -> usize {
        self.hash.len()
    }

    /// Whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field's value.
    pub fn get(&self, field: &[u8]) -> Option<&'a [u8]> {
        either!(self.hash, hash => hash.get(field))
    }

    /// Whether it has the field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// All fields with their values: in the order in which they were first set while the hash is compact, in no order
    /// otherwise.
    pub fn iter(&self) -> Pairs<'a> {
        Pairs(match self.hash {
            Hash::Compact(hash) => EitherPairs::Compact(hash.iter()),
            Hash::Table(hash) => EitherPairs::Table(Box::new(hash.iter())),
        })
    }

    /// A field picked at random with its value; `draw` is 64 random bits. `None` if there is none.
    pub fn random(&self, draw: u64) -> Option<(&'a [u8], &'a [u8])> {
        either!(self.hash, hash => hash.random(draw))
    }

    /// Visits some fields, about `count`, and says where to go on: 0 when all have been visited. A scan starts at 0. A
    /// field that is there from the start of a scan to its end is visited at least once. Compact hashes are visited
    /// whole.
    pub fn scan(&self, cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        match self.hash {
            Hash::Compact(hash) => {
                hash.iter().for_each(|(field, value)| visit(field, value));
                0
            }
            Hash::Table(hash) => hash.scan(cursor, count, visit),
        }
    }

    /// What `OBJECT ENCODING` says.
    pub fn encoding(&self) -> Encoding {
        match self.hash {
            Hash::Compact(_) => Encoding::Compact,
            Hash::Table(_) => Encoding::Table,
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

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            EitherPairs::Compact(pairs) => pairs.next(),
            EitherPairs::Table(pairs) => pairs.next(),
        }
    }
}

/// A hash being changed, by [`Keyspace::update_hash`](crate::Keyspace::update_hash).
pub struct HashMut<'a> {
    hash: &'a mut Hash,
    limits: CompactLimits,
    seed: HashSeed,
    changed: bool,
}

/// Up to where a hash stays compact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CompactLimits {
    entries: usize,
    value: usize,
}

impl CompactLimits {
    pub(crate) fn from_settings(settings: &Settings) -> Self {
        CompactLimits { entries: settings.hash_max_compact_entries(), value: settings.hash_max_compact_value() }
    }

    fn allow(self, len: usize, field: &[u8], value: &[u8]) -> bool {
        len <= self.entries && field.len() <= self.value && value.len() <= self.value
    }
}

impl<'a> HashMut<'a> {
    pub(crate) fn new(hash: &'a mut Hash, limits: CompactLimits, seed: HashSeed) -> Self {
        HashMut { hash, limits, seed, changed: false }
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The same hash, for reading.
    pub fn as_ref(&self) -> HashRef<'_> {
        HashRef::new(self.hash)
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        self.hash.len()
    }

    /// Whether it has no fields. If so in the end, the key is removed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The field's value.
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
        if !self.limits.allow(self.len(), field, value) {
            self.hash.become_table(self.seed);
        }
        let is_new = either!(self.hash, hash => hash.insert(field, value));
        if !self.limits.allow(self.len(), field, value) {
            self.hash.become_table(self.seed);
        }
        is_new
    }

    /// Removes a field. Returns whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let removed = either!(self.hash, hash => hash.remove(field));
        self.changed |= removed;
        removed
    }
}

/// A hash with these fields, for a fill.
pub(crate) fn hash_of<'p>(
    pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>,
    limits: CompactLimits,
    seed: HashSeed,
) -> Hash {
    let mut hash = Hash::new();
    let mut filler = HashMut::new(&mut hash, limits, seed);
    for (field, value) in pairs {
        filler.insert(field, value);
    }
    hash
}

#[cfg(test)]
mod tests;
