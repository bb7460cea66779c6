//! The `kafka` feed: topics with a message for each changed row, as Debezium and others write them.
//!
//! | module | what is in it |
//! |---|---|
//! | `follow` | a keeper's work: signing on, telling of what comes, and trying again |
//! | `attach` | the brokers that lead the partitions, and from where they are read |
//! | `offsets` | how far was read, and how far everybody has dealt with what was read |
//! | `message`, `row` | from a message's text to a changed row, and to keys |
//! | `broker`, `requests`, `records`, `wire`, `sasl` | the protocol, as far as reading needs it |
//!
//! The protocol is our own, since of the crates one wraps a C library, and the other (rskafka 0.6) has TLS with aws-lc-rs only, stops at the
//! first transaction of a producer (influxdata/rskafka#297) and decompresses without a limit.

mod attach;
mod broker;
mod config;
mod follow;
mod message;
mod offsets;
mod records;
mod requests;
mod row;
mod sasl;
mod wire;

pub use config::{KafkaConfig, KafkaLogin, KafkaMechanism, KafkaTls};

pub(super) use attach::look_at_topics;
pub(crate) use offsets::TopicMemory;

use super::address::Address;
use super::config::FeedConfig;
use super::handle::ChangeFeed;
use super::outlet::{GroupsWatch, Outlet};

/// Follows the topics, whose changes are of the database at `url`.
///
/// # Errors
/// In words, when the URL is none.
pub(super) fn follow(url: &str, config: FeedConfig, groups: GroupsWatch) -> Result<ChangeFeed, String> {
    let address = Address::parse(url, &config.name)?;
    Ok(Outlet::open(config, groups, |outlet| follow::run(address, outlet)))
}
