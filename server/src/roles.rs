//! What this node is to each slot, and which slots may hold what was loaded by groups that are no more.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

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
///
/// Beside the role stands whether the slot is *suspect* ([`crate::groups`]), for which the same holds. It is in the same byte so that a
/// request of an ordinary slot has nothing more to look at.
pub struct Roles {
    by_slot: Box<[AtomicU8]>,
    /// How often a slot has become suspect.
    suspicions: AtomicU64,
}

/// The bit of a suspect slot.
const SUSPECT: u8 = 0x80;

impl Roles {
    /// The same in every slot.
    pub fn all(role: Role) -> Roles {
        Roles { by_slot: (0..SLOT_COUNT).map(|_| AtomicU8::new(role as u8)).collect(), suspicions: AtomicU64::new(0) }
    }

    /// # Panics
    /// When there is no such slot.
    #[inline]
    pub fn get(&self, slot: u16) -> Role {
        match self.by_slot[usize::from(slot)].load(Relaxed) & !SUSPECT {
            0 => Role::Owned,
            1 => Role::Shared,
            2 => Role::Frozen,
            3 => Role::Replica,
            _ => Role::Away,
        }
    }

    /// Whether this node owns the slot, is alone, and the slot is not suspect: the only thing that a node that is alone asks.
    #[inline]
    pub fn is_owned_alone(&self, slot: u16) -> bool {
        self.by_slot[usize::from(slot)].load(Relaxed) == Role::Owned as u8
    }

    /// `_locked` holds the lock of the slot's shard.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn set(&self, _locked: &mut Keyspace<'_>, slot: u16, role: Role) {
        let byte = &self.by_slot[usize::from(slot)];
        byte.store(role as u8 | byte.load(Relaxed) & SUSPECT, Relaxed);
    }

    /// Whether the slot may hold what was loaded by groups that are no more.
    #[inline]
    pub fn is_suspect(&self, slot: u16) -> bool {
        self.by_slot[usize::from(slot)].load(Relaxed) & SUSPECT != 0
    }

    /// From now on the slot is suspect. `_locked` as with [`Self::set`].
    pub fn suspect(&self, _locked: &mut Keyspace<'_>, slot: u16) {
        self.suspicions.fetch_add(1, Relaxed);
        self.by_slot[usize::from(slot)].fetch_or(SUSPECT, Relaxed);
    }

    /// The slot was looked through. `_locked` as with [`Self::set`].
    pub fn clear(&self, _locked: &mut Keyspace<'_>, slot: u16) {
        self.by_slot[usize::from(slot)].fetch_and(!SUSPECT, Relaxed);
    }

    /// How often a slot has become suspect: seen to have stayed the same under the lock of a slot, that slot has not become so.
    pub fn suspicions(&self) -> u64 {
        self.suspicions.load(Relaxed)
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

    #[test]
    fn a_slot_is_suspect_whatever_its_role_until_it_is_cleared() {
        let (store, roles) = (Store::new(StoreConfig::default()), Roles::all(Role::Owned));
        roles.suspect(&mut store.lock(7, 0), 7);
        assert!(roles.is_suspect(7) && !roles.is_suspect(8) && !roles.is_owned_alone(7));
        for role in [Role::Shared, Role::Frozen, Role::Away, Role::Owned] {
            roles.set(&mut store.lock(7, 0), 7, role);
            assert_eq!((roles.get(7), roles.is_suspect(7)), (role, true));
        }
        roles.clear(&mut store.lock(7, 0), 7);
        assert!(roles.is_owned_alone(7) && roles.suspicions() == 1);
    }
}
