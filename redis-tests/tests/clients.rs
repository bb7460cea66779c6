//! The clients and tools that people use, unmodified, against Forebay and a real redis-server.

use std::process::Command;

use forebay_redis_tests::programs::{self, output};
use forebay_redis_tests::server::{Server, Target};

macro_rules! against_both {
    ($($name:ident),* $(,)?) => {
        mod redis_server {
            $(#[test] fn $name() { super::$name(&super::Target::Redis.start()); })*
        }
        mod forebay {
            $(#[test] fn $name() { super::$name(&super::Target::Forebay.start()); })*
        }
    };
}

against_both!(
    redis_py,
    ioredis,
    node_redis,
    redis_crate,
    redis_crate_async,
    redis_cli,
    redis_cli_pipe_mode,
    redis_cli_scans_and_samples,
    redis_benchmark,
    redis_benchmark_pipelined,
);

// ---- libraries ----------------------------------------------------------------------------------

fn redis_py(server: &Server) {
    run_script("python/bin/python", "redis_py.py", server);
}

fn ioredis(server: &Server) {
    run_script("node", "ioredis.mjs", server);
}

fn node_redis(server: &Server) {
    run_script("node", "node_redis.mjs", server);
}

fn redis_crate(server: &Server) {
    use redis::{Commands, ExistenceCheck, SetExpiry, SetOptions};

    let mut connection = client(server).get_connection().expect("a connection");
    let only_new = SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::EX(100));
    let first: Option<String> = connection.set_options("k", "v", only_new.clone()).unwrap();
    let second: Option<String> = connection.set_options("k", "w", only_new).unwrap();
    assert_eq!((first.as_deref(), second), (Some("OK"), None));
    assert!((1..=100).contains(&connection.ttl::<_, i64>("k").unwrap()));
    let _: () = connection.hset_multiple("h", &[("a", 1), ("b", 2)]).unwrap();
    let fields: std::collections::BTreeMap<String, i64> = connection.hgetall("h").unwrap();
    assert_eq!(fields.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    let error = connection.incr::<_, _, i64>("h", 1).unwrap_err();
    assert_eq!(error.code(), Some("WRONGTYPE"));
    let keys: std::collections::BTreeSet<String> = connection.scan().unwrap().map(Result::unwrap).collect();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["h", "k"]);
    pipeline(&mut connection);
}

fn pipeline(connection: &mut redis::Connection) {
    let mut pipe = redis::pipe();
    for n in 0..500 {
        pipe.cmd("SET").arg(n).arg(n).ignore().cmd("INCRBY").arg(n).arg(1);
    }
    let counted: Vec<i64> = pipe.query(connection).unwrap();
    assert_eq!(counted, (1..=500).collect::<Vec<_>>());
}

fn redis_crate_async(server: &Server) {
    use redis::AsyncCommands;

    let mut info = connection_info(server);
    info = info.clone().set_redis_settings(info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3));
    let client = redis::Client::open(info).expect("a client");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let connection = client.get_multiplexed_async_connection().await.expect("a connection");
        let calls = (0..200).map(|_| {
            let mut connection = connection.clone();
            tokio::spawn(async move { connection.incr::<_, _, i64>("n", 1).await.unwrap() })
        });
        let mut counted = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            counted.push(call.await.unwrap());
        }
        counted.sort_unstable();
        assert_eq!(counted, (1..=200).collect::<Vec<_>>());
        let mut connection = connection;
        let bits: Vec<i64> = redis::cmd("BITFIELD")
            .arg(&["f", "SET", "u8", "0", "9", "GET", "u8", "0"])
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(bits, [0, 9]);
    });
}

fn client(server: &Server) -> redis::Client {
    redis::Client::open(connection_info(server)).expect("a client")
}

fn connection_info(server: &Server) -> redis::ConnectionInfo {
    redis::IntoConnectionInfo::into_connection_info(format!("redis://{}/", server.address())).expect("an address")
}

// ---- tools --------------------------------------------------------------------------------------

fn redis_cli(server: &Server) {
    assert_eq!(cli(server, &["SET", "k", "a b"], ""), "OK\n");
    assert_eq!(cli(server, &["--no-raw", "GET", "k"], ""), "\"a b\"\n");
    assert_eq!(cli(server, &["--no-raw", "-3", "HGETALL", "none"], ""), "(empty hash)\n");
    assert_eq!(cli(server, &["-x", "SET", "stdin"], "from\0stdin"), "OK\n");
    assert_eq!(cli(server, &["STRLEN", "stdin"], ""), "10\n");
    assert_eq!(cli(server, &["-n", "5", "DBSIZE"], ""), "0\n");
    assert_eq!(cli(server, &["-r", "3", "INCR", "n"], ""), "1\n2\n3\n");
    assert_eq!(cli(server, &[], "PING\nHSET h f v\nHGETALL h\n"), "PONG\n1\nf\nv\n");
    assert!(cli(server, &["INFO", "server"], "").contains("redis_version:7."));
}

fn redis_cli_pipe_mode(server: &Server) {
    let sets: String = (0..5000).map(|n| format!("SET key:{n} {n}\r\n")).collect();
    let report = cli(server, &["--pipe"], &sets);
    assert!(report.contains("errors: 0, replies: 5000"), "{report}");
    assert_eq!(cli(server, &["DBSIZE"], ""), "5000\n");
}

fn redis_cli_scans_and_samples(server: &Server) {
    let sets: String = (0..200).map(|n| format!("SET key:{n} {n}\n")).collect();
    cli(server, &[], &sets);
    assert_eq!(cli(server, &["--scan", "--pattern", "key:1?"], "").lines().count(), 10);
    let report = cli(server, &["--bigkeys", "-i", "0"], "");
    assert!(report.contains("200 strings with"), "{report}");
    let report = cli(server, &["--memkeys", "-i", "0"], "");
    assert!(report.contains("200 strings with"), "{report}");
}

const BENCHMARKS: &str = "ping_inline,ping_mbulk,set,get,incr,hset,mset";

fn redis_benchmark(server: &Server) {
    benchmark(server, &["-c", "50", "-n", "5000"]);
}

fn redis_benchmark_pipelined(server: &Server) {
    benchmark(server, &["-c", "50", "-n", "20000", "-P", "16", "-r", "1000"]);
}

fn benchmark(server: &Server, options: &[&str]) {
    let mut command = Command::new("redis-benchmark");
    address_arguments(&mut command, server).args(["--csv", "-t", BENCHMARKS]).args(options);
    let report = output(command, "");
    for name in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "HSET", "MSET (10 keys)"] {
        assert!(report.contains(&format!("\"{name}\",")), "{name} is missing in:\n{report}");
    }
    assert!(!report.to_lowercase().contains("error"), "{report}");
}

fn cli(server: &Server, args: &[&str], input: &str) -> String {
    let mut command = Command::new("redis-cli");
    address_arguments(&mut command, server).args(args);
    output(command, input)
}

fn address_arguments<'a>(command: &'a mut Command, server: &Server) -> &'a mut Command {
    command.args(["-h", "127.0.0.1", "-p", &server.address().port().to_string()])
}

// ---- running them -------------------------------------------------------------------------------

fn run_script(interpreter: &str, script: &str, server: &Server) {
    let address = server.address();
    programs::run_script(interpreter, script, &[address.ip().to_string(), address.port().to_string()]);
}
