//! CLIENT PAUSE, CLIENT UNPAUSE and CLIENT UNBLOCK.

use super::super::call::{Call, Flow};
use super::super::error::CommandError;
use crate::engine::gates::PauseMode;

pub(super) fn pause(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let mode = parse_mode(call)?;
    let until = parse_end(call)?;
    call.node.gates.pause(mode, until, call.now);
    call.reply.ok();
    Ok(Flow::Continue)
}

pub(super) fn unpause(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.node.gates.unpause();
    call.reply.ok();
    Ok(Flow::Continue)
}

/// No command waits for keys here, so there is never a connection to be freed from one.
pub(super) fn unblock(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    match call.args.len() {
        3 => {}
        4 if call.is(3, "timeout") || call.is(3, "error") => {}
        4 => return Err(CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        _ => return Err(CommandError::subcommand_syntax(call)),
    }
    call.integer(2)?;
    call.reply.integer(0);
    Ok(Flow::Continue)
}

fn parse_mode(call: &Call<'_>) -> Result<PauseMode, CommandError> {
    match call.args.len() {
        3 => Ok(PauseMode::All),
        4 if call.is(3, "write") => Ok(PauseMode::Writes),
        4 if call.is(3, "all") => Ok(PauseMode::All),
        4 => Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
        _ => Err(CommandError::subcommand_syntax(call)),
    }
}

/// The moment at which the pause is over.
fn parse_end(call: &Call<'_>) -> Result<i64, CommandError> {
    let timeout = call.integer(2).map_err(|_| CommandError::text("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    call.now.checked_add(timeout).ok_or(CommandError::text("ERR timeout is out of range"))
}
