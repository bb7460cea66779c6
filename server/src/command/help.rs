//! HELP: of the commands that have subcommands told from their rows, of others from a list.

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};
use super::table::Table;

/// The row of a container's HELP.
pub(super) const fn row(categories: Categories, group: &'static str, since: &'static str) -> Spec {
    Spec::new("help", 2, Flags::LOADING.union(Flags::STALE), categories).on_node(help).docs(
        group,
        since,
        "O(1)",
        "Describes the subcommands.",
        "",
    )
}

/// One line for the container, then two for each subcommand: how it is called, and what it does.
fn help(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let container = Table::get().by_name(call.arg(0)).map(|container| container.spec);
    let (name, subcommands) = container.map_or(("", &[][..]), |spec| (spec.name, spec.subcommands));
    call.reply.array(1 + 2 * subcommands.len());
    head(call, name);
    for subcommand in subcommands {
        call.reply.simple(format!("{} {}", subcommand.name.to_uppercase(), subcommand.syntax).trim_end());
        call.reply.simple(&format!("    {}", subcommand.summary));
    }
    Ok(Flow::Continue)
}

/// Answers a list of subcommands that have no rows, each with what it does.
pub(super) fn list(call: &mut Call<'_>, subcommands: &[(&str, &str)]) -> Result<Flow, CommandError> {
    let lines: usize = subcommands.iter().map(|(_, does)| 1 + does.lines().count()).sum();
    call.reply.array(1 + lines);
    head(call, &call.text(0));
    for (usage, does) in subcommands {
        call.reply.simple(usage);
        for line in does.lines() {
            call.reply.simple(&format!("    {line}"));
        }
    }
    Ok(Flow::Continue)
}

fn head(call: &mut Call<'_>, name: &str) {
    call.reply.simple(&format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", name.to_uppercase()));
}
