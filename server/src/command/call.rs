//! What a handler is given: the arguments, the session they came by, and where the reply goes.

use std::ops::RangeInclusive;
use std::time::Duration;

use forebay_resp::{Args, Reply};
use forebay_store::{Expiry, Key, Keyspace, UnixMillis};

use super::error::CommandError;
use super::table::Command;
use crate::node::Node;
use crate::session::Session;

/// One run of one command.
pub struct Call<'c> {
    pub command: &'static Command,
    pub args: Args<'c>,
    /// The declared keys, in the order of the arguments.
    pub keys: &'c [Key<'c>],
    pub session: &'c mut Session,
    pub reply: &'c mut Reply,
    pub node: &'c Node,
    /// The time of this request; a run sees no other.
    pub now: UnixMillis,
}

/// What happens to the connection after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The next request.
    Continue,
    /// Send what is written, then close.
    Close,
    /// Nothing more from this connection until the time is over (`DEBUG SLEEP`).
    Sleep(Duration),
    /// The reply is how many copies hold what the connection has written.
    Copies(Copies),
    /// The reply is OK, as soon as other nodes know that the connection tracks.
    Heard,
    /// Something of what is this node's is changing hands: to be run once more when that is over.
    Unsettled,
}

/// What WAIT waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// Besides the owner's.
    pub wanted: usize,
    pub limit: Duration,
}

impl<'c> Call<'c> {
    /// Argument `at`.
    ///
    /// # Panics
    /// When there is none: the arity is checked before, so this is an error of the table.
    #[inline]
    pub fn arg(&self, at: usize) -> &'c [u8] {
        self.args.get(at).expect("the arity admits this argument")
    }

    /// Sets a key to argument `at`; one that lies in memory of its own is kept there.
    #[inline]
    pub fn set_string(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>, at: usize, expiry: Expiry) {
        match self.args.shared(at) {
            None => keyspace.set_string(key, self.arg(at), expiry),
            Some(value) => keyspace.set_string_shared(key, &value, expiry),
        }
    }

    /// Argument `at` as a 64-bit integer.
    ///
    /// # Errors
    /// [`CommandError::NotAnInteger`].
    #[inline]
    pub fn integer(&self, at: usize) -> Result<i64, CommandError> {
        forebay_store::parse_integer(self.arg(at)).ok_or(CommandError::NotAnInteger)
    }

    /// Argument `at` as an integer of a range.
    ///
    /// # Errors
    /// [`CommandError::NotAnInteger`], or an error that names the range.
    pub fn integer_within(&self, at: usize, range: RangeInclusive<i64>) -> Result<i64, CommandError> {
        let integer = self.integer(at)?;
        if range.contains(&integer) {
            return Ok(integer);
        }
        let (least, greatest) = range.into_inner();
        Err(CommandError::from(format!("ERR value is out of range, value must between {least} and {greatest}")))
    }

    /// Argument `at` as what C calls an `int`.
    ///
    /// # Errors
    /// As [`Self::integer_within`] has them.
    pub fn int(&self, at: usize) -> Result<i32, CommandError> {
        let integer = self.integer_within(at, i64::from(i32::MIN)..=i64::from(i32::MAX))?;
        Ok(integer as i32)
    }

    /// Argument `at` as the number of a database.
    ///
    /// # Errors
    /// When it is no number, or there is no such database.
    pub fn database(&self, at: usize) -> Result<u16, CommandError> {
        u16::try_from(self.int(at)?)
            .ok()
            .filter(|&db| db < self.node.identity.databases)
            .ok_or(CommandError::text("ERR DB index is out of range"))
    }

    /// Argument `at` as text for a message or a name; what is not UTF-8 is replaced.
    pub fn text(&self, at: usize) -> String {
        String::from_utf8_lossy(self.arg(at)).into_owned()
    }

    /// Whether argument `at` is this word, in any case.
    #[inline]
    pub fn is(&self, at: usize, word: &str) -> bool {
        self.arg(at).eq_ignore_ascii_case(word.as_bytes())
    }
}
