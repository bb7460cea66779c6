//! Which groups were called in, and how far slots were looked through for that.
//!
//! What was loaded before tells so by its definition. What a client has touched since (`HSET` on a hash that was loaded) has none, and is as
//! old as what it was made of; so of these groups it goes as well, and of no others. A slot is looked through once for each time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use forebay_cluster::SLOT_COUNT;
use forebay_store::Keyspace;
use parking_lot::Mutex;

/// What was called in at this node.
pub(super) struct CalledIn {
    /// How often what a group has loaded was called in, as it was agreed on; `None` until anything is known of that.
    generations: Mutex<Option<HashMap<String, u16>>>,
    times: ArcSwap<Times>,
    /// By slot, up to which time it was looked through.
    looked_through: Box<[AtomicU64]>,
}

/// Times are counted, from 1.
#[derive(Clone, Default)]
struct Times {
    last: u64,
    by_group: HashMap<String, u64>,
}

impl CalledIn {
    /// The groups that were called in since the last time that it was asked. The first time that is none: nothing is here from before.
    pub(super) fn news(&self, generations: &HashMap<String, u16>) -> Vec<String> {
        let former = self.generations.lock().replace(generations.clone());
        let Some(former) = former else { return Vec::new() };
        let is_news = |(group, times): &(&String, &u16)| former.get(*group) != Some(*times);
        generations.iter().filter(is_news).map(|(group, _)| group.clone()).collect()
    }

    /// What there is of these groups is to go. To be told when nothing is loaded by their former generations any more, and before slots are made suspect.
    pub(super) fn note(&self, groups: impl IntoIterator<Item = String>) {
        let mut times = Times::clone(&self.times.load());
        times.last += 1;
        let last = times.last;
        times.by_group.extend(groups.into_iter().map(|group| (group, last)));
        self.times.store(times.into());
    }

    /// Whether what a client has touched may be from before its group was called in.
    pub(super) fn concerns(&self, slot: u16, group: &str) -> bool {
        let times = self.times.load();
        times.by_group.get(group).is_some_and(|time| *time > self.looked_through[usize::from(slot)].load(Relaxed))
    }

    /// To be remembered when a slot begins to be looked through.
    pub(super) fn last(&self) -> u64 {
        self.times.load().last
    }

    /// The slot was looked through by somebody who began at that time. `_locked` holds the lock of the slot's shard.
    pub(super) fn looked_through(&self, _locked: &mut Keyspace<'_>, slot: u16, time: u64) {
        self.looked_through[usize::from(slot)].fetch_max(time, Relaxed);
    }
}

impl Default for CalledIn {
    fn default() -> Self {
        CalledIn {
            generations: Mutex::default(),
            times: ArcSwap::default(),
            looked_through: (0..SLOT_COUNT).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use forebay_store::{Store, StoreConfig};

    use super::*;

    fn generations(groups: &[(&str, u16)]) -> HashMap<String, u16> {
        groups.iter().map(|(group, times)| ((*group).to_owned(), *times)).collect()
    }

    #[test]
    fn what_was_called_in_before_the_start_is_no_news() {
        let called_in = CalledIn::default();
        assert!(called_in.news(&generations(&[("a", 3)])).is_empty());
        assert!(called_in.news(&generations(&[("a", 3)])).is_empty());
        assert_eq!(called_in.news(&generations(&[("a", 3), ("b", 1)])), ["b"]);
        assert_eq!(called_in.news(&generations(&[("a", 4), ("b", 1)])), ["a"]);
    }

    #[test]
    fn each_time_concerns_its_groups_until_a_slot_was_looked_through() {
        let (called_in, store) = (CalledIn::default(), Store::new(StoreConfig::default()));
        assert!(!called_in.concerns(7, "a"));
        called_in.note(["a".to_owned()]);
        let began = called_in.last();
        called_in.note(["b".to_owned()]);
        assert!(called_in.concerns(7, "a") && called_in.concerns(7, "b") && !called_in.concerns(7, "c"));
        called_in.looked_through(&mut store.lock(7, 0), 7, began);
        assert!(!called_in.concerns(7, "a") && called_in.concerns(7, "b") && called_in.concerns(8, "a"));
        called_in.looked_through(&mut store.lock(7, 0), 7, called_in.last());
        assert!(!called_in.concerns(7, "b"));
    }
}
