//! How a feed is to be followed.

use std::time::Duration;

use super::change::FeedMemory;
use super::kafka::KafkaConfig;

/// How a feed is to be followed, and its limits.
#[derive(Debug, Clone)]
pub struct FeedConfig {
    /// The publication, and the first part of the names of slots, channels and triggers. Two clusters at one database need two names.
    pub name: String,
    /// Rises with every keeper that the cluster elects. Who follows with a higher one takes the slot away from those before.
    pub term: u64,
    /// What the cluster remembers of the feed, if it ever had one.
    pub memory: Option<FeedMemory>,
    /// Events that wait to be taken at most; while there are as many, no more is read.
    pub max_events: usize,
    /// The write-ahead log that the database may have to keep for the feed, in bytes. Beyond it the slot is given up, which is a gap.
    pub max_retained: u64,
    /// Where the topics of the feed `kafka` are.
    pub kafka: KafkaConfig,
    /// How often the server is asked how far it is.
    pub watch_every: Duration,
    /// How long the server may be silent.
    pub patience: Duration,
    /// The pause after the first failure; it doubles with each that follows.
    pub first_pause: Duration,
    /// The pause never gets longer than this.
    pub longest_pause: Duration,
}

impl FeedConfig {
    /// The defaults, for a keeper of this term.
    pub fn new(term: u64, memory: Option<FeedMemory>) -> Self {
        FeedConfig {
            name: "forebay".to_owned(),
            term,
            memory,
            max_events: 1024,
            max_retained: 4 << 30,
            kafka: KafkaConfig::default(),
            watch_every: Duration::from_secs(1),
            patience: Duration::from_secs(30),
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_secs(5),
        }
    }
}
