//! The source of truth behind the cache: groups, and loads from Postgres or SQLite.
//!
//! [`Origin`] maps a key to its group, and loads it: misses that arrive together become one query, which the healthiest
//! database answers. The crate knows nothing of the store that keeps what was loaded, nor of the wire.
//!
//! | module | what is in it |
//! |---|---|
//! | `group`, `group_file`, `group_text`, `invalidation`, `pattern` | what a configuration says |
//! | `groups`, `dispatch` | the groups that are served, and which of them has a key |
//! | `origin`, `group_load`, `batch`, `window`, `waiting`, `pending` | a load, and how loads become one query |
//! | `write`, `group_writes`, `write_plan` | writes to the primary |
//! | `target`, `breaker`, `latency` | the databases, their health, their connections |
//! | `snapshot` | what a load could see |
//! | `feed` | what others have changed |
//! | `session`, `postgres`, `sqlite` | the only places that name sqlx |
//! | `check` | what is wrong with a configuration once the databases are asked |

mod batch;
mod breaker;
mod check;
mod config;
mod dispatch;
mod duration;
mod embedded;
mod fault;
mod feed;
mod group;
mod group_file;
mod group_load;
mod group_text;
mod group_writes;
mod groups;
mod invalidation;
mod latency;
mod lines;
mod load;
mod origin;
mod pattern;
mod pending;
mod placeholder;
mod postgres;
mod session;
mod snapshot;
mod sqlite;
mod status;
mod target;
mod waiting;
mod window;
mod write;
mod write_plan;

pub use breaker::{BreakerConfig, BreakerState};
pub use check::{Checked, check, examine};
pub use config::OriginConfig;
pub use dispatch::GroupMatch;
pub use duration::parse as parse_duration;
pub use embedded::{EmbeddedDatabase, EmbeddedError};
pub use fault::{Fault, nearest};
pub use feed::{
    Affected, AffectedKeys, Change, ChangeFeed, FeedConfig, FeedCounts, FeedEvent, FeedMemory, FeedState, FeedStatus,
    FeedView, Gap, KafkaConfig, KafkaLogin, KafkaMechanism, KafkaTls, MAX_BYTES_OF_CHANGE, MAX_KEYS_OF_CHANGE,
    MAX_KEYS_OF_TRANSACTION, Position, Visibility, feed_sql, is_feed_name,
};
pub use group::{Feed, Group, GroupConfig, GroupId, MAX_GROUPS, Refresh, Shape, WriteStrategy};
pub use group_file::{Abilities, parse_groups, parse_groups_for};
pub use group_text::{length, to_toml};
pub use groups::{Groups, Rules};
pub use invalidation::{Invalidation, InvalidationError, TableName};
pub use lines::{Lines, Span};
pub use load::{LoadError, Loaded, TargetId, Value};
pub use origin::Origin;
pub use pattern::{Captures, KeyPattern, MAX_CAPTURES, PatternError};
pub use pending::PendingLoad;
pub use snapshot::{NoSnapshot, Snapshot, Xid};
pub use status::{BATCH_SIZE_BOUNDS, GroupStatus, OriginStatus, Role, TargetStatus};
pub use write::{NewValue, Write, WriteChange, WriteError, Written};
