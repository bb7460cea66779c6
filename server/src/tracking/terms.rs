//! On which terms a connection tracks.

use bytes::Bytes;

use super::{Who, Writer};
use crate::clients::ClientId;

/// What CLIENT TRACKING ON has said, as others may see it.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Who is told in its place; 0 for nobody.
    pub redirect: ClientId,
    pub is_broadcasting: bool,
    /// That one was found to be gone.
    pub is_broken: bool,
    /// Sorted.
    pub prefixes: Vec<Bytes>,
}

/// What is to be remembered of a session's reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracks {
    pub who: Who,
    pub mode: Mode,
    /// CLIENT CACHING has been called for the next command.
    pub caching: bool,
    /// The connection that is not to be told of what it changes itself (NOLOOP); 0 for none.
    pub quiet: ClientId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every key that is read.
    All,
    /// Those that a command reads behind CLIENT CACHING YES.
    OptIn,
    /// All but those behind CLIENT CACHING NO.
    OptOut,
    /// None: whole prefixes are told of.
    Broadcast,
}

impl Tracks {
    /// Whether the keys that the next command reads are remembered.
    pub fn remembers(&self) -> bool {
        match self.mode {
            Mode::All => true,
            Mode::OptIn => self.caching,
            Mode::OptOut => !self.caching,
            Mode::Broadcast => false,
        }
    }

    /// Whose the changes are that it makes, if that matters.
    pub fn writer(&self) -> Option<Writer> {
        (self.quiet != 0).then_some(Writer { who: self.who, client: self.quiet })
    }
}
