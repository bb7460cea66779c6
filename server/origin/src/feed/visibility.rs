//! When a transaction that was told of is seen by whoever asks.
//!
//! A server writes a commit to its log, from where feeds have it, before it takes the transaction off the list of those that run; with
//! synchronous replicas much before. Who loads in between reads the row as it was, and would have to load again.

use std::time::Duration;

use sqlx::{ConnectOptions as _, PgConnection, Row as _};
use tokio::sync::Mutex;

use super::address::Address;
use crate::snapshot::{Snapshot, Xid};

/// The pause after the first look; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// A transaction that is not seen by then is told of all the same: a load that is too early is repeated.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks at what new snapshots of the primary see, by a connection of its own.
pub struct Visibility {
    address: Address,
    look: Mutex<Look>,
}

#[derive(Default)]
struct Look {
    connection: Option<PgConnection>,
    /// The newest snapshot.
    seen: Option<Snapshot>,
}

impl Visibility {
    /// For the primary at `url`; `None` if that is no Postgres.
    pub(crate) fn of(url: &str, name: &str) -> Option<Visibility> {
        let address = Address::parse(url, &format!("{name} keeper")).ok()?;
        Some(Visibility { address, look: Mutex::default() })
    }

    /// Waits until new snapshots see the transaction, or for a moment if they cannot be asked.
    pub async fn wait_for(&self, xid: Xid) {
        let _seen_or_late = tokio::time::timeout(PATIENCE, async {
            let mut pause = FIRST_PAUSE;
            // Who has waited for another's look has mostly nothing to ask any more.
            while !self.look.lock().await.sees(&self.address, xid).await? {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ok::<_, sqlx::Error>(())
        })
        .await;
    }
}

impl Look {
    async fn sees(&mut self, address: &Address, xid: Xid) -> Result<bool, sqlx::Error> {
        if !self.seen.as_ref().is_some_and(|seen| seen.sees(xid)) {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => address.options.connect().await?,
            };
            let row = sqlx::query("SELECT pg_current_snapshot()::text").fetch_one(&mut connection).await?;
            self.seen = row.try_get::<String, _>(0)?.parse().ok();
            // One that was interrupted, or has failed, is not used again.
            self.connection = Some(connection);
        }
        Ok(self.seen.as_ref().is_some_and(|seen| seen.sees(xid)))
    }
}
