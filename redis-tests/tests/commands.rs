//! What `COMMAND` says of every command of the families that are complete: Forebay against redis-server.

use std::collections::{BTreeMap, BTreeSet};

use forebay_redis_tests::connection::{Connection, Protocol};
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::Target;

/// The commands of the families connection, keys, strings, bitmaps, hashes and server.
const COMMANDS: &str = "\
    auth hello ping echo select quit reset client \
    del unlink exists touch type rename renamenx copy move scan keys randomkey dbsize flushdb flushall swapdb object \
    expire pexpire expireat pexpireat ttl pttl expiretime pexpiretime persist \
    set setnx setex psetex get getex getdel getset mget mset msetnx append strlen setrange getrange substr \
    incr decr incrby decrby incrbyfloat lcs \
    setbit getbit bitcount bitpos bitop bitfield bitfield_ro \
    hset hsetnx hmset hget hmget hdel hlen hstrlen hexists hgetall hkeys hvals hincrby hincrbyfloat hrandfield hscan \
    info config command time memory slowlog latency lolwut shutdown debug";

/// Subcommands that Redis 7.2 has and the reference server, 7.0, has not.
const NEWER: [&str; 2] = ["client|no-touch", "client|setinfo"];

/// The places in `COMMAND INFO`'s reply that have a name here.
const FACTS: [&str; 9] =
    ["name", "arity", "flags", "first key", "last key", "step", "ACL categories", "tips", "key specifications"];

#[test]
fn command_info_agrees_with_redis_server() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let expected = facts(Target::Redis, protocol);
        let found = facts(Target::Forebay, protocol);
        let faults = differences(&expected, &found);
        assert!(faults.is_empty(), "COMMAND INFO differs ({protocol:?}):\n{}", faults.join("\n"));
    }
}

#[test]
fn command_list_knows_every_command() {
    let server = Target::Forebay.start();
    let listed: BTreeSet<String> = texts(&server.connect().command("COMMAND LIST"));
    let missing: Vec<&str> = COMMANDS.split_whitespace().filter(|name| !listed.contains(*name)).collect();
    assert!(missing.is_empty(), "COMMAND LIST lacks {missing:?}");
}

#[test]
fn command_docs_tell_group_and_version_as_redis_server_does() {
    let expected = docs(Target::Redis);
    let found = docs(Target::Forebay);
    for (name, facts) in expected {
        assert_eq!(found.get(&name), Some(&facts), "COMMAND DOCS {name}");
    }
}

/// What `COMMAND INFO` says of every command and subcommand, by full name.
fn facts(target: Target, protocol: Protocol) -> BTreeMap<String, Vec<Reply>> {
    let server = target.start();
    let mut connection = server.connect();
    connection.speak(protocol);
    let reply = connection.command(&format!("COMMAND INFO {COMMANDS}"));
    let mut facts = BTreeMap::new();
    for command in reply.items().expect("a list of commands") {
        collect_facts(command, &mut facts);
    }
    facts
}

fn collect_facts(command: &Reply, facts: &mut BTreeMap<String, Vec<Reply>>) {
    let Some([own @ .., subcommands]) = command.items() else {
        return;
    };
    let name = text(&own[0]);
    facts.insert(name, own.iter().map(unordered).collect());
    for subcommand in subcommands.items().unwrap_or_default() {
        collect_facts(subcommand, facts);
    }
}

/// Flags and categories are sets, even where RESP2 has arrays for them.
fn unordered(fact: &Reply) -> Reply {
    let sorted = |items: &[Reply]| {
        let mut items: Vec<Reply> = items.iter().map(unordered).collect();
        if items.iter().all(|item| matches!(item, Reply::Simple(_))) {
            items.sort_by_key(Reply::to_string);
        }
        items
    };
    match fact {
        Reply::Array(items) => Reply::Array(sorted(items)),
        Reply::Set(items) => Reply::Set(sorted(items)),
        Reply::Map(pairs) => Reply::Map(pairs.iter().map(|(k, v)| (k.clone(), unordered(v))).collect()),
        other => other.clone(),
    }
}

fn differences(expected: &BTreeMap<String, Vec<Reply>>, found: &BTreeMap<String, Vec<Reply>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, expected) in expected {
        match found.get(name) {
            None => faults.push(format!("{name}: unknown")),
            Some(found) => faults.extend(differing_facts(name, expected, found)),
        }
    }
    let surplus = found.keys().filter(|name| !expected.contains_key(*name) && !NEWER.contains(&name.as_str()));
    faults.extend(surplus.map(|name| format!("{name}: redis-server has no such command")));
    faults
}

fn differing_facts(name: &str, expected: &[Reply], found: &[Reply]) -> Vec<String> {
    if expected.len() != found.len() {
        return vec![format!("{name}: {} parts instead of {}", found.len(), expected.len())];
    }
    let parts = FACTS.iter().zip(expected.iter().zip(found));
    parts
        .filter(|(_, (expected, found))| expected != found)
        .map(|(fact, (expected, found))| format!("{name}: {fact}: expected {expected}, got {found}"))
        .collect()
}

/// Group and version of every command, by name; what the commands do is told in own words.
fn docs(target: Target) -> BTreeMap<String, [Option<String>; 2]> {
    let server = target.start();
    let mut connection = server.connect();
    connection.speak(Protocol::Resp3);
    let Reply::Map(commands) = connection.command(&format!("COMMAND DOCS {COMMANDS}")) else {
        panic!("COMMAND DOCS replies with a map");
    };
    commands.iter().map(|(name, facts)| (text(name), [field(facts, "group"), field(facts, "since")])).collect()
}

fn field(facts: &Reply, name: &str) -> Option<String> {
    let Reply::Map(pairs) = facts else {
        return None;
    };
    pairs.iter().find(|(key, _)| text(key) == name).map(|(_, value)| text(value))
}

fn text(reply: &Reply) -> String {
    String::from_utf8_lossy(reply.text().unwrap_or_default()).into_owned()
}

fn texts(reply: &Reply) -> BTreeSet<String> {
    reply.items().unwrap_or_default().iter().map(text).collect()
}

/// `COMMAND GETKEYSANDFLAGS` of a call of every command with keys, made from its arity and key specs.
#[test]
fn the_keys_of_every_command_agree_with_redis_server() {
    let (redis, forebay) = (Target::Redis.start(), Target::Forebay.start());
    let (mut redis, mut forebay) = (redis.connect(), forebay.connect());
    let mut faults = Vec::new();
    for name in COMMANDS.split_whitespace() {
        for call in calls(&mut redis, name) {
            let line = format!("COMMAND GETKEYSANDFLAGS {call}");
            let (expected, found) = (redis.command(&line), forebay.command(&line));
            if unordered(&expected) != unordered(&found) {
                faults.push(format!("{line}: expected {expected}, got {found}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Calls of the command with its least number of arguments and up to three more.
fn calls(redis: &mut Connection, name: &str) -> Vec<String> {
    let reply = redis.command(&format!("COMMAND INFO {name}"));
    let arity = match reply.items().and_then(|commands| commands[0].items()) {
        Some([_, Reply::Integer(arity), ..]) => *arity,
        _ => panic!("redis-server does not know {name}"),
    };
    let least = arity.unsigned_abs();
    let most = if arity < 0 { least + 3 } else { least };
    (least..=most).map(|length| call(name, length)).collect()
}

fn call(name: &str, length: u64) -> String {
    let args: Vec<String> = (1..length).map(|n| format!("arg{n}")).collect();
    format!("{name} {}", args.join(" "))
}
