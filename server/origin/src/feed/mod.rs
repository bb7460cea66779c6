//! Change feeds: what others have changed in the database, as the keys that it invalidates.
mod change;
mod mapping;
mod status;
mod wal;

pub use change::{Affected, AffectedKeys, Change, FeedEvent, FeedMemory, Gap, MAX_KEYS_OF_CHANGE, Position};
pub use status::{FeedCounts, FeedState, FeedStatus};
