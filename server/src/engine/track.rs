//! Client tracking where requests run: whose reads are remembered, before a request is forwarded and under the locks of its run.

use forebay_resp::Args;
use forebay_store::Key;

use super::Engine;
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::session::Session;
use crate::tracking::{Mode, Tracks};

impl Engine {
    /// At the end of a run that counts, under its locks: enters who has read the keys.
    #[cold]
    pub(super) fn remember(&self, session: &mut Session, command: &Command, keys: &[Key<'_>]) {
        if let Some(tracks) = session.tracks().filter(|tracks| is_remembered(tracks, command)) {
            for key in keys {
                self.node.tracking.remember(&self.node, key.slot(), key.bytes(), tracks.who);
            }
        }
        session.end_caching();
    }

    /// Before a request is sent to the keys' owner: enters who is about to read them.
    #[inline]
    pub(super) fn remember_elsewhere(
        &self,
        session: &Session,
        command: &Command,
        keys: &[Key<'_>],
        owner: Option<&str>,
    ) {
        if let Some(tracks) = session.tracks().filter(|tracks| is_remembered(tracks, command)) {
            for key in keys {
                let tracking = &self.node.tracking;
                tracking.remember_elsewhere(&self.node, key.slot(), key.bytes(), tracks.who, owner);
            }
        }
    }

    /// The same of a request whose keys are several owners'. What is this node's own is entered again when it is read.
    pub(super) fn remember_split(&self, session: &Session, command: &Command, args: Args<'_>) {
        if session.tracks.is_none() {
            return;
        }
        let topology = self.node.topology.load();
        for key in self.keys(session.db, command, args).unwrap_or_default() {
            if !topology.is_here(key.slot()) {
                let owner = topology.owner_of(key.slot()).map(|owner| owner.peer_address.as_str());
                self.remember_elsewhere(session, command, &[key], owner);
            }
        }
    }
}

fn is_remembered(tracks: &Tracks, command: &Command) -> bool {
    tracks.remembers() && command.spec.flags.contains(Flags::READONLY)
}

impl Session {
    /// Whether its requests may be sent to their owners before their turn. Who tracks by command sends them one by one, since others have no mark
    /// of their own; and nobody who tracks sends some behind others without end, for what it is told waits until all are answered.
    pub(super) fn sends_ahead(&self) -> bool {
        self.tracks
            .as_deref()
            .is_none_or(|tracks| self.ahead.is_none() && !matches!(tracks.mode, Mode::OptIn | Mode::OptOut))
    }
}
