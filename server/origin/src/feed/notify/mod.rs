//! The `notify` feed: triggers tell of changed rows by NOTIFY, and a keeper listens.
//!
//! Nothing is kept for a keeper that does not listen, so each beginning and each interruption is a gap.

mod listen;
mod payload;
pub(super) mod triggers;

use super::address::Address;
use super::config::FeedConfig;
use super::handle::ChangeFeed;
use super::outlet::{GroupsWatch, Outlet};

/// Listens to the database at `url`.
///
/// # Errors
/// In words, when the URL is none.
pub(super) fn follow(url: &str, config: FeedConfig, groups: GroupsWatch) -> Result<ChangeFeed, String> {
    let address = Address::parse(url, &config.name)?;
    Ok(Outlet::open(config, groups, |outlet| listen::run(address, outlet)))
}
