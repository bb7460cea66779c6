//! Going on with requests that had to wait: for loads, for other nodes, for the cluster to be of one mind.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use forebay_cluster::peer::{Call, CallError};
use forebay_cluster::state::Incarnation;
use forebay_resp::{Args, Reply};
use smallvec::SmallVec;

use super::fill::Landed;
use super::flight::Joined;
use super::forward::{self, Outcome, Sent};
use super::patience::Patience;
use super::{Engine, Request, Step, ahead};
use crate::clock::Instant;
use crate::command::call::Copies;
use crate::command::error::CommandError;
use crate::command::spec::{Flags, Merge};
use crate::command::table::Command;
use crate::hot::Grant;
use crate::session::{Door, Session};

/// What a request waits for.
pub enum Wait {
    /// Keys under load.
    Loads(Loads),
    /// `CLIENT PAUSE`; the request starts over afterwards.
    Pause,
    /// The answer of the keys' owner.
    Forward { call: Call, sent: Sent },
    /// The answer to requests that were sent ahead, this one among them.
    Ahead,
    /// Its parts, each by the owner of some of its keys.
    Split(Merge),
    /// The parts of all nodes.
    Everywhere(Merge),
    /// The origin, which is written to before anything is done here.
    Origin,
    /// Its parts, one for each key, since some of these are written to the origin.
    KeyByKey(Merge),
    /// Copies that hold what the session has written (`WAIT`), for a while.
    Copies(Copies),
    /// Owners that are to know that the session tracks.
    Heard,
    /// Owners of its keys that can be reached; it is placed again when the topology is of this epoch, or a little later.
    Unsettled { epoch: u64 },
    /// The reply is written; the connection rests before it is sent, and the rest is part of the command's time.
    Sleep(Rest),
}

/// A command that takes time without doing anything (`DEBUG SLEEP`).
pub struct Rest {
    pub(super) started: Instant,
    pub(super) duration: std::time::Duration,
}

/// The flights that a request has joined.
pub struct Loads {
    pub(super) flights: SmallVec<[Joined; 1]>,
}

/// What the flights of a request brought, to be used by its next run even if the store could not keep it.
type Brought = SmallVec<[Landed; 1]>;

impl Engine {
    /// Goes on with a request that had to wait, until its reply is written.
    pub async fn finish(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply, wait: Wait) -> Step {
        let mut wait = wait;
        let mut brought = Brought::new();
        let mut patience = Patience::new();
        loop {
            let step = match wait {
                Wait::Sleep(Rest { started, duration }) => {
                    tokio::time::sleep(duration).await;
                    session.now = self.node.clock.unix_millis();
                    let mut clock = started;
                    self.account(session, self.resolved(args), args, &mut clock, false);
                    return Step::Done;
                }
                Wait::Pause => {
                    session.client.blocked.store(true, Relaxed);
                    self.node.gates.unpaused(&self.node.clock).await;
                    session.client.blocked.store(false, Relaxed);
                    session.now = self.node.clock.unix_millis();
                    self.begin(session, args, reply)
                }
                Wait::Loads(_) if !patience.another_run() => {
                    self.answer_error(&CommandError::Unsettled, reply);
                    return Step::Done;
                }
                Wait::Loads(loads) => {
                    brought.extend(self.flights.land(loads.flights).await);
                    session.now = self.node.clock.unix_millis();
                    self.run_again(session, args, reply, &brought)
                }
                elsewhere => self.finish_elsewhere(session, args, reply, elsewhere, &brought, &mut patience).await,
            };
            match step {
                Step::Wait(next) => wait = next,
                done => return done,
            }
        }
    }

    /// Goes on with a request whose keys are not all here.
    async fn finish_elsewhere(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        wait: Wait,
        brought: &[Landed],
        patience: &mut Patience,
    ) -> Step {
        let command = self.resolved(args);
        let mut clock = self.node.clock.instant();
        match wait {
            Wait::Unsettled { epoch } => {
                let is_settled = self.settled(epoch, patience).await;
                session.now = self.node.clock.unix_millis();
                match (is_settled, session.door) {
                    (true, _) => self.run_again(session, args, reply, brought),
                    (false, Door::Peer) => Step::Misplaced { epoch: self.node.topology.load().epoch() },
                    (false, Door::Open | Door::Direct) => {
                        self.answer_error(&CommandError::Down, reply);
                        Step::Done
                    }
                }
            }
            Wait::Ahead => {
                self.answered_ahead(session).await;
                match self.take_ahead(session, command, args, reply, &mut clock) {
                    Some(step) => step,
                    None => self.run_again(session, args, reply, brought),
                }
            }
            Wait::Forward { call, sent } => self.forwarded(session, args, reply, call.await, sent),
            // In boxes, as some below: few requests are of these kinds, and all would have room for what they wait for.
            Wait::Split(merge) => {
                let split = Box::pin(self.split(session, args, reply, merge, patience)).await;
                self.end(session, command, args, reply, split, &mut clock)
            }
            Wait::Origin => Box::pin(self.write_to_origin(session, args, reply)).await,
            Wait::KeyByKey(merge) => {
                let done = self.key_by_key(session, args, reply, merge).await;
                self.end(session, command, args, reply, done, &mut clock)
            }
            Wait::Everywhere(merge) => {
                let done = Box::pin(self.everywhere(session, args, reply, merge, patience)).await;
                self.end(session, command, args, reply, done, &mut clock)
            }
            Wait::Copies(copies) => {
                let held = self.copies(session, args, copies).await;
                reply.integer(held as i64);
                self.end(session, command, args, reply, Ok(()), &mut clock)
            }
            Wait::Heard => {
                self.node.tracking.hearing.is_ready().await;
                reply.ok();
                self.end(session, command, args, reply, Ok(()), &mut clock)
            }
            here @ (Wait::Sleep(_) | Wait::Pause | Wait::Loads(_)) => Step::Wait(here),
        }
    }

    /// Goes on with a request that was forwarded ([`Wait::Forward`]) and has been answered.
    pub fn forwarded(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        answer: Result<Bytes, CallError>,
        sent: Sent,
    ) -> Step {
        let (command, mut clock) = (self.resolved(args), self.node.clock.instant());
        session.now = self.node.clock.unix_millis();
        let (outcome, lasts) = match answer {
            Ok(mut answers) => match forward::take_plain(&mut answers, reply) {
                Some(failed) => {
                    self.replied(session, command, args, Some(sent.to), &mut clock, failed);
                    return Step::Done;
                }
                None => forward::take_granted(&mut answers).unwrap_or((Outcome::Uncertain, None)),
            },
            Err(error) => (forward::unanswered(&error, command, self.node.topology.load().epoch()), None),
        };
        let grant = lasts.map(|lasts| Grant { sent: sent.at, lasts });
        self.conclude(session, command, args, reply, (outcome, grant, Some(sent.to)), &mut clock)
    }

    /// The owner's reply to a request has been written.
    fn replied(
        &self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        by: Option<Incarnation>,
        clock: &mut Instant,
        failed: bool,
    ) {
        if let Some(writer) = by.filter(|_| command.spec.flags.contains(Flags::WRITE)) {
            session.wrote_at(writer);
        }
        session.end_caching();
        self.account(session, command, args, clock, failed);
    }

    /// Waits until what was sent ahead is answered for the next request ([`Wait::Ahead`]), which may then begin again.
    pub async fn answered_ahead(&self, session: &mut Session) {
        if let Some(ahead) = &mut session.ahead {
            ahead.answered().await;
        }
        session.now = self.node.clock.unix_millis();
    }

    /// Ends a request whose parts were others', and which has written its reply or failed.
    fn end(
        &self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
        done: Result<(), CommandError>,
        clock: &mut Instant,
    ) -> Step {
        session.now = self.node.clock.unix_millis();
        if let Err(error) = &done {
            self.answer_error(error, reply);
        }
        if !command.full_name.starts_with("client") {
            session.end_caching();
        }
        self.account(session, command, args, clock, done.is_err());
        Step::Done
    }

    /// Writes what came of a forwarded request, or places it again.
    fn conclude(
        &self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
        (outcome, grant, by): (Outcome, Option<Grant>, Option<Incarnation>),
        clock: &mut Instant,
    ) -> Step {
        match outcome {
            Outcome::Again { epoch } => return Step::Wait(Wait::Unsettled { epoch }),
            Outcome::Uncertain => {
                self.answer_error(&forward::uncertain(), reply);
                self.account(session, command, args, clock, true);
            }
            Outcome::Refused(error) => {
                self.answer_error(&error, reply);
                self.account(session, command, args, clock, true);
            }
            Outcome::Replied(content) => {
                let failed = content.first() == Some(&b'-');
                if let Some(grant) = grant {
                    self.keep_copy(session, command, args, reply.protocol(), &content, grant);
                }
                forward::conclude(reply, content);
                self.replied(session, command, args, by, clock, failed);
            }
        }
        Step::Done
    }

    /// What has come of the next request, if it was sent ahead. `None` if its turn has only now come.
    pub(super) fn take_ahead(
        &self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
        clock: &mut Instant,
    ) -> Option<Step> {
        let ahead = session.ahead.as_mut()?;
        let next = ahead.next(command, || self.node.topology.load().epoch(), reply);
        if ahead.is_empty() {
            session.ahead = None;
        }
        match next {
            ahead::Next::Run => None,
            ahead::Next::Wait => Some(Step::Wait(Wait::Ahead)),
            ahead::Next::Replied { by, failed } => {
                self.replied(session, command, args, Some(by), clock, failed);
                Some(Step::Done)
            }
            ahead::Next::Outcome(outcome, grant, by) => {
                Some(self.conclude(session, command, args, reply, (outcome, grant, by), clock))
            }
        }
    }

    /// The command of a request that has had a run before.
    pub(super) fn resolved(&self, args: Args<'_>) -> &'static Command {
        match self.table.resolve(args) {
            Ok(command) => command,
            Err(unresolved) => unreachable!("the command was resolved before: {unresolved:?}"),
        }
    }

    /// The next run of a request whose loads have ended.
    fn run_again(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply, brought: &[Landed]) -> Step {
        let command = self.resolved(args);
        let keys = self.keys(session.db, command, args);
        let topology = self.node.topology.load();
        let keys = keys.as_deref().map_err(|error| *error);
        let request = Request { command, args, keys, topology: &topology };
        self.run(session, &request, reply, brought, &mut self.node.clock.instant())
    }
}
