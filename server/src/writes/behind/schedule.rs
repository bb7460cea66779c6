//! When the database is told of which key.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Pending keys, by when they are due.
#[derive(Default)]
pub(super) struct Schedule {
    by_key: HashMap<Bytes, Planned>,
    /// Those that are not being written.
    by_time: BTreeMap<(Instant, u64), Bytes>,
    /// Slots that have come to this node: what their former owners have sent may arrive until then, and nothing of theirs is due before.
    held_back: HashMap<u16, Instant>,
    bytes: u64,
    last_number: u64,
}

struct Planned {
    /// `None` while it is being written.
    at: Option<(Instant, u64)>,
    since: Instant,
    bytes: u64,
}

impl Schedule {
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How long the key has waited that has waited longest.
    pub(super) fn oldest(&self) -> Duration {
        self.by_key.values().map(|planned| planned.since.elapsed()).max().unwrap_or_default()
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.by_key.contains_key(key)
    }

    /// The key is pending with so many bytes. One that is planned keeps its time.
    pub(super) fn add(&mut self, key: Bytes, bytes: u64, at: Instant) {
        let number = self.next_number();
        self.bytes += bytes;
        match self.by_key.get_mut(&key) {
            Some(planned) => {
                self.bytes -= planned.bytes;
                planned.bytes = bytes;
            }
            None => {
                let at = (at, number);
                self.by_time.insert(at, key.clone());
                self.by_key.insert(key, Planned { at: Some(at), since: Instant::now(), bytes });
            }
        }
    }

    /// No key of the slot is due before that, whatever it is planned for: those that come, those that are there since the slot was this node's
    /// before, and those in a hurry.
    pub(super) fn hold_back(&mut self, slot: u16, until: Instant) {
        self.held_back.insert(slot, until);
    }

    /// Takes up to `most` keys that are due, in their order; each is to be given to [`Self::done`] or [`Self::again`].
    pub(super) fn take_due(&mut self, now: Instant, most: usize) -> Vec<Bytes> {
        if self.held_back.values().all(|until| *until <= now) {
            self.held_back.clear();
        }
        let mut due = Vec::new();
        while due.len() < most {
            let Some(first) = self.by_time.first_entry().filter(|first| first.key().0 <= now) else { break };
            let number = first.key().1;
            let key = first.remove();
            let held_until = self.held_until(&key).filter(|until| *until > now);
            let at = held_until.map(|until| (until, number));
            if let Some(planned) = self.by_key.get_mut(&key) {
                planned.at = at;
            }
            match at {
                Some(at) => drop(self.by_time.insert(at, key)),
                None => due.push(key),
            }
        }
        due
    }

    fn held_until(&self, key: &[u8]) -> Option<Instant> {
        match self.held_back.is_empty() {
            true => None,
            false => self.held_back.get(&forebay_cluster::slot_of(key)).copied(),
        }
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first_key_value().map(|((at, _), _)| *at)
    }

    /// Nothing is pending for the key any more.
    pub(super) fn done(&mut self, key: &[u8]) {
        if let Some(planned) = self.by_key.remove(key) {
            self.bytes -= planned.bytes;
            planned.at.map(|at| self.by_time.remove(&at));
        }
    }

    /// The key is to be written at that time, for something is still pending.
    pub(super) fn again(&mut self, key: Bytes, at: Instant) {
        let number = self.next_number();
        if let Some(planned) = self.by_key.get_mut(&key).filter(|planned| planned.at.is_none()) {
            planned.at = Some((at, number));
            self.by_time.insert((at, number), key);
        }
    }

    /// All are due now.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        for ((_, number), key) in std::mem::take(&mut self.by_time) {
            if let Some(planned) = self.by_key.get_mut(&key) {
                planned.at = Some((now, number));
            }
            self.by_time.insert((now, number), key);
        }
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the former owner of a slot has sent to the database may still be on its way: a new write of the same key must come behind it.
    #[test]
    fn nothing_of_a_slot_that_has_come_is_due_before_its_time() {
        let (begin, mut schedule) = (Instant::now(), Schedule::default());
        let at = |millis| begin + Duration::from_millis(millis);
        let key = |name: &'static str| Bytes::from_static(name.as_bytes());
        schedule.add(key("{a}before"), 1, at(100));
        schedule.hold_back(forebay_cluster::slot_of(b"a"), at(1_000));
        schedule.add(key("{a}new"), 1, at(300));
        schedule.add(key("{b}"), 1, at(400));
        assert_eq!(schedule.take_due(at(999), 9), [key("{b}")]);
        assert_eq!(schedule.next(), Some(at(1_000)));
        schedule.hurry();
        assert!(schedule.take_due(at(999), 9).is_empty(), "a hurry is no excuse");
        assert_eq!(schedule.take_due(at(1_000), 9), [key("{a}before"), key("{a}new")]);
        schedule.again(key("{a}new"), at(1_001));
        assert_eq!(schedule.take_due(at(1_001), 9), [key("{a}new")]);
    }

    proptest! {
        /// Every pending key is either planned once or being written, and none is lost.
        #[test]
        fn no_key_is_lost_and_none_is_written_twice_at_a_time(steps in prop::collection::vec((0_u8..5, 0_u8..6), 1..100)) {
            let begin = Instant::now();
            let mut schedule = Schedule::default();
            let mut pending = std::collections::BTreeMap::new();
            let mut written = std::collections::BTreeSet::new();
            for (time, (step, name)) in (0..).zip(steps) {
                let (key, at) = (Bytes::from(vec![name]), begin + Duration::from_millis(time));
                match step {
                    0..2 => {
                        schedule.add(key.clone(), u64::from(step) + 1, at);
                        pending.insert(key, u64::from(step) + 1);
                    }
                    2 => for key in schedule.take_due(at, 2) {
                        prop_assert!(pending.contains_key(&key) && written.insert(key), "it is not to be written");
                    },
                    3 => if let Some(key) = written.pop_first() {
                        schedule.done(&key);
                        pending.remove(&key);
                    },
                    _ => if let Some(key) = written.pop_first() {
                        schedule.again(key, at);
                    },
                }
                prop_assert_eq!(schedule.len(), pending.len());
                prop_assert_eq!(schedule.bytes(), pending.values().sum::<u64>());
                prop_assert_eq!(schedule.by_time.len(), pending.len() - written.len());
            }
            let left = schedule.take_due(begin + Duration::from_secs(60), usize::MAX);
            prop_assert_eq!(left.len() + written.len(), pending.len());
        }
    }
}
