//! The server as a whole: its clock, its role, its end, and its art.

mod lolwut;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};

const ANY_TIME: Flags = Flags::LOADING.union(Flags::STALE);

pub(super) const TABLE: &[Spec] = &[
    Spec::new("lolwut", -1, Flags::READONLY.union(Flags::FAST), Categories::empty()).on_node(lolwut::lolwut).docs(
        "server",
        "5.0.0",
        "",
        "Draws the pool that this server is named after.",
        "[VERSION version]",
    ),
    Spec::new(
        "role",
        1,
        ANY_TIME.union(Flags::NOSCRIPT).union(Flags::FAST),
        Categories::ADMIN.union(Categories::DANGEROUS),
    )
    .on_node(role)
    .docs("server", "2.8.12", "O(1)", "Tells the replication role.", ""),
    Spec::new(
        "shutdown",
        -1,
        ANY_TIME.union(Flags::ADMIN).union(Flags::NOSCRIPT).union(Flags::NO_MULTI).union(Flags::ALLOW_BUSY),
        Categories::empty(),
    )
    .on_node(shutdown)
    .docs(
        "server",
        "1.0.0",
        "O(N) when saving, where N is the total number of keys in all databases when saving data, otherwise O(1)",
        "Ends the server in good order.",
        "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    ),
    Spec::new("time", 1, ANY_TIME.union(Flags::FAST), Categories::empty())
        .on_node(time)
        .tips(&["nondeterministic_output"])
        .docs("server", "2.6.0", "O(1)", "Tells the server's time.", ""),
];

/// Seconds since 1970, and microseconds of the second under way.
fn time(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let now = call.node.clock.unix();
    call.reply.array(2);
    call.reply.bulk_integer(now.as_secs() as i64);
    call.reply.bulk_integer(i64::from(now.subsec_micros()));
    Ok(Flow::Continue)
}

/// A node is a primary without replicas of Redis' kind, at offset 0.
fn role(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.array(3);
    call.reply.bulk(b"master");
    call.reply.integer(0);
    call.reply.array(0);
    Ok(Flow::Continue)
}

/// What SHUTDOWN is told.
#[derive(Default)]
struct Ending {
    saves: bool,
    does_not_save: bool,
    now: bool,
    force: bool,
    abort: bool,
}

impl Ending {
    fn parse(call: &Call<'_>) -> Result<Ending, CommandError> {
        let mut ending = Ending::default();
        for at in 1..call.args.len() {
            let said = match &call.args[at].to_ascii_lowercase()[..] {
                b"nosave" => &mut ending.does_not_save,
                b"save" => &mut ending.saves,
                b"now" => &mut ending.now,
                b"force" => &mut ending.force,
                b"abort" => &mut ending.abort,
                _ => return Err(CommandError::Syntax),
            };
            *said = true;
        }
        let ends = ending.saves || ending.does_not_save || ending.now || ending.force;
        match ending.abort && ends || ending.saves && ending.does_not_save {
            true => Err(CommandError::Syntax),
            false => Ok(ending),
        }
    }
}

/// Nobody is answered but by the end of the connection, as in Redis. NOW has no replicas to spare the wait for.
fn shutdown(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let ending = Ending::parse(call)?;
    if ending.abort {
        return Err(CommandError::text("ERR No shutdown in progress."));
    }
    if ending.saves && !ending.force {
        return Err(CommandError::text(
            "ERR Errors trying to SHUTDOWN: this server keeps no snapshots. Use NOSAVE or FORCE.",
        ));
    }
    call.node.gates.request_shutdown();
    Ok(Flow::Close)
}
