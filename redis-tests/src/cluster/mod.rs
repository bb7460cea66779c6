//! Clusters: nodes as real processes, what clients see while things happen to them, and what may not happen.
//!
//! - [`node`] is a process that is started, killed, stopped, woken and restarted; [`nodes`] is several that make a cluster;
//! - [`network`] gives them addresses and cuts their links, [`weather`] makes the links slow and lossy;
//! - [`names`] is a DNS server that knows them, [`certificates`] is the authority by which they know each other;
//! - [`balancer`] stands before them for clients that know one address;
//! - [`roaming`] is a client that goes to another node when it loses one;
//! - [`load`] is many of them, with a tally of every second;
//! - [`registers`] is those that write values which occur once, and keep a [`history`];
//! - [`register`] tells whether a history is linearizable, [`durability`] whether an acknowledged write was lost, [`verdict`] asks both;
//! - [`view`] reads what nodes say of their cluster, [`copies`] whether all copies are equal;
//! - [`warehouse`] is a Postgres behind them, and so the hit ratio.

pub mod balancer;
pub mod certificates;
pub mod copies;
pub mod durability;
pub mod history;
pub mod load;
pub mod names;
pub mod network;
pub mod node;
pub mod nodes;
pub mod register;
pub mod registers;
pub mod roaming;
pub mod verdict;
pub mod view;
pub mod warehouse;
pub mod weather;
