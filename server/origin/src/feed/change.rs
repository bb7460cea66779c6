//! What a feed tells of: changes and gaps.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Snapshot, Xid};

/// The most keys that one [`Change`] tells of; a transaction that changed more is told of in parts.
pub const MAX_KEYS_OF_CHANGE: usize = 4096;

/// What comes out of a feed, in the order of the commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent {
    /// A transaction has changed rows.
    Change(Change),
    /// Changes may have been missed.
    Gap(Gap),
}

/// What a transaction changed, or a part of it.
///
/// It can come before the transaction is visible to others, and again after a keeper was replaced. Whoever holds an entry of one of the
/// keys drops it unless its snapshot [sees](Snapshot::sees) `xid`, and keeps out fills whose snapshot does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction, if the feed knows it.
    pub xid: Option<Xid>,
    /// When it was committed, by the database's clock.
    pub committed_at: Option<SystemTime>,
    /// The keys, by group.
    pub affected: Vec<Affected>,
    /// To be confirmed once everybody has dealt with this event and all before it; `None` before a transaction's last part.
    pub position: Option<Position>,
}

/// Keys of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affected {
    /// The group's name.
    pub group: Arc<str>,
    /// Which of its keys.
    pub keys: AffectedKeys,
}

/// Which keys of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AffectedKeys {
    /// Every one.
    All,
    /// These, each once.
    These(Vec<Bytes>),
}

/// Changes may have been missed: what was loaded before is suspect.
///
/// Of `groups`, an entry is good only if its snapshot [covers](Snapshot::covers) `after`, and a fill is kept only then; what has no
/// snapshot is good if it was loaded after this event had come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The groups, by name.
    pub groups: Vec<Arc<str>>,
    /// What was visible once the feed told of everything again.
    pub after: Option<Snapshot>,
    /// What happened, in words.
    pub reason: String,
    /// To be remembered by the cluster once everybody has dealt with the gap, and to be given to the next keeper: who does not get it tells
    /// of the gap again. `None`: another event of the same gap follows.
    pub memory: Option<FeedMemory>,
}

/// What the next keeper has to know so that it need not take everything for missed. It means nothing to anybody else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedMemory {
    /// The replication slot in use.
    #[serde(default)]
    pub(crate) slot: String,
    /// By group, the tables that the feed tells of.
    #[serde(default)]
    pub(crate) covered: BTreeMap<String, Vec<String>>,
}

impl FeedMemory {
    /// The groups of `covered` that the feed did not tell of, or not of the same tables.
    pub(crate) fn lacks(&self, covered: &BTreeMap<String, Vec<String>>) -> Vec<Arc<str>> {
        let is_new = |(group, tables): &(&String, &Vec<String>)| self.covered.get(*group) != Some(*tables);
        covered.iter().filter(is_new).map(|(group, _)| group.as_str().into()).collect()
    }

    /// As text, to be stored.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From text; `None` if it is none of [`FeedMemory::to_text`].
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// A place in a feed: of the write-ahead log a position in bytes, elsewhere a number that rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    /// As Postgres writes positions in its log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl std::str::FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').unwrap_or(("0", text));
        let half = |digits| u32::from_str_radix(digits, 16).map(u64::from);
        Ok(Position(half(high)? << 32 | half(low)?))
    }
}

/// Keys that are being gathered, each once.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    by_group: BTreeMap<Arc<str>, GatheredKeys>,
    keys: usize,
}

#[derive(Debug)]
enum GatheredKeys {
    All,
    These { keys: Vec<Bytes>, known: HashSet<Bytes> },
}

impl Gathered {
    pub(crate) fn add(&mut self, group: &Arc<str>, key: Vec<u8>) {
        let empty = || GatheredKeys::These { keys: Vec::new(), known: HashSet::new() };
        if let GatheredKeys::These { keys, known } = self.by_group.entry(Arc::clone(group)).or_insert_with(empty) {
            let key = Bytes::from(key);
            if known.insert(key.clone()) {
                keys.push(key);
                self.keys += 1;
            }
        }
    }

    pub(crate) fn add_all(&mut self, group: &Arc<str>) {
        if let Some(GatheredKeys::These { keys, .. }) = self.by_group.insert(Arc::clone(group), GatheredKeys::All) {
            self.keys -= keys.len();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// Whether there is enough for a part of its own.
    pub(crate) fn is_full(&self) -> bool {
        self.keys >= MAX_KEYS_OF_CHANGE
    }

    pub(crate) fn take(&mut self) -> Vec<Affected> {
        let by_group = std::mem::take(self).by_group;
        by_group
            .into_iter()
            .map(|(group, keys)| Affected {
                group,
                keys: match keys {
                    GatheredKeys::All => AffectedKeys::All,
                    GatheredKeys::These { keys, .. } => AffectedKeys::These(keys),
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgres_writes_them() {
        for (text, position) in [("0/0", 0), ("0/16B3748", 0x16b_3748), ("A1/FFFFFFFF", 0xa1_ffff_ffff)] {
            assert_eq!(text.parse(), Ok(Position(position)));
            assert_eq!(Position(position).to_string(), text);
        }
        assert!("0/x".parse::<Position>().is_err() && "1/100000000".parse::<Position>().is_err());
    }

    #[test]
    fn a_key_is_gathered_once_and_every_key_stands_for_each() {
        let groups: [Arc<str>; 2] = ["a".into(), "b".into()];
        let mut gathered = Gathered::default();
        for key in ["a:2", "a:1", "a:2"] {
            gathered.add(&groups[0], key.into());
        }
        gathered.add(&groups[1], "b:1".into());
        gathered.add_all(&groups[1]);
        gathered.add(&groups[1], "b:2".into());
        assert_eq!(gathered.keys, 2);
        let these = AffectedKeys::These(vec!["a:2".into(), "a:1".into()]);
        let [a, b] = groups;
        assert_eq!(
            gathered.take(),
            [Affected { group: a, keys: these }, Affected { group: b, keys: AffectedKeys::All }]
        );
        assert!(gathered.is_empty() && gathered.keys == 0);
    }

    #[test]
    fn a_memory_is_read_back() {
        let memory = FeedMemory { slot: "s".into(), covered: BTreeMap::from([("a".into(), vec!["t(id)".to_owned()])]) };
        assert_eq!(FeedMemory::from_text(&memory.to_text()), Some(memory));
        assert_eq!(FeedMemory::from_text("nonsense"), None);
    }
}
