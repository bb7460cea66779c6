//! COMMAND: what this server's commands are, told from the table.

mod describe;
mod docs;

use forebay_resp::Args;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, KeyUse, Spec};
use super::table::{Command, Table};
use super::{glob, help};
use describe::describe;

const ANY_TIME: Flags = Flags::LOADING.union(Flags::STALE);
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

pub(super) const TABLE: &[Spec] = &[Spec::new("command", -1, ANY_TIME, Categories::CONNECTION)
    .on_node(all)
    .tips(UNORDERED)
    .subcommands(&[
        Spec::new("count", 2, ANY_TIME, Categories::CONNECTION).on_node(count).docs(
            "server",
            "2.8.13",
            "O(1)",
            "Tells how many commands there are.",
            "",
        ),
        Spec::new("docs", -2, ANY_TIME, Categories::CONNECTION).on_node(docs::docs).tips(UNORDERED).docs(
            "server",
            "7.0.0",
            "O(N) where N is the number of commands to look up",
            "Tells the documentation of commands.",
            "[command-name [command-name ...]]",
        ),
        Spec::new("getkeys", -4, ANY_TIME, Categories::CONNECTION).on_node(keys).docs(
            "server",
            "2.8.13",
            "O(N) where N is the number of arguments to the command",
            "Finds the keys in a whole command.",
            "command [arg [arg ...]]",
        ),
        Spec::new("getkeysandflags", -4, ANY_TIME, Categories::CONNECTION).on_node(keys_and_uses).docs(
            "server",
            "7.0.0",
            "O(N) where N is the number of arguments to the command",
            "Finds the keys in a whole command, and tells how it uses them.",
            "command [arg [arg ...]]",
        ),
        help::row(Categories::CONNECTION, "server", "5.0.0"),
        Spec::new("info", -2, ANY_TIME, Categories::CONNECTION).on_node(info).tips(UNORDERED).docs(
            "server",
            "2.8.13",
            "O(N) where N is the number of commands to look up",
            "Tells arity, flags, keys and categories of commands.",
            "[command-name [command-name ...]]",
        ),
        Spec::new("list", -2, ANY_TIME, Categories::CONNECTION).on_node(list).tips(UNORDERED).docs(
            "server",
            "7.0.0",
            "O(N) where N is the total number of commands",
            "Lists the names of commands.",
            "[FILTERBY <MODULE module-name | ACLCAT category | PATTERN pattern>]",
        ),
    ])
    .docs("server", "2.8.13", "O(N) where N is the total number of commands", "Tells about all commands.", "")];

fn all(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let commands: Vec<_> = Table::get().of_clients().collect();
    call.reply.array(commands.len());
    commands.into_iter().for_each(|command| describe(call.reply, command));
    Ok(Flow::Continue)
}

fn count(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.integer(Table::get().of_clients().count() as i64);
    Ok(Flow::Continue)
}

fn info(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    if call.args.len() == 2 {
        return all(call);
    }
    call.reply.array(call.args.len() - 2);
    for name in call.args.iter().skip(2) {
        match Table::get().by_full_name(name) {
            Some(command) => describe(call.reply, command),
            None => call.reply.null(),
        }
    }
    Ok(Flow::Continue)
}

fn list(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let filter = Filter::parse(call)?;
    let names: Vec<_> = Table::get()
        .all()
        .filter(|command| !command.is_of_nodes() && filter.admits(command))
        .map(|command| command.full_name)
        .collect();
    call.reply.array(names.len());
    names.into_iter().for_each(|name| call.reply.bulk(name.as_bytes()));
    Ok(Flow::Continue)
}

/// Which commands `COMMAND LIST` names.
enum Filter {
    None,
    /// Of a module; there are none.
    Module,
    /// Of this category; of an unknown one there are none.
    Category(Option<Categories>),
    /// Lower case.
    Pattern(Vec<u8>),
}

impl Filter {
    fn parse(call: &Call<'_>) -> Result<Filter, CommandError> {
        match call.args.len() {
            2 => Ok(Filter::None),
            5 if call.is(2, "filterby") && call.is(3, "module") => Ok(Filter::Module),
            5 if call.is(2, "filterby") && call.is(3, "aclcat") => {
                Ok(Filter::Category(describe::category(call.arg(4))))
            }
            5 if call.is(2, "filterby") && call.is(3, "pattern") => {
                Ok(Filter::Pattern(call.arg(4).to_ascii_lowercase()))
            }
            _ => Err(CommandError::Syntax),
        }
    }

    fn admits(&self, command: &Command) -> bool {
        match self {
            Filter::None => true,
            Filter::Module => false,
            Filter::Category(category) => {
                category.is_some_and(|category| command.spec.acl_categories().contains(category))
            }
            Filter::Pattern(pattern) => glob::matches(pattern, command.full_name.as_bytes()),
        }
    }
}

fn keys(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let (inner, found) = find_keys(call)?;
    call.reply.array(found.len());
    found.iter().for_each(|(at, _)| call.reply.bulk(&inner[*at]));
    Ok(Flow::Continue)
}

fn keys_and_uses(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let (inner, found) = find_keys(call)?;
    call.reply.array(found.len());
    for (at, uses) in found {
        call.reply.array(2);
        call.reply.bulk(&inner[at]);
        describe::key_uses(call.reply, uses);
    }
    Ok(Flow::Continue)
}

/// The command in the arguments, and its keys with their uses.
fn find_keys<'c>(call: &Call<'c>) -> Result<(Args<'c>, Vec<(usize, KeyUse)>), CommandError> {
    let inner = call.args.skip(2);
    let command = Table::get().named(inner).map_err(|_| CommandError::text("ERR Invalid command specified"))?;
    if command.spec.keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !command.spec.accepts(inner.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let found = command.spec.key_uses(inner).unwrap_or_default();
    if found.is_empty() && !command.spec.flags.contains(Flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    Ok((inner, found))
}
