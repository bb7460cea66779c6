//! What can be seen of a feed from outside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::change::{Affected, AffectedKeys, Position};
use crate::fault::Fault;

/// What a feed is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FeedState {
    /// It has not told of anything yet.
    #[default]
    Starting,
    /// It tells of changes as they are committed.
    Following,
    /// It was cut off and tries again.
    Retrying,
    /// It was closed.
    Closed,
}

impl FeedState {
    /// For metrics and INFO.
    pub fn as_str(self) -> &'static str {
        match self {
            FeedState::Starting => "starting",
            FeedState::Following => "following",
            FeedState::Retrying => "retrying",
            FeedState::Closed => "closed",
        }
    }
}

/// A snapshot of a feed's health and counters.
#[derive(Debug, Clone, Default)]
pub struct FeedStatus {
    /// What it is about.
    pub state: FeedState,
    /// What keeps it from following, or keeps groups from being told of; with what to do about it.
    pub faults: Vec<Fault>,
    /// The last error that made it try again, in words; empty if there was none.
    pub last_error: String,
    /// Up to where everybody has dealt with what it told of.
    pub confirmed: Position,
    /// Up to where it has read.
    pub read: Position,
    /// The write-ahead log that was not confirmed yet, when that was last asked; 0 for other feeds.
    pub lag_bytes: u64,
    /// The write-ahead log that the database keeps for the feed, when that was last asked; 0 for other feeds.
    pub retained_bytes: u64,
    /// Messages that wait at Kafka's brokers, when they were last heard; 0 for other feeds.
    pub lag_messages: u64,
    /// For how long the oldest change that was told of has not been confirmed.
    pub unconfirmed_for: Duration,
    /// From a commit to when the feed told of it, the last time. Two clocks are compared.
    pub delay: Duration,
    /// Counters since the start.
    pub counts: FeedCounts,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened in a feed since it was started.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct FeedCounts { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: AtomicU64,)* }

        impl Counters {
            pub(crate) fn read(&self) -> FeedCounts {
                FeedCounts { $($name: self.$name.load(Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Transactions that were told of.
    transactions,
    /// Rows that were read.
    rows,
    /// Keys that were told of.
    keys,
    /// Times that every key of a group was told of, whatever the reason.
    whole_groups,
    /// Times that this was since a row did not tell its key.
    untold_keys,
    /// Rows without a key since a column was NULL.
    null_keys,
    /// Changes of tables that no group names.
    unmapped,
    /// Messages that could not be read; each counts as a change of every key.
    unreadable,
    /// Gaps that were told of.
    gaps,
    /// Times that it was cut off.
    interruptions,
}

/// What the feed's task writes and others read.
#[derive(Debug, Default)]
pub(crate) struct Board {
    pub(crate) counters: Counters,
    told: Mutex<FeedStatus>,
}

impl Board {
    pub(crate) fn update(&self, change: impl FnOnce(&mut FeedStatus)) {
        change(&mut self.told.lock());
    }

    /// Counts what is told of.
    pub(crate) fn count(&self, affected: &[Affected]) {
        for affected in affected {
            match &affected.keys {
                AffectedKeys::All => count(&self.counters.whole_groups),
                AffectedKeys::These(keys) => add(&self.counters.keys, keys.len() as u64),
            }
        }
    }

    pub(crate) fn status(&self) -> FeedStatus {
        FeedStatus { counts: self.counters.read(), ..self.told.lock().clone() }
    }
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

/// Counts several more.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}
