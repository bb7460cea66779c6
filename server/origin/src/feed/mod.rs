//! Change feeds: what others have changed in the database, as the keys that it invalidates.
//!
//! | module | what is in it |
//! |---|---|
//! | `change`, `handle`, `config`, `status` | what comes out, and how it is followed |
//! | `mapping` | from a changed row to keys; pure |
//! | `tables` | what the database says of the tables that groups name |
//! | `wal` | the write-ahead log |
//! | `notify` | triggers and NOTIFY |
//! | `kafka` | topics of changes |
//! | `outlet`, `settling`, `lasting`, `said`, `asked` | what the feeds' tasks have in common |
//! | `address`, `tls` | where the database is |
//! | `examine` | what is wrong before a feed is followed, and the SQL that an administrator may want to run |

mod address;
mod asked;
mod attempts;
mod change;
mod config;
mod examine;
mod handle;
mod kafka;
mod lasting;
mod mapping;
mod notify;
mod outlet;
mod said;
mod settling;
mod status;
mod tables;
mod tls;
mod visibility;
mod wal;

pub use change::{
    Affected, AffectedKeys, Change, FeedEvent, FeedMemory, Gap, MAX_BYTES_OF_CHANGE, MAX_KEYS_OF_CHANGE,
    MAX_KEYS_OF_TRANSACTION, Position,
};
pub use config::FeedConfig;
pub use handle::{ChangeFeed, FeedView};
pub use kafka::{KafkaConfig, KafkaLogin, KafkaMechanism, KafkaTls};
pub use status::{FeedCounts, FeedState, FeedStatus};
pub use visibility::Visibility;

pub use examine::feed_sql;

pub(crate) use examine::examine;
pub(crate) use outlet::GroupsWatch;

use crate::fault::Fault;
use crate::group::Feed;

/// The longest name of a feed. The names of slots and of connections, with their terms, are longer, and Postgres cuts what is beyond 63 bytes.
const LONGEST_NAME: usize = 40;

/// Whether a feed can have that name: lower case letters, digits and `_`, at most 40 of them, beginning with a letter or `_`.
pub fn is_feed_name(name: &str) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.as_bytes().first().is_some_and(|first| !first.is_ascii_digit());
    begins && name.len() <= LONGEST_NAME && name.bytes().all(is_sign)
}

/// Follows the changes of the database at `url`.
///
/// # Errors
/// When there is no such feed there.
pub(crate) fn follow(url: &str, feed: Feed, config: FeedConfig, groups: GroupsWatch) -> Result<ChangeFeed, Fault> {
    let refuse = |problem: String, hint: &str| Err(Fault::unplaced("feed", problem, hint));
    let name = &config.name;
    if !is_feed_name(name) {
        return refuse(
            format!("`{name}` cannot be the name of a replication slot"),
            "write lower case letters, digits and `_`, at most 40 of them, beginning with a letter",
        );
    }
    if url.starts_with("sqlite:") {
        return refuse("SQLite tells nobody of changes".to_owned(), "leave invalidated_by out and set a ttl");
    }
    let followed = match feed {
        Feed::Wal => wal::follow(url, config, groups),
        Feed::Notify => notify::follow(url, config, groups),
        Feed::Kafka => kafka::follow(url, config, groups),
    };
    followed.or_else(|problem| refuse(problem, "write postgres://user:password@host:5432/database"))
}
