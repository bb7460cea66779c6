//! Requests that write keys which are written to the origin as well ([`crate::writes`]).

use std::sync::Arc;

use forebay_cluster::Topology;
use forebay_origin::WriteStrategy;
use forebay_resp::{Args, Protocol, Reply};
use forebay_store::{Key, Presence};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;

use super::fill::Landed;
use super::finish::Wait;
use super::flight::Joined;
use super::forward::{self, Outcome};
use super::merge::Merged;
use super::split::{Unit, units};
use super::{Engine, MAX_RUNS, Ran, Request, Step, hot, record};
use crate::command::error::CommandError;
use crate::command::spec::{Flags, KeyUse, Merge};
use crate::command::table::Command;
use crate::groups;
use crate::session::{Door, Session};
use crate::writes::store::{Change, Settled, settle};
use crate::writes::{behind, change, scratch};

/// Keys of one request that are written at the same time.
const TOGETHER: usize = 16;

/// How far a write has come before the origin is asked.
enum Prepared {
    /// There is nothing to write; the reply is written.
    Nothing,
    /// The command builds on what the key has, which is to be loaded.
    Load(SmallVec<[Joined; 1]>),
    /// The key is not this node's, or not one that is written to the origin.
    Otherwise(Step),
    Write {
        change: Box<Change>,
        /// Whether the origin gets it later.
        is_behind: bool,
    },
}

impl Engine {
    /// What a request that runs here is to wait for since it writes keys that are written to the origin. Called with the locks of its keys
    /// held; nothing has been done yet.
    ///
    /// # Errors
    /// When it writes several keys and cannot be done key by key.
    #[cold]
    pub(super) fn for_the_origin(
        &self,
        session: &Session,
        request: &Request<'_>,
        keys: &[Key<'_>],
    ) -> Result<Option<Wait>, CommandError> {
        let Request { command, args, .. } = *request;
        let Some(origin) = self.node.origin.as_ref().filter(|_| session.db == 0) else { return Ok(None) };
        if command.spec.flags.contains(Flags::CACHE_ONLY) {
            return Ok(None);
        }
        let is_meant = |key: &Key<'_>| origin.writes_of(key.bytes()).is_some();
        if let ([key], false) = (keys, command.spec.name == "move") {
            return Ok(is_meant(key).then_some(Wait::Origin));
        }
        let uses = command.spec.key_uses(args).map_err(|_| CommandError::Syntax)?;
        let is_written = |at: usize| !uses.get(at).is_some_and(|(_, uses)| uses.contains(KeyUse::RO));
        match keys.iter().enumerate().find(|(at, key)| is_written(*at) && is_meant(key)) {
            None => Ok(None),
            Some((_, key)) => match command.spec.split {
                Some(merge) => Ok(Some(Wait::KeyByKey(merge))),
                None => Err(CommandError::from(format!(
                    "ERR '{}' is not possible with '{}', whose group is written to the origin",
                    command.full_name,
                    String::from_utf8_lossy(key.bytes()),
                ))),
            },
        }
    }

    /// Does a request of one key that is written to the origin.
    pub(super) async fn write_to_origin(&self, session: &mut Session, args: Args<'_>, reply: &mut Reply) -> Step {
        let command = self.resolved(args);
        let (mark, mut clock) = (reply.mark(), self.node.clock.instant());
        let done = self.write_in_turn(session, command, args, reply).await;
        session.now = self.node.clock.unix_millis();
        if let Ok(Some(step)) = done {
            reply.rewind(mark);
            return step;
        }
        if let Err(error) = &done {
            reply.rewind(mark);
            self.answer_error(error, reply);
        }
        self.account(session, command, args, &mut clock, done.is_err());
        Step::Done
    }

    /// Gives a step if the request is to go another way.
    async fn write_in_turn(
        &self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        reply: &mut Reply,
    ) -> Result<Option<Step>, CommandError> {
        let topology = self.node.topology.load_full();
        let keys = self.keys(session.db, command, args).map_err(|_| CommandError::Syntax)?;
        let [key] = keys[..] else { unreachable!("a request of several keys is done key by key") };
        let limit = self.node.origin.as_ref().map(|origin| origin.load_timeout()).unwrap_or_default();
        let turn = self.node.writes.turns.take(key.bytes(), limit).await;
        let turn =
            turn.ok_or(CommandError::text("ORIGINDOWN too many writes of the key wait already; nothing was changed"))?;
        let mark = reply.mark();
        let mut brought = SmallVec::<[Landed; 1]>::new();
        for _ in 0..MAX_RUNS {
            session.now = self.node.clock.unix_millis();
            reply.rewind(mark);
            match self.prepare(session, (command, args, &topology), &key, &brought, reply)? {
                Prepared::Nothing => return Ok(None),
                Prepared::Otherwise(step) => return Ok(Some(step)),
                Prepared::Load(flights) => brought.extend(self.flights.land(flights).await),
                Prepared::Write { change, is_behind } => {
                    let node = Arc::clone(&self.node);
                    let written = self.flights.by_itself(async move {
                        match is_behind {
                            true => behind::write(&node, *change, turn).await,
                            false => settle(&node, *change, turn).await,
                        }
                    });
                    let settled = written.await;
                    let settled = settled.ok_or(CommandError::text(UNSURE))??;
                    if change::is_removal(command.spec) {
                        reply.rewind(mark);
                        reply.integer(i64::from(settled.rows > 0));
                    }
                    return self.tell(session, key.bytes(), settled, is_behind).await.map(|()| None);
                }
            }
        }
        Err(CommandError::Unsettled)
    }

    /// Runs the command over a copy of what is there.
    fn prepare(
        &self,
        session: &mut Session,
        (command, args, topology): (&'static Command, Args<'_>, &Topology),
        key: &Key<'_>,
        brought: &[Landed],
        reply: &mut Reply,
    ) -> Result<Prepared, CommandError> {
        let keys = std::slice::from_ref(key);
        let request = Request { command, args, keys: Ok(keys), topology };
        let mut keyspace = self.lock(keys, session);
        if !self.node.roles.is_owned_alone(key.slot()) {
            match self.elsewhere(session, &request, keys, &mut keyspace, reply)? {
                Some(Ran::NotYet(step)) => return Ok(Prepared::Otherwise(step)),
                Some(Ran::ToEnd) => return Ok(Prepared::Nothing),
                None => groups::look_through_keys(&self.node, &mut keyspace, keys),
            }
        }
        let written = self.node.origin.as_ref().and_then(|origin| origin.writes_of(key.bytes()));
        let Some((group, rules)) = written else {
            drop(keyspace);
            return Ok(Prepared::Otherwise(self.run(session, &request, reply, &[], &mut self.node.clock.instant())));
        };
        let lent = (!brought.is_empty()).then(|| self.lend(&mut keyspace, &request, keys, brought));
        let mut entry = Vec::new();
        let presence = keyspace.presence(key);
        if presence == Presence::Present {
            keyspace.encode(key, &mut entry);
        }
        if let Some(lent) = lent {
            lent.take_back(&mut keyspace);
        }
        // What is pending since the group was written behind must not be written after this: it goes with it.
        let is_behind =
            rules.group.write == WriteStrategy::Behind || self.node.writes.behind.is_pending(&mut keyspace, key);
        // What is removed later is answered for now.
        let is_asked = is_behind && change::is_removal(command.spec);
        if presence == Presence::Missing && (is_asked || self.loads(session, command, args)) {
            drop(keyspace);
            return self.flights.join(keys, brought, session.now).map(Prepared::Load);
        }
        if let Some(member) = self.node.member() {
            record(member, session, &request, keys, &mut keyspace);
            hot::note(&self.node, member, session, &request, &mut keyspace, None);
        }
        let entry = (presence == Presence::Present).then_some(&entry[..]);
        let ran = scratch::run(&self.node, session, (command, args), key, entry, reply)?;
        let Some(change) = change::of(command.spec, args, &rules.group, &ran)? else { return Ok(Prepared::Nothing) };
        let change = Box::new(Change {
            key: bytes::Bytes::copy_from_slice(key.bytes()),
            base: self.node.freshness.memory.seen_by_entry(key.slot(), key.bytes()),
            fence: keyspace.begin_load(key),
            began: std::time::Instant::now(),
            existed: ran.before.is_some(),
            after: ran.after,
            deadline: ran.deadline,
            group,
            rules,
            change,
        });
        Ok(Prepared::Write { change, is_behind })
    }

    /// Has the session wait for what the others are to know of a write.
    async fn tell(
        &self,
        session: &mut Session,
        key: &[u8],
        settled: Settled,
        by_all: bool,
    ) -> Result<(), CommandError> {
        let Settled { recorded, take_backs, has_moved, .. } = settled;
        take_backs.into_iter().for_each(|take_back| session.wait_for(take_back));
        if let (Some(member), false) = (self.node.member(), recorded.is_empty()) {
            let told = session.told.get_or_insert_default();
            told.unacknowledged.by_all |= by_all;
            if member.min_acks > 1 || by_all {
                told.unacknowledged.recorded.absorb(&recorded);
            }
            member.replication.remember(&mut told.written, &recorded);
        }
        match has_moved {
            true => self.forget_elsewhere(session, key).await,
            false => Ok(()),
        }
    }

    /// Has the key forgotten by whoever is its owner now: the database has another value.
    async fn forget_elsewhere(&self, session: &mut Session, key: &[u8]) -> Result<(), CommandError> {
        let mut own = session.for_a_part(Door::Open, self.node.clock.unix_millis());
        let (args, mut reply) = ([&b"FOREBAY.INVALIDATE"[..], key], Reply::new());
        // In a box: it is a request of its own.
        let step = Box::pin(self.execute(&mut own, Args::from(&args[..]), &mut reply)).await;
        self.absorb(session, own);
        match (step, reply.len()) {
            (Step::Done, 1..) if reply.chunks().next().is_some_and(|reply| reply.first() == Some(&b':')) => Ok(()),
            _ => Err(CommandError::text(UNSURE)),
        }
    }

    /// Does a request of several keys, each as a request of its own, in their order as far as it matters.
    pub(super) fn key_by_key<'a>(
        &'a self,
        session: &'a mut Session,
        args: Args<'a>,
        reply: &'a mut Reply,
        merge: Merge,
    ) -> BoxFuture<'a, Result<(), CommandError>> {
        // Of a type that can be named: its parts are requests as well.
        Box::pin(self.do_key_by_key(session, args, reply, merge))
    }

    async fn do_key_by_key(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        merge: Merge,
    ) -> Result<(), CommandError> {
        let command = self.resolved(args);
        let units = units(command, args).ok_or(CommandError::Arity(command.full_name))?;
        let mut merged = Merged::of(merge, units.len());
        let (protocol, before) = (reply.protocol(), units.first().map_or(1, Unit::first));
        let requests: Vec<_> = units.iter().map(|unit| unit.request(args, before)).collect();
        let mut parts: Vec<BoxFuture<'_, (Session, Outcome)>> = Vec::with_capacity(units.len());
        for request in &requests {
            let own = session.for_a_part(Door::Open, self.node.clock.unix_millis());
            parts.push(Box::pin(self.do_alone(own, request, protocol)));
        }
        // Who comes first is the first to take its turn, so that two writes of one key are made in their order.
        let done: Vec<(Session, Outcome)> = futures_util::stream::iter(parts).buffered(TOGETHER).collect().await;
        let mut result = Ok(());
        for (at, (own, outcome)) in done.into_iter().enumerate() {
            self.absorb(session, own);
            let added = match outcome {
                Outcome::Replied(content) => merged.add(&[at], content),
                Outcome::Again { .. } => Err(CommandError::Down),
                Outcome::Uncertain => Err(forward::uncertain()),
                Outcome::Refused(error) => Err(error),
            };
            result = result.and(added);
        }
        result?;
        merged.write(reply);
        Ok(())
    }

    async fn do_alone(&self, mut own: Session, request: &[&[u8]], protocol: Protocol) -> (Session, Outcome) {
        let outcome = self.do_as(&mut own, Args::from(request), protocol).await;
        (own, outcome)
    }
}

/// The error for a write that the database has surely taken, or may have, and of which not everybody knows who should.
const UNSURE: &str = "ORIGINUNSURE it is not known whether the write was made";
