//! What a command may answer instead of a result: one type, whose text is the line that clients see after the `-`.

use std::borrow::Cow;
use std::fmt;

use super::call::Call;

/// An error reply. The words are Redis' own where Redis has the same error, since client libraries match on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another type than the command works on.
    WrongType,
    Syntax,
    /// An argument or a stored value is no 64-bit integer.
    NotAnInteger,
    /// An argument or a stored value is no finite or infinite floating point number.
    NotAFloat,
    /// An argument lies outside what the command takes.
    OutOfRange,
    NoSuchKey,
    /// The number of arguments does not fit; carries the full name (`client|kill`).
    Arity(&'static str),
    /// No command has the name of the request; carries the start of the request for the message, as it came.
    UnknownCommand(Vec<u8>),
    /// The container command has no such subcommand.
    UnknownSubcommand {
        container: &'static str,
        subcommand: String,
    },
    /// An expiry argument is not a usable time; carries the command's name.
    InvalidExpire(&'static str),
    NoAuth,
    WrongPass,
    OutOfMemory,
    /// No node can serve the keys just now.
    Down,
    /// The keys belong to several nodes, and the command cannot be split.
    CrossSlot,
    /// The origin could not be asked, or answered with an error; the text is the origin's own reply line.
    Origin(String),
    /// A key of the request changed every time that it was loaded.
    Unsettled,
    /// A key has to be loaded before it can be changed. No client is told: the engine loads it and runs the command again.
    Unknown,
    /// Any other error, code word first.
    Other(Cow<'static, str>),
}

impl CommandError {
    /// An error of one command alone, code word first (`ERR …`).
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Other(Cow::Borrowed(text))
    }

    /// The subcommand of `call` does not exist, or not with so many arguments.
    pub fn subcommand_syntax(call: &Call<'_>) -> CommandError {
        let (container, subcommand) = (call.text(0).to_uppercase(), call.text(1));
        CommandError::from(format!(
            "ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {container} HELP."
        ))
    }

    /// The line that the client is sent, without the `-`. What it quotes of a request need not be text.
    pub fn line(&self) -> Vec<u8> {
        match self {
            CommandError::UnknownCommand(shown) => [b"ERR unknown command ", &shown[..]].concat(),
            other => other.to_string().into_bytes(),
        }
    }

    /// The code word of a line, by which `INFO errorstats` counts. Code words are ours, so they are text.
    pub fn code(line: &[u8]) -> &str {
        let word = line.split(|&byte| byte == b' ').next().unwrap_or(line);
        std::str::from_utf8(word).unwrap_or_default()
    }
}

impl From<forebay_store::AddError> for CommandError {
    fn from(error: forebay_store::AddError) -> CommandError {
        match error {
            forebay_store::AddError::WrongType => forebay_store::WrongType.into(),
            forebay_store::AddError::NotAnInteger => CommandError::NotAnInteger,
            forebay_store::AddError::Overflow => CommandError::text("ERR increment or decrement would overflow"),
            forebay_store::AddError::Unknown => CommandError::Unknown,
        }
    }
}

impl From<forebay_store::UpdateError> for CommandError {
    fn from(error: forebay_store::UpdateError) -> CommandError {
        match error {
            forebay_store::UpdateError::WrongType => CommandError::WrongType,
            forebay_store::UpdateError::Unknown => CommandError::Unknown,
        }
    }
}

impl From<forebay_store::Unknown> for CommandError {
    fn from(_: forebay_store::Unknown) -> CommandError {
        CommandError::Unknown
    }
}

impl From<forebay_store::WrongType> for CommandError {
    fn from(_: forebay_store::WrongType) -> CommandError {
        CommandError::WrongType
    }
}

impl From<String> for CommandError {
    fn from(text: String) -> CommandError {
        CommandError::Other(Cow::Owned(text))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::WrongType => f.write_str("WRONGTYPE Operation against a key holding the wrong kind of value"),
            CommandError::Syntax => f.write_str("ERR syntax error"),
            CommandError::NotAnInteger => f.write_str("ERR value is not an integer or out of range"),
            CommandError::NotAFloat => f.write_str("ERR value is not a valid float"),
            CommandError::OutOfRange => f.write_str("ERR index out of range"),
            CommandError::NoSuchKey => f.write_str("ERR no such key"),
            CommandError::Arity(name) => write!(f, "ERR wrong number of arguments for '{name}' command"),
            CommandError::UnknownCommand(shown) => write!(f, "ERR unknown command {}", shown.escape_ascii()),
            CommandError::UnknownSubcommand { container, subcommand } => {
                write!(f, "ERR unknown subcommand '{subcommand}'. Try {} HELP.", container.to_uppercase())
            }
            CommandError::InvalidExpire(name) => write!(f, "ERR invalid expire time in '{name}' command"),
            CommandError::NoAuth => f.write_str("NOAUTH Authentication required."),
            CommandError::WrongPass => f.write_str("WRONGPASS invalid username-password pair or user is disabled."),
            CommandError::OutOfMemory => f.write_str("OOM command not allowed when used memory > 'maxmemory'."),
            CommandError::Down => {
                f.write_str("CLUSTERDOWN the keys have no owner that can be reached now; try again a little later")
            }
            CommandError::CrossSlot => f.write_str("CROSSSLOT Keys in request don't hash to the same slot"),
            CommandError::Origin(line) => f.write_str(line),
            CommandError::Unsettled => {
                f.write_str("TRYAGAIN the keys of this request changed every time that they were loaded")
            }
            CommandError::Unknown => write!(f, "TRYAGAIN {}", forebay_store::Unknown),
            CommandError::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for CommandError {}
