//! Whole databases: how large they are, emptying them, exchanging them, a key of theirs at random.

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Merge, Spec};
use crate::node::Flushed;

const DANGEROUS: Categories = Categories::KEYSPACE.union(Categories::DANGEROUS);
const ALL_SHARDS_SUCCEED: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

pub(super) const TABLE: &[Spec] = &[
    Spec::new("dbsize", 1, Flags::READONLY.union(Flags::FAST), Categories::KEYSPACE)
        .on_node(dbsize)
        .everywhere(Merge::Sum)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .docs("server", "1.0.0", "O(1)", "Tells how many keys the database has.", ""),
    Spec::new("flushall", -1, Flags::WRITE, DANGEROUS)
        .on_node(flushall)
        .everywhere(Merge::AllOk)
        .tips(ALL_SHARDS_SUCCEED)
        .docs(
            "server",
            "1.0.0",
            "O(N), N being the number of keys in all databases",
            "Empties all databases.",
            "[ASYNC | SYNC]",
        ),
    Spec::new("flushdb", -1, Flags::WRITE, DANGEROUS)
        .on_node(flushdb)
        .everywhere(Merge::AllOk)
        .tips(ALL_SHARDS_SUCCEED)
        .docs(
            "server",
            "1.0.0",
            "O(N), N being the number of keys in the database",
            "Empties the database.",
            "[ASYNC | SYNC]",
        ),
    Spec::new("randomkey", 1, Flags::READONLY, Categories::KEYSPACE)
        .on_node(randomkey)
        .everywhere(Merge::Any)
        .tips(&["request_policy:all_shards", "nondeterministic_output"])
        .docs("generic", "1.0.0", "O(1)", "Picks a key of the database at random.", ""),
    Spec::new("swapdb", 3, Flags::WRITE.union(Flags::FAST), DANGEROUS).on_node(swapdb).docs(
        "server",
        "4.0.0",
        "O(N), N being the number of keys that are being loaded",
        "Exchanges two databases.",
        "index1 index2",
    ),
];

fn dbsize(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.integer(call.node.len(call.session.db) as i64);
    Ok(Flow::Continue)
}

fn flushdb(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    flush(call, Some(call.session.db))
}

fn flushall(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    flush(call, None)
}

/// The databases are empty for everybody before the memory is given back: here unless asked otherwise, and without a lock.
fn flush(call: &mut Call<'_>, db: Option<u16>) -> Result<Flow, CommandError> {
    let elsewhere = match call.args.len() {
        1 => false,
        2 if call.is(1, "SYNC") => false,
        2 if call.is(1, "ASYNC") => true,
        _ => return Err(CommandError::Syntax),
    };
    let Flushed { mut garbage, told, is_settled } = call.node.flush(db);
    if !is_settled {
        call.node.reclaimer.take_over(&mut garbage);
        return Ok(Flow::Unsettled);
    }
    if let Some(member) = call.node.member() {
        call.session.by_lease = true;
        if !told.is_empty() {
            call.session.wrote_here(member, &told, false);
        }
        member.hot.grants.all_under_way().into_iter().for_each(|take_back| call.session.wait_for(take_back));
    }
    if elsewhere {
        call.node.reclaimer.take_over(&mut garbage);
    }
    drop(garbage);
    call.reply.ok();
    Ok(Flow::Continue)
}

fn randomkey(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    match call.node.random_key(call.session.db, call.now) {
        Some(key) => call.reply.bulk(&key),
        None => call.reply.null(),
    }
    Ok(Flow::Continue)
}

fn swapdb(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if !call.node.topology.load().is_alone() {
        return Err(CommandError::text("ERR SWAPDB is not allowed in cluster mode"));
    }
    // Both have to be numbers before either has to be a database's.
    call.int(1).map_err(|_| CommandError::text("ERR invalid first DB index"))?;
    call.int(2).map_err(|_| CommandError::text("ERR invalid second DB index"))?;
    call.node.store.swap(call.database(1)?, call.database(2)?);
    call.node.tracking.flushed(call.node);
    call.reply.ok();
    Ok(Flow::Continue)
}
