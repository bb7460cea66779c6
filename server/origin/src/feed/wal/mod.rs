//! The `wal` feed: Postgres' write-ahead log, through a logical replication slot with the `pgoutput` plugin.
//!
//! | module | what is in it |
//! |---|---|
//! | `follow` | a keeper's work: signing on, and trying again |
//! | `pump`, `progress` | telling of what comes, and confirming |
//! | `setup` | the publication and the slot, and what to do where they cannot be made |
//! | `session` | the replication connection |
//! | `transaction`, `pgoutput` | from the stream's messages to what each transaction changed |

mod follow;
mod pgoutput;
mod progress;
mod pump;
mod session;
pub(super) mod setup;
mod transaction;

use super::address::Address;
use super::config::FeedConfig;
use super::handle::ChangeFeed;
use super::outlet::{GroupsWatch, Outlet};

/// Follows the log of the database at `url`.
///
/// # Errors
/// In words, when the URL is none.
pub(super) fn follow(url: &str, config: FeedConfig, groups: GroupsWatch) -> Result<ChangeFeed, String> {
    let address = Address::parse(url, &config.name)?;
    Ok(Outlet::open(config, groups, |outlet| follow::run(address, outlet)))
}
