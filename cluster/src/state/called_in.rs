//! What is not to be served any more since changes of the database may have been missed, or a whole group was changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Refusal;

/// Groups of which it is known that something was called in.
const MAX_GROUPS: usize = 4_096;

/// Feeds of which something is remembered, and how much, in bytes.
const MAX_FEEDS: usize = 16;
const MAX_MEMORY: usize = 1 << 20;

/// How often what groups had loaded was called in, and what is remembered of feeds for that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledIn {
    generations: BTreeMap<String, u64>,
    memories: BTreeMap<String, String>,
}

impl CalledIn {
    /// How often each group was called in, of those that were.
    pub fn generations(&self) -> impl Iterator<Item = (&str, u64)> {
        self.generations.iter().map(|(group, times)| (group.as_str(), *times))
    }

    /// What is remembered of a feed.
    pub fn memory(&self, feed: &str) -> Option<&str> {
        self.memories.get(feed).map(String::as_str)
    }

    /// Calls groups in and remembers something of feeds, or does neither.
    pub(super) fn add(&mut self, groups: Vec<String>, memories: Vec<(String, String)>) -> Result<(), Refusal> {
        let is_new = |group: &&String| !self.generations.contains_key(*group);
        if self.generations.len() + groups.iter().filter(is_new).count() > MAX_GROUPS {
            return Err(Refusal::Other(format!("{MAX_GROUPS} groups are known already")));
        }
        if memories.len() > MAX_FEEDS || memories.iter().any(|(_, memory)| memory.len() > MAX_MEMORY) {
            return Err(Refusal::Other("there is more to be remembered of feeds than can be".to_owned()));
        }
        for group in groups {
            *self.generations.entry(group).or_default() += 1;
        }
        self.memories.extend(memories);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_counted_and_feeds_remembered() {
        let mut called_in = CalledIn::default();
        let call_in = |called_in: &mut CalledIn, groups: &[&str], memory: &[(&str, &str)]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            called_in
                .add(groups, memory.iter().map(|(feed, memory)| ((*feed).to_owned(), (*memory).to_owned())).collect())
        };
        call_in(&mut called_in, &["a", "b"], &[("wal", "one")]).expect("little");
        call_in(&mut called_in, &["b"], &[("wal", "two"), ("notify", "three")]).expect("little");
        assert_eq!(called_in.generations().collect::<Vec<_>>(), [("a", 1), ("b", 2)]);
        assert_eq!(
            (called_in.memory("wal"), called_in.memory("notify"), called_in.memory("kafka")),
            (Some("two"), Some("three"), None)
        );
        let before = called_in.clone();
        assert!(call_in(&mut called_in, &["c"], &[("wal", &"x".repeat(MAX_MEMORY + 1))]).is_err());
        assert_eq!(called_in, before);
        let many: Vec<String> = (0..MAX_GROUPS).map(|n| n.to_string()).collect();
        assert!(called_in.add(many, Vec::new()).is_err());
        assert_eq!(called_in, before);
    }
}
