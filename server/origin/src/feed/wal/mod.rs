//! The `wal` feed: Postgres' write-ahead log, through a logical replication slot with the `pgoutput` plugin.
mod pgoutput;
mod transaction;
