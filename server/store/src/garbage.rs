//! What was taken out of the store and is yet to be freed.

use crate::database::Database;
use crate::entry::Entry;

/// Values that were removed under a lock. Dropping this frees them, which takes time for large ones: drop it after the
/// locks, or on another thread.
#[derive(Default)]
#[must_use = "dropping it frees memory, which may take long"]
pub struct Garbage {
    entries: Vec<Entry>,
    databases: Vec<Database>,
}

impl Garbage {
    /// Keeps a large entry for later and frees a small one at once, which is cheaper than keeping it.
    pub(crate) fn add(&mut self, entry: Entry) {
        if entry.is_large() {
            self.entries.push(entry);
        }
    }

    pub(crate) fn add_database(&mut self, database: Database) {
        self.databases.push(database);
    }

    /// How many values there are to free, of those that were not cheaper to free at once.
    pub fn len(&self) -> usize {
        let in_databases = self.databases.iter().map(|database| database.tally().keys);
        self.entries.len() + in_databases.sum::<usize>()
    }

    /// Whether there is nothing to free.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.databases.is_empty()
    }
}
