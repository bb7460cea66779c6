//! Counting what was asked and how it went, and the error replies.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use forebay_resp::{Args, Reply};

use super::Engine;
use crate::clock::Instant;
use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::command::table::{Command, Unresolved};
use crate::session::{Door, Session};
use crate::telemetry::slowlog::Slow;

impl Engine {
    /// Counts a command that ran since `clock`, which becomes the time of its end.
    #[inline]
    pub(super) fn account(
        &self,
        session: &Session,
        command: &'static Command,
        args: Args<'_>,
        clock: &mut Instant,
        failed: bool,
    ) {
        if session.is_internal {
            // Its client's node counts it; what nodes ask for themselves nobody does.
            return;
        }
        let ended = self.node.clock.instant();
        let nanos = self.node.clock.nanos_between(std::mem::replace(clock, ended), ended);
        self.node.telemetry.lanes.lane(session.lane).ran(command.id, nanos, failed);
        if self.node.settings.is_slow(nanos / 1_000) || self.node.settings.is_spike(nanos / 1_000_000) {
            self.note_slow(session, command, args, nanos);
        }
    }

    /// Answers an error to a request that a gate stopped.
    pub(super) fn reject(&self, session: &Session, command: &Command, error: &CommandError, reply: &mut Reply) {
        if session.door == Door::Peer || !session.is_internal {
            self.node.telemetry.lanes.lane(session.lane).rejected(command.id);
        }
        self.answer_error(error, reply);
    }

    /// Answers a request that names no command that could run. It counts as a refused call of the command if that much is known.
    #[cold]
    pub(super) fn answer_unresolved(&self, session: &Session, unresolved: &Unresolved<'_>, reply: &mut Reply) {
        match unresolved.command {
            Some(command) => self.reject(session, command, &unresolved.error, reply),
            None => self.answer_error(&unresolved.error, reply),
        }
    }

    /// Writes an error reply and counts it.
    #[cold]
    pub(super) fn answer_error(&self, error: &CommandError, reply: &mut Reply) {
        let line = error.line();
        self.node.telemetry.errors.count(CommandError::code(&line));
        reply.error(&line);
    }

    #[cold]
    fn note_slow(&self, session: &Session, command: &Command, args: Args<'_>, nanos: u64) {
        let micros = nanos / 1_000;
        if self.node.settings.is_slow(micros) && !command.spec.flags.contains(Flags::SKIP_SLOWLOG) {
            self.log_slow(session, command, args, micros);
        }
        let event = if command.spec.flags.contains(Flags::FAST) { "fast-command" } else { "command" };
        self.node.note_latency(event, Duration::from_nanos(nanos), session.now);
    }

    fn log_slow(&self, session: &Session, command: &Command, args: Args<'_>, micros: u64) {
        let secrets = (command.spec.secrets)(args);
        let slow = Slow {
            args,
            secrets: &secrets,
            at: session.now / 1000,
            micros,
            peer: session.client.peer.to_string(),
            client_name: session.client.labels.lock().name.clone(),
        };
        let limit = self.node.settings.slowlog_max_len.load(Relaxed);
        self.node.telemetry.slowlog.add(slow, limit);
    }
}
