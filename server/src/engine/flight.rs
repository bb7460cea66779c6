//! Flights: one load per key, however many requests wait for it.
//!
//! Invariants, each with what holds it:
//! - *At most one flight per key.* [`Departures::depart`] inserts into the map under its entry lock.
//! - *No load for what is there.* A request sees a key missing, but the flight that would have brought it may land before the request
//!   looks for one. A new flight therefore looks into the store once more before it asks the origin, and a flight that lands fills
//!   the store before it leaves the map.
//! - *No load replaces what a client wrote.* Every round looks into the store under the lock under which it takes its fence
//!   ([`Inner::begin_load`]): what was written before is seen, and what is written later voids the round.
//! - *No request is answered by a load that began before a write which the request could know of.* A voided load is repeated
//!   ([`Flight::round`] rises before the fence of the new round is taken); a request that joined in the round that was voided last
//!   does not use its result and starts over.
//! - *No value is seen while a copy that may become the owner's has an older one.* Whoever loads has first found the key missing: the copies
//!   have been told that it is gone, or never had it; what is loaded early is taken out first. What a load brought is stored only when they have dealt with that
//!   ([`Inner::is_gone_elsewhere`]), so an owner that dies afterwards leaves nothing older to its successor. It is mostly so long before the
//!   origin has answered.
//! - *Nothing is stored or told that was loaded by a group which is not the key's any more.* Groups are replaced as one value, and only then
//!   are slots made suspect and looked through, each under its shard's lock ([`crate::groups`]). A landing flight asks under that lock whether
//!   its group is still the key's: if it was told so, the slot is looked through later; if not, the load is repeated by the group that
//!   there is now. What is lent to a run is asked about once more, under the run's locks ([`fill::lend`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use forebay_origin::{GroupId, LoadError, Loaded, Origin, PendingLoad, Rules, WriteStrategy};
use forebay_store::{Fence, FillOutcome, Key, Keyspace, Presence, UnixMillis};
use smallvec::SmallVec;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::fill::{self, Landed, Outcome};
use super::gates;
use crate::command::error::CommandError;
use crate::freshness::{Freshness, Guard, Load};
use crate::node::Node;
use crate::replication::Recorded;

/// Flights under way at the same time; a request for one more is refused.
const MAX_FLIGHTS: usize = 100_000;

/// Requests that may wait for flights at the same time.
const MAX_WAITING: u64 = 200_000;

/// Times that a flight repeats a load that was voided before it lets its waiters decide.
const MAX_ROUNDS: u32 = 3;

/// The flights under way.
pub(super) struct Flights {
    inner: Arc<Inner>,
    background: Handle,
    tracker: TaskTracker,
}

struct Inner {
    node: Arc<Node>,
    by_key: DashMap<Bytes, Arc<Flight>>,
    /// Entries of `by_key`, whose own count would lock every part of it.
    under_way: AtomicUsize,
}

/// Lands a flight whatever becomes of its task: one that never landed would keep its key's later requests waiting for ever.
struct Landing<'f> {
    inner: &'f Inner,
    flight: &'f Arc<Flight>,
}

/// One load under way.
pub(super) struct Flight {
    key: Bytes,
    round: AtomicU32,
    outcome: watch::Sender<Option<Outcome>>,
}

/// A request's part in a flight.
pub(super) struct Joined {
    flight: Arc<Flight>,
    /// The round in which the request joined.
    round: u32,
}

impl Flights {
    pub(super) fn new(node: Arc<Node>, background: Handle) -> Flights {
        let inner = Arc::new(Inner { node, by_key: DashMap::new(), under_way: AtomicUsize::new(0) });
        Flights { inner, background, tracker: TaskTracker::new() }
    }

    /// Waits for the flights under way.
    pub(super) async fn close(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Joins the flights of `keys`, or begins them.
    ///
    /// # Errors
    /// When the origin has just failed for one of the keys (it is in `brought`), and when too many flights are under way.
    pub(super) fn join(
        &self,
        keys: &[Key<'_>],
        brought: &[Landed],
        now: UnixMillis,
    ) -> Result<SmallVec<[Joined; 1]>, CommandError> {
        if let Some(error) = keys.iter().find_map(|key| fill::failure(key, brought)) {
            return Err(CommandError::Origin(error.reply()));
        }
        let mut departures = self.departures();
        keys.iter().map(|key| departures.join(key, now)).collect()
    }

    /// Flights that are to take off together.
    pub(super) fn departures(&self) -> Departures<'_> {
        Departures { flights: self, ready: SmallVec::new() }
    }

    /// Loads again the entries that a read found due for it; nobody waits for them.
    pub(super) fn refresh(&self, keys: &[Key<'_>], now: UnixMillis) {
        let mut departures = self.departures();
        // Not of a copy: its owner does so.
        for key in keys.iter().filter(|key| self.inner.node.roles.get(key.slot()).serves()) {
            if let Some(group) = self.inner.group_of(key).filter(|_| self.inner.under_way.load(Relaxed) < MAX_FLIGHTS) {
                self.inner.node.telemetry.loads.refreshed.fetch_add(1, Relaxed);
                let _joined = departures.depart(key, group, now, Departure::ToRefresh);
            }
        }
    }

    /// Waits for flights to land, no longer than a load may take.
    pub(super) async fn land(&self, flights: SmallVec<[Joined; 1]>) -> SmallVec<[Landed; 1]> {
        let loads = &self.inner.node.telemetry.loads;
        loads.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(loads);
        let limit = self.inner.load_timeout();
        let deadline = tokio::time::Instant::now() + limit;
        let mut landed = SmallVec::with_capacity(flights.len());
        for joined in flights {
            let outcome = match tokio::time::timeout_at(deadline, joined.flight.landed()).await {
                Ok(outcome) => joined.seen_as(outcome),
                Err(_) => Outcome::Failed(Arc::new(LoadError::Timeout { limit })),
            };
            landed.push(Landed { key: joined.flight.key.clone(), outcome });
        }
        landed
    }

    /// Does something whether or not anybody waits for it until the end. `None` if it did not come to its end.
    pub(super) async fn by_itself<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.tracker.spawn_on(work, &self.background).await.ok()
    }

    fn take_off(&self, ready: SmallVec<[Ready; 1]>) {
        let began = Instant::now();
        let loads = self.inner.origin().begin(ready.iter().map(|ready| (ready.group, ready.flight.key.clone())));
        for (Ready { flight, group, begun }, load) in ready.into_iter().zip(loads) {
            let inner = Arc::clone(&self.inner);
            let asked = Asked { group, begun, load, began };
            self.tracker.spawn_on(async move { inner.fly(&flight, asked).await }, &self.background);
        }
    }
}

/// Flights that have begun and take off together when this is dropped, so that the keys of one request, or of one pipeline, share
/// queries.
pub(super) struct Departures<'f> {
    flights: &'f Flights,
    ready: SmallVec<[Ready; 1]>,
}

/// A flight that is to take off.
struct Ready {
    flight: Arc<Flight>,
    group: GroupId,
    begun: Begun,
}

/// What was noted when a load began, under the lock of the key's shard.
struct Begun {
    fence: Fence,
    /// What the holders of copies had been told of the slot by then: that the key is gone, if it was there.
    told: Recorded,
}

/// One round of a flight.
struct Asked {
    group: GroupId,
    begun: Begun,
    load: PendingLoad,
    /// Before anything was asked.
    began: Instant,
}

impl Departures<'_> {
    /// Joins the flight of `key`, or begins it.
    ///
    /// # Errors
    /// When too many flights are under way.
    pub(super) fn join(&mut self, key: &Key<'_>, now: UnixMillis) -> Result<Joined, CommandError> {
        let inner = &self.flights.inner;
        let waiting = inner.node.telemetry.loads.waiting.load(Relaxed);
        let full = inner.under_way.load(Relaxed) >= MAX_FLIGHTS || waiting >= MAX_WAITING;
        match inner.group_of(key) {
            // The groups have been replaced since the key was one of theirs: the request is to look again.
            None => Ok(Joined::to(&Arc::new(Flight::over(key)))),
            Some(group) if !full => Ok(self.depart(key, group, now, Departure::IfMissing)),
            Some(_) => Err(CommandError::text("ORIGINDOWN too many requests wait for loads already")),
        }
    }

    fn depart(&mut self, key: &Key<'_>, group: GroupId, now: UnixMillis, departure: Departure) -> Joined {
        let inner = &self.flights.inner;
        let flight = match inner.by_key.entry(Bytes::copy_from_slice(key.bytes())) {
            Entry::Occupied(entry) => {
                inner.node.telemetry.loads.coalesced.fetch_add(1, Relaxed);
                return Joined::to(entry.get());
            }
            Entry::Vacant(entry) => {
                let flight = Arc::new(Flight::new(entry.key().clone()));
                entry.insert(Arc::clone(&flight));
                inner.under_way.fetch_add(1, Relaxed);
                flight
            }
        };
        // The map's lock is released here: the store's is never taken under it.
        let joined = Joined::to(&flight);
        match inner.begin_load(key, departure, now) {
            None => inner.land(&flight, Outcome::Present),
            Some(begun) => self.ready.push(Ready { flight, group, begun }),
        }
        joined
    }
}

impl Drop for Departures<'_> {
    fn drop(&mut self) {
        if !self.ready.is_empty() {
            self.flights.take_off(std::mem::take(&mut self.ready));
        }
    }
}

/// What a load is for, and so what it may replace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Departure {
    /// To bring what is missing; it replaces nothing.
    IfMissing,
    /// To renew what a load has brought; it does not replace what a client wrote.
    ToRefresh,
}

impl Inner {
    fn group_of(&self, key: &Key<'_>) -> Option<GroupId> {
        let origin = self.node.origin.as_ref()?;
        origin.group_of(key.bytes())
    }

    fn load_timeout(&self) -> Duration {
        self.node.origin.as_ref().map_or(Duration::ZERO, |origin| origin.load_timeout())
    }

    /// Begins a load, unless the store has something that it must not replace.
    fn begin_load(&self, key: &Key<'_>, departure: Departure, now: UnixMillis) -> Option<Begun> {
        let mut keyspace = self.node.store.lock(key.slot(), now);
        if self.node.writes.behind.recall(&mut keyspace, key) {
            if let Some(member) = self.node.member() {
                member.replication.record_fill(&mut keyspace, key);
            }
            return None;
        }
        let is_due = match departure {
            Departure::IfMissing => keyspace.presence(key) == Presence::Missing,
            Departure::ToRefresh => keyspace.peek(key).is_none_or(|entry| entry.fill().is_some()),
        };
        is_due.then(|| {
            let mut told = Recorded::default();
            if let Some(member) = self.node.member() {
                member.replication.seen(key.slot(), &mut told);
            }
            Begun { fence: keyspace.begin_load(key), told }
        })
    }

    /// Takes out what a load is to replace that came early, where copies have it too and changes are followed.
    fn let_go(&self, key: &Key<'_>, group: GroupId, mut told: Recorded) -> Recorded {
        let rules = self.origin().rules(group, key.bytes());
        let is_followed = rules.is_some_and(|rules| !rules.group.invalidated_by.is_empty());
        if let Some(member) = self.node.member().filter(|_| is_followed && !told.is_empty()) {
            let mut keyspace = self.node.store.lock(key.slot(), self.node.clock.unix_millis());
            if keyspace.peek(key).is_some_and(|entry| entry.fill().is_some()) {
                keyspace.discard(key);
                member.replication.record_eviction(key.slot(), key.db(), key.bytes());
                member.replication.seen(key.slot(), &mut told);
            }
        }
        told
    }

    /// Waits until no copy that may become the owner's holds what the key was before the load. False if this node is not the owner any more.
    ///
    /// # Errors
    /// When a holder does not answer for too long, and is still one.
    async fn is_gone_elsewhere(&self, told: &Recorded) -> Result<bool, LoadError> {
        let waits = !told.is_empty() && self.node.freshness.guards.has(Guard::Copies);
        let Some(member) = self.node.member().filter(|_| waits) else { return Ok(true) };
        let limit = self.load_timeout();
        let gone = tokio::time::timeout(limit, member.replication.held_by_all(told)).await;
        gone.map_err(|_| LoadError::Timeout { limit })
    }

    /// Loads, and fills the store through the fence; repeats both when the fence has closed meanwhile, unless that was because a client
    /// has written the key.
    async fn fly(&self, flight: &Arc<Flight>, asked: Asked) {
        let landing = Landing { inner: self, flight };
        let mut outcome = self.one_round(flight, asked).await;
        for round in 1..MAX_ROUNDS {
            if !matches!(outcome, Outcome::Loaded { voided: Some(_), .. } | Outcome::Replaced) {
                break;
            }
            // Before the new round's fence: who still reads the old number has joined before the new load.
            flight.round.store(round, Ordering::Release);
            outcome = match self.ask_again(flight) {
                Some(asked) => self.one_round(flight, asked).await,
                None => Outcome::Present,
            };
        }
        landing.land(outcome);
    }

    /// Begins another round, if the key is still to be loaded.
    fn ask_again(&self, flight: &Flight) -> Option<Asked> {
        let key = self.key_of(flight);
        let group = self.group_of(&key)?;
        let begun = self.begin_load(&key, Departure::IfMissing, self.node.clock.unix_millis())?;
        let began = Instant::now();
        // A replica may have been late, and be so again.
        let load = self.origin().begin_at_primary(group, flight.key.clone());
        Some(Asked { group, begun, load, began })
    }

    async fn one_round(&self, flight: &Arc<Flight>, asked: Asked) -> Outcome {
        let Asked { group, begun: Begun { fence, told }, load, began } = asked;
        let key = self.key_of(flight);
        self.node.telemetry.loads.loads.fetch_add(1, Relaxed);
        let loaded = match load.result().await {
            Ok(loaded) => {
                let told = self.let_go(&key, group, told);
                self.is_gone_elsewhere(&told).await.map(|is_gone| (loaded, is_gone))
            }
            Err(error) => Err(error),
        };
        match loaded {
            Ok((loaded, is_gone)) => {
                let now = self.node.clock.unix_millis();
                let room = gates::make_room(&self.node, now);
                let mut keyspace = self.node.store.lock(key.slot(), now);
                if !is_gone || !self.node.roles.get(key.slot()).serves() {
                    // The slot has moved away meanwhile. Who waits will ask its owner.
                    let _kept_out = keyspace.end_load(&key, &fence);
                    return Outcome::Present;
                }
                // Under the lock: see the invariants.
                let Some(group_now) = self.origin().rules(group, key.bytes()) else {
                    let _kept_out = keyspace.end_load(&key, &fence);
                    return Outcome::Replaced;
                };
                let rules = fill::rules(&group_now, &loaded, now).kept_if(room);
                let stored = match self.has_seen_all(&group_now, flight, key.slot(), &loaded, began) {
                    true => fill::store(&mut keyspace, &key, &loaded, rules, &fence),
                    false => {
                        self.node.freshness.counts.late.fetch_add(1, Relaxed);
                        let _late = keyspace.end_load(&key, &fence);
                        FillOutcome::Fenced
                    }
                };
                if stored == FillOutcome::Stored {
                    self.follow_up(&mut keyspace, &key, &loaded, rules.keeps());
                }
                drop(keyspace);
                let voided = (stored == FillOutcome::Fenced).then(|| flight.round.load(Relaxed));
                if voided.is_some() {
                    self.node.telemetry.loads.fenced.fetch_add(1, Relaxed);
                }
                let is_stored = stored == FillOutcome::Stored && rules.keeps();
                Outcome::Loaded { loaded: Arc::new(loaded), group, fill: rules.fill, voided, is_stored }
            }
            Err(error) => {
                self.node.store.lock(key.slot(), self.node.clock.unix_millis()).end_load(&key, &fence);
                if self.origin().rules(group, key.bytes()).is_none() {
                    // What was wrong with it is nobody's concern any more.
                    return Outcome::Replaced;
                }
                self.node.telemetry.loads.failed.fetch_add(1, Relaxed);
                Outcome::Failed(Arc::new(error))
            }
        }
    }

    /// What becomes of a load that no fence has kept out: an entry, or nothing. An older one that is still there goes, then: it has not seen what the load
    /// has, and what changed the key in between may have been told of already.
    fn follow_up(&self, keyspace: &mut Keyspace<'_>, key: &Key<'_>, loaded: &Loaded, is_kept: bool) {
        let memory = &self.node.freshness.memory;
        match is_kept {
            true => memory.kept(key.slot(), key.bytes(), loaded, Instant::now()),
            false => {
                memory.let_go(key.slot(), key.bytes());
                if keyspace.filled_by(key).is_some() {
                    keyspace.discard(key);
                }
            }
        }
        if let Some(member) = self.node.member() {
            member.replication.record_fill(keyspace, key);
        }
    }

    /// Whether a load has seen every change of its key that is known, or may have been forgotten ([`crate::freshness`]). Called under the lock of
    /// the key's shard.
    fn has_seen_all(&self, group: &Rules, flight: &Flight, slot: u16, loaded: &Loaded, began: Instant) -> bool {
        let Freshness { memory, guards, .. } = &self.node.freshness;
        let load = Load { loaded, began };
        let is_told_of = !group.group.invalidated_by.is_empty() || group.group.write != WriteStrategy::None;
        !is_told_of || memory.admits(slot, &flight.key, load, guards, Instant::now())
    }

    fn origin(&self) -> &Origin {
        match &self.node.origin {
            Some(origin) => origin,
            None => unreachable!("a flight departs for a key of a group, and groups belong to an origin"),
        }
    }

    /// Groups apply to database 0 alone.
    fn key_of<'f>(&self, flight: &'f Flight) -> Key<'f> {
        self.node.store.key(0, forebay_cluster::slot_of(&flight.key), &flight.key)
    }

    /// Takes the flight out of the map and tells its waiters.
    fn land(&self, flight: &Arc<Flight>, outcome: Outcome) {
        self.by_key.remove(&flight.key);
        self.under_way.fetch_sub(1, Relaxed);
        flight.outcome.send_replace(Some(outcome));
    }
}

impl Landing<'_> {
    fn land(self, outcome: Outcome) {
        self.inner.land(self.flight, outcome);
        std::mem::forget(self);
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.inner.land(self.flight, Outcome::Failed(Arc::new(LoadError::Closed)));
    }
}

impl Flight {
    fn new(key: Bytes) -> Flight {
        Flight { key, round: AtomicU32::new(0), outcome: watch::Sender::new(None) }
    }

    /// One that has brought nothing.
    fn over(key: &Key<'_>) -> Flight {
        let flight = Flight::new(Bytes::copy_from_slice(key.bytes()));
        flight.outcome.send_replace(Some(Outcome::Present));
        flight
    }

    async fn landed(&self) -> Outcome {
        let mut outcome = self.outcome.subscribe();
        let landed = outcome.wait_for(Option::is_some).await;
        match landed.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            // The sender lives in `self`, and `wait_for` returns what satisfied it.
            _ => unreachable!("a flight outlives its waiters"),
        }
    }
}

impl Joined {
    fn to(flight: &Arc<Flight>) -> Joined {
        Joined { round: flight.round.load(Ordering::Acquire), flight: Arc::clone(flight) }
    }

    /// The outcome as far as it is of use to this request.
    fn seen_as(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Loaded { voided: Some(round), .. } if self.round >= round => Outcome::Present,
            outcome => outcome,
        }
    }
}

/// Counts a waiting request down again, whether it was answered or its client went away.
struct Waiting<'a>(&'a crate::telemetry::LoadCounts);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}
