//! What may stop a request before it runs, in Redis' order: leave to debug, authentication, memory, pause.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering::Relaxed};

use forebay_store::UnixMillis;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::command::error::CommandError;
use crate::command::pubsub::check_while_subscribed;
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::identity::DebugCommands;
use crate::memory;
use crate::node::Node;
use crate::session::Session;

/// Entries that go in a row: fewer would only pick shards and take locks more often.
const EVICTIONS_IN_A_ROW: usize = 16;

/// Entries that one request may evict to make room for itself, which takes about a millisecond. What it leaves over, the next requests
/// and the housekeeping take.
const EVICTIONS_PER_REQUEST: usize = 1024;

/// This part of `maxmemory` may be exceeded while what is over is being evicted: nobody is refused for what eviction itself begins to
/// keep, some two bytes a key, nor for large values that come in place of many small ones.
const OVERSHOOT: u64 = 16;

/// Gates that stand open or shut for all connections.
#[derive(Default)]
pub struct Gates {
    /// SIGTERM has been received.
    draining: AtomicBool,
    shutdown: Notify,
    pause: Pause,
}

/// `CLIENT PAUSE`.
#[derive(Default)]
struct Pause {
    mode: AtomicU8,
    until: AtomicI64,
    over: Notify,
}

/// Which requests `CLIENT PAUSE` holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PauseMode {
    Off = 0,
    Writes = 1,
    All = 2,
}

/// What the gates say to a request.
pub(super) enum Passage {
    Open,
    Refused(CommandError),
    /// Wait for the end of the pause, then ask again.
    Paused,
}

/// Lets a request through, or tells why not.
#[inline]
pub(super) fn pass(node: &Node, session: &Session, command: &Command) -> Passage {
    let flags = command.spec.flags;
    if flags.contains(Flags::INTERNAL) && !session.is_internal {
        return Passage::Refused(CommandError::from(format!("ERR unknown command '{}'", command.full_name)));
    }
    if flags.contains(Flags::PROTECTED) && !may_debug(node, session) {
        return Passage::Refused(CommandError::text(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local \
             connection, otherwise you need to set this option in the configuration file, and then restart the server.",
        ));
    }
    if !session.authenticated || session.is_subscribed {
        if let Err(error) = check_session(node, session, command) {
            return Passage::Refused(error);
        }
    }
    if !make_room(node, session.now) && flags.contains(Flags::DENYOOM) {
        return Passage::Refused(CommandError::OutOfMemory);
    }
    let is_exempt = || flags.contains(Flags::INTERNAL) || command.spec.name == "unpause";
    match node.gates.pause.holds(flags, session.now) && !is_exempt() {
        true => Passage::Paused,
        false => Passage::Open,
    }
}

/// What a connection may not ask that has not said who it is, or has subscribed to a channel.
#[cold]
fn check_session(node: &Node, session: &Session, command: &Command) -> Result<(), CommandError> {
    if !session.authenticated && !command.spec.flags.contains(Flags::NO_AUTH) && node.settings.needs_password() {
        return Err(CommandError::NoAuth);
    }
    match session.is_subscribed {
        true => check_while_subscribed(session.client.protocol.load(Relaxed) < 3, command.full_name),
        false => Ok(()),
    }
}

fn may_debug(node: &Node, session: &Session) -> bool {
    match node.identity.debug_commands {
        DebugCommands::No => false,
        DebugCommands::Local => session.client.peer.ip().is_loopback(),
        DebugCommands::Yes => true,
    }
}

/// Evicts until memory is below `maxmemory`, within bounds. Tells whether there is room. Besides requests, fills pass here: what is
/// loaded is not kept when there is no room for it, or reading would fill memory under `noeviction`.
#[inline]
pub(crate) fn make_room(node: &Node, now: UnixMillis) -> bool {
    match node.settings.memory_budget() {
        None => true,
        Some(budget) => memory::used() <= budget || evict(node, budget, now),
    }
}

/// Evicts a little more than must go, so that the next requests need not.
#[cold]
fn evict(node: &Node, budget: u64, now: UnixMillis) -> bool {
    let mut evicted = 0;
    while memory::used() > budget && evicted < EVICTIONS_PER_REQUEST {
        let step = node.evict_step(now, EVICTIONS_IN_A_ROW);
        if step.evicted == 0 {
            return false;
        }
        evicted += step.evicted;
    }
    let limit = node.settings.maxmemory.load(Relaxed);
    memory::used() <= limit + limit / OVERSHOOT
}

impl Gates {
    /// Shuts the door for good: new connections are refused and the old ones are asked to end.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Asks the process to end in order, as SIGTERM does.
    pub fn request_shutdown(&self) {
        self.shutdown.notify_one();
    }

    /// Waits for [`Gates::request_shutdown`].
    pub async fn shutdown_requested(&self) {
        self.shutdown.notified().await;
    }

    /// Whether the process is ending: `/health` says so, and no connection is accepted.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Holds requests back until `until`. A pause under way is only made longer and stronger, as in Redis.
    pub fn pause(&self, mode: PauseMode, until: UnixMillis, now: UnixMillis) {
        let running = self.pause.until.load(Relaxed) > now;
        match running {
            true => {
                self.pause.until.fetch_max(until, Relaxed);
                self.pause.mode.fetch_max(mode as u8, Relaxed);
            }
            false => {
                self.pause.until.store(until, Relaxed);
                self.pause.mode.store(mode as u8, Relaxed);
            }
        }
    }

    /// Ends a pause.
    pub fn unpause(&self) {
        self.pause.mode.store(PauseMode::Off as u8, Relaxed);
        self.pause.until.store(0, Relaxed);
        self.pause.over.notify_waiters();
    }

    /// Whether a pause is under way, and until when.
    pub fn paused(&self, now: UnixMillis) -> Option<(PauseMode, UnixMillis)> {
        let until = self.pause.until.load(Relaxed);
        match (self.pause.mode.load(Relaxed), until > now) {
            (1, true) => Some((PauseMode::Writes, until)),
            (2, true) => Some((PauseMode::All, until)),
            _ => None,
        }
    }

    /// Waits for the end of the pause.
    pub(super) async fn unpaused(&self, clock: &Clock) {
        loop {
            let over = self.pause.over.notified();
            let now = clock.unix_millis();
            let Some((_, until)) = self.paused(now) else {
                return;
            };
            let left = std::time::Duration::from_millis((until - now) as u64);
            // Either way the loop looks again: the pause may have been made longer meanwhile.
            let _elapsed = tokio::time::timeout(left, over).await;
        }
    }
}

impl Pause {
    #[inline]
    fn holds(&self, flags: Flags, now: UnixMillis) -> bool {
        match self.mode.load(Relaxed) {
            0 => false,
            mode => {
                let held = mode == PauseMode::All as u8 || flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE);
                held && self.until.load(Relaxed) > now
            }
        }
    }
}
