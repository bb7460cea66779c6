//! DEBUG: what developers, and Redis' own test suite, ask of a server. Only with `--enable-debug-command`.
//!
//! A subcommand that names machinery of Redis which does not exist here answers OK where doing nothing is all that it asks for, and is
//! unknown where an OK would promise something (`RELOAD`, `LOADAOF`: there is no file to load).

mod digest;
mod inspect;
mod populate;
mod protocol;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, Spec};
use crate::freshness::Guard;
use crate::settings::Settings;
use crate::size::parse_size;

const FLAGS: Flags = Flags::ADMIN
    .union(Flags::NOSCRIPT)
    .union(Flags::LOADING)
    .union(Flags::STALE)
    .union(Flags::PROTECTED)
    .union(Flags::SYSCMD);

pub(super) const TABLE: &[Spec] = &[Spec::new("debug", -2, FLAGS, Categories::empty()).on_node(debug).docs(
    "server",
    "1.0.0",
    "Depends on subcommand.",
    "Looks into the server, and changes how it behaves, for tests.",
    "",
)];

/// A subcommand: its name, the numbers of arguments that it takes (with `DEBUG` and its name), and what it does.
struct Subcommand {
    name: &'static str,
    least: usize,
    most: usize,
    run: fn(&mut Call<'_>) -> Result<Flow, CommandError>,
}

const fn takes(
    name: &'static str,
    least: usize,
    most: usize,
    run: fn(&mut Call<'_>) -> Result<Flow, CommandError>,
) -> Subcommand {
    Subcommand { name, least, most, run }
}

const SUBCOMMANDS: &[Subcommand] = &[
    takes("change-repl-id", 2, 2, nothing_to_do),
    takes("dict-resizing", 3, 3, nothing_to_do),
    takes("digest", 2, 2, digest::digest),
    takes("digest-value", 2, usize::MAX, digest::digest_value),
    takes("error", 3, 3, error),
    takes("guard", 4, 4, guard),
    takes("help", 2, 2, explain),
    takes("htstats", 3, 4, inspect::table_statistics),
    takes("htstats-key", 3, 4, inspect::table_statistics_of_key),
    takes("listpack", 3, 3, inspect::listpack),
    takes("log", 3, 3, log),
    takes("object", 3, 4, inspect::object),
    takes("pause-cron", 3, 3, |call| set_switch(call, |settings| &settings.housekeeping, true)),
    takes("populate", 3, 5, populate::populate),
    takes("protocol", 3, 3, protocol::protocol),
    takes("quicklist-packed-threshold", 3, 3, quicklist_packed_threshold),
    takes("replybuffer", 4, 4, reply_buffer),
    takes("sdslen", 3, 3, inspect::string_lengths),
    takes("set-active-expire", 3, 3, |call| set_switch(call, |settings| &settings.active_expire, false)),
    takes("set-disable-deny-scripts", 3, 3, nothing_to_do),
    takes("set-skip-checksum-validation", 3, 3, nothing_to_do),
    takes("sleep", 3, 3, sleep),
];

fn debug(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let count = call.args.len();
    let fits = |known: &&Subcommand| call.is(1, known.name) && (known.least..=known.most).contains(&count);
    match SUBCOMMANDS.iter().find(fits) {
        Some(known) => (known.run)(call),
        None => Err(CommandError::subcommand_syntax(call)),
    }
}

fn explain(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    help::list(
        call,
        &[
            ("CHANGE-REPL-ID", "Nothing: there is no replication of Redis' kind."),
            ("DICT-RESIZING <0|1>", "Nothing: the tables cannot be told when to grow."),
            ("DIGEST", "Tell a signature of all that is stored."),
            ("DIGEST-VALUE <key> [<key> ...]", "Tell signatures of the values of these keys."),
            ("ERROR <string>", "Answer this error."),
            ("GUARD <name> <0|1>", "Take away, or give back, one of the things that keep old values out."),
            ("HTSTATS <dbid>", "Tell how many keys a database has, and how many of them expire."),
            ("HTSTATS-KEY <key>", "Tell how many fields the hash table at the key has."),
            ("LISTPACK <key>", "Tell whether the value at the key is compact."),
            ("LOG <message>", "Write the message to the log."),
            ("OBJECT <key>", "Tell how the value at the key is kept."),
            ("PAUSE-CRON <0|1>", "Stop, or go on with, what the server does by itself."),
            (
                "POPULATE <count> [<prefix>] [<size>]",
                "Create string keys <prefix>:<number> (prefix: key), those that exist left as they are.",
            ),
            (
                "PROTOCOL <type>",
                "Answer a value of the type: string, integer, double, bignum, null, array, set,\nmap, attrib, push, verbatim, true, false.",
            ),
            ("QUICKLIST-PACKED-THRESHOLD <size>", "Nothing: there are no quicklists."),
            (
                "REPLYBUFFER <PEAK-RESET-TIME <NEVER|RESET|ms> | RESIZING <0|1>>",
                "Nothing: idle connections have no reply buffers.",
            ),
            ("SDSLEN <key>", "Tell how long the key and its string are, and what they take."),
            ("SET-ACTIVE-EXPIRE <0|1>", "Whether expired keys are removed before someone asks for them."),
            ("SET-DISABLE-DENY-SCRIPTS <0|1>", "Nothing: there are no scripts."),
            ("SET-SKIP-CHECKSUM-VALIDATION <0|1>", "Nothing: there are no dumps to check."),
            ("SLEEP <seconds>", "Let this connection rest; fractions are allowed."),
        ],
    )
}

fn nothing_to_do(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.ok();
    Ok(Flow::Continue)
}

/// Sets a switch to a number's truth, or with `inverted` to the opposite.
fn set_switch(call: &mut Call<'_>, switch: fn(&Settings) -> &AtomicBool, inverted: bool) -> Result<Flow, CommandError> {
    let on = call.integer(2).is_ok_and(|number| number != 0);
    switch(&call.node.settings).store(on != inverted, Relaxed);
    call.reply.ok();
    Ok(Flow::Continue)
}

fn guard(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let Some(guard) = Guard::ALL.into_iter().find(|guard| call.is(2, guard.as_str())) else {
        let names: Vec<&str> = Guard::ALL.iter().map(|guard| guard.as_str()).collect();
        return Err(CommandError::from(format!("ERR the guards are {}", names.join(", "))));
    };
    let is_there = call.integer(3)? != 0;
    call.node.freshness.guards.set(guard, is_there);
    if let (Guard::TakeBacks, Some(member)) = (guard, call.node.member()) {
        member.hot.grants.listen(is_there);
    }
    call.reply.ok();
    Ok(Flow::Continue)
}

fn error(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.error(call.arg(2));
    Ok(Flow::Continue)
}

fn log(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    tracing::warn!(message = %call.text(2), "DEBUG LOG");
    call.reply.ok();
    Ok(Flow::Continue)
}

fn sleep(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let seconds: f64 = call.text(2).parse().unwrap_or(0.0);
    call.reply.ok();
    Ok(Flow::Sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()))
}

fn quicklist_packed_threshold(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    const MOST: u64 = 4 << 30;
    match parse_size(&call.text(2)) {
        Some(0..MOST) => nothing_to_do(call),
        _ => Err(CommandError::text("ERR argument must be a memory value bigger than 1 and smaller than 4gb")),
    }
}

fn reply_buffer(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if call.is(2, "peak-reset-time") {
        if !call.is(3, "never") && !call.is(3, "reset") {
            call.integer(3)?;
        }
        return nothing_to_do(call);
    }
    match call.is(2, "resizing") {
        true => nothing_to_do(call),
        false => Err(CommandError::subcommand_syntax(call)),
    }
}
