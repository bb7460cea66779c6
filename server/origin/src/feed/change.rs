//! What a feed tells of: changes and gaps.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::kafka::TopicMemory;
use crate::snapshot::{Snapshot, Xid};

/// The most keys that one [`Change`] tells of; a transaction that changed more is told of in parts.
pub const MAX_KEYS_OF_CHANGE: usize = 4096;

/// The most keys of one group that a transaction tells of; one that changed more is told of as every key of that group. Everybody who
/// holds entries remembers what it is told for a while, and a group of which so much changed is loaded anew sooner than that is dealt with.
pub const MAX_KEYS_OF_TRANSACTION: usize = 65_536;

/// The most bytes that the keys of one [`Change`] take, and so the longest key that is told of: one that is longer is told of as every key.
pub const MAX_BYTES_OF_CHANGE: usize = 1 << 20;

/// What a key takes in memory beside its bytes, roughly.
const BYTES_BESIDE_KEY: usize = 64;

/// What comes out of a feed, in the order of the commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedEvent {
    /// A transaction has changed rows.
    Change(Change),
    /// Changes may have been missed.
    Gap(Gap),
    /// To be remembered by the cluster, and to be given to the next keeper, in place of what was: everybody has dealt with what it covers.
    Remember(FeedMemory),
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
    /// What was visible once the feed told of everything again; `None`: another server has taken over, of which snapshots from before say
    /// nothing, so that only what was loaded after this event had come is good.
    pub after: Option<Snapshot>,
    /// What happened, in words.
    pub reason: String,
    /// To be remembered by the cluster once everybody has dealt with the gap, and to be given to the next keeper: who does not get it tells
    /// of the gap again. `None`: another event of the same gap follows.
    pub memory: Option<FeedMemory>,
    /// To be confirmed once everybody has dealt with it, if the feed has to know.
    pub position: Option<Position>,
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
    /// Postgres' timeline: another number says that another server, or one that was restored, goes on from some point of the past.
    #[serde(default)]
    pub(crate) timeline: String,
    /// How far everybody has dealt with Kafka's topics.
    #[serde(default)]
    pub(crate) topics: BTreeMap<String, TopicMemory>,
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
pub struct Position {
    /// How often the feed has begun anew. What follows is behind all that was before, even if it is of another server's log, which may be
    /// shorter.
    era: u32,
    at: u64,
}

impl Position {
    pub(crate) const fn new(at: u64) -> Self {
        Position { era: 0, at }
    }

    /// Bytes of the log.
    pub(crate) fn at(self) -> u64 {
        self.at
    }

    pub(crate) fn of_era(self, era: u32) -> Self {
        Position { era, ..self }
    }

    /// The place in the log; `None` if it is of another era.
    pub(crate) fn within_era(self, era: u32) -> Option<Self> {
        (self.era == era).then_some(Position::new(self.at))
    }
}

impl fmt::Display for Position {
    /// As Postgres writes positions in its log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.at >> 32, self.at as u32)
    }
}

impl std::str::FromStr for Position {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').unwrap_or(("0", text));
        let half = |digits| u32::from_str_radix(digits, 16).map(u64::from);
        Ok(Position::new(half(high)? << 32 | half(low)?))
    }
}

/// Keys that a transaction changes, each once in a part.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    by_group: BTreeMap<Arc<str>, GatheredKeys>,
    keys: usize,
    bytes: usize,
    /// What earlier parts of the transaction told of: how many keys, or [`EVERY_KEY`].
    told: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
enum GatheredKeys {
    All,
    These { keys: Vec<Bytes>, known: HashSet<Bytes> },
}

const EVERY_KEY: usize = usize::MAX;

impl Gathered {
    pub(crate) fn add(&mut self, group: &Arc<str>, key: Vec<u8>) {
        let told = self.told(group);
        if told == EVERY_KEY {
            return;
        }
        if key.len() > MAX_BYTES_OF_CHANGE {
            return self.add_all(group);
        }
        let empty = || GatheredKeys::These { keys: Vec::new(), known: HashSet::new() };
        let GatheredKeys::These { keys, known } = self.by_group.entry(Arc::clone(group)).or_insert_with(empty) else {
            return;
        };
        let key = Bytes::from(key);
        if !known.insert(key.clone()) {
            return;
        }
        if told + keys.len() >= MAX_KEYS_OF_TRANSACTION {
            return self.add_all(group);
        }
        self.bytes += weight(&key);
        keys.push(key);
        self.keys += 1;
    }

    pub(crate) fn add_all(&mut self, group: &Arc<str>) {
        if self.told(group) == EVERY_KEY {
            return;
        }
        if let Some(GatheredKeys::These { keys, .. }) = self.by_group.insert(Arc::clone(group), GatheredKeys::All) {
            self.keys -= keys.len();
            self.bytes -= keys.iter().map(weight).sum::<usize>();
        }
    }

    fn told(&self, group: &Arc<str>) -> usize {
        self.told.get(group).copied().unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }

    /// Whether there is enough for a part of its own.
    pub(crate) fn is_full(&self) -> bool {
        self.keys >= MAX_KEYS_OF_CHANGE || self.bytes >= MAX_BYTES_OF_CHANGE
    }

    /// Another transaction begins.
    pub(crate) fn begin(&mut self) {
        self.told.clear();
    }

    /// What is to be told of now.
    pub(crate) fn take(&mut self) -> Vec<Affected> {
        (self.keys, self.bytes) = (0, 0);
        let by_group = std::mem::take(&mut self.by_group);
        let affected = by_group.into_iter().map(|(group, keys)| {
            let told = self.told.entry(Arc::clone(&group)).or_default();
            let keys = match keys {
                GatheredKeys::All => {
                    *told = EVERY_KEY;
                    AffectedKeys::All
                }
                GatheredKeys::These { keys, .. } => {
                    *told += keys.len();
                    AffectedKeys::These(keys)
                }
            };
            Affected { group, keys }
        });
        affected.collect()
    }
}

fn weight(key: &Bytes) -> usize {
    key.len() + BYTES_BESIDE_KEY
}

impl Change {
    /// What it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        let of = |affected: &Affected| match &affected.keys {
            AffectedKeys::All => 0,
            AffectedKeys::These(keys) => keys.iter().map(weight).sum(),
        };
        BYTES_BESIDE_KEY + self.affected.iter().map(of).sum::<usize>()
    }
}

impl Gap {
    /// What it takes in memory, roughly.
    pub(crate) fn weight(&self) -> usize {
        BYTES_BESIDE_KEY * (1 + self.groups.len())
    }

    /// One event for an earlier gap that was not told of yet, and for a later one.
    pub(crate) fn joined(earlier: Option<Gap>, later: Gap) -> Gap {
        let Some(earlier) = earlier else { return later };
        let mut groups = [earlier.groups, later.groups].concat();
        groups.sort();
        groups.dedup();
        Gap {
            groups,
            // What covers the later one covers the earlier one, too.
            after: earlier.after.and(later.after),
            reason: format!("{}; {}", earlier.reason, later.reason),
            memory: later.memory,
            position: later.position,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgres_writes_them() {
        for (text, position) in [("0/0", 0), ("0/16B3748", 0x16b_3748), ("A1/FFFFFFFF", 0xa1_ffff_ffff)] {
            assert_eq!(text.parse(), Ok(Position::new(position)));
            assert_eq!(Position::new(position).to_string(), text);
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
    fn what_is_beyond_the_limits_is_every_key_and_takes_no_memory() {
        let group: Arc<str> = "a".into();
        let mut gathered = Gathered::default();
        let mut parts = Vec::new();
        for key in 0..2 * MAX_KEYS_OF_TRANSACTION {
            gathered.add(&group, key.to_string().into());
            if gathered.is_full() {
                parts.extend(gathered.take());
            }
        }
        parts.extend(gathered.take());
        let (last, earlier) = parts.split_last().unwrap();
        assert_eq!(earlier.len(), MAX_KEYS_OF_TRANSACTION / MAX_KEYS_OF_CHANGE);
        assert!(
            earlier
                .iter()
                .all(|part| matches!(&part.keys, AffectedKeys::These(keys) if keys.len() == MAX_KEYS_OF_CHANGE))
        );
        assert_eq!(last.keys, AffectedKeys::All);
        gathered.add_all(&group);
        assert!(gathered.is_empty(), "every key was told of already");
        gathered.begin();
        gathered.add(&group, vec![b'x'; MAX_BYTES_OF_CHANGE - BYTES_BESIDE_KEY]);
        assert!(gathered.is_full());
        gathered.add(&group, vec![b'x'; MAX_BYTES_OF_CHANGE + 1]);
        assert_eq!((gathered.keys, gathered.bytes), (0, 0));
        assert_eq!(gathered.take(), [Affected { group, keys: AffectedKeys::All }]);
    }

    #[test]
    fn gaps_are_joined_so_that_nothing_of_either_is_lost() {
        let gap = |group: &str, after: Option<&str>| Gap {
            groups: vec![group.into()],
            after: after.map(|text| text.parse().unwrap()),
            reason: group.to_owned(),
            memory: None,
            position: None,
        };
        let joined = Gap::joined(Some(gap("b", Some("5:5:"))), gap("a", Some("7:7:")));
        assert_eq!((joined.groups, joined.after), (vec!["a".into(), "b".into()], Some("7:7:".parse().unwrap())));
        assert_eq!(joined.reason, "b; a");
        assert_eq!(Gap::joined(Some(gap("a", None)), gap("a", Some("7:7:"))).after, None);
        assert_eq!(Gap::joined(None, gap("a", None)), gap("a", None));
    }

    #[test]
    fn a_position_of_a_later_era_is_behind_all_of_earlier_ones() {
        let (before, after) = (Position::new(900), Position::new(5).of_era(1));
        assert!(before < after && before.within_era(1).is_none());
        assert_eq!(after.within_era(1), Some(Position::new(5)));
    }

    #[test]
    fn a_memory_is_read_back() {
        let covered = BTreeMap::from([("a".into(), vec!["t(id)".to_owned()])]);
        let memory = FeedMemory { slot: "s".into(), covered, timeline: "00000001".into(), ..FeedMemory::default() };
        assert_eq!(FeedMemory::from_text(&memory.to_text()), Some(memory));
        assert_eq!(FeedMemory::from_text("nonsense"), None);
    }
}
