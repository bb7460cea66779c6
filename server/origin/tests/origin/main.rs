//! The origin against real databases: private instances of PostgreSQL, and SQLite files.

mod batches;
mod checks;
mod failures;
mod feed;
mod groups;
mod notify;
mod shop;
mod snapshots;
mod sqlite;
mod targets;
mod tls;
mod values;
