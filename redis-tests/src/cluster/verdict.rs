//! The verdict over what clients saw while something happened to their cluster.

use super::durability;
use super::history::History;
use super::node::PATIENCE;
use super::nodes::Cluster;
use super::register;
use super::registers::{RegisterOptions, Registers};
use crate::sizes;

/// Clients for a test, none of them started; keys begin with `prefix`.
pub fn options(prefix: &str) -> RegisterOptions {
    RegisterOptions { prefix: prefix.to_owned(), seed: sizes::seed(), ..RegisterOptions::default() }
}

/// Ends the clients; their history, which is given back, must be linearizable, nothing acknowledged lost, and all copies equal.
///
/// # Panics
/// When it is not so: the message has the events that show it.
pub fn judge(cluster: &Cluster, registers: Registers) -> History {
    let names = registers.names();
    let (history, finally) = registers.end(cluster.nodes[0].address(), PATIENCE);
    println!("{history}");
    let losses = durability::losses(&history, &finally);
    assert!(losses.is_empty(), "{} keys lost an acknowledged write, first: {}", losses.len(), losses[0]);
    let violations = register::violations(&history);
    assert!(violations.is_empty(), "{} keys are not linearizable, first: {}", violations.len(), violations[0]);
    cluster.await_equal_copies(&names, PATIENCE);
    history
}
