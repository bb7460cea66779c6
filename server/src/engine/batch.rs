//! Requests that have arrived together: what they need is looked up for all of them before the first one runs.
//!
//! Most of the time of a request in a pipeline is spent waiting for memory: the key's table and its record are rarely in the
//! processor's caches. So the keys of a whole batch are placed and hashed first, and the store asks for all their memory at once; by
//! the time that a request's turn comes, what it needs is there.

use std::sync::Arc;

use arc_swap::Guard;
use arrayvec::ArrayVec;
use forebay_cluster::{Node as Member, Topology};
use forebay_resp::{Args, Protocol, Reply};
use forebay_store::{Key, MAX_PREFETCHED};

use smallvec::SmallVec;

use super::forward::{self, Sent};
use super::gates::{self, Passage};
use super::{Ahead, Engine, Request, Step};
use crate::clock::Instant;
use crate::command::spec::{InvalidKeyCount, Run};
use crate::command::table::Command;
use crate::hot::Found;
use crate::session::{Door, Session};

/// Requests of one batch.
pub const BATCH_REQUESTS: usize = 64;

/// Keys of one batch.
const BATCH_KEYS: usize = MAX_PREFETCHED;
const _: () = assert!(BATCH_KEYS <= u8::MAX as usize, "a key's place in the batch fits a byte");

/// Requests of one connection, in order, about to run. All see one topology.
pub struct Batch<'s, 'b> {
    engine: &'b Engine,
    topology: Guard<Arc<Topology>>,
    requests: &'s mut Requests<'b>,
    keys: &'s mut Keys<'b>,
    /// The keys of a request that alone has more than a batch.
    many: Vec<Key<'b>>,
}

/// Room for a batch's requests, and for their keys. They are some kilobytes large and must not be moved, so they stand on the stack of
/// whoever makes the batch: a function that does not wait, or they would be part of every connection.
pub type Requests<'b> = ArrayVec<Prepared<'b>, BATCH_REQUESTS>;
/// See [`Requests`].
pub type Keys<'b> = ArrayVec<Key<'b>, BATCH_KEYS>;

/// What is known of a request before its turn.
#[derive(Clone, Copy)]
pub struct Prepared<'b> {
    args: Args<'b>,
    /// None if it names no command that could run.
    command: Option<&'static Command>,
    keys: Result<Place, InvalidKeyCount>,
}

/// Where a request's keys are.
#[derive(Clone, Copy)]
enum Place {
    /// The batch's, from one to another.
    Here { first: u8, end: u8 },
    /// [`Batch::many`]
    Many,
    /// Nobody has looked: the request was sent to their owner in an earlier batch.
    Elsewhere,
}

impl Engine {
    /// A batch without requests, with room in `requests` and `keys`, which must be empty.
    #[inline]
    pub fn batch<'s, 'b>(&'b self, requests: &'s mut Requests<'b>, keys: &'s mut Keys<'b>) -> Batch<'s, 'b> {
        debug_assert!(requests.is_empty() && keys.is_empty(), "a batch begins without requests");
        Batch { engine: self, topology: self.node.topology.load(), requests, keys, many: Vec::new() }
    }
}

impl<'b> Batch<'_, 'b> {
    /// Adds a request, or leaves it to the next batch. Answers whether the one behind it may be added too: not when the batch is full,
    /// and not behind a command that may change the session, by which later requests are understood.
    #[inline]
    pub fn add(&mut self, session: &Session, args: Args<'b>) -> bool {
        let table = self.engine.table;
        let Some(command) = table.resolve_plain(args).or_else(|| table.resolve(args).ok()) else {
            self.requests.push(Prepared { args, command: None, keys: Ok(Place::NONE) });
            return false;
        };
        if session.ahead.as_ref().is_some_and(|ahead| ahead.is_sent(self.requests.len())) {
            self.requests.push(Prepared { args, command: Some(command), keys: Ok(Place::Elsewhere) });
            return !self.requests.is_full();
        }
        let keys = match args.get(1) {
            Some(key) if command.has_one_key => Ok(self.add_key(session.db, key)),
            _ => match self.add_keys(session.db, command, args).transpose() {
                Some(keys) => keys,
                None => return false,
            },
        };
        self.requests.push(Prepared { args, command: Some(command), keys });
        matches!(command.spec.run, Run::Keys(_)) && !self.requests.is_full() && !self.keys.is_full()
    }

    #[inline]
    fn add_key(&mut self, db: u16, key: &'b [u8]) -> Place {
        let first = self.keys.len() as u8;
        self.keys.push(self.engine.key(db, key));
        Place::Here { first, end: first + 1 }
    }

    /// `None` when there is not room enough; a batch without requests has room for any.
    fn add_keys(&mut self, db: u16, command: &Command, args: Args<'b>) -> Result<Option<Place>, InvalidKeyCount> {
        let positions = command.spec.key_positions(args)?;
        let engine = self.engine;
        let keys = positions.iter().filter_map(|&at| args.get(at as usize)).map(|bytes| engine.key(db, bytes));
        if positions.len() <= self.keys.remaining_capacity() {
            let first = self.keys.len() as u8;
            self.keys.extend(keys);
            return Ok(Some(Place::Here { first, end: self.keys.len() as u8 }));
        }
        if !self.requests.is_empty() {
            return Ok(None);
        }
        self.many.extend(keys);
        Ok(Some(Place::Many))
    }

    /// Asks for the memory that the requests will look at, if there are several keys; a single one's own look comes as soon. Nothing of
    /// what was all sent to others is looked at here.
    #[inline]
    pub fn prefetch(&self, session: &Session) {
        let is_elsewhere =
            session.ahead.as_ref().is_some_and(|ahead| ahead.len() >= self.requests.len() && ahead.is_all_there());
        if self.keys.len() > 1 && !is_elsewhere {
            self.engine.node.store.prefetch(self.keys);
        }
    }

    /// Sends the requests whose keys are other nodes' to them, before their turn, so that all of a pipeline are under way at once. Stops
    /// before the first that is not simply run here or there.
    pub fn send_ahead(&self, session: &mut Session, protocol: Protocol) {
        if self.topology.is_alone() || session.door != Door::Open || self.requests.len() == 1 || !session.sends_ahead()
        {
            return;
        }
        let is_all_here = || self.keys.iter().chain(&self.many).all(|key| self.topology.is_here(key.slot()));
        if session.ahead.is_none() && is_all_here() {
            return;
        }
        let mut ahead = session.ahead.take().unwrap_or_default();
        let first = ahead.bundles();
        let mut owners: SmallVec<[(&Member, forward::Requests); 4]> = SmallVec::new();
        for at in ahead.len().min(self.requests.len())..self.requests.len() {
            let prepared = &self.requests[at];
            let Some((command, keys)) = prepared.command.zip(self.keys_of(prepared)) else { break };
            if !matches!(gates::pass(&self.engine.node, session, command), Passage::Open) {
                break;
            }
            if keys.iter().all(|key| self.topology.is_here(key.slot())) {
                ahead.keep();
                continue;
            }
            let Some(owner) = forward::owner(&self.topology, keys).filter(|owner| !ahead.is_awaited(owner.incarnation))
            else {
                break;
            };
            let found = match self.engine.find_copy(session, command, prepared.args, protocol) {
                Found::Copy(reply) if !self.is_on_its_way(&ahead, at) => {
                    ahead.copied(reply);
                    continue;
                }
                found => found,
            };
            let bundle = match owners.iter().position(|(known, _)| known.number == owner.number) {
                Some(bundle) => bundle,
                None => {
                    owners.push((owner, forward::Requests::of(session, protocol).keeping_copies()));
                    owners.len() - 1
                }
            };
            owners[bundle].1.add_args(prepared.args);
            self.engine.remember_elsewhere(session, command, keys, Some(&owner.peer_address));
            if let Found::Ended { served } = found {
                let _told_or_lost = owners[bundle].1.tell_served(served);
            }
            ahead.send(first + bundle);
        }
        for (owner, requests) in owners {
            let sent = Sent::now_to(owner);
            ahead.sent(requests.send(&self.engine.node, &self.topology, &owner.peer_address), sent);
        }
        session.ahead = (!ahead.is_empty()).then_some(ahead);
    }

    /// Whether a request before this one, with one of its keys, has been sent and not answered: a copy might be of a state before it, or,
    /// should it be a read, of one before what it sees.
    fn is_on_its_way(&self, ahead: &Ahead, at: usize) -> bool {
        let keys = self.keys_of(&self.requests[at]).unwrap_or_default();
        let is_shared = |key: &Key<'_>| keys.iter().any(|own| own.bytes() == key.bytes());
        let has_shared = |at: usize| self.keys_of(&self.requests[at]).is_none_or(|keys| keys.iter().any(is_shared));
        (0..at).any(|at| ahead.is_sent(at) && has_shared(at))
    }

    /// `None` of what does not run on keys, or whose keys are not known any more.
    fn keys_of(&self, prepared: &Prepared<'b>) -> Option<&[Key<'b>]> {
        let place = prepared.keys.ok().filter(|place| !matches!(place, Place::Elsewhere))?;
        let keys = self.found(place);
        matches!(prepared.command?.spec.run, Run::Keys(_)).then_some(keys)
    }

    #[inline]
    fn found(&self, place: Place) -> &[Key<'b>] {
        match place {
            Place::Here { first, end } => &self.keys[usize::from(first)..usize::from(end)],
            Place::Many => &self.many[..],
            Place::Elsewhere => &[],
        }
    }

    /// How many requests were added.
    #[inline]
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// What request `at` runs, if there is such a command.
    pub(super) fn command(&self, at: usize) -> Option<&'static Command> {
        self.requests[at].command
    }

    /// Whether request `at` is about all keys, and this node is not as far as `epoch`.
    #[inline]
    pub(super) fn lags(&self, at: usize, epoch: u64) -> bool {
        self.topology.epoch() < epoch
            && self.requests[at].command.is_some_and(|command| command.spec.everywhere.is_some())
    }

    /// Runs request `at` as far as it comes without waiting, and appends the reply, if any, to `reply`. `clock` is when the request
    /// before it ended, and then when this one did.
    #[inline]
    pub fn begin(&self, at: usize, session: &mut Session, reply: &mut Reply, clock: &mut Instant) -> Step {
        let Prepared { args, command, keys } = self.requests[at];
        let Some(command) = command else {
            return self.engine.refuse(session, args, reply);
        };
        if session.ahead.is_some() {
            if let Some(step) = self.engine.take_ahead(session, command, args, reply, clock) {
                return step;
            }
        }
        debug_assert!(!matches!(keys, Ok(Place::Elsewhere)), "a request that was sent ends when it is answered");
        let keys = keys.map(|place| self.found(place));
        self.engine.admit(session, &Request { command, args, keys, topology: &self.topology }, reply, clock)
    }
}

impl Place {
    const NONE: Place = Place::Here { first: 0, end: 0 };
}
