//! COMMAND DOCS.

use forebay_resp::Reply;

use super::super::call::{Call, Flow};
use super::super::error::CommandError;
use super::super::spec::Flags;
use super::super::syntax::{Argument, Kind, arguments};
use super::super::table::{Command, Table};
use super::describe::{number, statuses, text};

pub(super) fn docs(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let table = Table::get();
    let commands: Vec<_> = match call.args.len() {
        2 => table.of_clients().collect(),
        _ => call.args.iter().skip(2).filter_map(|name| table.by_full_name(name)).collect(),
    };
    call.reply.map(commands.len());
    commands.into_iter().for_each(|command| named(call.reply, command));
    Ok(Flow::Continue)
}

fn named(reply: &mut Reply, command: &Command) {
    reply.bulk(command.full_name.as_bytes());
    document(reply, command);
}

fn document(reply: &mut Reply, command: &Command) {
    let spec = command.spec;
    let arguments = arguments(spec.syntax);
    let doc_flags: Vec<_> = [("deprecated", spec.deprecated.is_some()), ("syscmd", spec.flags.contains(Flags::SYSCMD))]
        .into_iter()
        .filter(|(_, holds)| *holds)
        .map(|(word, _)| word.to_owned())
        .collect();
    let optional =
        [!spec.complexity.is_empty(), !doc_flags.is_empty(), !arguments.is_empty(), !command.subcommands.is_empty()];
    let deprecation = 2 * usize::from(spec.deprecated.is_some());
    reply.map(3 + deprecation + optional.into_iter().filter(|there| *there).count());
    text(reply, "summary", spec.summary);
    text(reply, "since", spec.since);
    text(reply, "group", spec.group);
    if !spec.complexity.is_empty() {
        text(reply, "complexity", spec.complexity);
    }
    if !doc_flags.is_empty() {
        reply.bulk(b"doc_flags");
        statuses(reply, doc_flags.into_iter());
    }
    if let Some(deprecated) = spec.deprecated {
        text(reply, "deprecated_since", deprecated.since);
        text(reply, "replaced_by", deprecated.replaced_by);
    }
    if !arguments.is_empty() {
        reply.bulk(b"arguments");
        let mut keys = KeySpecs { next: 0, count: spec.keys.len() };
        tree(reply, &arguments, &mut keys);
    }
    if !command.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        command.subcommands.iter().for_each(|subcommand| named(reply, subcommand));
    }
}

/// Hands the command's key specifications to its key arguments, in order.
struct KeySpecs {
    next: usize,
    count: usize,
}

impl KeySpecs {
    fn take(&mut self, argument: &Argument) -> Option<i64> {
        let index = self.next;
        (argument.kind == Kind::Key && index < self.count).then(|| {
            self.next += 1;
            index as i64
        })
    }
}

fn tree(reply: &mut Reply, arguments: &[Argument], keys: &mut KeySpecs) {
    reply.array(arguments.len());
    for argument in arguments {
        one(reply, argument, keys);
    }
}

fn one(reply: &mut Reply, argument: &Argument, keys: &mut KeySpecs) {
    let is_group = matches!(argument.kind, Kind::OneOf | Kind::Block);
    let key_spec = keys.take(argument);
    let flags: Vec<_> =
        [("optional", argument.optional), ("multiple", argument.multiple), ("multiple_token", argument.multiple_token)]
            .into_iter()
            .filter(|(_, holds)| *holds)
            .map(|(word, _)| word.to_owned())
            .collect();
    let parts = [key_spec.is_some(), argument.token.is_some(), !flags.is_empty()];
    // A group has its parts and anything else a text to show.
    reply.map(3 + parts.into_iter().filter(|there| *there).count());
    text(reply, "name", &argument.name);
    text(reply, "type", argument.kind.as_str());
    if !is_group {
        text(reply, "display_text", &argument.name);
    }
    if let Some(index) = key_spec {
        number(reply, "key_spec_index", index);
    }
    if let Some(token) = argument.token {
        text(reply, "token", token);
    }
    if !flags.is_empty() {
        reply.bulk(b"flags");
        statuses(reply, flags.into_iter());
    }
    if is_group {
        reply.bulk(b"arguments");
        tree(reply, &argument.parts, keys);
    }
}
