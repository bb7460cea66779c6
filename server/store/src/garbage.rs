//! What was taken out of the store and is yet to be freed.

use crate::database::Database;
use crate::entry::Entry;
use crate::table::Table;

/// Values that were removed under a lock. Dropping this frees them, which takes time for large ones: drop it after the
/// locks, or on another thread.
#[derive(Default)]
#[must_use = "dropping it frees memory, which may take long"]
pub struct Garbage {
    /// Nothing nearly always, which must cost nothing.
    removed: Option<Box<Heap>>,
}

#[derive(Default)]
struct Heap {
    removed: Vec<Removed>,
}

enum Removed {
    Entry(Entry),
    Database(Box<Database>),
    Slot(Box<Table<Entry>>),
}

/// Freeing so many bytes gives their pages back to the system, which takes a tenth of a millisecond and more.
const HEAVY: usize = 1024 * 1024;

/// Freeing so many entries takes as long.
const MANY: usize = 1024;

impl Heap {
    #[cold]
    fn is_heavy(&self) -> bool {
        self.removed.iter().any(|removed| match removed {
            Removed::Entry(entry) => entry.allocated(Some(1)) >= HEAVY,
            Removed::Database(_) => true,
            Removed::Slot(table) => table.len() >= MANY,
        })
    }
}

impl Garbage {
    /// Keeps a large entry for later and frees a small one at once, which is cheaper than keeping it.
    pub(crate) fn add(&mut self, entry: Entry) {
        if entry.is_large() {
            self.push(Removed::Entry(entry));
        }
    }

    pub(crate) fn add_database(&mut self, database: Database) {
        self.push(Removed::Database(Box::new(database)));
    }

    pub(crate) fn add_table(&mut self, table: Table<Entry>) {
        self.push(Removed::Slot(Box::new(table)));
    }

    /// How many values there are to free, of those that were not cheaper to free at once.
    pub fn len(&self) -> usize {
        self.removed.iter().flat_map(|heap| &heap.removed).map(Removed::len).sum()
    }

    /// Whether there is nothing to free.
    pub fn is_empty(&self) -> bool {
        self.removed.is_none()
    }

    /// Whether freeing it takes so long that others should not wait for it.
    #[inline]
    pub fn is_heavy(&self) -> bool {
        self.removed.as_ref().is_some_and(|heap| heap.is_heavy())
    }

    #[cold]
    fn push(&mut self, removed: Removed) {
        self.removed.get_or_insert_default().removed.push(removed);
    }
}

impl Drop for Garbage {
    #[inline]
    fn drop(&mut self) {
        if let Some(heap) = self.removed.take() {
            free(heap);
        }
    }
}

#[cold]
fn free(heap: Box<Heap>) {
    drop(heap);
}

impl Removed {
    fn len(&self) -> usize {
        match self {
            Removed::Entry { .. } => 1,
            Removed::Database(database) => database.tally().keys,
            Removed::Slot(table) => table.len(),
        }
    }
}
