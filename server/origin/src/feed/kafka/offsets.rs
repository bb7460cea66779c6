//! How far was read, and how far everybody has dealt with what was read.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

/// Offsets by partition: of the message that comes next.
pub(super) type ByPlace = BTreeMap<Place, i64>;

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The offset of its first message.
    pub(super) first: i64,
    /// The offset of the message that comes next.
    pub(super) end: i64,
}

/// What the next keeper has to know of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TopicMemory {
    /// The topic's id, if brokers have such.
    #[serde(default)]
    pub(super) id: String,
    /// By partition.
    #[serde(default)]
    pub(super) offsets: BTreeMap<i32, i64>,
}

/// Reading, told of and dealt with.
///
/// **Invariant.** *No offset counts as dealt with beyond a message whose event was not confirmed.* Events have numbers, and are confirmed in
/// their order.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    /// From where each partition is read on; nothing before the first beginning.
    pub(super) next: ByPlace,
    dealt: ByPlace,
    /// By the number of the event that has to be confirmed first.
    waiting: BTreeMap<u64, ByPlace>,
    confirmed: u64,
}

impl Offsets {
    /// Reading goes on from `next`.
    pub(super) fn go_on(&mut self, next: ByPlace) {
        // Of partitions that are new, all is still to come.
        let is_new = |(place, _): &(&Place, &i64)| !self.next.contains_key(place);
        self.dealt.extend(next.iter().filter(is_new).map(|(place, offset)| (place.clone(), *offset)));
        self.next = next;
    }

    /// Reading begins anew. What was before does not count any more, once event `number` is confirmed, which says so.
    pub(super) fn begin(&mut self, next: ByPlace, number: u64) {
        self.dealt.clear();
        self.waiting = BTreeMap::from([(number, next.clone())]);
        self.next = next;
    }

    /// `place` was read up to `next`; of that, the last thing that was told is event `number`, or is before it.
    pub(super) fn read(&mut self, place: &Place, next: i64, number: u64) {
        self.next.insert(place.clone(), next);
        if self.is_confirmed(number) {
            self.dealt.insert(place.clone(), next);
        } else {
            self.waiting.entry(number).or_default().insert(place.clone(), next);
        }
    }

    /// All events up to this number were dealt with.
    pub(super) fn confirm(&mut self, number: u64) {
        self.confirmed = self.confirmed.max(number);
        let later = self.waiting.split_off(&(self.confirmed + 1));
        for offsets in std::mem::replace(&mut self.waiting, later).into_values() {
            self.dealt.extend(offsets);
        }
    }

    /// Whether that event was dealt with.
    pub(super) fn is_confirmed(&self, number: u64) -> bool {
        number <= self.confirmed
    }

    /// Up to where everybody has dealt with everything; nothing while a beginning is not confirmed.
    pub(super) fn dealt(&self) -> &ByPlace {
        &self.dealt
    }
}

/// From where to go on, given what was read before and what is there.
///
/// # Errors
/// Why messages may have been missed, in words.
pub(super) fn go_on_from(read: &ByPlace, held: &BTreeMap<Place, Held>) -> Result<ByPlace, String> {
    if read.is_empty() {
        return Err("the feed begins".to_owned());
    }
    if let Some(Place { topic, partition }) = read.keys().find(|place| !held.contains_key(place)) {
        return Err(format!("partition {partition} of `{topic}` is gone, so the topic was made anew"));
    }
    let from = held.iter().map(|(place, held)| {
        let Place { topic, partition } = place;
        let is_known = read.keys().any(|known| known.topic == *topic);
        match read.get(place) {
            Some(next) if *next < held.first => {
                Err(format!("messages of partition {partition} of `{topic}` were removed before they were read"))
            }
            Some(next) if *next > held.end => Err(format!(
                "partition {partition} of `{topic}` ends before what was read, so messages were lost there"
            )),
            Some(next) => Ok((place.clone(), *next)),
            None if !is_known => Err(format!("the topic `{topic}` was not read before")),
            None if held.first > 0 => Err(format!(
                "messages of partition {partition} of `{topic}`, which is new, were removed before they were read"
            )),
            None => Ok((place.clone(), 0)),
        }
    });
    from.collect()
}

/// As the cluster remembers it.
pub(super) fn to_memory(offsets: &ByPlace, ids: &BTreeMap<String, String>) -> BTreeMap<String, TopicMemory> {
    let mut topics: BTreeMap<String, TopicMemory> = BTreeMap::new();
    for (place, offset) in offsets {
        let topic = topics.entry(place.topic.to_string()).or_default();
        topic.offsets.insert(place.partition, *offset);
        topic.id = ids.get(&*place.topic).cloned().unwrap_or_default();
    }
    topics
}

/// From what the cluster remembers.
pub(super) fn from_memory(topics: &BTreeMap<String, TopicMemory>) -> (ByPlace, BTreeMap<String, String>) {
    let mut offsets = ByPlace::new();
    for (name, topic) in topics {
        let name: Arc<str> = name.as_str().into();
        let places = topic.offsets.iter();
        offsets
            .extend(places.map(|(partition, next)| (Place { topic: Arc::clone(&name), partition: *partition }, *next)));
    }
    (offsets, topics.iter().map(|(name, topic)| (name.clone(), topic.id.clone())).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(topic: &str, partition: i32) -> Place {
        Place { topic: topic.into(), partition }
    }

    fn places(offsets: &[(&str, i32, i64)]) -> ByPlace {
        offsets.iter().map(|(topic, partition, offset)| (place(topic, *partition), *offset)).collect()
    }

    fn held(all: &[(&str, i32, i64, i64)]) -> BTreeMap<Place, Held> {
        all.iter()
            .map(|(topic, partition, first, end)| (place(topic, *partition), Held { first: *first, end: *end }))
            .collect()
    }

    #[test]
    fn reading_goes_on_only_where_nothing_can_be_missing() {
        let there = held(&[("t", 0, 5, 9), ("t", 1, 0, 3)]);
        let go_on = |read: &[(&str, i32, i64)]| go_on_from(&places(read), &there);
        assert_eq!(go_on(&[("t", 0, 5), ("t", 1, 3)]), Ok(places(&[("t", 0, 5), ("t", 1, 3)])));
        assert_eq!(go_on(&[("t", 0, 9)]), Ok(places(&[("t", 0, 9), ("t", 1, 0)])), "a further partition is read whole");
        for (read, reason) in [
            (&[][..], "the feed begins"),
            (&[("t", 0, 4), ("t", 1, 3)], "removed before they were read"),
            (&[("t", 0, 10), ("t", 1, 3)], "ends before what was read"),
            (&[("t", 1, 3)], "which is new, were removed"),
            (&[("t", 0, 5), ("t", 1, 3), ("t", 2, 0)], "made anew"),
            (&[("u", 0, 5)], "made anew"),
        ] {
            let problem = go_on(read).unwrap_err();
            assert!(problem.contains(reason), "{problem} instead of {reason}");
        }
        let further = held(&[("t", 0, 5, 9), ("u", 0, 0, 1)]);
        let problem = go_on_from(&places(&[("t", 0, 5)]), &further).unwrap_err();
        assert!(problem.contains("`u` was not read before"), "{problem}");
    }

    #[test]
    fn a_beginning_counts_once_it_is_confirmed() {
        let mut offsets = Offsets::default();
        offsets.go_on(places(&[("t", 0, 4)]));
        offsets.read(&place("t", 0), 6, 1);
        assert_eq!(offsets.dealt(), &places(&[("t", 0, 4)]));
        offsets.begin(places(&[("t", 0, 20)]), 2);
        offsets.confirm(1);
        assert!(offsets.dealt().is_empty(), "what was told before is of no interest any more");
        offsets.read(&place("t", 0), 21, 3);
        offsets.confirm(2);
        assert_eq!((offsets.dealt(), &offsets.next), (&places(&[("t", 0, 20)]), &places(&[("t", 0, 21)])));
    }

    #[test]
    fn what_is_remembered_is_read_back() {
        let offsets = places(&[("t", 0, 4), ("t", 1, 7), ("u", 3, 1)]);
        let ids = BTreeMap::from([("t".to_owned(), "ab".to_owned()), ("u".to_owned(), String::new())]);
        assert_eq!(from_memory(&to_memory(&offsets, &ids)), (offsets, ids));
    }

    proptest! {
        #[test]
        fn nothing_is_dealt_with_beyond_what_is_not_confirmed(steps in prop::collection::vec((0_u8..5, 0_i32..3, 1_u64..4), 0..80)) {
            let mut offsets = Offsets::default();
            offsets.go_on((0..3).map(|partition| (place("t", partition), 0)).collect());
            let (mut told, mut open) = (0, Vec::new());
            for (step, partition, by) in steps {
                let place = place("t", partition);
                match step {
                    // Messages of which one changes a key.
                    0 => {
                        told += 1;
                        let next = offsets.next[&place] + by as i64;
                        open.push((told, place.clone(), next - 1));
                        offsets.read(&place, next, told);
                    }
                    // Messages that change nothing.
                    1 => {
                        let next = offsets.next[&place] + by as i64;
                        offsets.read(&place, next, told);
                    }
                    // The connection was cut.
                    2 => offsets.go_on(offsets.next.clone()),
                    // Something was missed, so that what was told before is of no interest.
                    3 => {
                        told += 1;
                        let ends: ByPlace = offsets.next.iter().map(|(place, next)| (place.clone(), next + 1)).collect();
                        open = ends.iter().map(|(place, end)| (told, place.clone(), end - 1)).collect();
                        offsets.begin(ends, told);
                    }
                    _ => {
                        let number = told.saturating_sub(by);
                        open.retain(|(told, ..)| *told > number);
                        offsets.confirm(number);
                    }
                }
                for (_, place, message) in &open {
                    prop_assert!(offsets.dealt().get(place).is_none_or(|dealt| dealt <= message), "{:?}", offsets);
                }
            }
            offsets.confirm(told);
            prop_assert_eq!(offsets.dealt(), &offsets.next);
            prop_assert!(offsets.waiting.is_empty());
        }
    }
}
