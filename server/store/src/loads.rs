//! Loads under way, and the fence that their results must pass.
//!
//! **Invariant.** *A fill is stored only if no client has written, deleted or renamed its key, and nobody has flushed
//! or swapped its database, since its load began.* It holds because
//!
//! 1. a load is under way exactly as long as its ticket is registered under its key,
//! 2. whatever changes a key for a client takes the key's tickets away under the same lock, whether or not the key was
//!    there ([`Loads::void`]), and
//! 3. a fill is stored only by handing in a ticket that is still registered ([`Loads::finish`]).
//!
//! Expiry and eviction are not changes: what the origin said is as true after them as before.

use smallvec::SmallVec;

use crate::key::{HashSeed, Key};
use crate::table::{Place, Table};

/// Proof of when a load began, from [`Keyspace::begin_load`](crate::Keyspace::begin_load); to be given back with what
/// was loaded.
#[derive(Debug)]
#[must_use = "a load that is not ended stays registered"]
pub struct Fence {
    ticket: u64,
}

/// The loads under way in one shard.
pub(crate) struct Loads {
    by_key: Table<Box<KeyLoads>>,
    last_ticket: u64,
}

struct KeyLoads {
    db: u16,
    key: Box<[u8]>,
    /// One for each load; nearly always there is one.
    tickets: SmallVec<[u64; 1]>,
}

impl Loads {
    pub(crate) fn new() -> Self {
        Loads { by_key: Table::new(), last_ticket: 0 }
    }

    pub(crate) fn begin(&mut self, key: &Key<'_>, seed: HashSeed) -> Fence {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let known = self.find(key).and_then(|place| self.by_key.at_mut(place));
        match known {
            Some(loads) => loads.tickets.push(ticket),
            None => self.register(key, ticket, seed),
        }
        Fence { ticket }
    }

    /// Ends a load. Returns whether what it read is still good to store.
    pub(crate) fn finish(&mut self, key: &Key<'_>, fence: &Fence) -> bool {
        let Some(place) = self.find(key) else {
            return false;
        };
        let Some(loads) = self.by_key.at_mut(place) else {
            return false;
        };
        let Some(index) = loads.tickets.iter().position(|ticket| *ticket == fence.ticket) else {
            return false;
        };
        loads.tickets.swap_remove(index);
        if loads.tickets.is_empty() {
            self.by_key.remove(place);
        }
        true
    }

    /// Nothing that is being loaded for the key may be stored any more.
    #[inline]
    pub(crate) fn void(&mut self, key: &Key<'_>) {
        if !self.by_key.is_empty() {
            self.void_found(key);
        }
    }

    /// The same for all keys of some databases.
    pub(crate) fn void_databases(&mut self, voided: impl Fn(u16) -> bool, seed: HashSeed) {
        let kept = std::mem::replace(&mut self.by_key, Table::new()).into_records();
        for loads in kept.into_iter().filter(|loads| !voided(loads.db)) {
            self.insert(loads, seed);
        }
    }

    /// How many keys are being loaded.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    #[cold]
    fn void_found(&mut self, key: &Key<'_>) {
        if let Some(place) = self.find(key) {
            self.by_key.remove(place);
        }
    }

    fn register(&mut self, key: &Key<'_>, ticket: u64, seed: HashSeed) {
        let tickets = SmallVec::from([ticket]);
        self.insert(Box::new(KeyLoads { db: key.db(), key: key.bytes().into(), tickets }), seed);
    }

    fn insert(&mut self, loads: Box<KeyLoads>, seed: HashSeed) {
        self.by_key.insert(seed.hash(&loads.key), loads, |other| seed.hash(&other.key));
    }

    fn find(&self, key: &Key<'_>) -> Option<Place> {
        self.by_key.find(key.hash(), |loads| loads.db == key.db() && *loads.key == *key.bytes())
    }
}

#[cfg(test)]
mod tests;
