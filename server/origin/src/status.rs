//! What can be seen of an origin from outside.

use std::time::Duration;

use crate::breaker::BreakerState;
use crate::load::TargetId;

/// A snapshot of an origin's health and counters.
#[derive(Debug, Clone)]
pub struct OriginStatus {
    /// The primary first, then the replicas.
    pub targets: Vec<TargetStatus>,
    /// In the order of the groups.
    pub groups: Vec<GroupStatus>,
    /// Loads that wait for an answer now.
    pub waiting_loads: usize,
    /// Loads that were refused because too many were waiting.
    pub refused_loads: u64,
}

/// What a target is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The database that takes writes.
    Primary,
    /// A read replica.
    Replica,
}

/// One database that can answer loads.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// Its place.
    pub id: TargetId,
    /// Its URL without the password.
    pub url: String,
    /// What it is for.
    pub role: Role,
    /// Whether it is asked at present.
    pub breaker: BreakerState,
    /// Connections that run a query or are being opened.
    pub in_use: u32,
    /// Open connections that nobody uses.
    pub idle: u32,
    /// The cap on both together.
    pub max_connections: u32,
    /// The moving average of a query's time; `None` before the first one.
    pub latency: Option<Duration>,
    /// Queries that it answered.
    pub queries: u64,
    /// Times that it could not be asked: connecting failed, the connection broke, or it did not answer in time.
    pub failures: u64,
    /// Times that its breaker opened.
    pub openings: u64,
    /// The latest failure in words; empty if there was none.
    pub last_failure: String,
}

/// One group's counters since the start.
#[derive(Debug, Clone)]
pub struct GroupStatus {
    /// The group's name.
    pub name: String,
    /// Whether keys are loaded many at a time, or one query for each since the query cannot be wrapped. `None` before
    /// the first load.
    pub batched: Option<bool>,
    /// Loads that were asked for.
    pub loads: u64,
    /// Loads that are waiting for an answer now: in the queue, or in a query under way.
    pub waiting: usize,
    /// Loads that needed no query because their captures cannot be the query's parameters.
    pub absent_unasked: u64,
    /// Statements that were sent.
    pub queries: u64,
    /// Keys that were asked for in them.
    pub keys: u64,
    /// Batches by size: `batch_sizes[i]` had up to `BATCH_SIZE_BOUNDS[i]` keys and more than the bound before it.
    pub batch_sizes: [u64; BATCH_SIZE_BOUNDS.len()],
    /// Loads that ended in an error.
    pub errors: u64,
}

/// Upper bounds of the batch sizes that [`GroupStatus::batch_sizes`] counts; the last one takes everything above too.
pub const BATCH_SIZE_BOUNDS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
