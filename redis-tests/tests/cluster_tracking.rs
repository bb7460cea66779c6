//! Client tracking in a cluster: whoever owns a key, wherever its reader is connected and whatever dies, nobody keeps what is old.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use forebay_redis_tests::cluster::node::PATIENCE;
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::connection::{Connection, Protocol};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::near_cache::NearCache;
use forebay_redis_tests::over::Over;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::programs::run_script;
use forebay_redis_tests::reply::Reply;

const KEYS: usize = 300;

/// How long a client rests between two rounds, so that the nodes get processors enough to hear of each other.
const REST: Duration = Duration::from_millis(2);

const GROUPS: &str = r#"
[[group]]
name = "thing"
key = "thing:{id}"
load = "SELECT name FROM things WHERE id = $1"
as = "string"
invalidated_by = ["things(id)"]
"#;

// ---- in peace -----------------------------------------------------------------------------------

#[test]
fn who_reads_anywhere_is_told_of_changes_made_anywhere() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let frontend = cluster.add_frontend(&[0]);
    let keys = names();
    let mut writer = cluster.nodes[2].connect();
    let doors = [cluster.nodes[0].address(), cluster.frontends[frontend].address()];
    type Read = fn(&mut NearCache, &[String]);
    let ways: [(&str, Read); 3] = [
        ("one by one", |cache, keys| keys.iter().for_each(|key| drop(cache.get(key)))),
        ("in a pipeline", |cache, keys| keys.chunks(50).for_each(|keys| cache.get_in_one_go(keys))),
        ("by MGET", |cache, keys| keys.chunks(50).for_each(|keys| cache.get_many(keys))),
    ];
    for door in doors {
        let mut cache = NearCache::open(door, "");
        for (how, read) in ways {
            // Where a slot moves because the machine is busy, it is told of keys that nobody has changed; but not each time.
            let is_all_kept = || {
                read(&mut cache, &keys);
                cache.listen();
                cache.len() == KEYS
            };
            assert!(eventually(PATIENCE, is_all_kept), "{how}: {} of them are kept", cache.len());
            let told = cache.told;
            for key in &keys {
                assert_eq!(writer.command(&format!("INCR {key}")).to_string().as_bytes()[0], b':');
            }
            await_kept(&mut cache, 0);
            assert!(cache.told - told >= KEYS as u64, "{how}");
        }
        // And of what expires.
        for key in &keys {
            writer.command(&format!("PEXPIRE {key} 300"));
            cache.get(key);
        }
        await_kept(&mut cache, 0);
        for key in &keys {
            assert_eq!(cache.get(key), Reply::Null);
        }
        let before = cache.flushed;
        assert_eq!(writer.command("FLUSHALL"), Reply::ok());
        await_kept(&mut cache, 0);
        assert!(cache.flushed > before);
    }
}

#[test]
fn terms_hold_wherever_the_owner_is() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let frontend = cluster.add_frontend(&[0]);
    let keys = names();
    let by_owner: Vec<_> = (0..cluster.nodes.len()).map(|node| cluster.owned_of(node, &keys)).collect();
    for door in [cluster.nodes[0].address(), cluster.frontends[frontend].address()] {
        let mut writer = cluster.nodes[1].connect();
        let mut broadcasting = NearCache::open(door, "BCAST PREFIX k: PREFIX other:");
        let mut quiet = NearCache::open(door, "NOLOOP");
        let mut choosing = NearCache::open(door, "OPTIN");
        keys.iter().for_each(|key| drop(choosing.get(key)));
        for key in &keys[..10] {
            assert_eq!(choosing.command("CLIENT CACHING YES"), Reply::ok());
            choosing.command(&format!("GET {key}"));
        }
        // Where a slot moves because the machine is busy, who reads there is told of its keys; but not each time.
        let mut told = Vec::new();
        let is_spared = || {
            quiet.get_in_one_go(&keys);
            keys.iter().for_each(|key| drop(quiet.command(&format!("SET {key} 1"))));
            // Who has heard the owners tell of all this would have heard that they tell `quiet`, too.
            await_told(&mut broadcasting, KEYS);
            quiet.listen();
            let is_told = |place: &&usize| quiet.kept(&keys[**place]).is_none();
            told = by_owner.iter().map(|theirs| theirs.iter().filter(is_told).count()).collect();
            told.iter().all(|keys| *keys == 0)
        };
        assert!(eventually(PATIENCE, is_spared), "of its own changes each owner tells it: {told:?}");
        await_told(&mut choosing, 10);
        assert!(choosing.told <= 10, "it has chosen ten");
        quiet.get_in_one_go(&keys);
        for key in &keys {
            writer.command(&format!("SET {key} 2"));
            writer.command(&format!("SET not:{key} 2"));
        }
        await_kept(&mut quiet, 0);
        await_told(&mut broadcasting, KEYS);
        // Prefixes that come later are known to all before the reply.
        assert_eq!(broadcasting.command("CLIENT TRACKING ON BCAST PREFIX not:"), Reply::ok());
        for key in &keys {
            writer.command(&format!("SET not:{key} 3"));
        }
        await_told(&mut broadcasting, KEYS);
    }
}

/// A client of the direct door that is content with copies is told when the copy is another.
#[test]
fn who_reads_a_copy_is_told_when_it_follows() {
    let cluster = Cluster::start(ClusterOptions::default());
    let keys = names();
    let mut writer = cluster.nodes[1].connect();
    keys.iter().for_each(|key| drop(writer.command(&format!("SET {key} 1"))));
    assert_eq!(writer.command("WAIT 2 20000"), Reply::Integer(2));
    let mut cache = NearCache::open(cluster.nodes[0].direct(), "");
    assert_eq!(cache.command("READONLY"), Reply::ok());
    for key in &keys {
        assert_eq!(cache.get(key), Reply::bulk("1"), "three copies are at three nodes");
    }
    keys.iter().for_each(|key| drop(writer.command(&format!("SET {key} 2"))));
    await_kept(&mut cache, 0);
}

#[test]
fn a_commit_reaches_what_applications_keep_at_any_node() {
    let database = Database::start(&format!(
        "CREATE TABLE things (id int PRIMARY KEY, name text NOT NULL); \
         INSERT INTO things SELECT n, 'thing ' || n FROM generate_series(1, {KEYS}) n;"
    ));
    let mut cluster = Cluster::start(ClusterOptions::default().in_front_of(&database.url(), GROUPS));
    let frontend = cluster.add_frontend(&[0]);
    let follows = || {
        cluster.nodes.iter().any(|node| node.connect().command("INFO forebay").words().contains("feed_wal:following"))
    };
    assert!(eventually(PATIENCE, follows), "nobody follows the database");
    let mut doors = cluster.addresses();
    doors.push(cluster.frontends[frontend].address());
    let mut caches: Vec<NearCache> = doors.iter().map(|door| NearCache::open(*door, "")).collect();
    let keys: Vec<String> = (1..=KEYS).map(|id| format!("thing:{id}")).collect();
    for cache in &mut caches {
        await_all_kept(cache, &keys);
    }
    database.sql("UPDATE things SET name = 'new ' || id");
    for cache in &mut caches {
        await_kept(cache, 0);
        for id in 1..=KEYS {
            assert_eq!(cache.get(&format!("thing:{id}")), Reply::bulk(&format!("new {id}")));
        }
    }
    // redis-py at each door, one of which is the owner's.
    for door in doors {
        database.sql("UPDATE things SET name = 'begin' WHERE id = 7");
        let is_there = || Connection::open(door).expect("a connection").command("GET thing:7") == Reply::bulk("begin");
        assert!(eventually(PATIENCE, is_there));
        let arguments = [door.ip().to_string(), door.port().to_string(), "thing:7".to_owned()];
        let told = thread::scope(|scope| {
            let reader = scope.spawn(|| run_script("python/bin/python", "near_cache.py", &arguments));
            let mut any = Connection::open(door).expect("a connection");
            let tracks = || any.command("INFO clients").words().contains("tracking_clients:2");
            assert!(eventually(PATIENCE, tracks), "it does not track");
            database.sql(
                "DO $$ BEGIN FOR n IN 1..200 LOOP \
                 UPDATE things SET name = extract(epoch FROM clock_timestamp())::text WHERE id = 7; COMMIT; \
                 PERFORM pg_sleep(0.01); END LOOP; END $$",
            );
            database.sql("UPDATE things SET name = 'over' WHERE id = 7");
            reader.join().expect("it saw what it should")
        });
        println!("redis-py at {door}, from an UPDATE before its commit to the new value: {}", told.trim());
    }
}

// ---- when nodes die and slots move --------------------------------------------------------------

#[test]
fn what_a_dead_owner_would_have_told_is_told() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let frontend = cluster.add_frontend(&[0]);
    let keys = names();
    let doors = [cluster.nodes[0].address(), cluster.frontends[frontend].address()];
    let mut caches = doors.map(|door| NearCache::open(door, ""));
    let mut broadcasting = doors.map(|door| NearCache::open(door, "BCAST"));
    for cache in &mut caches {
        await_all_kept(cache, &keys);
    }
    let theirs: Vec<&String> = cluster.owned_of(1, &keys).into_iter().map(|place| &keys[place]).collect();
    assert!(!theirs.is_empty());
    let died = Instant::now();
    cluster.nodes[1].kill();
    for cache in &mut caches {
        let is_told = || {
            cache.listen();
            theirs.iter().all(|key| cache.kept(key).is_none())
        };
        assert!(eventually(PATIENCE, is_told), "it keeps what nobody tells of");
        println!("{:?} after its death, told of {} keys and {} are kept", died.elapsed(), cache.told, cache.len());
    }
    for cache in &mut broadcasting {
        let is_told = || {
            cache.listen();
            cache.flushed > 0
        };
        assert!(eventually(PATIENCE, is_told), "who is told of everything does not know that something may be missing");
    }
    // The new owner tells as well.
    let mut writer = cluster.nodes[2].connect();
    let is_back = || keys.iter().all(|key| writer.command(&format!("SET {key} 1")) == Reply::ok());
    assert!(eventually(PATIENCE, is_back));
    for cache in &mut caches {
        await_all_kept(cache, &keys);
    }
    keys.iter().for_each(|key| drop(writer.command(&format!("SET {key} 2"))));
    caches.iter_mut().for_each(|cache| await_kept(cache, 0));
}

/// Some write, some keep what they read, while nodes die, sleep, come back and give their slots away. When it has gone quiet, nobody keeps what is
/// not so.
#[test]
fn nobody_keeps_what_is_old_whatever_happens_to_owners() {
    let mut cluster = Cluster::start(ClusterOptions::default());
    let frontend = cluster.add_frontend(&[0]);
    let keys = names();
    let doors = [cluster.nodes[0].address(), cluster.frontends[frontend].address()];
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let caches = thread::scope(|scope| {
        let (is_over, written, keys) = (&is_over, &written, &keys);
        let readers: Vec<_> = doors
            .into_iter()
            .flat_map(|door| ["", "BCAST", "NOLOOP"].map(|terms| (door, terms)))
            .map(|(door, terms)| scope.spawn(move || read_until(door, terms, keys, is_over)))
            .collect();
        let writers: Vec<_> =
            doors.into_iter().map(|door| scope.spawn(move || write_until(door, keys, is_over, written))).collect();
        let over = Over::at_end(is_over);
        let more = |count: u64| {
            let goal = written.load(Relaxed) + count;
            assert!(eventually(PATIENCE, || written.load(Relaxed) >= goal), "nothing is written any more");
        };
        more(1_000);
        for round in 0..2 {
            let victim = 1 + round;
            cluster.nodes[victim].kill();
            more(500);
            cluster.nodes[victim].restart();
            cluster.await_settled();
            more(500);
            cluster.nodes[victim].terminate();
            assert!(cluster.nodes[victim].await_end().success());
            more(500);
            cluster.nodes[victim].restart();
            cluster.await_settled();
            cluster.nodes[victim].pause();
            more(200);
            cluster.nodes[victim].resume();
            cluster.await_settled();
            more(500);
        }
        drop(over);
        writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
        readers.into_iter().map(|reader| reader.join().expect("no panic")).collect::<Vec<_>>()
    });
    let mut client = cluster.nodes[2].connect();
    client.speak(Protocol::Resp3);
    for mut cache in caches {
        println!(
            "{} hits, told of {} keys, {} times of everything, {} are kept",
            cache.hits,
            cache.told,
            cache.flushed,
            cache.len()
        );
        assert!(cache.hits > 0 && cache.told > 0);
        for key in &keys {
            let (mut kept, mut now) = (None, Reply::Null);
            let is_true = || {
                now = client.command(&format!("GET {key}"));
                cache.listen();
                kept = cache.kept(key).cloned();
                kept.as_ref().is_none_or(|kept| *kept == now)
            };
            assert!(eventually(PATIENCE, is_true), "{key} is {now}, and kept as {kept:?}");
        }
    }
}

fn read_until(door: SocketAddr, terms: &str, keys: &[String], is_over: &AtomicBool) -> NearCache {
    let mut cache = NearCache::open_again_and_again(door, terms);
    let mut round = 0;
    while !is_over.load(Relaxed) {
        round += 1;
        let some = &keys[round * 37 % (KEYS - 20)..][..20];
        match round % 3 {
            0 => cache.get_in_one_go(some),
            1 => cache.get_many(some),
            _ => some.iter().for_each(|key| drop(cache.get(key))),
        }
        cache.listen();
        thread::sleep(REST);
    }
    cache
}

fn write_until(door: SocketAddr, keys: &[String], is_over: &AtomicBool, written: &AtomicU64) {
    let mut writer = Connection::open(door).expect("a connection");
    let mut round = 0;
    while !is_over.load(Relaxed) {
        round += 1;
        let key = &keys[round * 7 % KEYS];
        let args: &[&str] = match round % 20 {
            0 => &["DEL", key],
            1 => &["PEXPIRE", key, "5"],
            _ => &["INCR", key],
        };
        match writer.call(args) {
            Ok(reply) if reply.starts_with(b"-") => {}
            Ok(_) => drop(written.fetch_add(1, Relaxed)),
            // What came of it nobody knows.
            Err(_) => writer = Connection::open(door).expect("a connection"),
        }
        thread::sleep(REST);
    }
}

fn names() -> Vec<String> {
    (0..KEYS).map(|key| format!("k:{key}")).collect()
}

fn await_kept(cache: &mut NearCache, keys: usize) {
    let mut left = 0;
    let is_so = || {
        cache.listen();
        left = cache.len();
        left == keys
    };
    assert!(eventually(PATIENCE, is_so), "{left} keys are kept and not {keys}");
}

/// Waits until it is told of so many more keys.
fn await_told(cache: &mut NearCache, more: usize) {
    let all = cache.told + more as u64;
    let is_told = || {
        cache.listen();
        cache.told >= all
    };
    assert!(eventually(PATIENCE, is_told), "told of {} keys and not {all}", cache.told);
}

/// Reads all keys until they are kept: where a slot moves, because the machine is busy, it is told of keys that nobody has changed.
fn await_all_kept(cache: &mut NearCache, keys: &[String]) {
    let is_so = || {
        cache.get_many(keys);
        cache.listen();
        cache.len() == keys.len()
    };
    assert!(eventually(PATIENCE, is_so), "{} keys are kept", cache.len());
}
