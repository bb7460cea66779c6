//! Forebay: a Redis-wire-compatible, distributed, read-through cache in front of Postgres.
//!
//! ARCHITECTURE.md tells the way of a request through these modules.

pub mod administer;
pub mod app;
pub mod channels;
pub mod check;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod compaction;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod descriptors;
pub mod drain;
pub mod ecs;
pub mod engine;
pub mod eviction;
pub mod expiry;
pub mod freshness;
pub mod front;
pub mod groups;
pub mod hot;
pub mod housekeeping;
pub mod identity;
pub mod listeners;
pub mod logging;
pub mod memory;
pub mod node;
pub mod output_limits;
pub mod process;
pub mod reclaim;
pub mod replication;
pub mod roles;
pub mod session;
pub mod settings;
pub mod signals;
pub mod size;
pub mod telemetry;
pub mod tls;
pub mod tracking;
pub mod turns;
pub mod who;
pub mod writes;
