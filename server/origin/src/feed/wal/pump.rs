//! What comes from the stream, and what is looked at beside it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio::time::{Interval, MissedTickBehavior};

use super::follow::{Follower, read_snapshot};
use super::progress::Progress;
use super::session::{Received, ReplicationSession};
use super::setup::Slot;
use super::transaction::{Taken, Transactions};
use crate::feed::change::{Change, FeedEvent, Gap};
use crate::feed::mapping::Mapping;
use crate::feed::outlet::{End, FURTHER_TABLES, LOOK_EVERY, Room, is_wanted};
use crate::feed::settling::Settling;
use crate::group::Feed;
use crate::session::SessionError;

/// How often the server hears how far we are, if nothing new was confirmed: it ends a connection that is silent for a minute. It answers, so
/// that we know that it is there.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// One try.
pub(super) struct Stream {
    control: PgConnection,
    session: ReplicationSession,
    transactions: Transactions,
    progress: Progress,
    /// What is to be told of when there is room. Until then nothing is read.
    pending: Option<Change>,
    /// When something came last, or could have come.
    heard: Instant,
}

impl Stream {
    pub(super) fn new(
        control: PgConnection,
        session: ReplicationSession,
        transactions: Transactions,
        progress: Progress,
    ) -> Self {
        Stream { control, session, transactions, progress, pending: None, heard: Instant::now() }
    }
}

impl Follower {
    /// Reads the stream and tells of what comes.
    pub(super) async fn pump(&mut self, mut stream: Stream) -> Result<Infallible, End> {
        let mut watching = ticks(self.outlet.config.watch_every);
        let mut looking = ticks(self.outlet.config.watch_every * LOOK_EVERY);
        looking.reset();
        let mut reporting = ticks(REPORT_EVERY.min(self.outlet.config.patience / 3));
        let places = self.outlet.places.clone();
        loop {
            let weight = self.weight_of_next(&stream);
            tokio::select! {
                // What comes seldom is looked at first, so that a busy stream does not keep it waiting.
                biased;
                changed = self.outlet.confirmed.changed() => {
                    changed.map_err(|_| End::Closed)?;
                    self.report(&mut stream, false).await?;
                }
                _ = reporting.tick() => {
                    self.report(&mut stream, true).await?;
                    self.listen_for_life(&stream)?;
                }
                _ = watching.tick() => self.watch(&mut stream).await?,
                _ = looking.tick() => self.look_again(&mut stream).await?,
                changed = self.outlet.groups.changed() => {
                    changed.map_err(|_| End::Closed)?;
                    self.look_again(&mut stream).await?;
                }
                room = places.room_for(weight.unwrap_or_default()), if weight.is_some() => {
                    self.tell(room?, &mut stream);
                }
                received = stream.session.receive(), if stream.pending.is_none() => {
                    self.take(received?, &mut stream).await?;
                }
            }
        }
    }

    fn weight_of_next(&self, stream: &Stream) -> Option<usize> {
        let gap = self.gap.as_ref().map(Gap::weight);
        gap.or_else(|| stream.pending.as_ref().map(Change::weight))
    }

    fn tell(&mut self, room: Room, stream: &mut Stream) {
        if let Some(gap) = self.gap.take() {
            room.take(FeedEvent::Gap(gap));
        } else if let Some(change) = stream.pending.take() {
            room.take(FeedEvent::Change(change));
            stream.heard = Instant::now();
        }
    }

    async fn take(&mut self, received: Received, stream: &mut Stream) -> Result<(), End> {
        stream.heard = Instant::now();
        match received {
            Received::Message(message) => match stream.transactions.take(&message) {
                Taken::Nothing => {}
                Taken::Passed(position) => stream.progress.pass(position),
                Taken::Change(change) => {
                    if let Some(position) = change.position {
                        stream.progress.tell(position, Instant::now());
                    }
                    self.outlet.note_delay(change.committed_at);
                    let position = change.position.map(|position| position.of_era(self.era));
                    stream.pending = Some(Change { position, ..change });
                }
            },
            Received::Alive { until, wants_reply } => {
                if !stream.transactions.is_open() {
                    stream.progress.pass(until);
                }
                if wants_reply {
                    self.report(stream, false).await?;
                }
            }
        }
        Ok(())
    }

    /// Tells the server how far everybody is.
    async fn report(&mut self, stream: &mut Stream, wants_reply: bool) -> Result<(), End> {
        // What was told of by a former slot says nothing about this one.
        if let Some(confirmed) = self.outlet.confirmed.borrow_and_update().within_era(self.era) {
            stream.progress.confirm(confirmed);
        }
        let reported = stream.progress.reported();
        self.reported = self.reported.max(Some(reported));
        let reporting = stream.session.report(reported, wants_reply);
        self.outlet.within(self.outlet.config.patience, reporting).await?;
        let now = Instant::now();
        self.outlet.board.update(|status| {
            status.confirmed = reported.of_era(self.era);
            status.read = stream.progress.read().of_era(self.era);
            status.unconfirmed_for = stream.progress.unconfirmed_for(now);
        });
        Ok(())
    }

    /// A server that answers nothing may be gone without a word.
    fn listen_for_life(&self, stream: &Stream) -> Result<(), End> {
        let patience = self.outlet.config.patience;
        match stream.pending.is_none() && stream.heard.elapsed() > patience {
            true => Err(SessionError::Unreachable(format!("nothing was heard for {patience:?}")).into()),
            false => Ok(()),
        }
    }

    /// Asks the server how much it keeps for us, and which transactions run.
    async fn watch(&mut self, stream: &mut Stream) -> Result<(), End> {
        let watched = self.look_at_server(&mut stream.control).await?;
        let lag = watched.end.at().saturating_sub(stream.progress.reported().at());
        self.outlet.board.update(|status| status.lag_bytes = lag);
        let snapshot = read_snapshot(&watched)?;
        stream.transactions.set_near(snapshot.xmax());
        if let Some(gap) = Settling::end(&mut self.settling, snapshot) {
            self.tell_gap(gap);
        }
        match stream.transactions.has_too_many_tables() {
            true => Err(SessionError::Unreachable("too many tables have changed for one stream".to_owned()).into()),
            false => Ok(()),
        }
    }

    /// Looks at the groups, which may have been replaced, and at their tables, which may have been altered.
    async fn look_again(&mut self, stream: &mut Stream) -> Result<(), End> {
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        if !is_wanted(&groups, Feed::Wal) {
            // The slot can be dropped once nobody reads from it.
            return Err(End::Lost("no group wants the feed".to_owned()));
        }
        let survey = self.prepare(&mut stream.control, &groups).await?;
        stream.transactions.map(Mapping::of(groups.iter(), Feed::Wal), survey.facts.clone());
        self.memory.covered.retain(|group, _| survey.covered.contains_key(group));
        if !self.memory.lacks(&survey.covered).is_empty() {
            // Only now: what is committed from here on is told of.
            let watched = self.look_at_server(&mut stream.control).await?;
            self.miss(&survey, read_snapshot(&watched)?, FURTHER_TABLES.into());
        }
        // A slot that was given up may have been in use then.
        Slot::drop_all(&mut stream.control, &self.outlet.config.name, &self.memory.slot).await?;
        Ok(())
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
