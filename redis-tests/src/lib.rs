//! The black-box tests: everything here speaks to a server over TCP and knows nothing of its inside.
//!
//! - [`server`] starts and ends real processes, Forebay and redis-server alike;
//! - [`connection`] sends bytes and reads exactly one reply;
//! - [`reply`] is a reply as a value that keeps what the wire said;
//! - [`text`] is the notation that commands and replies are written and printed in;
//! - [`expectation`] is what a case says of a reply;
//! - [`checker`] tells whether what the database has replaced is served, under faults;
//! - [`cases`] reads the files under `cases/`, [`conformance`] runs them;
//! - [`differential`] makes random commands and compares two servers;
//! - [`database`] is a private Postgres that tells what it was asked;
//! - [`herd`] is thousands of connections that ask at the same moment;
//! - [`http`] asks the HTTP door;
//! - [`near_cache`] is a client that keeps what it has read until it is told otherwise;
//! - [`over`] ends clients with their test;
//! - [`probe`] is a client that notes how long each answer takes;
//! - [`programs`] runs other people's clients and tools;
//! - [`sizes`] is how large the cluster tests are;
//! - [`traffic`] is clients that ask all the time while something happens;
//! - [`cluster`] is nodes as processes, faults, and the checks of what clients saw.
//!
//! `README.md` of this directory tells how to write a case and how to run one file.

mod asking;
pub mod cases;
pub mod checker;
pub mod cluster;
pub mod conformance;
pub mod connection;
pub mod database;
pub mod differential;
pub mod expectation;
pub mod herd;
pub mod http;
pub mod kafka;
pub mod near_cache;
pub mod over;
pub mod probe;
pub mod process;
pub mod programs;
pub mod reply;
pub mod server;
pub mod sizes;
pub mod small_disk;
pub mod text;
pub mod traffic;
