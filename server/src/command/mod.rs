//! The commands: one file per family, its table at the top.

pub mod call;
pub mod error;
pub mod spec;
pub mod table;

mod bitfield;
mod bitmaps;
mod bits;
mod client;
mod cluster;
mod config;
mod connection;
mod copies;
mod databases;
mod debug;
mod expire_condition;
mod expire_options;
mod expiry;
mod forebay;
mod function;
mod glob;
mod hash_random;
mod hashes;
mod help;
mod index_range;
mod info;
mod introspection;
mod keys;
mod latency;
mod lcs;
mod long_double;
mod memory;
mod names;
mod numbers;
mod object;
mod packed_integer;
pub mod pubsub;
pub(crate) mod scan;
mod server;
mod slowlog;
mod strings;
mod substrings;
mod syntax;

use spec::Spec;

/// Every family's table.
static FAMILIES: &[&[Spec]] = &[
    bitfield::TABLE,
    bitmaps::TABLE,
    client::TABLE,
    cluster::TABLE,
    config::TABLE,
    connection::TABLE,
    copies::TABLE,
    databases::TABLE,
    debug::TABLE,
    expiry::TABLE,
    forebay::TABLE,
    function::TABLE,
    hashes::TABLE,
    info::TABLE,
    introspection::TABLE,
    keys::TABLE,
    latency::TABLE,
    lcs::TABLE,
    memory::TABLE,
    numbers::TABLE,
    object::TABLE,
    pubsub::TABLE,
    scan::TABLE,
    server::TABLE,
    slowlog::TABLE,
    strings::TABLE,
    substrings::TABLE,
];
