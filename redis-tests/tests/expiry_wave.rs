//! A wave of deadlines: very many keys expire within one second, and nobody who asks for something meanwhile is held up.
//!
//! `FOREBAY_KEYS=1000000` sets the number of keys. Times are printed, and held against nothing: they mean something on a quiet machine
//! alone.

use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::probe::{Latencies, Probe, Question};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// Keys, unless the environment says otherwise.
const KEYS: usize = 50_000;

/// Keys that are written in one batch.
const BATCH: usize = 1_000;

/// All deadlines lie within this.
const WAVE: Duration = Duration::from_secs(1);

/// The wave begins so long after the first key was written; twice as long if that was too short for the last one, and so on.
const LEAD: Duration = Duration::from_secs(4);

/// How long the keys may be left lying.
const PATIENCE: Duration = Duration::from_secs(60);

/// What no request should be held longer than.
const HELD: Duration = Duration::from_millis(5);

/// Requests that the load sends at once.
const PIPELINE: usize = 16;

/// Different lengths of values.
const LENGTHS: usize = 16;

/// Bytes that a deadline may cost a key.
const DEADLINE_BYTES: f64 = 8.0;

/// Bytes that the count may be off by in all: what the threads have not told it yet.
const SLACK: f64 = 128.0 * 1024.0;

#[test]
fn a_wave_of_deadlines_holds_up_nobody() {
    let keys = keys();
    let mut server = start();
    let mut client = server.connect();
    client.command("SET probed value");

    let reference = probe(&server, keys, WAVE + Duration::from_millis(500));
    let began = fill_ahead(&mut client, keys);
    let expired_before = expired(&mut client);
    while unix_millis() + 100 < began {
        std::thread::sleep(Duration::from_millis(10));
    }
    let spent = server.process().processor_time();
    let watch = Watch::start(&server, keys);
    let are_gone = eventually(PATIENCE, || client.command("DBSIZE") == Reply::Integer(1));
    let gone_after = unix_millis().saturating_sub(began);
    let (single, loaded) = watch.end();
    let spent = server.process().processor_time() - spent;

    println!(
        "{keys} keys expire within {WAVE:?}: all gone after {gone_after} ms; the server used {spent:.2?}, the load's requests included"
    );
    println!("  a client's GETs:          {single}; {} over {HELD:?}", single.over(HELD));
    println!("  the same, nothing else:   {}; {} over {HELD:?}", reference.0, reference.0.over(HELD));
    println!("  batches of {PIPELINE} STRLEN:     {loaded}; {} over {HELD:?}", loaded.over(HELD));
    println!("  the same, nothing else:   {}; {} over {HELD:?}", reference.1, reference.1.over(HELD));
    assert!(are_gone, "keys are left lying after their time");
    assert_eq!(expired(&mut client) - expired_before, keys as u64);
}

#[test]
fn a_deadline_costs_a_key_no_more_than_its_bytes() {
    let keys = keys();
    let far = unix_millis() + 3_600_000;
    let (without, with) = (Memory::of(keys, None), Memory::of(keys, Some(far)));
    println!("{keys} keys without deadlines: {without}; with: {with}");
    let more = with.counted - without.counted;
    println!(
        "a deadline costs {more:.2} bytes by the allocator's count, {:.2} resident",
        with.resident - without.resident
    );
    assert!(more <= DEADLINE_BYTES + SLACK / keys as f64, "{more:.2} bytes");
}

/// Bytes per key.
#[derive(Clone, Copy)]
struct Memory {
    counted: f64,
    resident: f64,
}

impl Memory {
    fn of(keys: usize, deadline: Option<u64>) -> Self {
        let mut server = start();
        let mut client = server.connect();
        client.command("SET first value");
        let (counted, resident) = (used(&mut client), server.process().resident_bytes());
        fill(&mut client, keys, |n| deadline.map(|deadline| deadline + n as u64));
        let per_key = |before: u64, after: u64| (after as f64 - before as f64) / keys as f64;
        Self {
            counted: per_key(counted, used(&mut client)),
            resident: per_key(resident, server.process().resident_bytes()),
        }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} bytes each ({:.2} resident)", self.counted, self.resident)
    }
}

/// A client that asks for one key and another that is a load.
struct Watch {
    single: Probe,
    loaded: Probe,
}

impl Watch {
    fn start(server: &Forebay, keys: usize) -> Self {
        // Evenly spread over all keys, and with answers of one length whether they are there or not: values are of 8 bytes.
        let requests =
            (0..PIPELINE).map(|n| encode(&["STRLEN", &key(n * keys / PIPELINE / LENGTHS * LENGTHS)])).collect();
        Self {
            single: Probe::start(server.address(), Question::single(&["GET", "probed"], "$5\r\nvalue\r\n".len())),
            loaded: Probe::start(server.address(), Question::pipeline(requests, ":0\r\n".len())),
        }
    }

    fn end(self) -> (Latencies, Latencies) {
        (self.single.end(), self.loaded.end())
    }
}

/// What the clients see while nothing else happens.
fn probe(server: &Forebay, keys: usize, time: Duration) -> (Latencies, Latencies) {
    let watch = Watch::start(server, keys);
    let until = Instant::now() + time;
    std::thread::sleep(until - Instant::now());
    watch.end()
}

/// Fills the store with keys whose time has not come when the last of them is written. Tells when the first one's comes.
fn fill_ahead(client: &mut Connection, keys: usize) -> u64 {
    let mut lead = LEAD;
    loop {
        let began = unix_millis() + lead.as_millis() as u64;
        fill(client, keys, |n| Some(began + n as u64 % WAVE.as_millis() as u64));
        if unix_millis() < began && client.command("DBSIZE") == Reply::Integer(keys as i64 + 1) {
            return began;
        }
        client.command("FLUSHALL");
        client.command("SET probed value");
        lead *= 2;
    }
}

/// Writes keys of 15 bytes with values of 8 to 23, each with the deadline that `deadline` says for its number. An allocator hands memory
/// out in steps of 16 bytes, so at one length 8 bytes more would cost 16 and at another none.
fn fill(client: &mut Connection, keys: usize, deadline: impl Fn(usize) -> Option<u64>) {
    for first in (0..keys).step_by(BATCH) {
        let numbers = first..keys.min(first + BATCH);
        let batch: Vec<_> = numbers.clone().map(|n| set(n, deadline(n))).collect();
        client.send(&batch.concat()).expect("the server reads");
        for _ in numbers {
            assert_eq!(client.read_raw().expect("a reply"), b"+OK\r\n");
        }
    }
}

fn set(n: usize, deadline: Option<u64>) -> Vec<u8> {
    let value = format!("v{n:0width$}", width = 7 + n % LENGTHS);
    match deadline {
        None => encode(&["SET", &key(n), &value]),
        Some(at) => encode(&["SET", &key(n), &value, "PXAT", &at.to_string()]),
    }
}

fn key(n: usize) -> String {
    format!("key:{n:011}")
}

fn start() -> Forebay {
    Forebay::start(ForebayOptions { alone: true, ..ForebayOptions::default() })
        .unwrap_or_else(|error| panic!("{error}"))
}

fn keys() -> usize {
    env::var("FOREBAY_KEYS").ok().and_then(|keys| keys.parse().ok()).unwrap_or(KEYS)
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set").as_millis() as u64
}

fn used(client: &mut Connection) -> u64 {
    client.figure("memory", "used_memory")
}

fn expired(client: &mut Connection) -> u64 {
    client.figure("stats", "expired_keys")
}
