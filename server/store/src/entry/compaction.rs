//! Moving an entry, and what it owns, to other places in memory.

use super::{Entry, Value, ValueMut};
use crate::allocation::allocated_size;
use crate::compaction::Visit;
use crate::hash::FieldTable;
use crate::string::BigString;

impl Entry {
    /// Moves those of its blocks of memory that are to be moved.
    pub(crate) fn compact(&mut self, visit: &mut Visit<'_>) {
        match self.value_mut() {
            ValueMut::Plain | ValueMut::CompactHash(_) => {}
            ValueMut::Big(string) => {
                string.compact(visit);
                self.compact_object(size_of::<BigString>(), visit);
            }
            ValueMut::HashTable(table) => {
                table.compact(visit);
                self.compact_object(size_of::<FieldTable>(), visit);
            }
        }
        if visit.is_to_move(self.start.as_ptr(), self.shape().allocated()) {
            self.move_shell();
        }
    }

    /// Moves the entry's own block.
    fn move_shell(&mut self) {
        let shape = self.shape();
        let mut moved = Entry::allocate(&shape);
        moved.put(0, self.slice(0, shape.end()));
        // The object has moved with the value.
        std::mem::replace(self, moved).free_shell();
    }

    /// Moves the box of the entry's object, which has so many bytes.
    fn compact_object(&mut self, bytes: usize, visit: &mut Visit<'_>) {
        let at = self.value_at(self.head());
        let object = std::ptr::without_provenance(usize::from_le_bytes(self.array(at)));
        if !visit.is_to_move(object, allocated_size(bytes)) {
            return;
        }
        // SAFETY: the object's new box takes its place at once.
        match unsafe { self.take_object() } {
            Some(Value::Big(string)) => self.put_object(at, Box::new(*string)),
            Some(Value::HashTable(table)) => self.put_object(at, Box::new(*table)),
            _ => unreachable!("these are the objects"),
        }
    }
}
