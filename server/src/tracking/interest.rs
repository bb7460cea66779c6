//! Who is interested in which key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use foldhash::fast::RandomState;
use forebay_cluster::SLOT_COUNT;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::Who;

/// Slots whose interests are one part, with one lock.
const SLOTS_OF_PART: u16 = 64;

/// Those who are interested in one key; most keys are one client's.
pub(super) type Interested = SmallVec<[Who; 2]>;

/// A bounded table by key, whatever its database, as Redis has it.
pub(super) struct Interests {
    parts: Box<[Mutex<Part>]>,
    keys: AtomicUsize,
    /// Of all keys, how many are interested.
    items: AtomicUsize,
    /// The part that the next surplus key is looked for in.
    next: AtomicUsize,
}

type Part = HashMap<Box<[u8]>, Interested, RandomState>;

impl Default for Interests {
    fn default() -> Self {
        let parts = (0..SLOT_COUNT / SLOTS_OF_PART).map(|_| Mutex::default()).collect();
        Interests { parts, keys: AtomicUsize::new(0), items: AtomicUsize::new(0), next: AtomicUsize::new(0) }
    }
}

impl Interests {
    pub(super) fn enter(&self, slot: u16, key: &[u8], who: Who) {
        let mut part = self.part(slot).lock();
        match part.get_mut(key) {
            Some(interested) if interested.contains(&who) => return,
            Some(interested) => interested.push(who),
            None => {
                part.insert(key.into(), SmallVec::from_slice(&[who]));
                self.keys.fetch_add(1, Relaxed);
            }
        }
        self.items.fetch_add(1, Relaxed);
    }

    /// Nobody is interested in the key any more; these were.
    pub(super) fn take(&self, slot: u16, key: &[u8]) -> Interested {
        let interested = self.part(slot).lock().remove(key).unwrap_or_default();
        if !interested.is_empty() {
            self.forget(1, interested.len());
        }
        interested
    }

    /// The same of all keys of one slot. A node that is given other slots asks this of each, so it looks at no other part.
    pub(super) fn take_slot(&self, slot: u16) -> Vec<(Bytes, Interested)> {
        self.take_of(self.part(slot), |other| other == slot)
    }

    /// The same of all keys of some slots.
    pub(super) fn take_slots(&self, are_meant: impl Fn(u16) -> bool) -> Vec<(Bytes, Interested)> {
        self.parts.iter().flat_map(|part| self.take_of(part, &are_meant)).collect()
    }

    fn take_of(&self, part: &Mutex<Part>, are_meant: impl Fn(u16) -> bool) -> Vec<(Bytes, Interested)> {
        let mut taken = Vec::new();
        part.lock().retain(|key, interested| {
            let is_meant = are_meant(forebay_cluster::slot_of(key));
            if is_meant {
                taken.push((Bytes::copy_from_slice(key), std::mem::take(interested)));
            }
            !is_meant
        });
        self.forget(taken.len(), taken.iter().map(|(_, interested)| interested.len()).sum());
        taken
    }

    /// A key beyond so many, 0 for any number.
    pub(super) fn take_surplus(&self, limit: usize) -> Option<(Bytes, Interested)> {
        if limit == 0 || self.keys() <= limit {
            return None;
        }
        for _ in 0..self.parts.len() {
            let mut part = self.parts[self.next.fetch_add(1, Relaxed) % self.parts.len()].lock();
            let some = part.keys().next().cloned();
            if let Some((key, interested)) = some.and_then(|key| part.remove_entry(&key)) {
                self.forget(1, interested.len());
                return Some((Bytes::from(key), interested));
            }
        }
        None
    }

    pub(super) fn clear(&self) {
        self.take_slots(|_| true);
    }

    pub(super) fn keys(&self) -> usize {
        self.keys.load(Relaxed)
    }

    pub(super) fn items(&self) -> usize {
        self.items.load(Relaxed)
    }

    fn part(&self, slot: u16) -> &Mutex<Part> {
        &self.parts[usize::from(slot / SLOTS_OF_PART)]
    }

    fn forget(&self, keys: usize, items: usize) {
        self.keys.fetch_sub(keys, Relaxed);
        self.items.fetch_sub(items, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(interests: &Interests, key: &str, who: u64) {
        interests.enter(forebay_cluster::slot_of(key.as_bytes()), key.as_bytes(), Who(who));
    }

    #[test]
    fn each_is_told_once_and_then_forgotten() {
        let interests = Interests::default();
        for (key, who) in [("a", 1), ("a", 2), ("a", 1), ("b", 1)] {
            enter(&interests, key, who);
        }
        assert_eq!((interests.keys(), interests.items()), (2, 3));
        let slot = forebay_cluster::slot_of(b"a");
        assert_eq!(interests.take(slot, b"a").as_slice(), [Who(1), Who(2)]);
        assert!(interests.take(slot, b"a").is_empty());
        assert_eq!((interests.keys(), interests.items()), (1, 1));
    }

    #[test]
    fn the_keys_of_slots_are_taken_and_no_others() {
        let interests = Interests::default();
        let keys: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
        keys.iter().for_each(|key| enter(&interests, key, 1));
        let is_meant = |slot: u16| slot.is_multiple_of(3);
        let mut taken: Vec<_> = interests.take_slots(is_meant).into_iter().map(|(key, _)| key).collect();
        taken.sort();
        let mut meant: Vec<_> = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        meant.retain(|key| is_meant(forebay_cluster::slot_of(key)));
        meant.sort();
        assert_eq!(taken, meant);
        assert_eq!(interests.keys(), keys.len() - taken.len());
        let left = interests.keys();
        let one_by_one: usize = (0..SLOT_COUNT).map(|slot| interests.take_slot(slot).len()).sum();
        assert_eq!((one_by_one, interests.keys(), interests.items()), (left, 0, 0));
    }

    #[test]
    fn no_more_keys_are_kept_than_are_allowed() {
        let interests = Interests::default();
        for number in 0..100 {
            enter(&interests, &number.to_string(), 1);
            assert!(interests.take_surplus(0).is_none(), "any number is allowed");
        }
        let surplus = std::iter::from_fn(|| interests.take_surplus(30)).count();
        assert_eq!((surplus, interests.keys(), interests.items()), (70, 30, 30));
    }
}
