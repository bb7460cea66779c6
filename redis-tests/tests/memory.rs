//! `maxmemory` is a promise: whatever is written or read through, what the process allocates stays below it.

use forebay_redis_tests::connection::{Connection, encode};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// The limit of every server here, in bytes.
const LIMIT: u64 = 6 * 1024 * 1024;

/// What may be above the limit at any moment: the buffers of a batch that is being answered, and what each thread has not yet told
/// the common count.
const SLACK: u64 = 512 * 1024;

/// Bytes of each value.
const VALUE: usize = 512;

/// Writes in one batch, and batches: together three times the limit.
const BATCH: usize = 256;
const BATCHES: usize = 3 * LIMIT as usize / (BATCH * VALUE);

/// The policies that can evict any key, and those that need a deadline.
const ANY_KEY: &[&str] = &["allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-fifo", "allkeys-lrfu"];
const WITH_DEADLINE: &[&str] = &["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl", "volatile-lrfu"];

#[test]
fn three_times_the_limit_is_written_and_the_limit_holds() {
    for policy in ANY_KEY {
        let server = start(policy, ForebayOptions::default());
        let highest = flood(&mut server.connect(), &[]);
        println!("{policy}: {} writes, at most {highest} bytes of {LIMIT}", BATCH * BATCHES);
    }
    for policy in WITH_DEADLINE {
        let server = start(policy, ForebayOptions::default());
        let highest = flood(&mut server.connect(), &["EX", "1000"]);
        println!("{policy}: {} writes with deadlines, at most {highest} bytes of {LIMIT}", BATCH * BATCHES);
    }
}

#[test]
fn without_anything_to_evict_writes_are_refused_and_all_else_goes_on() {
    for policy in ["noeviction", "volatile-lru"] {
        let server = start(policy, ForebayOptions::default());
        let mut client = server.connect();
        assert_eq!(client.command("SET first words"), Reply::Simple(b"OK".to_vec()));
        let value = "x".repeat(VALUE);
        let refused = (0..BATCH * BATCHES).find_map(|n| {
            let reply = client.command(&format!("SET key:{n} {value}"));
            (reply != Reply::Simple(b"OK".to_vec())).then_some(reply)
        });
        let oom = Reply::Error(b"OOM command not allowed when used memory > 'maxmemory'.".to_vec());
        assert_eq!(refused, Some(oom.clone()), "{policy}");
        assert_eq!(client.command("GET first"), Reply::Bulk(b"words".to_vec()));
        assert_eq!(client.command("APPEND first more"), oom);
        assert!(used(&mut client) <= LIMIT + SLACK);
        assert_eq!(client.command("FLUSHALL"), Reply::Simple(b"OK".to_vec()));
        assert_eq!(client.command("SET first again"), Reply::Simple(b"OK".to_vec()));
    }
}

#[test]
fn what_is_read_through_finds_room_or_is_not_kept() {
    let database = Database::start(
        "CREATE TABLE blobs (id int PRIMARY KEY, body text NOT NULL);
         INSERT INTO blobs SELECT n, repeat('x', 8192) FROM generate_series(1, 4000) n;",
    );
    let groups = "[[group]]\nname = \"blob\"\nkey = \"blob:{id}\"\nload = \"SELECT body FROM blobs WHERE id = $1\"\nas = \"string\"\n";
    for policy in ["noeviction", "allkeys-lrfu"] {
        let server = start(policy, ForebayOptions::in_front_of(&database.url(), groups));
        let mut client = server.connect();
        let mut highest = 0;
        for first in (1..=4000).step_by(50) {
            let requests: Vec<_> = (first..first + 50).map(|id| encode(&["GET", &format!("blob:{id}")])).collect();
            client.send(&requests.concat()).expect("sent");
            for _ in first..first + 50 {
                let reply = Reply::parse(&client.read_raw().expect("a reply"));
                assert_eq!(reply.text().map(<[u8]>::len), Some(8192), "{policy}");
            }
            highest = highest.max(used(&mut client));
        }
        println!("{policy}: 32 MB read through, at most {highest} bytes of {LIMIT}");
        assert!(highest <= LIMIT + 4 * SLACK, "{policy}: {highest} bytes");
    }
}

fn start(policy: &str, mut options: ForebayOptions) -> Forebay {
    let limit = LIMIT.to_string();
    // Raft's library alone keeps more than the limit: 26 MB of tables for histograms.
    options.alone = true;
    options.args.extend(["--maxmemory", &limit, "--maxmemory-policy", policy].map(str::to_owned));
    Forebay::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Writes three times the limit in batches and tells the most bytes that were in use after one.
fn flood(client: &mut Connection, options: &[&str]) -> u64 {
    let value = "x".repeat(VALUE);
    let mut highest = 0;
    for batch in 0..BATCHES {
        let keys: Vec<_> = (0..BATCH).map(|n| format!("key:{}", batch * BATCH + n)).collect();
        let requests: Vec<_> =
            keys.iter().map(|key| encode(&[&["SET", key, value.as_str()], options].concat())).collect();
        client.send(&requests.concat()).expect("sent");
        for _ in 0..BATCH {
            assert_eq!(client.read_raw().expect("a reply"), b"+OK\r\n");
        }
        let used = used(client);
        assert!(used <= LIMIT + SLACK, "{used} bytes after batch {batch}");
        highest = highest.max(used);
    }
    highest
}

/// `used_memory` of INFO.
fn used(client: &mut Connection) -> u64 {
    let reply = client.command("INFO memory");
    let text = String::from_utf8_lossy(reply.text().expect("a text")).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
    line.trim().parse().expect("a number")
}
