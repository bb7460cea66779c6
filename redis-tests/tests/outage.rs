//! Postgres goes away under load and comes back: what is cached is served on, the rest fails soon and in words, and it all heals.

use std::time::Duration;

use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};
use forebay_redis_tests::traffic::{Tally, Traffic};

/// How long a condition may take to come about.
const PATIENCE: Duration = Duration::from_secs(40);

/// The cap on connections to each database.
const POOL: usize = 4;

/// The load timeout of these tests: on a busy machine a database that is well may be given no processor for more than a second.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What a busy machine may add to the load timeout before a reply reaches its client.
const SLACK: Duration = Duration::from_secs(4);

/// Replies that make a count worth something.
const ENOUGH: u64 = 200;

const SCHEMA: &str = "
CREATE TABLE things (id int PRIMARY KEY, body text NOT NULL);
INSERT INTO things SELECT n, 'v1' FROM generate_series(0, 99) n;
";

const GROUPS: &str = r#"
[[group]]
name = "hot"
key = "hot:{id}"
load = "SELECT body AS hot FROM things WHERE id = $1"
as = "string"

[[group]]
name = "stale"
key = "stale:{id}"
load = "SELECT body AS stale FROM things WHERE id = $1"
as = "string"
ttl = "400ms"
stale_if_error = "1h"

[[group]]
name = "clock"
key = "clock:{id}"
load = "SELECT body AS clock FROM things WHERE id = $1"
as = "string"
ttl = "2s"
ttl_jitter = 0.0
"#;

/// Groups whose keys are asked for once each, so that every read is a miss. Each has queries of its own, which take a while: together
/// they need as many connections as there may be.
const LANES: u64 = 8;

fn fresh_group(lane: u64) -> String {
    format!(
        r#"
[[group]]
name = "fresh{lane}"
key = "fresh{lane}:{{id}}:{{n}}"
load = "SELECT body AS fresh FROM things WHERE id = $1::int AND $2::int8 >= 0 AND (SELECT pg_sleep(0.02)) IS NOT NULL"
as = "string"
ttl = "400ms"
"#
    )
}

#[test]
fn an_outage_is_a_non_event_for_hot_keys() {
    let mut database = Database::start(SCHEMA);
    let server = start(&database.url(), &[]);
    let mut client = server.connect();
    let mut traffic = Traffic::new();
    for id in 0..100 {
        assert_eq!(client.command(&format!("GET hot:{id}")), v(1));
        assert_eq!(client.command(&format!("GET stale:{id}")), v(1));
    }
    for name in ["hot", "hot", "stale", "stale"] {
        traffic.add(name, server.address(), move |n| format!("GET {name}:{}", n % 100), |_, reply| *reply == v(1));
    }
    ask_for_fresh(&mut traffic, &server);
    await_right(&traffic, 0, &["hot", "stale", "fresh"]);

    // Once this key has expired, so have all the others that have a ttl: theirs is far shorter.
    assert_eq!(client.command("GET clock:0"), v(1));
    database.stop();
    let down = traffic.next_phase();
    assert!(eventually(PATIENCE, || client.command("GET clock:0") != v(1)), "nothing expires");
    let stale = traffic.next_phase();
    assert!(
        eventually(PATIENCE, || {
            traffic.tally(stale, "fresh").origin_down >= ENOUGH
                && traffic.tally(stale, "hot").right >= ENOUGH
                && traffic.tally(stale, "stale").right >= ENOUGH
        }),
        "not enough replies during the outage: {:?} {:?} {:?}",
        traffic.tally(stale, "hot"),
        traffic.tally(stale, "stale"),
        traffic.tally(stale, "fresh"),
    );
    let up = traffic.next_phase();
    for phase in [down, stale] {
        let [hot, stale, fresh] = tallies(&traffic, phase);
        assert_eq!((hot.origin_down, hot.wrong), (0, 0), "hot keys: {hot:?}");
        assert_eq!((stale.origin_down, stale.wrong), (0, 0), "stale keys: {stale:?}");
        assert_eq!((fresh.right, fresh.wrong), (0, 0), "misses: {fresh:?}");
        let slowest = hot.slowest.max(stale.slowest).max(fresh.slowest);
        assert!(slowest < LOAD_TIMEOUT + SLACK, "a reply took {slowest:?}");
    }

    database.start_again();
    let watch = database.watch_connections();
    await_right(&traffic, up, &["fresh"]);
    let healed = traffic.next_phase();
    await_right(&traffic, healed, &["hot", "stale", "fresh"]);
    let [hot, stale, fresh] = tallies(&traffic, healed);
    for tally in [hot, stale, fresh] {
        assert_eq!((tally.origin_down, tally.wrong), (0, 0), "after the return: {tally:?}");
    }
    traffic.end();
    // Stale values give way to what the database has now.
    database.sql("UPDATE things SET body = 'v2'");
    let is_new = || (0..100).all(|id| client.command(&format!("GET stale:{id}")) == v(2));
    assert!(eventually(PATIENCE, is_new), "stale values stay");
    let seen = watch.end();
    println!("connections after the return, in steps of 10 ms: {}", in_runs(&seen));
    let most = seen.into_iter().max().unwrap_or_default();
    assert!((2..=POOL).contains(&most), "{most} connections where there may be {POOL}, and misses for all of them");
}

#[test]
fn the_primary_stands_in_for_a_replica_that_is_gone() {
    let database = Database::start(SCHEMA);
    let mut standby = database.standby();
    let server = start(&database.url(), &["--origin-replica", &standby.url()]);
    let mut traffic = Traffic::new();
    ask_for_fresh(&mut traffic, &server);
    await_right(&traffic, 0, &["fresh"]);
    let (by_primary, by_standby) = (database.asked("AS fresh"), standby.asked("AS fresh"));
    println!("while the replica is well: {by_standby} queries to it, {by_primary} to the primary");
    assert!(by_standby > 10 * by_primary, "loads go to the replica while it is well");

    // The phase of the stop is looked at as well: not one load may fail.
    let stopped = traffic.next_phase();
    standby.stop();
    await_right(&traffic, stopped, &["fresh"]);
    let gone = traffic.next_phase();
    await_right(&traffic, gone, &["fresh"]);
    let by_primary = database.asked("AS fresh");
    assert!(by_primary > 0, "the primary is asked");

    standby.start_again();
    let by_standby = standby.asked("AS fresh");
    assert!(eventually(PATIENCE, || standby.asked("AS fresh") > by_standby), "the replica is not taken back");
    for (phase, name) in [(0, "with replica"), (stopped, "replica stopping"), (gone, "replica gone")] {
        let tally = traffic.tally(phase, "fresh");
        println!("{name}: {} right, {} ORIGINDOWN, slowest {:.1?}", tally.right, tally.origin_down, tally.slowest);
        assert_eq!((tally.origin_down, tally.wrong), (0, 0), "{name}: {tally:?}");
    }
    traffic.end();
}

/// Adds a client for each lane.
fn ask_for_fresh(traffic: &mut Traffic, server: &Forebay) {
    for lane in 0..LANES {
        let command = move |n| format!("GET fresh{lane}:{}:{n}", n % 100);
        traffic.add("fresh", server.address(), command, |_, reply| *reply == v(1));
    }
}

fn start(url: &str, args: &[&str]) -> Forebay {
    let groups = GROUPS.to_owned() + &(0..LANES).map(fresh_group).collect::<String>();
    let mut options = ForebayOptions::in_front_of(url, &groups);
    let limits = [("--origin-pool-size", POOL.to_string()), ("--origin-load-timeout", format!("{LOAD_TIMEOUT:?}"))];
    options.args.extend(limits.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
    options.args.extend(args.iter().map(ToString::to_string));
    Forebay::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// The value of every thing in its `version`.
fn v(version: u32) -> Reply {
    Reply::Bulk(format!("v{version}").into_bytes())
}

fn await_right(traffic: &Traffic, phase: usize, names: &[&'static str]) {
    for name in names {
        let enough = || traffic.tally(phase, name).right >= ENOUGH;
        assert!(eventually(PATIENCE, enough), "{name} in phase {phase}: {:?}", traffic.tally(phase, name));
    }
}

/// Prints and gives the three tallies of a phase.
fn tallies(traffic: &Traffic, phase: usize) -> [Tally; 3] {
    ["hot", "stale", "fresh"].map(|name| {
        let tally = traffic.tally(phase, name);
        println!(
            "phase {phase}, {name}: {} right, {} ORIGINDOWN, {} wrong, slowest {:.1?}",
            tally.right, tally.origin_down, tally.wrong, tally.slowest
        );
        tally
    })
}

/// `0x12 1x3 2x20`: numbers that follow each other, each with how often.
fn in_runs(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|left, right| left == right);
    runs.map(|run| format!("{}x{}", run[0], run.len())).collect::<Vec<_>>().join(" ")
}
