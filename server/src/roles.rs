//! What this node is to each slot.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use forebay_cluster::SLOT_COUNT;
use forebay_store::Keyspace;

/// What a node is to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// Its owner, and there is no other node.
    Owned = 0,
    /// Its owner, as long as the lease lasts, who tells the holders of copies of every effect.
    Shared = 1,
    /// Its owner until it is another: nothing may be done with it meanwhile.
    Frozen = 2,
    /// One that holds a copy.
    Replica = 3,
    /// None of these.
    Away = 4,
}

/// The role in each slot.
///
/// **Invariant.** *A role changes only while the slot's shard is locked.* So what is looked at under the lock holds for the whole run, and
/// nothing can be written to a slot after it was handed over. Looked at without the lock, it is a hint where to send a request.
pub struct Roles {
    by_slot: Box<[AtomicU8]>,
}

impl Roles {
    /// The same in every slot.
    pub fn all(role: Role) -> Roles {
        Roles { by_slot: (0..SLOT_COUNT).map(|_| AtomicU8::new(role as u8)).collect() }
    }

    /// # Panics
    /// When there is no such slot.
    #[inline]
    pub fn get(&self, slot: u16) -> Role {
        match self.by_slot[usize::from(slot)].load(Relaxed) {
            0 => Role::Owned,
            1 => Role::Shared,
            2 => Role::Frozen,
            3 => Role::Replica,
            _ => Role::Away,
        }
    }

    /// Whether this node owns the slot and is alone: the only thing that a node that is alone asks.
    #[inline]
    pub fn is_owned_alone(&self, slot: u16) -> bool {
        self.by_slot[usize::from(slot)].load(Relaxed) == Role::Owned as u8
    }

    /// `_locked` holds the lock of the slot's shard.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn set(&self, _locked: &mut Keyspace<'_>, slot: u16, role: Role) {
        self.by_slot[usize::from(slot)].store(role as u8, Relaxed);
    }
}

impl Role {
    /// Whether the slot is this node's, be it that it changes hands just now.
    pub fn owns(self) -> bool {
        self.serves() || self == Role::Frozen
    }

    /// Whether requests are answered from the slot here.
    pub fn serves(self) -> bool {
        matches!(self, Role::Owned | Role::Shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_store::{Store, StoreConfig};

    #[test]
    fn a_role_is_what_was_set() {
        let (store, roles) = (Store::new(StoreConfig::default()), Roles::all(Role::Owned));
        for role in [Role::Away, Role::Replica, Role::Frozen, Role::Shared, Role::Owned] {
            roles.set(&mut store.lock(7, 0), 7, role);
            assert_eq!(roles.get(7), role);
            assert_eq!(roles.is_owned_alone(7), role == Role::Owned);
            assert!(roles.is_owned_alone(8));
        }
    }
}
