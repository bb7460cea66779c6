//! A set of slots.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::slot::SLOT_COUNT;

const WORD_BITS: u16 = u64::BITS as u16;
const WORDS: usize = (SLOT_COUNT / WORD_BITS) as usize;

/// A set of slots: two kilobytes in memory. Serialized, it is runs of slots that follow one another.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    words: Box<[u64; WORDS]>,
}

/// So many slots that are not in the set, and then so many that are.
type Run = (u16, u16);

impl SlotSet {
    /// Nothing.
    pub fn new() -> SlotSet {
        SlotSet { words: Box::new([0; WORDS]) }
    }

    /// Every slot.
    pub fn all() -> SlotSet {
        SlotSet { words: Box::new([u64::MAX; WORDS]) }
    }

    /// Adds a slot; false if it was there.
    ///
    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub fn insert(&mut self, slot: u16) -> bool {
        let is_new = !self.contains(slot);
        self.words[word(slot)] |= bit(slot);
        is_new
    }

    /// Takes a slot out; false if it was not there.
    pub fn remove(&mut self, slot: u16) -> bool {
        let was_there = self.contains(slot);
        if was_there {
            self.words[word(slot)] &= !bit(slot);
        }
        was_there
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: u16) -> bool {
        self.words.get(word(slot)).is_some_and(|word| word & bit(slot) != 0)
    }

    /// How many slots are in the set.
    pub fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The slots in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..).zip(self.words.iter()).flat_map(|(index, word)| bits(*word).map(move |bit| index * WORD_BITS + bit))
    }

    /// First and last of each run of slots, in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        let mut slots = self.iter().peekable();
        std::iter::from_fn(move || {
            let first = slots.next()?;
            let mut last = first;
            while slots.next_if(|slot| *slot == last + 1).is_some() {
                last += 1;
            }
            Some((first, last))
        })
    }

    fn runs(&self) -> impl Iterator<Item = Run> {
        let mut behind = 0;
        self.ranges().map(move |(first, last)| {
            let run = (first - behind, last - first + 1);
            behind = last + 1;
            run
        })
    }

    /// `None` if a run leads beyond the last slot.
    fn from_runs(runs: Vec<Run>) -> Option<SlotSet> {
        let (mut set, mut behind) = (SlotSet::new(), 0);
        for (gap, length) in runs {
            let first = behind + u32::from(gap);
            behind = first + u32::from(length);
            if behind > u32::from(SLOT_COUNT) {
                return None;
            }
            // Both are at most SLOT_COUNT.
            set.extend(first as u16..behind as u16);
        }
        Some(set)
    }
}

fn word(slot: u16) -> usize {
    usize::from(slot / WORD_BITS)
}

fn bit(slot: u16) -> u64 {
    1 << (slot % WORD_BITS)
}

/// The places of the bits that are set.
fn bits(mut word: u64) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let place = (word != 0).then(|| word.trailing_zeros() as u16)?;
        word &= word - 1;
        Some(place)
    })
}

impl Default for SlotSet {
    fn default() -> SlotSet {
        SlotSet::new()
    }
}

impl Extend<u16> for SlotSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, slots: I) {
        slots.into_iter().for_each(|slot| {
            self.insert(slot);
        });
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> SlotSet {
        let mut set = SlotSet::new();
        set.extend(slots);
        set
    }
}

/// Ranges, as `0-5460 5462`.
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match first == last {
                true => write!(f, "{space}{first}")?,
                false => write!(f, "{space}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({self})")
    }
}

impl Serialize for SlotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.runs().collect::<Vec<_>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SlotSet, D::Error> {
        let runs = Vec::<Run>::deserialize(deserializer)?;
        SlotSet::from_runs(runs).ok_or_else(|| D::Error::custom("a slot beyond the last one"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_are_shown() {
        let set: SlotSet = (0..=5460).chain([5462]).chain(16_382..16_384).collect();
        assert_eq!(set.to_string(), "0-5460 5462 16382-16383");
        assert_eq!(SlotSet::new().to_string(), "");
        assert_eq!(SlotSet::all().to_string(), "0-16383");
    }

    #[test]
    fn all_slots_take_a_handful_of_bytes() {
        assert!(postcard::to_stdvec(&SlotSet::all()).unwrap().len() < 8);
        let every_other: SlotSet = (0..SLOT_COUNT).step_by(2).collect();
        assert!(postcard::to_stdvec(&every_other).unwrap().len() <= usize::from(SLOT_COUNT) + 2);
    }

    #[test]
    fn slots_that_do_not_exist_are_not_read() {
        for runs in [vec![(0u16, 16_385u16)], vec![(16_384, 1)], vec![(u16::MAX, u16::MAX); 100_000]] {
            let bytes = postcard::to_stdvec(&runs).unwrap();
            assert!(postcard::from_bytes::<SlotSet>(&bytes).is_err(), "{:?}", runs[0]);
        }
        assert!(!SlotSet::all().contains(SLOT_COUNT));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0..SLOT_COUNT, 1..200u16), 0..40)) {
            let (mut set, mut model) = (SlotSet::new(), BTreeSet::new());
            for (is_added, first, length) in steps {
                for slot in first..first.saturating_add(length).min(SLOT_COUNT) {
                    match is_added {
                        true => prop_assert_eq!(set.insert(slot), model.insert(slot)),
                        false => prop_assert_eq!(set.remove(slot), model.remove(&slot)),
                    }
                }
            }
            prop_assert_eq!(set.len(), model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert!((0..SLOT_COUNT).all(|slot| set.contains(slot) == model.contains(&slot)));
            let bytes = postcard::to_stdvec(&set).unwrap();
            prop_assert_eq!(postcard::from_bytes::<SlotSet>(&bytes).unwrap(), set);
        }
    }
}
