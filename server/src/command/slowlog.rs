//! SLOWLOG: the commands that took long.

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, Spec};
use crate::telemetry::slowlog::SlowEntry;

const ADMIN: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::STALE);

/// Entries that GET tells when it is not told how many.
const SHOWN: usize = 10;

pub(super) const TABLE: &[Spec] = &[Spec::new("slowlog", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("get", -2, ADMIN, Categories::empty())
            .on_node(get)
            .tips(&["request_policy:all_nodes", "nondeterministic_output"])
            .docs(
                "server",
                "2.2.12",
                "O(N) where N is the number of entries returned",
                "Tells the newest entries.",
                "[count]",
            ),
        help::row(Categories::empty(), "server", "6.2.0"),
        Spec::new("len", 2, ADMIN, Categories::empty())
            .on_node(len)
            .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
            .docs("server", "2.2.12", "O(1)", "Tells the number of entries.", ""),
        Spec::new("reset", 2, ADMIN, Categories::empty())
            .on_node(reset)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .docs(
                "server",
                "2.2.12",
                "O(N) where N is the number of entries in the slowlog",
                "Forgets all entries.",
                "",
            ),
    ])
    .docs("server", "2.2.12", "Depends on subcommand.", "The commands that took long.", "")];

fn get(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let count = match call.args.len() {
        2 => SHOWN,
        3 => parse_count(call)?,
        _ => return Err(CommandError::subcommand_syntax(call)),
    };
    let entries = call.node.telemetry.slowlog.newest(count);
    call.reply.array(entries.len());
    entries.iter().for_each(|entry| answer(call, entry));
    Ok(Flow::Continue)
}

/// -1 is all.
fn parse_count(call: &Call<'_>) -> Result<usize, CommandError> {
    match call.integer(2) {
        Ok(-1) => Ok(usize::MAX),
        Ok(count @ 0..) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        Ok(_) | Err(_) => Err(CommandError::text("ERR count should be greater than or equal to -1")),
    }
}

fn answer(call: &mut Call<'_>, entry: &SlowEntry) {
    let reply = &mut *call.reply;
    reply.array(6);
    reply.integer(entry.id as i64);
    reply.integer(entry.at);
    reply.integer(entry.micros as i64);
    reply.array(entry.arguments.len());
    entry.arguments.iter().for_each(|argument| reply.bulk(argument));
    reply.bulk(entry.peer.as_bytes());
    reply.bulk(entry.client_name.as_bytes());
}

fn len(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.integer(call.node.telemetry.slowlog.len() as i64);
    Ok(Flow::Continue)
}

fn reset(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.node.telemetry.slowlog.clear();
    call.reply.ok();
    Ok(Flow::Continue)
}
