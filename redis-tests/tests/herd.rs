//! A herd: very many clients ask for one missing key at the same moment, and the database is asked once.
//!
//! `FOREBAY_HERD=10000` sets the herd's size. The ratio of the slowest reply to the load's own time is always printed, and held against
//! its bound only where `FOREBAY_HERD_RATIO` gives one: it means something on a quiet machine alone.

use std::env;
use std::str::FromStr;
use std::time::Duration;

use forebay_redis_tests::database::Database;
use forebay_redis_tests::herd::{Answer, Herd};
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions};

/// The herd's size unless the environment says otherwise.
const HERD: usize = 2_000;

/// Room for the herd and for those who look on.
const MAX_CLIENTS: usize = 15_000;

/// The cap on connections to the database.
const POOL: usize = 4;

/// The load takes 200 ms whatever the machine does.
const GROUPS: &str = r#"
[[group]]
name = "report"
key = "report:{id}"
load = "SELECT 'report ' || $1::text || coalesce(pg_sleep(0.2)::text, '')"
as = "string"
"#;

#[test]
fn a_herd_on_one_missing_key_is_one_load() {
    let database = Database::start("");
    let server = start(&database);
    let mut herd = Herd::gather(server.address(), setting("FOREBAY_HERD").unwrap_or(HERD));
    // One load of another key, so that the herd meets a group that is planned and a connection that is open.
    assert_eq!(server.connect().command("GET report:0"), Reply::Bulk(b"report 0".to_vec()));
    database.forget();

    let watch = database.watch_connections();
    let answers = herd.ask(&["GET", "report:1"]);
    let connections = watch.end().into_iter().max().unwrap_or_default();

    let right = Reply::Bulk(b"report 1".to_vec());
    let wrong = answers.iter().filter(|answer| answer.reply != right).count();
    let loads = database.asked("pg_sleep");
    let ratio = report(&answers, database.longest("pg_sleep"), loads, connections);
    assert_eq!(wrong, 0, "wrong replies");
    assert_eq!(loads, 1, "loads");
    assert!(connections <= POOL, "{connections} connections to the database");
    if let Some(bound) = setting::<f64>("FOREBAY_HERD_RATIO") {
        assert!(ratio <= bound, "the slowest reply took {ratio:.2} times as long as the load, more than {bound}");
    }
}

#[test]
fn a_herd_on_many_missing_keys_shares_queries() {
    let database = Database::start("");
    let server = start(&database);
    assert_eq!(server.connect().command("GET report:0"), Reply::Bulk(b"report 0".to_vec()));
    database.forget();
    let watch = database.watch_connections();

    let asking = (1..=40).map(|id| {
        let mut client = server.connect();
        std::thread::spawn(move || client.command(&format!("GET report:{id}")))
    });
    let asking: Vec<_> = asking.collect();
    for (client, id) in asking.into_iter().zip(1..) {
        let reply = client.join().expect("a client does not panic");
        assert_eq!(reply, Reply::Bulk(format!("report {id}").into_bytes()));
    }

    let connections = watch.end().into_iter().max().unwrap_or_default();
    let queries = database.asked("pg_sleep");
    println!("40 clients, 40 keys: {queries} queries over at most {connections} connections");
    assert!(connections <= POOL, "{connections} connections to the database");
    assert!((1..40).contains(&queries), "every key was asked for alone");
}

fn start(database: &Database) -> Forebay {
    let mut options = ForebayOptions::in_front_of(&database.url(), GROUPS);
    options.args.extend(["--origin-pool-size".to_owned(), POOL.to_string()]);
    options.args.extend(["--maxclients".to_owned(), MAX_CLIENTS.to_string()]);
    // A herd on a busy machine may need longer to be answered than a load may take by default.
    options.args.extend(["--origin-load-timeout".to_owned(), "20s".to_owned()]);
    Forebay::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// Prints the figures; the slowest reply's time in multiples of the load's.
fn report(answers: &[Answer], load: Duration, loads: u64, connections: usize) -> f64 {
    let slowest = answers.iter().map(|answer| answer.after).max().unwrap_or_default();
    let ratio = slowest.as_secs_f64() / load.as_secs_f64();
    println!(
        "{} clients, 1 key: {loads} load of {load:.1?}, {connections} connections to the database, \
         slowest reply after {slowest:.1?}: {ratio:.2} times the load",
        answers.len(),
    );
    ratio
}

fn setting<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
