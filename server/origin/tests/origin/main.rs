//! The origin against real databases: private instances of PostgreSQL, and SQLite files.

mod batches;
mod checks;
mod failures;
mod feed;
mod feed_altered;
mod feed_rows;
mod groups;
mod many;
mod notify;
mod shop;
mod snapshots;
mod sqlite;
mod sqlite_writes;
mod targets;
mod tls;
mod values;
mod writes;
