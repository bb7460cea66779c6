//! Compaction: emptying the allocator's sparse pages.
//!
//! An allocator gives a page back only when nothing is left in it. Where the sizes of values have changed, or many small ones have
//! gone, pages are left with a few blocks in each, and much more memory is occupied than is in use. A compaction goes through all
//! that is stored twice: first it surveys how much of each page is in use; then it moves what lies in the sparsest pages to new
//! blocks, for which the allocator has room in fuller pages. Both go a few entries at a time, with one shard's lock.
//!
//! What is not of the store, such as clients' buffers, is seen as unused. It is not moved, so that now and then a page with such a
//! block is emptied for nothing.

mod density;

use crate::database::Database;
use crate::entry::Entry;
use crate::shard::Shard;
use crate::store::Store;
use density::Density;

/// Entries looked at before the lock is let go.
const LOOKS_PER_LOCK: usize = 64;

/// One compaction, under way.
#[derive(Debug)]
pub struct Compaction {
    phase: Phase,
    /// Bytes of pages that are to become free.
    goal: usize,
    density: Density,
    at: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Survey,
    Move,
    Ended,
}

/// Where the walk through the store stands.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    shard: usize,
    db: u16,
    slot: usize,
    /// In the slot's table.
    cursor: u64,
}

/// What a step of a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStep {
    /// How many entries were looked at.
    pub looked_at: usize,
    /// How many blocks of memory were moved.
    pub moved: usize,
    /// Whether there is more to do.
    pub more: bool,
}

impl Compaction {
    /// A compaction after which at least `goal` bytes of pages are free, if so many can be had.
    pub fn new(goal: usize) -> Self {
        Compaction { phase: Phase::Survey, goal, density: Density::default(), at: Position::default() }
    }

    fn end_phase(&mut self) {
        self.at = Position::default();
        self.phase = match self.phase {
            Phase::Survey if self.density.choose(self.goal) => Phase::Move,
            Phase::Survey | Phase::Move | Phase::Ended => Phase::Ended,
        };
    }
}

impl Store {
    /// Goes on with a compaction for about `budget` entries.
    pub fn compact_step(&self, compaction: &mut Compaction, budget: usize) -> CompactionStep {
        let mut visit = Visit { looked_at: 0, moved: 0, phase: compaction.phase, density: &mut compaction.density };
        while visit.looked_at < budget && compaction.phase != Phase::Ended {
            let at = &mut compaction.at;
            match self.cells().get(at.shard) {
                Some(cell) => {
                    let limit = (visit.looked_at + LOOKS_PER_LOCK).min(budget);
                    if !cell.lock().compact(at, limit, &mut visit) {
                        *at = Position { shard: at.shard + 1, ..Position::default() };
                    }
                }
                None => break,
            }
        }
        let Visit { looked_at, moved, .. } = visit;
        if compaction.at.shard == self.cells().len() {
            compaction.end_phase();
        }
        CompactionStep { looked_at, moved, more: compaction.phase != Phase::Ended }
    }
}

/// A step of a compaction, as those see it whose blocks are visited.
pub(crate) struct Visit<'v> {
    looked_at: usize,
    moved: usize,
    phase: Phase,
    density: &'v mut Density,
}

impl Visit<'_> {
    /// Told of every block of memory that may be moved. Says whether the caller is to move it now.
    pub(crate) fn is_to_move(&mut self, block: *const u8, bytes: usize) -> bool {
        match self.phase {
            Phase::Survey => {
                self.density.note(block, bytes);
                false
            }
            Phase::Move => {
                let moves = self.density.is_chosen(block, bytes);
                self.moved += usize::from(moves);
                moves
            }
            Phase::Ended => false,
        }
    }
}

impl Shard {
    /// Goes on until the limit is reached. Says whether there is more of the shard.
    fn compact(&mut self, at: &mut Position, limit: usize, visit: &mut Visit<'_>) -> bool {
        while at.db < self.database_count() {
            if self.database_mut(at.db).is_some_and(|database| database.compact(at, limit, visit)) {
                return true;
            }
            *at = Position { shard: at.shard, db: at.db + 1, ..Position::default() };
        }
        false
    }
}

impl Database {
    fn compact(&mut self, at: &mut Position, limit: usize, visit: &mut Visit<'_>) -> bool {
        while at.slot < self.slots() {
            if visit.looked_at >= limit {
                return true;
            }
            at.cursor = self.table_mut(at.slot).compact(at.cursor, visit, |entry: &mut Entry, visit| {
                visit.looked_at += 1;
                entry.compact(visit);
            });
            if at.cursor == 0 {
                at.slot += 1;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
