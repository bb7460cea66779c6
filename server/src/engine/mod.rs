//! The hall: every request, from whatever door, enters by [`Engine::begin`].
//!
//! A request passes the gates, its keys are placed, and it runs here under the locks of its slots. A run that found a loadable key
//! missing is discarded, having changed nothing: its keys are loaded outside any lock and it runs again ([`Engine::finish`]). So a hit never awaits, and
//! [`Engine::begin`] is not async.

mod account;
mod ahead;
mod batch;
mod copies;
mod everywhere;
pub mod fill;
mod finish;
pub mod flight;
mod forward;
pub mod gates;
mod hot;
mod merge;
mod part;
mod patience;
pub mod peers;
mod route;
mod scan;
mod split;
mod track;
mod writing;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_cluster::Topology;
use forebay_resp::{Args, Reply};
use forebay_store::{Access, Key, Keyspace, Presence};
use smallvec::SmallVec;

use crate::clock::Instant;
use crate::cluster::Member;
use crate::command::call::{Call, Flow};
use crate::command::error::CommandError;
use crate::command::spec::{Flags, InvalidKeyCount, Load, Run};
use crate::command::table::{Command, Table};
use crate::freshness::Guard;
use crate::groups;
use crate::hot::Found;
use crate::node::Node;
use crate::replication::Write;
use crate::session::{Door, Session, Unacknowledged};
use crate::tracking::{Tracks, Writing};
use fill::Landed;
use flight::{Departures, Flights};
use gates::Passage;
use route::Route;

pub use ahead::Ahead;
pub use batch::{BATCH_REQUESTS, Batch, Keys as BatchKeys, Requests};
pub use finish::{Loads, Rest, Wait};
pub use forward::Sent;

/// Times that one request is run, each after loading what the last run missed, before it is given up as unsettled.
const MAX_RUNS: usize = 5;

/// How long copies may take to hold what is not acknowledged before.
const ACKNOWLEDGE: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs requests.
pub struct Engine {
    node: Arc<Node>,
    table: &'static Table,
    flights: Flights,
}

/// A request that can run.
struct Request<'r> {
    command: &'static Command,
    args: Args<'r>,
    /// The declared ones, in the order of the arguments.
    keys: Result<&'r [Key<'r>], InvalidKeyCount>,
    /// The one topology that it sees from beginning to end.
    topology: &'r Topology,
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
    /// Nothing is written, and nothing was done: by the topology of that epoch the keys are not this node's, whom another node has asked
    /// as their owner.
    Misplaced { epoch: u64 },
}

impl Engine {
    /// An engine over `node`; loads run on `background`.
    pub fn new(node: Arc<Node>, background: tokio::runtime::Handle) -> Engine {
        let flights = Flights::new(Arc::clone(&node), background);
        Engine { node, table: Table::get(), flights }
    }

    /// What it runs requests on.
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
    pub fn begin(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply) -> Step {
        let (mut requests, mut keys) = (Requests::new(), BatchKeys::new());
        let mut batch = self.batch(&mut requests, &mut keys);
        let _full = batch.add(session, args);
        batch.begin(0, session, reply, &mut self.node.clock.instant())
    }

    /// Runs a request if the gates let it through.
    #[inline]
    fn admit(&self, session: &mut Session, request: &Request<'_>, reply: &mut Reply, clock: &mut Instant) -> Step {
        match gates::pass(&self.node, session, request.command) {
            Passage::Open => self.run(session, request, reply, &[], clock),
            Passage::Refused(error) => {
                self.reject(session, request.command, &error, reply);
                Step::Done
            }
            Passage::Paused => Step::Wait(Wait::Pause),
        }
    }

    /// Answers a request that names no command that could run.
    #[cold]
    fn refuse(&self, session: &Session, args: Args<'_>, reply: &mut Reply) -> Step {
        match self.table.resolve(args) {
            _ if is_http(args) => return Step::Close,
            Ok(command) => unreachable!("{command:?} could not be resolved before"),
            Err(unresolved) => self.answer_unresolved(session, &unresolved, reply),
        }
        Step::Done
    }

    /// Runs a request to its end.
    pub async fn execute(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply) -> Step {
        match self.begin(session, args, reply) {
            Step::Wait(wait) => self.finish(session, args, reply, wait).await,
            done => done,
        }
    }

    /// Whether what the session's requests were answered is still true: this node, or its process, may have stood still since.
    pub fn still_owns(&self, session: &mut Session) -> bool {
        !std::mem::take(&mut session.by_lease) || self.node.has_lease()
    }

    /// Waits until enough copies hold what a session's requests have written or seen, and nobody holds what it was before. False if that
    /// does not come about in time: then nobody may be told what came of the requests.
    pub(crate) async fn acknowledged(&self, told: &Unacknowledged) -> bool {
        let Some(member) = self.node.member() else { return true };
        let held = async {
            let guards = &self.node.freshness.guards;
            for take_back in told.take_backs.iter().filter(|_| guards.has(Guard::TakeBacks)) {
                take_back.over().await;
            }
            if told.by_all && guards.has(Guard::Copies) && !member.replication.held_by_all(&told.recorded).await {
                return false;
            }
            member.replication.acknowledged(&told.recorded, usize::from(member.min_acks) - 1).await;
            true
        };
        tokio::time::timeout(ACKNOWLEDGE, held).await.unwrap_or(false)
    }

    /// Begins the loads that the later requests of a batch will need, so that all of a pipeline's loads are under way, in shared queries,
    /// before the first is awaited. Runs nothing and counts nothing.
    pub fn prefetch(&self) -> Prefetch<'_> {
        Prefetch { engine: self, departures: self.flights.departures() }
    }

    /// Whether a miss of this command is loaded from the origin.
    fn loads(&self, session: &Session, command: &Command, args: Args<'_>) -> bool {
        let wanted = match command.spec.load {
            Load::Never => false,
            Load::OnMiss | Load::Before | Load::AllBefore => true,
            Load::BeforeWhen(depends) => depends(args),
        };
        // Groups apply to database 0 alone.
        wanted && session.db == 0 && self.node.reads_through()
    }

    /// Runs a request once. `clock` is when its time begins, and then when it ended.
    #[inline]
    fn run(
        &self,
        session: &mut Session,
        request: &Request<'_>,
        reply: &mut Reply,
        brought: &[Landed],
        clock: &mut Instant,
    ) -> Step {
        let mark = reply.mark();
        let command = request.command;
        session.client.last_command.store(command.id as u32, Relaxed);
        let result = match command.spec.run {
            Run::Node(handler) => {
                if let Some(merge) = command.spec.everywhere.filter(|_| self.has_others(session, request)) {
                    return Step::Wait(Wait::Everywhere(merge));
                }
                self.run_on_node(handler, session, request, reply)
            }
            Run::Keys(handler) => match self.run_on_keys(handler, session, request, reply, brought) {
                Ok(Ran::ToEnd) => Ok(Flow::Continue),
                Ok(Ran::NotYet(step)) => {
                    reply.rewind(mark);
                    return step;
                }
                Err(error) => Err(error),
            },
            Run::Subcommand => unreachable!("the table resolves a container to one of its subcommands"),
        };
        if let Err(error) = &result {
            reply.rewind(mark);
            self.answer_error(error, reply);
        }
        if let Ok(Flow::Sleep(duration)) = result {
            return Step::Wait(Wait::Sleep(Rest { started: *clock, duration }));
        }
        if let Ok(Flow::Copies(copies)) = result {
            return Step::Wait(Wait::Copies(copies));
        }
        if let Ok(Flow::Heard) = result {
            return Step::Wait(Wait::Heard);
        }
        if let Ok(Flow::Unsettled) = result {
            reply.rewind(mark);
            return Step::Wait(Wait::Unsettled { epoch: request.topology.epoch() + 1 });
        }
        let may_end_caching = session.tracks.is_some() && matches!(command.spec.run, Run::Node(_));
        if may_end_caching && !command.full_name.starts_with("client") {
            session.end_caching();
        }
        self.account(session, command, request.args, clock, result.is_err());
        match result {
            Ok(Flow::Close) => Step::Close,
            Ok(Flow::Continue | Flow::Sleep(_) | Flow::Copies(_) | Flow::Heard | Flow::Unsettled) | Err(_) => {
                Step::Done
            }
        }
    }

    /// Whether other nodes have a part in a request that is about all keys.
    fn has_others(&self, session: &Session, request: &Request<'_>) -> bool {
        session.door == Door::Open && !request.topology.is_alone()
    }

    fn run_on_node(
        &self,
        handler: fn(&mut Call<'_>) -> Result<Flow, CommandError>,
        session: &mut Session,
        request: &Request<'_>,
        reply: &mut Reply,
    ) -> Result<Flow, CommandError> {
        let now = session.now;
        let Request { command, args, .. } = *request;
        handler(&mut Call { command, args, keys: &[], session, reply, node: &self.node, now })
    }

    /// Runs the handler under the locks of its keys, if they are this node's.
    #[inline]
    fn run_on_keys(
        &self,
        handler: fn(&mut Call<'_>, &mut Keyspace<'_>) -> Result<(), CommandError>,
        session: &mut Session,
        request: &Request<'_>,
        reply: &mut Reply,
        brought: &[Landed],
    ) -> Result<Ran, CommandError> {
        let Request { command, args, .. } = *request;
        let keys = request.keys.map_err(|_| CommandError::Syntax)?;
        let now = session.now;
        let is_loadable = |key: &Key<'_>| self.node.is_of_a_group(key.bytes());
        let mut keyspace = self.lock(keys, session);
        if !keys.iter().all(|key| self.node.roles.is_owned_alone(key.slot())) {
            if let Some(ran) = self.elsewhere(session, request, keys, &mut keyspace, reply)? {
                return Ok(ran);
            }
            groups::look_through_keys(&self.node, &mut keyspace, keys);
        }
        if command.spec.flags.contains(Flags::WRITE) && self.node.writes_to_origin() {
            if let Some(wait) = self.for_the_origin(session, request, keys)? {
                return Ok(Ran::NotYet(Step::Wait(wait)));
            }
        }
        let lent = match brought {
            [] => None,
            brought => Some(self.lend(&mut keyspace, request, keys, brought)),
        };
        let writing = session.tracks.as_deref().and_then(Tracks::writer).map(Writing::by);
        let mut missing = None;
        match command.spec.load {
            Load::Never | Load::OnMiss => {}
            Load::Before | Load::BeforeWhen(_) if self.loads(session, command, args) => {
                keyspace.load_first(&is_loadable)
            }
            Load::Before | Load::BeforeWhen(_) => {}
            Load::AllBefore => missing = self.missing(&mut keyspace, session, request, keys),
        }
        let mut result = Ok(());
        if missing.is_none() {
            let mut call = Call { command, args, keys, session, reply, node: &self.node, now };
            result = handler(&mut call, &mut keyspace);
            if keyspace.missed() {
                missing = self.missing(&mut keyspace, session, request, keys);
                debug_assert!(
                    missing.is_none() || keyspace.changes() == 0,
                    "{} has changed something in a run that is discarded",
                    command.full_name
                );
            }
        }
        drop(writing);
        let refresh = keyspace.refresh_due();
        if session.tracks.is_some() && missing.is_none() {
            self.remember(session, command, keys);
        }
        // Behind that: who has read what is not kept is told so.
        if let Some(lent) = lent {
            lent.take_back(&mut keyspace);
        }
        if let Some(member) = self.node.member() {
            record(member, session, request, keys, &mut keyspace);
            let is_final = missing.is_none() && brought.is_empty() && result.is_ok();
            hot::note(&self.node, member, session, request, &mut keyspace, is_final.then_some(&*reply));
        }
        let mut garbage = std::mem::take(keyspace.garbage());
        drop(keyspace);
        if garbage.is_heavy() {
            self.node.reclaimer.take_over(&mut garbage);
        }
        if refresh {
            self.flights.refresh(keys, now);
        }
        match missing {
            Some(missing) => {
                let flights = self.flights.join(&missing, brought, now)?;
                Ok(Ran::NotYet(Step::Wait(Wait::Loads(Loads { flights }))))
            }
            None => result.map(|()| Ran::ToEnd),
        }
    }

    /// What becomes of a request that this node may not be the one to run. `None` if it is. Called with the locks of its keys held: what
    /// this node is to their slots does not change meanwhile.
    #[inline(never)]
    fn elsewhere(
        &self,
        session: &mut Session,
        request: &Request<'_>,
        keys: &[Key<'_>],
        keyspace: &mut Keyspace<'_>,
        reply: &mut Reply,
    ) -> Result<Option<Ran>, CommandError> {
        let Request { command, args, topology, .. } = *request;
        // Only owners load, so what a copy does not know its owner is asked for, and what may not be so any more as well.
        let by_copies = session.readonly
            && self.missing(keyspace, session, request, keys).is_none()
            && !groups::may_be_former(&self.node, keyspace, keys);
        Ok(Some(Ran::NotYet(match route::place(&self.node, topology, session, command, keys, by_copies) {
            Route::Here => {
                session.by_lease = true;
                return Ok(None);
            }
            Route::Refused(error) => return Err(error),
            Route::Unsettled { epoch } => Step::Wait(Wait::Unsettled { epoch }),
            Route::Misplaced { epoch } => Step::Misplaced { epoch },
            Route::Split(merge) => Step::Wait(Wait::Split(merge)),
            Route::To(owner) => {
                let mut requests = forward::Requests::of(session, reply.protocol()).keeping_copies();
                requests.add_args(args);
                self.remember_elsewhere(session, command, keys, Some(&owner.peer_address));
                match self.find_copy(session, command, args, reply.protocol()) {
                    // Nothing is on its way for this client: what it has asked before is answered.
                    Found::Copy(copied) if session.ahead.is_none() => {
                        forward::conclude(reply, copied);
                        return Ok(Some(Ran::ToEnd));
                    }
                    Found::Ended { served } => drop(requests.tell_served(served)),
                    Found::Copy(_) | Found::Nothing => {}
                }
                let sent = Sent::now_to(owner);
                match requests.send(&self.node, topology, &owner.peer_address) {
                    Some(call) => Step::Wait(Wait::Forward { call, sent }),
                    None => return Err(CommandError::Down),
                }
            }
        })))
    }

    /// Lends the keyspace what was brought for the request. Its reads have been counted already, by what its first run found.
    #[cold]
    fn lend<'k>(
        &self,
        keyspace: &mut Keyspace<'_>,
        request: &Request<'_>,
        keys: &[Key<'k>],
        brought: &[Landed],
    ) -> fill::Lent<'k> {
        keyspace.set_access(Access { count: false, ..keyspace.access() });
        // What was loaded before something came to be pending is older than that.
        let is_old = keys.iter().any(|key| self.node.writes.behind.is_pending(keyspace, key));
        let brought = if is_old { &[] } else { brought };
        let is_served = |key: &Key<'_>, group| {
            self.node.origin.as_ref().is_some_and(|origin| origin.group_of(key.bytes()) == Some(group))
        };
        let is_latest = |key: &Key<'_>, loaded: &forebay_origin::Loaded| {
            let snapshot = loaded.snapshot.as_deref();
            snapshot.is_none_or(|snapshot| self.node.freshness.memory.sees_changes(key.slot(), key.bytes(), snapshot))
        };
        let reads = request.command.spec.flags.contains(Flags::READONLY);
        fill::lend(keyspace, keys, brought, reads, is_served, is_latest)
    }

    /// The keys of the request that have to be loaded before it can run for good.
    fn missing<'k>(
        &self,
        keyspace: &mut Keyspace<'_>,
        session: &Session,
        request: &Request<'_>,
        keys: &[Key<'k>],
    ) -> Option<Keys<'k>> {
        match self.loads(session, request.command, request.args) {
            true => Some(self.loadable(keyspace, keys)).filter(|missing| !missing.is_empty()),
            false => None,
        }
    }

    /// Those of `keys` that a group can load and of which nothing is known here, not even that the origin has no such row.
    #[cold]
    fn loadable<'k>(&self, keyspace: &mut Keyspace<'_>, keys: &[Key<'k>]) -> Keys<'k> {
        keys.iter()
            .filter(|key| keyspace.presence(key) == Presence::Missing)
            .filter(|key| self.node.is_of_a_group(key.bytes()))
            .copied()
            .collect()
    }

    /// The declared keys of a request.
    fn keys<'a>(&self, db: u16, command: &Command, args: Args<'a>) -> Result<Keys<'a>, InvalidKeyCount> {
        let positions = command.spec.key_positions(args)?;
        Ok(positions.iter().filter_map(|&at| args.get(at as usize)).map(|bytes| self.key(db, bytes)).collect())
    }

    #[inline]
    fn key<'a>(&self, db: u16, bytes: &'a [u8]) -> Key<'a> {
        self.node.store.key(db, forebay_cluster::slot_of(bytes), bytes)
    }

    #[inline]
    fn lock(&self, keys: &[Key<'_>], session: &Session) -> Keyspace<'_> {
        let mut keyspace = match keys {
            [key] => self.node.store.lock(key.slot(), session.now),
            keys => self.node.store.lock_slots(keys.iter().map(Key::slot), session.now),
        };
        if session.no_touch {
            keyspace.set_access(Access { no_touch: true, ..Access::default() });
        }
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
        let Ok(command) = engine.table.resolve(args) else {
            return;
        };
        if !engine.loads(session, command, args) {
            return;
        }
        if let Ok(keys) = engine.keys(session.db, command, args) {
            let mut keyspace = engine.lock(&keys, session);
            if !keys.iter().all(|key| engine.node.roles.get(key.slot()).serves()) {
                return;
            }
            let missing = engine.loadable(&mut keyspace, &keys);
            drop(keyspace);
            for key in &missing {
                // A refusal is told to the request itself when its turn comes.
                let _refused = departures.join(key, session.now);
            }
        }
    }
}

/// Tells the holders of copies what a run has changed, still under its locks, and notes what its client has to wait for.
fn record(
    member: &Member,
    session: &mut Session,
    request: &Request<'_>,
    keys: &[Key<'_>],
    keyspace: &mut Keyspace<'_>,
) {
    let by_all = request.command.spec.flags.contains(Flags::HELD_BY_ALL);
    if by_all {
        session.told.get_or_insert_default().unacknowledged.by_all = true;
    }
    if keyspace.has_changed() {
        let write = Write { spec: request.command.spec, args: request.args, keys };
        let recorded = member.replication.record(keyspace, &write);
        if recorded.is_empty() {
            return;
        }
        session.wrote_here(member, &recorded, by_all);
    } else if member.min_acks > 1 || by_all {
        // A value that too few hold might be gone when its owner is, after somebody has seen it.
        let told = session.told.get_or_insert_default();
        keys.iter().for_each(|key| member.replication.seen(key.slot(), &mut told.unacknowledged.recorded));
    }
}

/// Whether a browser talks, made to by a page that wants to reach this server through it: the lines that its body may hold must not
/// be run as commands.
fn is_http(args: Args<'_>) -> bool {
    let name = args.name();
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// How far one run has come.
enum Ran {
    ToEnd,
    /// It does not count, and nothing was done.
    NotYet(Step),
}

/// The keys of one request; most have one.
type Keys<'a> = SmallVec<[Key<'a>; 8]>;
