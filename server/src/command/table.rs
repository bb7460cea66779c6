//! The command table: every family's rows, found by name.

use std::sync::LazyLock;

use forebay_resp::Args;

use super::FAMILIES;
use super::error::CommandError;
use super::names::NameIndex;
use super::spec::{Flags, Run, Spec};

/// Characters of each argument, and of all of them, that "unknown command" shows (Redis' limit).
const SHOWN_OF_UNKNOWN: usize = 128;

/// A row in its place: with its number, which indexes the statistics, and its subcommands.
pub struct Command {
    pub spec: &'static Spec,
    /// Dense, from 0, containers and subcommands alike.
    pub id: usize,
    /// `get`, `client|kill`.
    pub full_name: &'static str,
    /// Whether the one key is the first argument behind the name, as it is for most commands.
    pub has_one_key: bool,
    /// Whether the reply follows from that key alone: the same until something is done to the key.
    pub is_repeatable: bool,
    pub subcommands: Vec<Command>,
    is_container: bool,
}

/// All commands.
pub struct Table {
    /// In the order of the families.
    commands: Vec<Command>,
    by_name: NameIndex,
    /// Full names, by id.
    names: Vec<&'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::build);

impl Table {
    /// The one table of the process.
    pub fn get() -> &'static Table {
        &TABLE
    }

    fn build() -> Table {
        let mut numbering = Numbering::default();
        let commands: Vec<_> =
            FAMILIES.iter().flat_map(|family| family.iter()).map(|spec| numbering.number(spec, None)).collect();
        let by_name = NameIndex::new(&commands.iter().map(|command| command.spec.name).collect::<Vec<_>>());
        Table { commands, by_name, names: numbering.names }
    }

    /// Number of commands and subcommands: the size of tables by [`Command::id`].
    pub fn size(&self) -> usize {
        self.names.len()
    }

    /// The full name of the command with this id.
    pub fn name_of(&self, id: usize) -> &'static str {
        self.names[id]
    }

    /// Every top-level command, in the order of the families.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.iter()
    }

    /// Those that clients may know of.
    pub fn of_clients(&self) -> impl Iterator<Item = &Command> {
        self.commands().filter(|command| !command.is_of_nodes())
    }

    /// Every command, each container before its subcommands: in the order of the ids.
    pub fn all(&self) -> impl Iterator<Item = &Command> {
        self.commands().flat_map(|command| std::iter::once(command).chain(&command.subcommands))
    }

    /// The command with this name, in any case; of a container, itself.
    #[inline]
    pub fn by_name(&self, name: &[u8]) -> Option<&Command> {
        self.by_name.find(name).map(|row| &self.commands[row])
    }

    /// As [`Table::resolve`] of a request whose command has no subcommands; else, or if it does not resolve, `None`.
    #[inline]
    pub fn resolve_plain(&self, args: Args<'_>) -> Option<&Command> {
        self.by_name(args.name()).filter(|command| !command.is_container && command.spec.accepts(args.len()))
    }

    /// The command that a request names; of a container, the subcommand.
    ///
    /// # Errors
    /// For an unknown name or subcommand, and a number of arguments that does not fit.
    #[inline]
    pub fn resolve(&self, args: Args<'_>) -> Result<&Command, Unresolved<'_>> {
        let command = self.named(args)?;
        match command.spec.accepts(args.len()) && !matches!(command.spec.run, Run::Subcommand) {
            true => Ok(command),
            false => Err(Unresolved { error: CommandError::Arity(command.full_name), command: Some(command) }),
        }
    }

    /// The command that a request names, whatever the number of its arguments.
    ///
    /// # Errors
    /// For an unknown name or subcommand.
    #[inline]
    pub fn named(&self, args: Args<'_>) -> Result<&Command, Unresolved<'_>> {
        let nameless = |error| Unresolved { error, command: None };
        let command = self.by_name(&args[0]).ok_or_else(|| nameless(unknown(args)))?;
        match command.subcommands.is_empty() || args.len() == 1 {
            true => Ok(command),
            false => command.subcommand(&args[1]).map_err(nameless),
        }
    }

    /// The command with this full name (`get`, `client|kill`), in any case.
    pub fn by_full_name(&self, name: &[u8]) -> Option<&Command> {
        let mut words = name.split(|&byte| byte == b'|');
        let command = self.by_name(words.next()?)?;
        match (words.next(), words.next()) {
            (None, _) => Some(command),
            (Some(word), None) => command.subcommand(word).ok(),
            (Some(_), Some(_)) => None,
        }
    }
}

/// Gives out the ids.
#[derive(Default)]
struct Numbering {
    names: Vec<&'static str>,
}

impl Numbering {
    fn number(&mut self, spec: &'static Spec, container: Option<&str>) -> Command {
        let full_name: &'static str = match container {
            None => spec.name,
            Some(container) => format!("{container}|{}", spec.name).leak(),
        };
        let id = self.names.len();
        self.names.push(full_name);
        let subcommands = spec.subcommands.iter().map(|sub| self.number(sub, Some(spec.name))).collect();
        let is_container = !spec.subcommands.is_empty();
        Command {
            spec,
            id,
            full_name,
            has_one_key: spec.has_one_key(),
            is_repeatable: spec.is_repeatable(),
            subcommands,
            is_container,
        }
    }
}

/// Why a request names no command that could run.
#[derive(Debug)]
pub struct Unresolved<'t> {
    pub error: CommandError,
    /// The command, if it is known and only the number of arguments is wrong.
    pub command: Option<&'t Command>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.full_name)
    }
}

impl Command {
    /// Whether this is a command of its own or one word of a container.
    pub fn is_subcommand(&self) -> bool {
        self.full_name.len() != self.spec.name.len()
    }

    /// Whether only nodes may ask for it.
    pub fn is_of_nodes(&self) -> bool {
        self.spec.flags.contains(Flags::INTERNAL)
    }

    fn subcommand(&self, name: &[u8]) -> Result<&Command, CommandError> {
        self.subcommands
            .iter()
            .find(|sub| sub.spec.name.as_bytes().eq_ignore_ascii_case(name))
            .ok_or_else(|| CommandError::UnknownSubcommand { container: self.spec.name, subcommand: shown(name) })
    }
}

/// The start of a text, up to a zero byte, behind which Redis does not look.
fn start_of(text: &[u8], most: usize) -> &[u8] {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    &text[..text.len().min(most)]
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(start_of(text, SHOWN_OF_UNKNOWN)).into_owned()
}

fn unknown(args: Args<'_>) -> CommandError {
    let name = start_of(&args[0], SHOWN_OF_UNKNOWN);
    let mut message = [b"'", name, b"', with args beginning with: "].concat();
    let mut room = SHOWN_OF_UNKNOWN;
    for arg in args.iter().skip(1) {
        if room == 0 {
            break;
        }
        let part = start_of(arg, room);
        room = room.saturating_sub(part.len() + 3);
        message.extend_from_slice(&[b"'", part, b"' "].concat());
    }
    CommandError::UnknownCommand(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::spec::{Find, Load};

    #[test]
    fn names_are_lower_case_and_short_enough_to_be_found() {
        for command in Table::get().commands() {
            let name = command.spec.name;
            assert_eq!(name, name.to_lowercase());
            assert!(Table::get().by_name(name.to_uppercase().as_bytes()).is_some(), "{name}");
        }
    }

    /// Replies of these may be kept by other nodes. Whoever adds a command decides here whether its reply follows from its key alone.
    #[test]
    fn what_is_repeatable_is_known() {
        const REPEATABLE: &str = "bitcount bitfield_ro bitpos expiretime get getbit getrange hexists hget hgetall hkeys hlen hmget \
                                  hstrlen hvals pexpiretime strlen substr type";
        let mut found: Vec<_> = Table::get().commands().filter(|command| command.is_repeatable).collect();
        found.sort_by_key(|command| command.full_name);
        let names: Vec<_> = found.iter().map(|command| command.full_name).collect();
        assert_eq!(names.join(" "), REPEATABLE);
    }

    #[test]
    fn rows_say_what_they_need_to() {
        fn check(command: &Command) {
            let spec = command.spec;
            assert!(!spec.summary.is_empty(), "{} has no summary", command.full_name);
            assert!(
                !matches!(spec.run, Run::Subcommand) || !spec.subcommands.is_empty(),
                "{} can neither run nor has it subcommands",
                command.full_name
            );
            if matches!(spec.run, Run::Keys(_)) {
                assert!(!spec.keys.is_empty(), "{} runs over keys and declares none", command.full_name);
            }
            for keys in spec.keys {
                assert!(
                    matches!(keys.find, Find::Range { step: 1.., .. } | Find::Count { step: 1.., .. }),
                    "{} has a step of 0",
                    command.full_name
                );
            }
            assert!(!spec.flags.contains(Flags::WRITE | Flags::READONLY), "{}", command.full_name);
            assert!(
                !matches!(spec.load, Load::Before | Load::BeforeWhen(_)) || command.has_one_key,
                "{} may change one key before it finds that another is to be loaded",
                command.full_name
            );
            command.subcommands.iter().for_each(check);
        }
        Table::get().commands().for_each(check);
    }
}
