//! Requests that have arrived together: what they need is looked up for all of them before the first one runs.
//!
//! Most of the time of a request in a pipeline is spent waiting for memory: the key's table and its record are rarely in the
//! processor's caches. So the keys of a whole batch are placed and hashed first, and the store asks for all their memory at once; by
//! the time that a request's turn comes, what it needs is there.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::Guard;
use forebay_cluster::Topology;
use forebay_resp::{Args, Reply};
use forebay_store::{Key, MAX_PREFETCHED};
use smallvec::SmallVec;

use super::{Engine, Request, Step};
use crate::clock::Instant;
use crate::command::spec::{InvalidKeyCount, Run};
use crate::command::table::Command;
use crate::session::Session;

/// Requests of one batch.
pub const BATCH_REQUESTS: usize = 64;

/// Keys at which a batch is full, whatever the number of its requests.
const BATCH_KEYS: usize = MAX_PREFETCHED;

/// Requests of one connection, in order, about to run. All see one topology.
pub struct Batch<'b> {
    engine: &'b Engine,
    topology: Guard<Arc<Topology>>,
    requests: SmallVec<[Prepared<'b>; BATCH_REQUESTS]>,
    keys: SmallVec<[Key<'b>; BATCH_KEYS]>,
}

/// What is known of a request before its turn.
struct Prepared<'b> {
    args: Args<'b>,
    /// None if it names no command that could run.
    command: Option<&'static Command>,
    /// Where its keys stand among the batch's.
    keys: Result<Range<usize>, InvalidKeyCount>,
}

impl Engine {
    /// A batch without requests.
    #[inline]
    pub fn batch(&self) -> Batch<'_> {
        Batch { engine: self, topology: self.node.topology.load(), requests: SmallVec::new(), keys: SmallVec::new() }
    }
}

impl<'b> Batch<'b> {
    /// Adds a request and says whether the next one may be added too: not when the batch is full, and not behind a command that may
    /// change the session, by which later requests are understood.
    #[inline]
    pub fn add(&mut self, session: &Session, args: Args<'b>) -> bool {
        let command = self.engine.table.resolve(args).ok();
        let keys = match command {
            Some(command) => self.engine.add_keys(session.db, command, args, &mut self.keys),
            None => Ok(0..0),
        };
        let leaves_the_session_alone = command.is_some_and(|command| matches!(command.spec.run, Run::Keys(_)));
        self.requests.push(Prepared { args, command, keys });
        leaves_the_session_alone && self.requests.len() < BATCH_REQUESTS && self.keys.len() < BATCH_KEYS
    }

    /// Asks for the memory that the requests will look at, if there are several; a single one's own look comes as soon.
    #[inline]
    pub fn prefetch(&self) {
        if self.keys.len() > 1 {
            self.keys.chunks(MAX_PREFETCHED).for_each(|keys| self.engine.node.store.prefetch(keys));
        }
    }

    /// How many requests were added.
    #[inline]
    pub fn count(&self) -> usize {
        self.requests.len()
    }

    /// Runs request `at` as far as it comes without waiting, and appends the reply, if any, to `reply`. `clock` is when the request
    /// before it ended, and then when this one did.
    #[inline]
    pub fn begin(&self, at: usize, session: &mut Session, reply: &mut Reply, clock: &mut Instant) -> Step {
        let Prepared { args, command, ref keys } = self.requests[at];
        let Some(command) = command else {
            return self.engine.refuse(session, args, reply);
        };
        let keys = keys.clone().map(|range| &self.keys[range]);
        self.engine.admit(session, &Request { command, args, keys, topology: &self.topology }, reply, clock)
    }
}
