//! The hall: every request, from whatever door, enters by [`Engine::begin`].
//!
//! A request passes the gates, its keys are placed, and it runs here under the locks of its slots. A run that found a loadable key
//! missing is discarded: its keys are loaded outside any lock and it runs again ([`Engine::finish`]). So a hit never awaits, and
//! [`Engine::begin`] is not async.

mod account;
pub mod fill;
pub mod flight;
pub mod gates;
mod route;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_resp::{Args, Reply};
use forebay_store::{Access, Key, Keyspace, Presence};
use smallvec::SmallVec;

use crate::clock::Instant;
use crate::command::call::{Call, Flow};
use crate::command::error::CommandError;
use crate::command::spec::{Flags, Load, Run};
use crate::command::table::{Command, Table};
use crate::node::Node;
use crate::session::Session;
use fill::Landed;
use flight::{Departures, Flights, Joined};
use gates::Passage;
use route::Place;

/// Times that one request is run, each after loading what the last run missed, before it is given up as unsettled.
const MAX_RUNS: usize = 5;

/// Runs requests.
pub struct Engine {
    node: Arc<Node>,
    flights: Flights,
}

/// How far a request has come.
#[must_use]
pub enum Step {
    /// The reply is written.
    Done,
    /// The reply is written, and then the connection is to be closed.
    Close,
    /// Nothing is written yet; [`Engine::finish`] goes on once this is over.
    Wait(Wait),
}

/// What a request waits for.
pub enum Wait {
    /// Keys under load.
    Loads(Loads),
    /// `CLIENT PAUSE`; the request starts over afterwards.
    Pause,
    /// The reply is written; the connection rests before it is sent, and the rest is part of the command's time.
    Sleep(Rest),
}

/// A command that takes time without doing anything (`DEBUG SLEEP`).
pub struct Rest {
    command: &'static Command,
    started: Instant,
    duration: std::time::Duration,
}

/// The flights that a request has joined.
pub struct Loads {
    flights: SmallVec<[Joined; 1]>,
}

/// What the flights of a request brought, to be used by its next run even if the store could not keep it.
type Brought = SmallVec<[Landed; 1]>;

impl Engine {
    /// An engine over `node`; loads run on `background`.
    pub fn new(node: Arc<Node>, background: tokio::runtime::Handle) -> Engine {
        let flights = Flights::new(Arc::clone(&node), background);
        Engine { node, flights }
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Ends what runs in the background. Call when no request is under way.
    pub async fn close(&self) {
        self.flights.close().await;
        if let Some(origin) = &self.node.origin {
            origin.close().await;
        }
    }

    /// Runs a request as far as it comes without waiting. The reply, if any, is appended to `reply`.
    #[inline]
    pub fn begin(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply) -> Step {
        let command = match Table::get().resolve(args) {
            Ok(command) => command,
            Err(_) if is_http(args) => return Step::Close,
            Err(unresolved) => {
                self.answer_unresolved(session, &unresolved, reply);
                return Step::Done;
            }
        };
        match gates::pass(&self.node, session, command) {
            Passage::Open => self.run(session, command, args, reply, &[]),
            Passage::Refused(error) => {
                self.reject(session, command, &error, reply);
                Step::Done
            }
            Passage::Paused => Step::Wait(Wait::Pause),
        }
    }

    /// Goes on with a request that had to wait, until its reply is written.
    pub async fn finish(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply, wait: Wait) -> Step {
        let mut wait = wait;
        let mut brought = Brought::new();
        for _ in 1..MAX_RUNS {
            let step = match wait {
                Wait::Sleep(Rest { command, started, duration }) => {
                    tokio::time::sleep(duration).await;
                    session.now = self.node.clock.unix_millis();
                    self.account(session, command, args, started, false);
                    return Step::Done;
                }
                Wait::Pause => {
                    session.client.blocked.store(true, Relaxed);
                    self.node.gates.unpaused(&self.node.clock).await;
                    session.client.blocked.store(false, Relaxed);
                    session.now = self.node.clock.unix_millis();
                    self.begin(session, args, reply)
                }
                Wait::Loads(loads) => {
                    brought.extend(self.flights.land(loads.flights).await);
                    session.now = self.node.clock.unix_millis();
                    match Table::get().resolve(args) {
                        Ok(command) => self.run(session, command, args, reply, &brought),
                        Err(unresolved) => unreachable!("the command was resolved before: {unresolved:?}"),
                    }
                }
            };
            match step {
                Step::Wait(next) => wait = next,
                done => return done,
            }
        }
        self.answer_error(&CommandError::Unsettled, reply);
        Step::Done
    }

    /// Runs a request to its end.
    pub async fn execute(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply) -> Step {
        match self.begin(session, args, reply) {
            Step::Wait(wait) => self.finish(session, args, reply, wait).await,
            done => done,
        }
    }

    /// Begins the loads that the later requests of a batch will need, so that all of a pipeline's loads are under way, in shared queries,
    /// before the first is awaited. Runs nothing and counts nothing.
    pub fn prefetch(&self) -> Prefetch<'_> {
        Prefetch { engine: self, departures: self.flights.departures() }
    }

    /// Whether a miss of this command is loaded from the origin.
    #[inline]
    fn loads(&self, session: &Session, command: &Command, args: Args<'_>) -> bool {
        let wanted = match command.spec.load {
            Load::Never => false,
            Load::OnMiss | Load::Before => true,
            Load::BeforeWhen(depends) => depends(args),
        };
        // Groups apply to database 0 alone.
        wanted && session.db == 0 && self.node.reads_through()
    }

    fn run(
        &self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
        brought: &[Landed],
    ) -> Step {
        let started = self.node.clock.instant();
        let mark = reply.mark();
        session.client.last_command.store(command.id as u32, Relaxed);
        let (result, wait) = match command.spec.run {
            Run::Node(handler) => (self.run_on_node(handler, session, command, args, reply), None),
            Run::Keys(handler) => match self.run_on_keys(handler, session, command, args, reply, brought) {
                Ok(None) => (Ok(Flow::Continue), None),
                Ok(Some(loads)) => (Ok(Flow::Continue), Some(loads)),
                Err(error) => (Err(error), None),
            },
            Run::Subcommand => unreachable!("the table resolves a container to one of its subcommands"),
        };
        if let Some(loads) = wait {
            reply.rewind(mark);
            return Step::Wait(Wait::Loads(loads));
        }
        if let Err(error) = &result {
            reply.rewind(mark);
            self.answer_error(error, reply);
        }
        if let Ok(Flow::Sleep(duration)) = result {
            return Step::Wait(Wait::Sleep(Rest { command, started, duration }));
        }
        self.account(session, command, args, started, result.is_err());
        match result {
            Ok(Flow::Close) => Step::Close,
            Ok(Flow::Continue | Flow::Sleep(_)) | Err(_) => Step::Done,
        }
    }

    fn run_on_node(
        &self,
        handler: fn(&mut Call<'_>) -> Result<Flow, CommandError>,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
    ) -> Result<Flow, CommandError> {
        let now = session.now;
        handler(&mut Call { command, args, keys: &[], session, reply, node: &self.node, now })
    }

    /// Runs the handler under the locks of its keys. Answers the flights to wait for when the run does not count.
    #[inline]
    fn run_on_keys(
        &self,
        handler: fn(&mut Call<'_>, &mut Keyspace<'_>) -> Result<(), CommandError>,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
        brought: &[Landed],
    ) -> Result<Option<Loads>, CommandError> {
        let keys = self.keys(session.db, command, args)?;
        if let Place::Away { slot, owner } = route::place(&self.node.topology.load(), &keys) {
            return Err(CommandError::SlotAway { slot, owner });
        }
        let loads = self.loads(session, command, args);
        let now = session.now;
        let mut keyspace = self.lock(&keys, session);
        // A request's reads are counted once, by what its first run found.
        keyspace.set_access(Access { count: brought.is_empty(), ..keyspace.access() });
        let lent = fill::lend(&mut keyspace, &keys, brought, command.spec.flags.contains(Flags::READONLY));
        let mut missing = match loads && !matches!(command.spec.load, Load::OnMiss) {
            true => self.loadable(&mut keyspace, &keys),
            false => Keys::new(),
        };
        let mut result = Ok(());
        if missing.is_empty() {
            let mut call = Call { command, args, keys: &keys, session, reply, node: &self.node, now };
            result = handler(&mut call, &mut keyspace);
            if loads && keyspace.missed() {
                missing = self.loadable(&mut keyspace, &keys);
                debug_assert!(
                    missing.is_empty() || keyspace.changes() == 0,
                    "{} has changed something in a run that is discarded",
                    command.full_name
                );
            }
        }
        let refresh = keyspace.refresh_due();
        lent.take_back(&mut keyspace);
        drop(keyspace);
        if refresh {
            self.flights.refresh(&keys, now);
        }
        if !missing.is_empty() {
            return self.flights.join(&missing, brought, now).map(|flights| Some(Loads { flights }));
        }
        result.map(|()| None)
    }

    /// Those of `keys` that a group can load and of which nothing is known here, not even that the origin has no such row.
    fn loadable<'k>(&self, keyspace: &mut Keyspace<'_>, keys: &[Key<'k>]) -> Keys<'k> {
        keys.iter()
            .filter(|key| keyspace.presence(key) == Presence::Missing)
            .filter(|key| self.node.is_of_a_group(key.bytes()))
            .copied()
            .collect()
    }

    /// The declared keys of a request.
    #[inline]
    fn keys<'a>(&self, db: u16, command: &Command, args: Args<'a>) -> Result<Keys<'a>, CommandError> {
        let positions = command.spec.key_positions(args).map_err(|_| CommandError::Syntax)?;
        Ok(positions
            .iter()
            .filter_map(|&at| args.get(at as usize))
            .map(|bytes| self.node.store.key(db, forebay_cluster::slot_of(bytes), bytes))
            .collect())
    }

    #[inline]
    fn lock(&self, keys: &[Key<'_>], session: &Session) -> Keyspace<'_> {
        let mut keyspace = match keys {
            [key] => self.node.store.lock(key.slot(), session.now),
            keys => self.node.store.lock_slots(keys.iter().map(Key::slot), session.now),
        };
        keyspace.set_access(Access { no_touch: session.no_touch, ..Access::default() });
        keyspace
    }
}

/// Loads that are begun ahead of their requests' turn, all of them when this is dropped.
pub struct Prefetch<'e> {
    engine: &'e Engine,
    departures: Departures<'e>,
}

impl Prefetch<'_> {
    /// Adds what a request will need.
    pub fn add(&mut self, session: &Session, args: Args<'_>) {
        let Prefetch { engine, departures } = self;
        let Ok(command) = Table::get().resolve(args) else {
            return;
        };
        if !engine.loads(session, command, args) {
            return;
        }
        if let Ok(keys) = engine.keys(session.db, command, args) {
            let mut keyspace = engine.lock(&keys, session);
            let missing = engine.loadable(&mut keyspace, &keys);
            drop(keyspace);
            for key in &missing {
                // A refusal is told to the request itself when its turn comes.
                let _refused = departures.join(key, session.now);
            }
        }
    }
}

/// Whether a browser talks, made to by a page that wants to reach this server through it: the lines that its body may hold must not
/// be run as commands.
fn is_http(args: Args<'_>) -> bool {
    let name = args.name();
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// The keys of one request; most have one.
type Keys<'a> = SmallVec<[Key<'a>; 8]>;
