//! CLIENT: what a connection says of itself and asks of others.

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};

const ANY_TIME: Flags = Flags::NOSCRIPT.union(Flags::LOADING).union(Flags::STALE);

pub(super) const TABLE: &[Spec] = &[Spec::new("client", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("getname", 2, ANY_TIME, Categories::CONNECTION).on_node(getname).docs(
            "connection",
            "2.6.9",
            "O(1)",
            "Tells the connection's name.",
            "",
        ),
        Spec::new("id", 2, ANY_TIME, Categories::CONNECTION).on_node(id).docs(
            "connection",
            "5.0.0",
            "O(1)",
            "Tells the connection's number.",
            "",
        ),
        Spec::new("setname", 3, ANY_TIME, Categories::CONNECTION).on_node(setname).docs(
            "connection",
            "2.6.9",
            "O(1)",
            "Names the connection.",
            "connection-name",
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
    match name.iter().all(|byte| matches!(byte, b'!'..=b'~')) {
        true => Ok(()),
        false => Err(CommandError::text("ERR Client names cannot contain spaces, newlines or special characters.")),
    }
}
