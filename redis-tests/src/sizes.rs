//! How large the cluster tests are: small for every day, large by `make show-cluster`.

use std::cell::Cell;
use std::env;
use std::time::Duration;

/// Clients that ask for one missing key.
pub fn herd() -> usize {
    number("FOREBAY_HERD", 300)
}

/// How often a fault is repeated.
pub fn rounds() -> usize {
    number("FOREBAY_ROUNDS", 1)
}

/// Clients of a load.
pub fn clients() -> usize {
    number("FOREBAY_CLIENTS", 24)
}

/// Right answers that are waited for before, between and after faults.
pub fn answers() -> u64 {
    number("FOREBAY_ANSWERS", 2000)
}

/// Keys of a load.
pub fn keys() -> u32 {
    number("FOREBAY_KEYS", 2000)
}

/// Small keys that are in the cluster beside those of a load, when nodes join and go.
pub fn filling() -> usize {
    number("FOREBAY_FILLING", 20_000)
}

/// A figure that users are promised. Small tests on a busy machine print it only; where it is worth something, `FOREBAY_CLAIMS=1` holds us to it.
///
/// # Panics
/// When it does not hold and is to be held.
pub fn claim(holds: bool, words: &str) {
    println!("    {}: {words}", if holds { "holds" } else { "DOES NOT HOLD" });
    assert!(holds || number("FOREBAY_CLAIMS", 0) == 0, "this does not hold: {words}");
}

/// How long a node sleeps, or a link is cut: longer than any lease.
pub fn fault() -> Duration {
    Duration::from_secs(number("FOREBAY_FAULT_SECONDS", 8))
}

/// How long the checker reads, writes and makes trouble.
pub fn check_time() -> Duration {
    Duration::from_secs(number("FOREBAY_CHECK_SECONDS", 20))
}

/// Sessions that the checker reads by. Those that a node keeps waiting read nothing meanwhile.
pub fn check_readers() -> u64 {
    number("FOREBAY_CHECK_READERS", 12)
}

/// Transactions per second of all the checker's writers together.
pub fn check_commits() -> f64 {
    number("FOREBAY_CHECK_COMMITS", 120.0)
}

/// Seconds for which a database is away.
pub fn outage() -> u64 {
    number("FOREBAY_OUTAGE_SECONDS", 5)
}

/// The seed of all clients; printed by each test that asks, so that a failure can be repeated.
pub fn seed() -> u64 {
    thread_local!(static PRINTED: Cell<bool> = const { Cell::new(false) });
    let seed = number("FOREBAY_SEED", u64::from(std::process::id()));
    // Each test has a thread of its own, whose output is shown when it fails.
    if !PRINTED.replace(true) {
        println!("FOREBAY_SEED={seed}");
    }
    seed
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| panic!("{name} is {text}, not a number"))
}
