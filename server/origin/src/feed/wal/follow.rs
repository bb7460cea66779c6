//! Following the log: signing on, telling of what comes, and trying again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio::time::{Interval, MissedTickBehavior};

use super::progress::Progress;
use super::session::{Received, ReplicationSession};
use super::setup::{Publication, Slot, Watched, server_fault, terminate};
use super::transaction::{Taken, Transactions};
use crate::fault::Fault;
use crate::feed::address::Address;
use crate::feed::change::{Change, FeedEvent, FeedMemory, Gap, Position};
use crate::feed::mapping::Mapping;
use crate::feed::outlet::{End, Outlet, is_wanted};
use crate::feed::settling::Settling;
use crate::feed::tables::Survey;
use crate::group::{Feed, GroupConfig};
use crate::session::SessionError;
use crate::snapshot::{Snapshot, Xid};

/// How often the server hears how far we are, if nothing new was confirmed: it ends a connection that is silent for a minute.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How long whoever is displaced has to let go of the slot before it is looked at again.
const TAKE_OVER_STEP: Duration = Duration::from_millis(2);

/// SQLSTATEs: "undefined object", of a publication that was dropped; "object not in prerequisite state", of a slot that was invalidated.
const LOST: [&str; 2] = ["42704", "55000"];

/// Follows the log for as long as the feed is open.
pub(super) struct Follower {
    address: Address,
    outlet: Outlet,
    memory: FeedMemory,
    /// How far the server was told that we are, with the present slot.
    reported: Option<Position>,
    /// Why the slot must not be used any more.
    discarded: Option<String>,
}

/// One try.
struct Stream {
    control: PgConnection,
    session: ReplicationSession,
    transactions: Transactions,
    progress: Progress,
    settling: Option<Settling>,
    /// What is to be told of when there is room.
    pending: Option<Change>,
}

/// Runs until the feed is closed.
pub(super) async fn run(address: Address, outlet: Outlet) {
    let memory = outlet.config.memory.clone().unwrap_or_default();
    let mut follower = Follower { address, outlet, memory, reported: None, discarded: None };
    loop {
        let closing = follower.outlet.closing.clone();
        let end = tokio::select! {
            () = closing.cancelled() => End::Closed,
            Err(end) = follower.follow() => end,
        };
        match end {
            End::Closed => return,
            End::Failed(error) => follower.note(&error),
            End::Lost(reason) => follower.discarded = Some(reason),
        }
        if follower.outlet.pause().await.is_err() {
            return;
        }
    }
}

impl Follower {
    /// Follows until something goes wrong.
    async fn follow(&mut self) -> Result<Infallible, End> {
        let mut control = self.outlet.connect(&self.address).await?;
        self.give_up_unwanted_slot(&mut control).await?;
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        let survey = self.prepare(&mut control, &groups).await?;
        let gap = self.slot(&mut control, &survey).await?;
        let (settling, near) = self.tell_of_missed(&mut control, &survey, gap).await?;
        let name = self.outlet.connection_name();
        let patience = self.outlet.config.patience;
        let connecting = ReplicationSession::connect(&self.address, &name);
        let mut session = self.outlet.within(patience, connecting).await?;
        let confirmed = self.take_over(&mut control).await?;
        self.outlet.within(patience, session.start(&self.memory.slot, &self.outlet.config.name)).await?;
        let mut transactions = Transactions::new(Arc::clone(&self.outlet.board), near);
        transactions.map(Mapping::of(groups.iter(), Feed::Wal), survey.facts);
        self.outlet.follows();
        let stream =
            Stream { control, session, transactions, progress: Progress::from(confirmed), settling, pending: None };
        self.pump(stream).await
    }

    /// While no group wants the feed, the database need not keep anything for it.
    async fn give_up_unwanted_slot(&mut self, control: &mut PgConnection) -> Result<(), End> {
        if is_wanted(&self.outlet.groups.borrow_and_update(), Feed::Wal) {
            return Ok(());
        }
        self.memory = FeedMemory::default();
        self.reported = None;
        if !Slot::drop_all(control, &self.outlet.config.name, "").await? {
            return Err(
                SessionError::Unreachable("a slot that is not needed any more is still being read".to_owned()).into()
            );
        }
        self.outlet.wait_until_wanted(Feed::Wal).await?;
        // The connection may have been idle for long.
        Err(End::Lost("no group wanted the feed".to_owned()))
    }

    /// Looks at the server and the tables, and completes the publication.
    async fn prepare(&mut self, control: &mut PgConnection, groups: &[GroupConfig]) -> Result<Survey, End> {
        if let Some(fault) = server_fault(control).await? {
            return Err(self.outlet.refuse(fault));
        }
        let survey = Survey::make(control, groups, Feed::Wal).await?;
        self.outlet.tell_survey(&survey);
        if survey.tables.is_empty() {
            let fault = Fault::unplaced("feed", "there is no table to be followed", "see the faults of the groups");
            return Err(self.outlet.refuse(fault));
        }
        let publication = Publication::look_up(control, &self.outlet.config.name, &survey.tables).await?;
        if !publication.existed && !self.memory.slot.is_empty() {
            self.discarded.get_or_insert_with(|| "the publication was gone".to_owned());
        }
        match publication.complete(control).await? {
            Some(fault) => Err(self.outlet.refuse(fault)),
            None => Ok(survey),
        }
    }

    fn note(&mut self, error: &SessionError) {
        if let SessionError::Statement { code, message, .. } = error {
            if LOST.contains(&code.as_str()) && self.reported.is_some() {
                self.discarded.get_or_insert_with(|| message.clone());
            }
        }
        self.outlet.note(error, &self.address.user);
    }

    /// Sees to it that there is a slot that has missed nothing, or says why something was missed.
    async fn slot(&mut self, control: &mut PgConnection, survey: &Survey) -> Result<Option<String>, End> {
        let found = match self.memory.slot.as_str() {
            "" => None,
            name => Slot::look_up(control, name).await?,
        };
        let missed = match (&found, self.discarded.take()) {
            (_, Some(reason)) => Some(reason),
            (None, None) if self.memory.slot.is_empty() => Some("the feed begins".to_owned()),
            (None, None) => Some("the slot was dropped".to_owned()),
            (Some(Slot { unusable: Some(reason), .. }), None) => Some(reason.clone()),
            (Some(slot), None) if self.reported.is_some_and(|reported| slot.confirmed > reported) => {
                Some("somebody else has read from the slot".to_owned())
            }
            (Some(_), None) => None,
        };
        if missed.is_some() {
            let name = &self.outlet.config.name;
            let fresh = format!("{name}_{:08x}", rand::random::<u32>());
            let gone = std::mem::replace(&mut self.memory, FeedMemory { slot: fresh, ..FeedMemory::default() });
            self.reported = None;
            Slot::drop_all(control, name, "").await?;
            tracing::info!(gone = gone.slot, slot = self.memory.slot, "a replication slot is made");
            if let Err(error) = Slot::create(control, &self.memory.slot).await {
                // It is tried again with another name.
                self.discarded = missed;
                self.memory = FeedMemory::default();
                return Err(error.into());
            }
        } else {
            Slot::drop_all(control, &self.outlet.config.name, &self.memory.slot).await?;
        }
        let has_news = !self.memory.lacks(&survey.covered).is_empty();
        Ok(missed.or_else(|| has_news.then(|| "the feed tells of further tables".to_owned())))
    }

    /// Takes the slot from a keeper of an earlier term, or from our own former connection; tells up to where it was confirmed. Right before
    /// the stream is started, so that whoever is displaced does not come back first.
    async fn take_over(&self, control: &mut PgConnection) -> Result<Position, End> {
        let deadline = Instant::now() + self.outlet.config.patience;
        loop {
            let slot = Slot::look_up(control, &self.memory.slot).await?;
            let Some(slot) = slot else {
                return Err(SessionError::Unreachable("the slot was dropped".to_owned()).into());
            };
            let Some((pid, used_by)) = slot.active else {
                return Ok(slot.confirmed);
            };
            self.displace(control, pid, &used_by).await?;
            if Instant::now() > deadline {
                return Err(SessionError::Unreachable("the slot is being read from, and stays so".to_owned()).into());
            }
            tokio::time::sleep(TAKE_OVER_STEP).await;
        }
    }

    async fn displace(&self, control: &mut PgConnection, pid: i32, used_by: &str) -> Result<(), End> {
        let term = used_by
            .strip_prefix(&format!("{} feed ", self.outlet.config.name))
            .and_then(|term| term.parse::<u64>().ok());
        match term {
            Some(term) if term <= self.outlet.config.term => Ok(terminate(control, pid).await?),
            Some(term) => Err(SessionError::Unreachable(format!("a keeper of term {term} follows the feed")).into()),
            None => {
                let fault = Fault::unplaced(
                    "feed",
                    format!("the slot {} is used by \"{used_by}\" (pid {pid})", self.memory.slot),
                    "a slot has one reader: end the other, or give this cluster's feed another name",
                );
                Err(self.outlet.refuse(fault))
            }
        }
    }

    /// Tells which entries are suspect. `reason` is why, if any are.
    async fn tell_of_missed(
        &mut self,
        control: &mut PgConnection,
        survey: &Survey,
        reason: Option<String>,
    ) -> Result<(Option<Settling>, Xid), End> {
        let watched = Watched::ask(control, &self.memory.slot).await?;
        let snapshot = read_snapshot(&watched)?;
        let near = snapshot.xmax();
        let Some(reason) = reason else {
            return Ok((None, near));
        };
        let groups = self.memory.lacks(&survey.covered);
        self.memory.covered = survey.covered.clone();
        let (gap, settling) = Settling::begin(groups, snapshot, reason, &self.memory);
        self.outlet.tell_gap(gap).await?;
        Ok((settling, near))
    }

    /// Reads the stream and tells of what comes.
    async fn pump(&mut self, mut stream: Stream) -> Result<Infallible, End> {
        let mut watching = ticks(self.outlet.config.watch_every);
        let mut reporting = ticks(REPORT_EVERY.min(self.outlet.config.patience / 3));
        let events = self.outlet.events.clone();
        loop {
            tokio::select! {
                // What comes seldom is looked at first, so that a busy stream does not keep it waiting.
                biased;
                changed = self.outlet.confirmed.changed() => {
                    changed.map_err(|_| End::Closed)?;
                    self.report(&mut stream).await?;
                }
                _ = reporting.tick() => self.report(&mut stream).await?,
                _ = watching.tick() => self.watch(&mut stream).await?,
                changed = self.outlet.groups.changed() => {
                    changed.map_err(|_| End::Closed)?;
                    self.regroup(&mut stream).await?;
                }
                room = events.reserve(), if stream.pending.is_some() => {
                    let room = room.map_err(|_| End::Closed)?;
                    if let Some(change) = stream.pending.take() {
                        room.send(FeedEvent::Change(change));
                    }
                }
                received = stream.session.receive(), if stream.pending.is_none() => {
                    self.take(received?, &mut stream).await?;
                }
            }
        }
    }

    async fn take(&mut self, received: Received, stream: &mut Stream) -> Result<(), End> {
        match received {
            Received::Message(message) => match stream.transactions.take(&message) {
                Taken::Nothing => {}
                Taken::Passed(position) => stream.progress.pass(position),
                Taken::Change(change) => {
                    if let Some(position) = change.position {
                        stream.progress.tell(position, Instant::now());
                    }
                    self.outlet.note_delay(change.committed_at);
                    stream.pending = Some(change);
                }
            },
            Received::Alive { until, wants_reply } => {
                if !stream.transactions.is_open() {
                    stream.progress.pass(until);
                }
                if wants_reply {
                    self.report(stream).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells the server how far everybody is.
    async fn report(&mut self, stream: &mut Stream) -> Result<(), End> {
        stream.progress.confirm(*self.outlet.confirmed.borrow_and_update());
        let reported = stream.progress.reported();
        self.reported = self.reported.max(Some(reported));
        stream.session.report(reported).await?;
        let now = Instant::now();
        self.outlet.board.update(|status| {
            (status.confirmed, status.read) = (reported, stream.progress.read());
            status.unconfirmed_for = stream.progress.unconfirmed_for(now);
        });
        Ok(())
    }

    /// Asks the server how much it keeps for us, and which transactions run.
    async fn watch(&mut self, stream: &mut Stream) -> Result<(), End> {
        let asking = Watched::ask(&mut stream.control, &self.memory.slot);
        let watched = self.outlet.within(self.outlet.config.patience, asking).await?;
        let snapshot = read_snapshot(&watched)?;
        stream.transactions.set_near(snapshot.xmax());
        let Some(kept_from) = watched.kept_from else {
            return Err(End::Lost("the database has dropped the slot, or log that it had not read".to_owned()));
        };
        let retained = watched.end.0.saturating_sub(kept_from.0);
        let lag = watched.end.0.saturating_sub(stream.progress.reported().0);
        let limit = self.outlet.config.max_retained;
        let before = self.outlet.board.status().retained_bytes;
        self.outlet.board.update(|status| (status.lag_bytes, status.retained_bytes) = (lag, retained));
        if retained > limit {
            return Err(End::Lost(format!("the database would have had to keep more than {limit} bytes of its log")));
        }
        if retained > limit / 2 && before <= limit / 2 {
            tracing::warn!(retained, limit, "the database keeps much of its log for the change feed");
        }
        match Settling::end(&mut stream.settling, &snapshot, &self.memory) {
            Some(gap) => self.tell_behind(stream, gap).await,
            None => Ok(()),
        }
    }

    /// The groups were replaced.
    async fn regroup(&mut self, stream: &mut Stream) -> Result<(), End> {
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        if !is_wanted(&groups, Feed::Wal) {
            // The slot can be dropped once nobody reads from it.
            return Err(End::Lost("no group wants the feed".to_owned()));
        }
        let survey = self.prepare(&mut stream.control, &groups).await?;
        stream.transactions.map(Mapping::of(groups.iter(), Feed::Wal), survey.facts.clone());
        self.memory.covered.retain(|group, _| survey.covered.contains_key(group));
        if self.memory.lacks(&survey.covered).is_empty() {
            return Ok(());
        }
        // What was told of before comes before the gap.
        self.flush(stream).await?;
        let reason = "the feed tells of further tables".to_owned();
        let (settling, _) = self.tell_of_missed(&mut stream.control, &survey, Some(reason)).await?;
        stream.settling = Settling::joined(stream.settling.take(), settling);
        Ok(())
    }

    /// Tells of a gap behind what came before it.
    async fn tell_behind(&self, stream: &mut Stream, gap: Gap) -> Result<(), End> {
        self.flush(stream).await?;
        self.outlet.tell_gap(gap).await
    }

    async fn flush(&self, stream: &mut Stream) -> Result<(), End> {
        match stream.pending.take() {
            Some(change) => self.outlet.tell(FeedEvent::Change(change)).await,
            None => Ok(()),
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn read_snapshot(watched: &Watched) -> Result<Snapshot, SessionError> {
    let text = &watched.snapshot;
    text.parse().map_err(|_| SessionError::unfit(format!("`{text}` is no snapshot"), ""))
}
