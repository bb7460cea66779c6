//! When a transaction that was told of is seen by whoever asks.
//!
//! A server writes a commit to its log, from where feeds have it, before it takes the transaction off the list of those that run; with
//! synchronous replicas much before. Who loads in between reads the row as it was, and would have to load again.

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions as _, PgConnection, Row as _};
use tokio::sync::Mutex;

use super::address::Address;
use crate::snapshot::{Snapshot, Xid};

/// The pause after the first look; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How long a transaction is waited for before it is told of: a load that is too early is repeated.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks for what was told of before it could be seen.
const LATE_PAUSE: Duration = Duration::from_millis(250);

/// How long one look may take, with its connection.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// How the server says that it has never given a transaction's id: `invalid_parameter_value`.
const NOT_GIVEN: &str = "22023";

/// Looks at what new snapshots of the primary see, by a connection of its own.
pub struct Visibility {
    address: Address,
    look: Mutex<Look>,
}

#[derive(Default)]
struct Look {
    connection: Option<PgConnection>,
    /// The newest snapshot, and when it was asked for.
    seen: Option<(Snapshot, Instant)>,
}

impl Visibility {
    /// For the primary at `url`; `None` if that is no Postgres.
    pub(crate) fn of(url: &str, name: &str) -> Option<Visibility> {
        let address = Address::parse(url, &format!("{name} keeper")).ok()?;
        Some(Visibility { address, look: Mutex::default() })
    }

    /// Waits for a moment until new snapshots see the transaction. Tells whether they do; they may not for as long as a synchronous replica is
    /// stalled, and that is not known if they cannot be asked.
    pub async fn is_seen_soon(&self, xid: Xid) -> bool {
        let seen = async {
            let mut pause = FIRST_PAUSE;
            while !self.sees(xid).await? {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Ok::<_, sqlx::Error>(())
        };
        matches!(tokio::time::timeout(PATIENCE, seen).await, Ok(Ok(())))
    }

    /// Waits until new snapshots see the transaction, however long that takes and however often they cannot be asked; or until it is known that
    /// the server has none of that id: then it is another one than the one that told of it, which is a gap.
    pub async fn wait_for(&self, xid: Xid) {
        loop {
            let looked = tokio::time::timeout(LOOK_LIMIT, async {
                Ok::<_, sqlx::Error>(self.sees(xid).await? || self.is_of_another_server(xid).await?)
            });
            if matches!(looked.await, Ok(Ok(true))) {
                return;
            }
            tokio::time::sleep(LATE_PAUSE).await;
        }
    }

    /// Who has waited for another's look has mostly nothing to ask any more.
    async fn sees(&self, xid: Xid) -> Result<bool, sqlx::Error> {
        let asked_at = Instant::now();
        self.look.lock().await.sees(&self.address, xid, asked_at).await
    }

    async fn is_of_another_server(&self, xid: Xid) -> Result<bool, sqlx::Error> {
        self.look.lock().await.is_not_given(&self.address, xid).await
    }
}

impl Look {
    /// Whether a snapshot sees it that was taken after `since`, or an earlier one does.
    async fn sees(&mut self, address: &Address, xid: Xid, since: Instant) -> Result<bool, sqlx::Error> {
        let is_told = |seen: &(Snapshot, Instant)| seen.0.sees(xid) || seen.1 >= since;
        if !self.seen.as_ref().is_some_and(is_told) {
            let asked_at = Instant::now();
            let mut connection = self.connect(address).await?;
            let row = sqlx::query("SELECT pg_current_snapshot()::text").fetch_one(&mut connection).await?;
            let snapshot = row.try_get::<String, _>(0)?.parse().ok();
            self.seen = snapshot.map(|snapshot| (snapshot, asked_at));
            self.connection = Some(connection);
        }
        Ok(self.seen.as_ref().is_some_and(|(seen, _)| seen.sees(xid)))
    }

    /// Whether the server will give the id to a transaction only in the future.
    async fn is_not_given(&mut self, address: &Address, xid: Xid) -> Result<bool, sqlx::Error> {
        let mut connection = self.connect(address).await?;
        let asked = sqlx::query("SELECT pg_xact_status($1::text::xid8)").bind(xid.to_string());
        let answer = asked.fetch_one(&mut connection).await;
        self.connection = Some(connection);
        match answer {
            Ok(_) => Ok(false),
            Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == NOT_GIVEN) => Ok(true),
            Err(error) => {
                self.connection = None;
                Err(error)
            }
        }
    }

    /// One that was interrupted, or has failed, is not used again: it is put back by who has got an answer.
    async fn connect(&mut self, address: &Address) -> Result<PgConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => address.options.connect().await,
        }
    }
}
