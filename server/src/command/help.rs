//! HELP of the commands that have subcommands, told from their rows.

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
    call.reply.simple(&format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", name.to_uppercase()));
    for subcommand in subcommands {
        call.reply.simple(format!("{} {}", subcommand.name.to_uppercase(), subcommand.syntax).trim_end());
        call.reply.simple(&format!("    {}", subcommand.summary));
    }
    Ok(Flow::Continue)
}
