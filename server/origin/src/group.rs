//! A group: a key pattern with its query and the rules for what was loaded.

use std::time::Duration;

use crate::fault::Fault;
use crate::invalidation::Invalidation;
use crate::pattern::KeyPattern;

/// What one definition of a group is called within an [`crate::Origin`]; no other one ever is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub u32);

/// The most groups that one origin serves.
pub const MAX_GROUPS: usize = 4096;

/// How a row becomes a Redis value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The one column of the one row, in its text form; `bytea` and SQLite blobs as they are.
    String,
    /// The one row as a JSON object; a single `json` or `jsonb` column is the document itself.
    Json,
    /// The columns of the one row are the fields of a hash; columns that are NULL are left out.
    Hash,
}

impl Shape {
    /// As the file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Shape::String => "string",
            Shape::Json => "json",
            Shape::Hash => "hash",
        }
    }
}

/// Whether entries are loaded again before they expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refresh {
    /// They expire and are loaded on the next miss.
    #[default]
    Off,
    /// A read may load again shortly before the deadline, more likely the nearer it is and the longer the load takes.
    Early,
}

/// What a client's write does to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteStrategy {
    /// Nothing: the cache alone changes.
    #[default]
    None,
    /// The origin is written before the reply.
    Through,
    /// The write is journalled before the reply, and reaches the origin later.
    Behind,
    /// The origin is written and the cache forgets the key.
    Around,
}

/// Where a group's row changes are learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// A logical replication slot.
    Wal,
    /// LISTEN and NOTIFY.
    Notify,
    /// A Kafka topic of changes.
    Kafka,
}

impl Feed {
    /// As the file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Feed::Wal => "wal",
            Feed::Notify => "notify",
            Feed::Kafka => "kafka",
        }
    }
}

impl WriteStrategy {
    /// As the file has it.
    pub fn as_str(self) -> &'static str {
        match self {
            WriteStrategy::None => "none",
            WriteStrategy::Through => "through",
            WriteStrategy::Behind => "behind",
            WriteStrategy::Around => "around",
        }
    }
}

/// One `[[group]]` of a configuration.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The name, unique among the groups.
    pub name: String,
    /// The keys.
    pub key: KeyPattern,
    /// The query; the captures are `$1`, `$2` … in order.
    pub load: String,
    /// The query for many keys, in which `$1`, `$2` … are arrays of the captures; without it `load` is wrapped.
    pub load_many: Option<String>,
    /// How a row becomes a value.
    pub as_: Shape,
    /// How long an entry lives; `None`: until it is evicted or invalidated.
    pub ttl: Option<Duration>,
    /// The share of the ttl by which it varies at random, up or down; 0 ≤ share < 1.
    pub ttl_jitter: f64,
    /// How long a key is remembered to be absent; `None`: not at all.
    pub absent_ttl: Option<Duration>,
    /// Whether entries are loaded again before they expire.
    pub refresh: Refresh,
    /// For how long after its deadline a value may be served while the origin cannot answer; `None`: not at all.
    pub stale_if_error: Option<Duration>,
    /// What a client's write does to the origin.
    pub write: WriteStrategy,
    /// The statement that writes a value: the value is the parameter after the captures.
    pub save: Option<String>,
    /// The statement that deletes a row.
    pub remove: Option<String>,
    /// The tables whose changes invalidate keys of this group.
    pub invalidated_by: Vec<Invalidation>,
    /// Where those changes are learnt from; [`Feed::Wal`] where that is left out and there are any.
    pub feed: Option<Feed>,
    /// Where the settings stand in their file.
    pub(crate) places: Places,
}

/// The group of an [`crate::Origin`] under a [`GroupId`].
pub type Group = GroupConfig;

impl GroupConfig {
    /// The share of the ttl by which it varies unless the group says otherwise.
    pub const DEFAULT_TTL_JITTER: f64 = 0.1;
    /// How long absence is remembered unless the group says otherwise.
    pub const DEFAULT_ABSENT_TTL: Duration = Duration::from_secs(30);

    /// A group with the default rules, for callers that have no file.
    pub fn new(name: impl Into<String>, key: KeyPattern, load: impl Into<String>, as_: Shape) -> Self {
        GroupConfig {
            name: name.into(),
            key,
            load: load.into(),
            load_many: None,
            as_,
            ttl: None,
            ttl_jitter: Self::DEFAULT_TTL_JITTER,
            absent_ttl: Some(Self::DEFAULT_ABSENT_TTL),
            refresh: Refresh::Off,
            stale_if_error: None,
            write: WriteStrategy::None,
            save: None,
            remove: None,
            invalidated_by: Vec::new(),
            feed: None,
            places: Places::default(),
        }
    }

    /// Where changes of its rows are learnt from, if from anywhere.
    pub fn change_feed(&self) -> Option<Feed> {
        (!self.invalidated_by.is_empty()).then(|| self.feed.unwrap_or(Feed::Wal))
    }

    /// Whether both load the same for the same keys.
    pub fn is_defined_as(&self, other: &GroupConfig) -> bool {
        self.key.to_string() == other.key.to_string()
            && self.load == other.load
            && self.load_many == other.load_many
            && self.as_ == other.as_
    }

    /// What entries are marked with that were loaded by this definition: the same on every node, and with one chance in 65,536 the same
    /// for two definitions.
    pub fn fingerprint(&self) -> u16 {
        let key = self.key.to_string();
        // None of them has a 0 in it.
        let mut parts = vec![key.as_str(), &self.load, self.as_.as_str()];
        parts.extend(self.load_many.as_deref());
        let text = parts.join("\0");
        // FNV-1a, since what the standard library hashes with may differ between two builds.
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let folded = hash ^ hash >> 32;
        (folded ^ folded >> 16) as u16
    }

    /// A fault of this group's `setting`, with its place in the file if the group came from one.
    pub(crate) fn fault(&self, setting: &'static str, problem: impl Into<String>, hint: impl Into<String>) -> Fault {
        let (line, column) = self.places.of(setting);
        Fault {
            file: self.places.file.clone(),
            line,
            column,
            place: format!("group \"{}\".{setting}", self.name),
            problem: problem.into(),
            hint: hint.into(),
        }
    }
}

/// Lines and columns of a group's settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    pub(crate) file: String,
    pub(crate) table: (usize, usize),
    pub(crate) settings: Vec<(&'static str, (usize, usize))>,
}

impl Places {
    /// Whether `setting` stands in the file.
    pub(crate) fn has(&self, setting: &str) -> bool {
        self.settings.iter().any(|(name, _)| *name == setting)
    }

    /// Line and column of `setting`, or of the group itself where it was left out.
    fn of(&self, setting: &str) -> (usize, usize) {
        self.settings.iter().find(|(name, _)| *name == setting).map_or(self.table, |(_, place)| *place)
    }
}
