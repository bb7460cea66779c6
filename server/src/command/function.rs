//! FUNCTION: there are no functions, so there is nothing to flush, and that is done.

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, Spec};

pub(super) const TABLE: &[Spec] = &[Spec::new("function", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("flush", -2, Flags::NOSCRIPT.union(Flags::WRITE), Categories::SCRIPTING)
            .on_node(flush)
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .docs(
                "scripting",
                "7.0.0",
                "O(N) where N is the number of functions deleted",
                "Removes all functions.",
                "[ASYNC | SYNC]",
            ),
        help::row(Categories::SCRIPTING, "scripting", "7.0.0"),
    ])
    .docs("scripting", "7.0.0", "Depends on subcommand.", "Functions that run at the server.", "")];

fn flush(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let known = call.args.len() == 2 || call.args.len() == 3 && (call.is(2, "sync") || call.is(2, "async"));
    if !known {
        return Err(CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    call.reply.ok();
    Ok(Flow::Continue)
}
