//! CLIENT: what a connection says of itself and asks of others.

mod kill;
mod list;
mod pause;
mod tracking;

use std::sync::atomic::Ordering::Relaxed;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, Spec};
use crate::session::Replies;
pub(super) use tracking::end as end_tracking;

const ANY_TIME: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);
const ADMIN: Flags = ANY_TIME.union(Flags::ADMIN);
const O_OF_CLIENTS: &str = "O(N) where N is the number of client connections";

pub(super) const TABLE: &[Spec] = &[Spec::new("client", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("caching", 3, ANY_TIME, Categories::CONNECTION).on_node(tracking::caching).docs(
            "connection",
            "6.0.0",
            "O(1)",
            "Says whether the next command's keys are tracked.",
            "<YES | NO>",
        ),
        Spec::new("getname", 2, ANY_TIME, Categories::CONNECTION).on_node(getname).docs(
            "connection",
            "2.6.9",
            "O(1)",
            "Tells the connection's name.",
            "",
        ),
        Spec::new("getredir", 2, ANY_TIME, Categories::CONNECTION).on_node(tracking::getredir).docs(
            "connection",
            "6.0.0",
            "O(1)",
            "Tells which connection is told of changed keys in place of this one.",
            "",
        ),
        help::row(Categories::CONNECTION, "connection", "5.0.0"),
        Spec::new("id", 2, ANY_TIME, Categories::CONNECTION).on_node(id).docs(
            "connection",
            "5.0.0",
            "O(1)",
            "Tells the connection's number.",
            "",
        ),
        Spec::new("info", 2, ANY_TIME, Categories::CONNECTION)
            .on_node(list::info)
            .tips(&["nondeterministic_output"])
            .docs("connection", "6.2.0", "O(1)", "Tells everything about the connection.", ""),
        Spec::new("kill", -3, ADMIN, Categories::CONNECTION).on_node(kill::kill).docs(
            "connection",
            "2.4.0",
            O_OF_CLIENTS,
            "Ends connections.",
            "<ip:port | <ID client-id | TYPE <NORMAL | MASTER | SLAVE | REPLICA | PUBSUB> | USER username | ADDR ip:port | \
             LADDR ip:port | SKIPME <YES | NO>> ...>",
        ),
        Spec::new("list", -2, ADMIN, Categories::CONNECTION)
            .on_node(list::list)
            .tips(&["nondeterministic_output"])
            .docs(
                "connection",
                "2.4.0",
                O_OF_CLIENTS,
                "Tells everything about all connections.",
                "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]",
            ),
        Spec::new("no-evict", 3, ADMIN, Categories::CONNECTION).on_node(no_evict).docs(
            "connection",
            "7.0.0",
            "O(1)",
            "Protects the connection from being ended to free memory.",
            "<ON | OFF>",
        ),
        Spec::new("no-touch", 3, ANY_TIME, Categories::CONNECTION).on_node(no_touch).docs(
            "connection",
            "7.2.0",
            "O(1)",
            "Lets the connection's reads leave no mark on the keys.",
            "<ON | OFF>",
        ),
        Spec::new("pause", -3, ADMIN, Categories::CONNECTION).on_node(pause::pause).docs(
            "connection",
            "2.9.50",
            "O(1)",
            "Holds back the commands of all connections for a while.",
            "timeout [WRITE | ALL]",
        ),
        Spec::new("reply", 3, ANY_TIME, Categories::CONNECTION).on_node(reply).docs(
            "connection",
            "3.2.0",
            "O(1)",
            "Tells whether the connection wants replies.",
            "<ON | OFF | SKIP>",
        ),
        Spec::new("setinfo", 4, ANY_TIME, Categories::CONNECTION)
            .on_node(setinfo)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .docs("connection", "7.2.0", "O(1)", "Tells which library the client uses.", "<LIB-NAME libname | LIB-VER libver>"),
        Spec::new("setname", 3, ANY_TIME, Categories::CONNECTION).on_node(setname).docs(
            "connection",
            "2.6.9",
            "O(1)",
            "Names the connection.",
            "connection-name",
        ),
        Spec::new("tracking", -3, ANY_TIME, Categories::CONNECTION).on_node(tracking::tracking).docs(
            "connection",
            "6.0.0",
            "O(1). Some options may introduce additional complexity.",
            "Has the connection be told when keys change that it has read.",
            "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
        ),
        Spec::new("trackinginfo", 2, ANY_TIME, Categories::CONNECTION).on_node(tracking::trackinginfo).docs(
            "connection",
            "6.2.0",
            "O(1)",
            "Tells how the connection tracks keys.",
            "",
        ),
        Spec::new("unblock", -3, ADMIN, Categories::CONNECTION).on_node(pause::unblock).docs(
            "connection",
            "5.0.0",
            "O(log N) where N is the number of client connections",
            "Ends the wait of a connection in a blocking command.",
            "client-id [TIMEOUT | ERROR]",
        ),
        Spec::new("unpause", 2, ADMIN, Categories::CONNECTION).on_node(pause::unpause).docs(
            "connection",
            "6.2.0",
            "O(N) Where N is the number of paused clients",
            "Lets go on what CLIENT PAUSE held back.",
            "",
        ),
    ])
    .docs("connection", "2.4.0", "Depends on subcommand.", "What a connection says of itself and asks of others.", "")];

fn id(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.integer(call.session.client.id as i64);
    Ok(Flow::Continue)
}

fn getname(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let name = call.session.client.labels.lock().name.clone();
    match name.is_empty() {
        true => call.reply.null(),
        false => call.reply.bulk(name.as_bytes()),
    }
    Ok(Flow::Continue)
}

fn setname(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    set_name(call, call.arg(2))?;
    call.reply.ok();
    Ok(Flow::Continue)
}

/// Names the connection; an empty name takes the name away.
pub(super) fn set_name(call: &mut Call<'_>, name: &[u8]) -> Result<(), CommandError> {
    check_name(name)?;
    call.session.client.labels.lock().name = String::from_utf8_lossy(name).into_owned();
    Ok(())
}

/// A name stands in one line of `CLIENT LIST`, between spaces.
pub(super) fn check_name(name: &[u8]) -> Result<(), CommandError> {
    match is_printable(name) {
        true => Ok(()),
        false => Err(CommandError::text("ERR Client names cannot contain spaces, newlines or special characters.")),
    }
}

fn is_printable(label: &[u8]) -> bool {
    label.iter().all(|byte| matches!(byte, b'!'..=b'~'))
}

fn setinfo(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let (option, value) = (call.text(2), call.arg(3));
    let (is_name, is_version) = (call.is(2, "lib-name"), call.is(2, "lib-ver"));
    if !is_name && !is_version {
        return Err(CommandError::from(format!("ERR Unrecognized option '{option}'")));
    }
    if !is_printable(value) {
        return Err(CommandError::from(format!("ERR {option} cannot contain spaces, newlines or special characters.")));
    }
    let mut labels = call.session.client.labels.lock();
    let label = if is_name { &mut labels.library_name } else { &mut labels.library_version };
    *label = String::from_utf8_lossy(value).into_owned();
    drop(labels);
    call.reply.ok();
    Ok(Flow::Continue)
}

fn reply(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if call.is(2, "on") {
        call.session.replies = Replies::On;
        call.reply.ok();
    } else if call.is(2, "off") {
        call.session.replies = Replies::Off;
    } else if call.is(2, "skip") {
        if call.session.replies != Replies::Off {
            call.session.replies = Replies::SkipAfterThis;
        }
    } else {
        return Err(CommandError::Syntax);
    }
    Ok(Flow::Continue)
}

fn no_evict(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let on = on_or_off(call)?;
    call.session.client.no_evict.store(on, Relaxed);
    call.reply.ok();
    Ok(Flow::Continue)
}

fn no_touch(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let on = on_or_off(call)?;
    call.session.no_touch = on;
    call.session.client.no_touch.store(on, Relaxed);
    call.reply.ok();
    Ok(Flow::Continue)
}

fn on_or_off(call: &Call<'_>) -> Result<bool, CommandError> {
    match (call.is(2, "on"), call.is(2, "off")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(CommandError::Syntax),
    }
}
