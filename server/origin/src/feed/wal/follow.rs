//! Following the log: signing on, and trying again. What comes then is `pump`'s.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;

use super::progress::Progress;
use super::pump::Stream;
use super::session::ReplicationSession;
use super::setup::{Publication, Slot, Watched, server_fault, terminate};
use super::transaction::Transactions;
use crate::fault::Fault;
use crate::feed::address::Address;
use crate::feed::attempts::{Source, follow_until_closed};
use crate::feed::change::{FeedMemory, Gap, Position};
use crate::feed::mapping::Mapping;
use crate::feed::outlet::{End, FURTHER_TABLES, Outlet, is_wanted};
use crate::feed::settling::Settling;
use crate::feed::tables::Survey;
use crate::group::{Feed, GroupConfig};
use crate::session::SessionError;
use crate::snapshot::Snapshot;

/// How long whoever is displaced has to let go of the slot before it is looked at again.
const TAKE_OVER_STEP: Duration = Duration::from_millis(2);

/// SQLSTATEs: "undefined object", of a publication that was dropped; "object not in prerequisite state", of a slot that was invalidated.
const LOST: [&str; 2] = ["42704", "55000"];

/// Follows the log for as long as the feed is open.
pub(super) struct Follower {
    pub(super) address: Address,
    pub(super) outlet: Outlet,
    pub(super) memory: FeedMemory,
    /// How far the server was told that we are, with the present slot.
    pub(super) reported: Option<Position>,
    /// Counts the slots: positions of one slot may be lower than those of the slot before, if another server has taken over.
    pub(super) era: u32,
    has_streamed: bool,
    /// Why the slot must not be used any more.
    discarded: Option<Missed>,
    /// What is to be told of as soon as there is room, whatever becomes of the connection.
    pub(super) gap: Option<Gap>,
    /// What the gap is told of once more for.
    pub(super) settling: Option<Settling>,
}

/// Why changes may have been missed.
#[derive(Debug, Clone)]
pub(super) struct Missed {
    pub(super) reason: String,
    /// What was loaded before may be of another history of the database, so that snapshots say nothing.
    pub(super) is_other_history: bool,
}

impl From<String> for Missed {
    fn from(reason: String) -> Self {
        Missed { reason, is_other_history: false }
    }
}

impl From<&str> for Missed {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

/// Runs until the feed is closed.
pub(super) async fn run(address: Address, outlet: Outlet) {
    let memory = outlet.config.memory.clone().unwrap_or_default();
    let follower = Follower {
        address,
        outlet,
        memory,
        reported: None,
        era: 0,
        has_streamed: false,
        discarded: None,
        gap: None,
        settling: None,
    };
    follow_until_closed(follower).await;
}

impl Source for Follower {
    fn outlet(&mut self) -> &mut Outlet {
        &mut self.outlet
    }

    async fn follow(&mut self) -> Result<Infallible, End> {
        let mut control = self.outlet.connect(&self.address).await?;
        self.give_way(&mut control).await?;
        self.give_up_unwanted_slot(&mut control).await?;
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        let survey = self.prepare(&mut control, &groups).await?;
        let missed = self.slot(&mut control, &survey).await?;
        let watched = self.look_at_server(&mut control).await?;
        let snapshot = read_snapshot(&watched)?;
        let near = snapshot.xmax();
        if let Some(missed) = missed {
            self.miss(&survey, snapshot, missed);
        }
        let name = self.outlet.connection_name();
        let patience = self.outlet.config.patience;
        let connecting = ReplicationSession::connect(&self.address, &name);
        let mut session = self.outlet.within(patience, connecting).await?;
        let confirmed = self.take_over(&mut control).await?;
        self.outlet.within(patience, session.start(&self.memory.slot, &self.outlet.config.name)).await?;
        let mut transactions = Transactions::new(Arc::clone(&self.outlet.board), near);
        transactions.map(Mapping::of(groups.iter(), Feed::Wal), survey.facts);
        self.has_streamed = true;
        self.outlet.follows();
        self.pump(Stream::new(control, session, transactions, Progress::from(confirmed))).await
    }

    fn failed(&mut self, error: &SessionError) {
        if let SessionError::Statement { code, message, .. } = error {
            if LOST.contains(&code.as_str()) && self.reported.is_some() {
                self.discard(message.as_str().into());
            }
        }
        self.outlet.note(error, &self.address.user);
    }

    fn lost(&mut self, reason: String) {
        self.discard(reason.into());
    }
}

impl Follower {
    /// Leaves slots alone that a keeper of a later term looks after.
    async fn give_way(&self, control: &mut PgConnection) -> Result<(), End> {
        let terms = Slot::keepers(control, &self.outlet.connection_prefix()).await?;
        match terms.into_iter().max().filter(|term| *term > self.outlet.config.term) {
            Some(term) => Err(displaced_by(term)),
            None => Ok(()),
        }
    }

    /// While no group wants the feed, the database need not keep anything for it.
    async fn give_up_unwanted_slot(&mut self, control: &mut PgConnection) -> Result<(), End> {
        if is_wanted(&self.outlet.groups.borrow_and_update(), Feed::Wal) {
            return Ok(());
        }
        self.memory = FeedMemory::default();
        (self.reported, self.settling, self.gap) = (None, None, None);
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
    pub(super) async fn prepare(&mut self, control: &mut PgConnection, groups: &[GroupConfig]) -> Result<Survey, End> {
        if let Some(fault) = server_fault(control).await? {
            return Err(self.outlet.refuse(fault));
        }
        let mut survey = Survey::make(control, groups, Feed::Wal).await?;
        if survey.tables.is_empty() {
            self.outlet.tell_faults(survey.told());
            let fault = Fault::unplaced("feed", "there is no table to be followed", "see the faults of the groups");
            return Err(self.outlet.refuse(fault));
        }
        let publication = Publication::look_up(control, &self.outlet.config.name, &survey.tables).await?;
        if !publication.existed && !self.memory.slot.is_empty() {
            self.discard("the publication was gone".into());
        }
        // What it did not have was not told of, if it had it once.
        let untold = survey.groups_of(&publication.lacking);
        self.memory.covered.retain(|group, _| !untold.contains(group));
        let refused = publication.complete(control).await?;
        if refused.is_some() {
            survey.covered.retain(|group, _| !untold.contains(group));
        }
        let is_useless = refused.is_some() && survey.covered.is_empty();
        self.outlet.tell_faults(survey.told().into_iter().chain(refused.clone()).collect());
        match refused {
            Some(fault) if is_useless => Err(self.outlet.refuse(fault)),
            _ => Ok(survey),
        }
    }

    fn discard(&mut self, missed: Missed) {
        self.discarded.get_or_insert(missed);
    }

    /// Sees to it that there is a slot that has missed nothing, or says why something was missed.
    async fn slot(&mut self, control: &mut PgConnection, survey: &Survey) -> Result<Option<Missed>, End> {
        let timeline = Watched::ask(control, &self.memory.slot).await?.timeline;
        let found = match self.memory.slot.as_str() {
            "" => None,
            name => Slot::look_up(control, name).await?,
        };
        let is_other_history = !self.memory.timeline.is_empty() && self.memory.timeline != timeline;
        let missed: Option<Missed> = match (&found, self.discarded.take()) {
            _ if is_other_history => {
                Some(Missed { reason: "another server has taken over".to_owned(), is_other_history })
            }
            (_, Some(missed)) => Some(missed),
            (None, None) if self.memory.slot.is_empty() => Some("the feed begins".into()),
            (None, None) => Some("the slot was dropped".into()),
            (Some(Slot { unusable: Some(reason), .. }), None) => Some(reason.as_str().into()),
            (Some(slot), None) if self.reported.is_some_and(|reported| slot.confirmed > reported) => {
                Some("somebody else has read from the slot".into())
            }
            (Some(_), None) => None,
        };
        let Some(missed) = missed else {
            Slot::drop_all(control, &self.outlet.config.name, &self.memory.slot).await?;
            let has_news = !self.memory.lacks(&survey.covered).is_empty();
            return Ok(has_news.then(|| FURTHER_TABLES.into()));
        };
        if let Err(end) = self.replace_slot(control, timeline).await {
            // It is tried again with another name.
            self.discarded = Some(missed);
            return Err(end);
        }
        Ok(Some(missed))
    }

    async fn replace_slot(&mut self, control: &mut PgConnection, timeline: String) -> Result<(), End> {
        let name = &self.outlet.config.name;
        let slot = format!("{name}_{:08x}", rand::random::<u32>());
        let gone = std::mem::take(&mut self.memory);
        self.reported = None;
        self.era += u32::from(self.has_streamed);
        Slot::drop_all(control, name, "").await?;
        tracing::info!(gone = gone.slot, slot, "a replication slot is made");
        Slot::create(control, &slot).await?;
        self.memory = FeedMemory { slot, timeline, ..FeedMemory::default() };
        // All that is to be waited for is in the gap that this is.
        self.settling = None;
        Ok(())
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
        let term = used_by.strip_prefix(&self.outlet.connection_prefix()).and_then(|term| term.parse::<u64>().ok());
        match term {
            Some(term) if term <= self.outlet.config.term => Ok(terminate(control, pid).await?),
            Some(term) => Err(displaced_by(term)),
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

    /// Asks the server which transactions run, and how much it keeps for us.
    ///
    /// # Errors
    /// When that is too much.
    pub(super) async fn look_at_server(&self, control: &mut PgConnection) -> Result<Watched, End> {
        let asking = Watched::ask(control, &self.memory.slot);
        let watched = self.outlet.within(self.outlet.config.patience, asking).await?;
        let Some(kept_from) = watched.kept_from else {
            return Err(End::Lost("the database has dropped the slot, or log that it had not read".to_owned()));
        };
        let retained = watched.end.at().saturating_sub(kept_from.at());
        let limit = self.outlet.config.max_retained;
        let before = self.outlet.board.status().retained_bytes;
        self.outlet.board.update(|status| status.retained_bytes = retained);
        if retained > limit {
            return Err(End::Lost(format!("the database would have had to keep more than {limit} bytes of its log")));
        }
        if retained > limit / 2 && before <= limit / 2 {
            tracing::warn!(retained, limit, "the database keeps much of its log for the change feed");
        }
        Ok(watched)
    }

    /// What the survey covers and the feed did not tell of is suspect. `now` was taken after the feed told of it.
    pub(super) fn miss(&mut self, survey: &Survey, now: Snapshot, missed: Missed) {
        let groups = self.memory.lacks(&survey.covered);
        self.memory.covered = survey.covered.clone();
        self.settling = Settling::joined(self.settling.take(), Settling::begin(&now, &groups));
        let after = (!missed.is_other_history).then_some(now);
        self.tell_gap(Gap { groups, after, reason: missed.reason, memory: None, position: None });
    }

    /// The gap is told of as soon as there is room. Its memory goes with it if nothing else is to be waited for.
    pub(super) fn tell_gap(&mut self, gap: Gap) {
        let memory = self.settling.is_none().then(|| self.memory.clone());
        let gap = Gap { memory, ..gap };
        self.outlet.note_gap(&gap);
        self.gap = Some(Gap::joined(self.gap.take(), gap));
    }
}

fn displaced_by(term: u64) -> End {
    SessionError::Unreachable(format!("a keeper of term {term} follows the feed")).into()
}

pub(super) fn read_snapshot(watched: &Watched) -> Result<Snapshot, SessionError> {
    let text = &watched.snapshot;
    text.parse().map_err(|_| SessionError::unfit(format!("`{text}` is no snapshot"), ""))
}
