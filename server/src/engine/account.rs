//! Counting what was asked and how it went, and the error replies.

use std::sync::atomic::Ordering::Relaxed;

use forebay_resp::{Args, Reply};

use super::Engine;
use crate::clock::Instant;
use crate::command::error::CommandError;
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::session::Session;

impl Engine {
    /// Counts a command that ran.
    #[inline]
    pub(super) fn account(
        &self,
        session: &Session,
        command: &'static Command,
        args: Args<'_>,
        started: Instant,
        failed: bool,
    ) {
        let took = self.node.clock.between(started, self.node.clock.instant());
        self.node.telemetry.lanes.lane(session.lane).ran(command.id, took, failed);
        session.client.last_command.store(command.id as u32, Relaxed);
        let micros = took.as_micros() as u64;
        if self.node.settings.is_slow(micros) && !command.spec.flags.contains(Flags::SKIP_SLOWLOG) {
            self.log_slow(session, args, micros);
        }
        let threshold = self.node.settings.latency_monitor_threshold.load(Relaxed);
        if threshold > 0 && micros >= threshold * 1000 {
            let event = if command.spec.flags.contains(Flags::FAST) { "fast-command" } else { "command" };
            self.node.telemetry.latency.add(event, session.now / 1000, micros / 1000);
        }
    }

    /// Answers an error to a request that a gate stopped.
    pub(super) fn reject(&self, session: &Session, command: &Command, error: &CommandError, reply: &mut Reply) {
        self.node.telemetry.lanes.lane(session.lane).rejected(command.id);
        self.answer_error(error, reply);
    }

    /// Writes an error reply and counts it.
    #[cold]
    pub(super) fn answer_error(&self, error: &CommandError, reply: &mut Reply) {
        let line = error.to_string();
        self.node.telemetry.errors.count(CommandError::code(&line));
        reply.error(&line);
    }

    #[cold]
    fn log_slow(&self, session: &Session, args: Args<'_>, micros: u64) {
        let name = session.client.labels.lock().name.clone();
        let limit = self.node.settings.slowlog_max_len.load(Relaxed);
        let peer = session.client.peer.to_string();
        self.node.telemetry.slowlog.add(args, session.now / 1000, micros, peer, name, limit);
    }
}
