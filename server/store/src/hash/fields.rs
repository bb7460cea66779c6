//! A large hash: a table of records, each a field with its value in one allocation.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::allocation::allocated_size;
use crate::compaction::Visit;
use crate::key::HashSeed;
use crate::same_bytes::same_bytes;
use crate::table::Table;
use crate::varint::{decode_varint, encode_varint};

pub(crate) struct FieldTable {
    table: Table<FieldRecord>,
    seed: HashSeed,
}

impl FieldTable {
    pub(crate) fn new(seed: HashSeed) -> Self {
        FieldTable { table: Table::new(), seed }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        let place = self.table.find(self.seed.hash(field), |record| same_bytes(record.field(), field))?;
        self.table.at(place).map(FieldRecord::value)
    }

    pub(crate) fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        let hash = self.seed.hash(field);
        let known = self.table.find(hash, |record| same_bytes(record.field(), field));
        if let Some(record) = known.and_then(|place| self.table.at_mut(place)) {
            *record = FieldRecord::new(field, value);
            return false;
        }
        let seed = self.seed;
        self.table.insert(hash, FieldRecord::new(field, value), |record| seed.hash(record.field()));
        true
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let place = self.table.find(self.seed.hash(field), |record| same_bytes(record.field(), field));
        place.and_then(|place| self.table.remove(place)).is_some()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.table.iter().map(FieldRecord::pair)
    }

    pub(super) fn random(&self, draw: u64) -> Option<(&[u8], &[u8])> {
        self.table.random(draw).map(FieldRecord::pair)
    }

    pub(super) fn scan(&self, mut cursor: u64, count: usize, visit: &mut dyn FnMut(&[u8], &[u8])) -> u64 {
        let mut visited = 0;
        loop {
            cursor = self.table.scan(cursor, |record| {
                visited += 1;
                visit(record.field(), record.value());
            });
            if cursor == 0 || visited >= count {
                return cursor;
            }
        }
    }

    pub(crate) fn duplicate(&self) -> FieldTable {
        let mut copy = FieldTable::new(self.seed);
        for (field, value) in self.iter() {
            copy.insert(field, value);
        }
        copy
    }

    /// The bytes that it takes, estimated from `samples` fields; all of them for `None`.
    pub(crate) fn allocated(&self, samples: Option<usize>) -> usize {
        let looked_at = samples.unwrap_or(usize::MAX).clamp(1, self.len().max(1));
        let sampled: usize = self.table.iter().take(looked_at).map(FieldRecord::allocated).sum();
        allocated_size(size_of::<FieldTable>()) + self.table.allocated() + sampled * self.len() / looked_at
    }
}

/// The fields of a larger table stay where they are: to go through them takes too long under a lock.
const MOST_COMPACTED: usize = 512;

impl FieldTable {
    /// Moves those of its blocks of memory that are to be moved.
    pub(crate) fn compact(&mut self, visit: &mut Visit<'_>) {
        if self.len() > MOST_COMPACTED {
            return;
        }
        let mut cursor = 0;
        loop {
            cursor = self.table.compact(cursor, visit, |record, visit| {
                if visit.is_to_move(record.start.as_ptr(), record.allocated()) {
                    *record = FieldRecord::new(record.field(), record.value());
                }
            });
            if cursor == 0 {
                return;
            }
        }
    }
}

/// Two varints, the field, the value.
struct FieldRecord {
    start: NonNull<u8>,
}

// SAFETY: a record owns its bytes.
unsafe impl Send for FieldRecord {}
// SAFETY: a record is never changed.
unsafe impl Sync for FieldRecord {}

impl FieldRecord {
    fn new(field: &[u8], value: &[u8]) -> Self {
        let (field_len, field_len_len) = encode_varint(length(field));
        let (value_len, value_len_len) = encode_varint(length(value));
        let parts = [&field_len[..field_len_len], &value_len[..value_len_len], field, value];
        let layout = layout_for(parts.iter().map(|part| part.len()).sum());
        // SAFETY: there are two varints, so the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let mut at = start;
        for part in parts {
            // SAFETY: the allocation has room for all the parts, one after the other.
            unsafe {
                at.copy_from_nonoverlapping(NonNull::from(part).cast(), part.len());
                at = at.add(part.len());
            }
        }
        FieldRecord { start }
    }

    fn field(&self) -> &[u8] {
        self.pair().0
    }

    fn value(&self) -> &[u8] {
        self.pair().1
    }

    fn pair(&self) -> (&[u8], &[u8]) {
        let (field_at, field_len, value_len) = self.lengths();
        self.bytes(field_at, field_len + value_len).split_at(field_len)
    }

    fn allocated(&self) -> usize {
        self.layout().size()
    }

    fn layout(&self) -> Layout {
        let (field_at, field_len, value_len) = self.lengths();
        layout_for(field_at + field_len + value_len)
    }

    /// Where the field begins, its length and its value's.
    fn lengths(&self) -> (usize, usize, usize) {
        let (field_len, field_taken) = decode_varint(|at| self.bytes(at, 1)[0]);
        let (value_len, value_taken) = decode_varint(|at| self.bytes(field_taken + at, 1)[0]);
        (field_taken + value_taken, field_len as usize, value_len as usize)
    }

    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: callers stay within what `new` wrote.
        unsafe { std::slice::from_raw_parts(self.start.add(at).as_ptr(), len) }
    }
}

impl Drop for FieldRecord {
    fn drop(&mut self) {
        let layout = self.layout();
        // SAFETY: `start` was allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), layout) };
    }
}

fn layout_for(len: usize) -> Layout {
    Layout::from_size_align(allocated_size(len), 1).expect("a record is far smaller than the address space")
}

fn length(text: &[u8]) -> u32 {
    u32::try_from(text.len()).expect("a field or value is far shorter than 4 GiB")
}
