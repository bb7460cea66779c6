//! `maxmemory` under a load of writes: what is resident follows what is allowed, and nobody waits for evictions.
//!
//! `FOREBAY_LIMIT=256` sets the limit in MiB. Times are printed, and held against nothing: they mean something on a quiet machine
//! alone.

use std::env;
use std::time::{Duration, Instant};

use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::probe::{Latencies, Probe, Question};
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// The limit in MiB, unless the environment says otherwise.
const LIMIT: u64 = 24;

/// So many times the limit is written.
const TIMES: u64 = 3;

/// Resident memory may be so many hundredths of the limit …
const RESIDENT_PERCENT: u64 = 115;

/// … and, where the limit is small, so many bytes more: the program itself, most of which is its code, 25 MiB of it in an unoptimised build.
const PROGRAM: u64 = 36 << 20;

/// From this limit on the program counts, too.
const LARGE_LIMIT: u64 = 256 << 20;

/// Writes that are sent at once, and their connections' number is one: the order is the same in each run.
const BATCH: usize = 64;

/// What no request should wait because of evictions.
const HELD: Duration = Duration::from_millis(20);

/// How long memory may take to come down after the sizes of values have changed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The most that is written of tiny values, which are very many.
const TINY_LIMIT: u64 = 64 << 20;

/// What a key costs beside its value, about, to tell how many make up the limit.
const KEY_BYTES: usize = 48;

#[test]
fn resident_memory_follows_the_limit() {
    let limit = limit();
    let loads =
        [("64 B", (64, 64), limit), ("16 B to 4 KiB", (16, 4096), limit), ("1 to 3 B", (1, 3), limit.min(TINY_LIMIT))];
    for (name, sizes, limit) in loads {
        let free = Load::of(sizes).run(&mut start(None), limit);
        let mut server = start(Some(limit));
        let bounded = Load::of(sizes).run(&mut server, TIMES * limit);
        println!("{name}: without a limit {free}");
        println!("{name}, {TIMES} times {} MiB: {bounded}; {} of the limit", limit >> 20, ratio(bounded.peak, limit));
        println!("{name}: processor time of a write {:.2} times that without a limit", bounded.each() / free.each());
        assert!(bounded.evicted > 0, "{name}: nothing had to go");
        assert!(bounded.peak <= bound(limit), "{name}: {} bytes of {limit} are resident", bounded.peak);
    }
}

/// Pages of small values are left with a few of them each, so that the allocator cannot give any of them back by itself.
#[test]
fn memory_comes_down_again_after_sizes_have_changed() {
    let limit = limit();
    let mut server = start(Some(limit));
    let small = Load::of((16, 200)).run(&mut server, limit * 3 / 2);
    let large = Load::of((1_000, 4_000)).run(&mut server, limit * 3 / 2);
    println!("small, then large values of {} MiB: {small}; then {large}", limit >> 20);
    // Without a load, what is left over may not stay.
    let came_down = eventually(PATIENCE, || server.process().resident_bytes() <= bound(limit));
    let (moved, resident) =
        (info(&mut server.connect(), "stats", "active_defrag_hits"), server.process().resident_bytes());
    println!("then {} of the limit are resident; {moved} blocks were moved", ratio(resident, limit));
    assert!(came_down, "{resident} bytes of {limit} stay resident");
}

/// Deleting most keys leaves a few in each page. Without a limit, too, their memory is given back.
#[test]
fn memory_comes_down_after_most_keys_are_gone() {
    let mut server = start(None);
    let mut client = server.connect();
    let empty = server.process().resident_bytes();
    let load = Load::of((100, 300));
    let first_key = load.first_key();
    let keys = load.run(&mut server, LIMIT << 21).writes;
    let full = server.process().resident_bytes();
    for first in (first_key..first_key + keys).step_by(BATCH) {
        let gone: Vec<_> = (first..first + BATCH).filter(|n| n % 16 != 0).map(|n| encode(&["DEL", &key(n)])).collect();
        exchange(&mut client, &gone);
    }
    // Half of what the keys took; what the program itself takes depends on the machine.
    let goal = empty + (full - empty) / 2;
    let came_down = eventually(PATIENCE, || server.process().resident_bytes() <= goal);
    let (moved, resident) = (info(&mut client, "stats", "active_defrag_hits"), server.process().resident_bytes());
    println!(
        "a sixteenth of {keys} keys is left: {full} bytes came down to {resident}, of which {empty} were there at first; {moved} blocks were moved"
    );
    assert!(
        came_down && moved > 0,
        "{resident} bytes of {full} stay resident, more than {goal}; {moved} blocks were moved"
    );
    // With the probe's own.
    assert_eq!(info(&mut client, "keyspace", "db0:keys"), keys as u64 / 16 + 1);
}

/// Writes of new keys with values of one range of sizes.
struct Load {
    sizes: (usize, usize),
    /// Decides the sizes: the same in each run.
    state: u64,
}

/// What came of a load.
struct Outcome {
    writes: usize,
    /// The server's processor time.
    spent: Duration,
    took: Duration,
    peak: u64,
    evicted: u64,
    single: Latencies,
}

impl Load {
    fn of(sizes: (usize, usize)) -> Self {
        Self { sizes, state: 88_172_645_463_325_252 }
    }

    /// Writes about `bytes`, in keys that nothing was written to before.
    fn run(mut self, server: &mut Forebay, bytes: u64) -> Outcome {
        let mut client = server.connect();
        client.command("SET probed value");
        let known = info(&mut client, "stats", "evicted_keys");
        let first = self.first_key();
        let probe = Probe::start(server.address(), Question::single(&["SET", "probed", "value"], "+OK\r\n".len()));
        let (began, spent_before) = (Instant::now(), server.process().processor_time());
        let (mut written, mut writes) = (0, 0);
        while written < bytes {
            let batch: Vec<_> = (0..BATCH).map(|n| self.write(first + writes + n, &mut written)).collect();
            exchange(&mut client, &batch);
            writes += BATCH;
        }
        Outcome {
            writes,
            spent: server.process().processor_time() - spent_before,
            took: began.elapsed(),
            peak: server.process().peak_resident_bytes(),
            evicted: info(&mut client, "stats", "evicted_keys") - known,
            single: probe.end(),
        }
    }

    /// Each range has keys of its own: what a former load wrote is to be evicted, not overwritten.
    fn first_key(&self) -> usize {
        self.sizes.1 * 100_000_000
    }

    fn write(&mut self, number: usize, written: &mut u64) -> Vec<u8> {
        let (least, most) = self.sizes;
        // Xorshift (G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let size = least + (self.state % (most - least + 1) as u64) as usize;
        *written += (size + KEY_BYTES) as u64;
        encode(&["SET", &key(number), &"x".repeat(size)])
    }
}

impl Outcome {
    /// Microseconds of a write.
    fn each(&self) -> f64 {
        self.spent.as_secs_f64() * 1e6 / self.writes as f64
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { writes, took, peak, evicted, single, .. } = self;
        write!(f, "{writes} writes in {took:.2?}, {:.2} µs of processor each, {evicted} evicted, ", self.each())?;
        write!(
            f,
            "{} MiB resident at most; a single SET meanwhile: {single}, {} over {HELD:?}",
            peak >> 20,
            single.over(HELD)
        )
    }
}

/// Sends requests whose replies are of one line, and reads those.
fn exchange(client: &mut Connection, requests: &[Vec<u8>]) {
    client.send(&requests.concat()).expect("the server reads");
    for _ in requests {
        let reply = client.read_raw().expect("a reply");
        assert!(!reply.starts_with(b"-"), "{}", String::from_utf8_lossy(&reply));
    }
}

fn key(n: usize) -> String {
    format!("key:{n:011}")
}

fn start(limit: Option<u64>) -> Forebay {
    let mut options = ForebayOptions { alone: true, ..ForebayOptions::default() };
    options.args.extend(limit.iter().flat_map(|limit| ["--maxmemory".to_owned(), limit.to_string()]));
    options.args.extend(["--threads", "1"].map(str::to_owned));
    Forebay::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn limit() -> u64 {
    env::var("FOREBAY_LIMIT").ok().and_then(|limit| limit.parse().ok()).unwrap_or(LIMIT) << 20
}

fn bound(limit: u64) -> u64 {
    limit / 100 * RESIDENT_PERCENT + if limit < LARGE_LIMIT { PROGRAM } else { 0 }
}

fn ratio(bytes: u64, limit: u64) -> String {
    format!("{:.3}", bytes as f64 / limit as f64)
}

fn info(client: &mut Connection, section: &str, field: &str) -> u64 {
    let reply = client.command(&format!("INFO {section}"));
    let text = String::from_utf8_lossy(reply.text().expect("a text")).into_owned();
    let field = format!("{field}{}", if field.contains(':') { "=" } else { ":" });
    let rest = text.lines().find_map(|line| line.strip_prefix(&field)).expect("the field");
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().expect("a number")
}
