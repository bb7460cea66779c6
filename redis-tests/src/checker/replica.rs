//! The replica of the checker's database, which can stand still and be out of reach.

use std::net::Ipv4Addr;

use crate::cluster::weather::Weather;
use crate::database::Database;

/// Where it is, and where nodes are told that it is.
const INSIDE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A streaming replica with a way to it that can be closed.
pub struct Replica {
    database: Database,
    way: Option<Weather>,
}

impl Replica {
    /// Starts a replica of `primary`.
    pub fn of(primary: &Database) -> Self {
        let mut replica = Self { database: primary.standby(), way: None };
        replica.open();
        replica
    }

    /// What nodes are given for it.
    pub fn url(&self) -> String {
        self.database.url().replace(&INSIDE.to_string(), &OUTSIDE.to_string())
    }

    /// It takes in nothing more of what is committed.
    pub fn stand_still(&self) {
        self.database.sql("SELECT pg_wal_replay_pause()");
    }

    /// It takes in again what is committed.
    pub fn go_on(&self) {
        self.database.sql("SELECT pg_wal_replay_resume()");
    }

    /// Its connections break, and there are no new ones.
    pub fn close(&mut self) {
        self.way = None;
    }

    /// It can be reached again.
    pub fn open(&mut self) {
        self.way = Some(Weather::between(OUTSIDE, INSIDE, &[self.database.port()], 0));
    }
}
