//! The commands: one file per family, its table at the top.

pub mod call;
pub mod error;
pub mod spec;
pub mod table;

mod bitfield;
mod bitmaps;
mod client;
mod config;
mod connection;
mod databases;
mod debug;
mod expire_condition;
mod expiry;
mod forebay;
mod glob;
mod hash_random;
mod hashes;
mod help;
mod info;
mod introspection;
mod keys;
mod latency;
mod memory;
mod numbers;
mod object;
mod scan;
mod server;
mod slowlog;
mod strings;

use spec::Spec;

/// Every family's table.
static FAMILIES: &[&[Spec]] = &[
    bitfield::TABLE,
    bitmaps::TABLE,
    client::TABLE,
    config::TABLE,
    connection::TABLE,
    databases::TABLE,
    debug::TABLE,
    expiry::TABLE,
    forebay::TABLE,
    hashes::TABLE,
    info::TABLE,
    introspection::TABLE,
    keys::TABLE,
    latency::TABLE,
    memory::TABLE,
    numbers::TABLE,
    object::TABLE,
    scan::TABLE,
    server::TABLE,
    slowlog::TABLE,
    strings::TABLE,
];
