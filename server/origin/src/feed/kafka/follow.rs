//! Following the topics: signing on, telling of what comes, remembering how far that is dealt with, and trying again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::PgConnection;
use tokio::time::MissedTickBehavior;

use super::attach::{Attached, Front, Lane, NotAttached, attach};
use super::message::{Message, ToldXid};
use super::offsets::{ByPlace, Held, Offsets, Place, TopicMemory, from_memory, go_on_from, to_memory};
use super::records::{Batch, Content, batches};
use super::requests::{ByTopic, Fetched, OFFSET_OUT_OF_RANGE, in_words};
use super::row::Tables;
use crate::fault::Fault;
use crate::feed::address::Address;
use crate::feed::asked::{Asked, ask};
use crate::feed::attempts::{Source, follow_until_closed};
use crate::feed::change::{Change, FeedEvent, FeedMemory, Gap, Gathered, Position};
use crate::feed::outlet::{End, FURTHER_TABLES, LOOK_EVERY, Outlet, is_wanted};
use crate::feed::said::Said;
use crate::feed::settling::Settling;
use crate::feed::status::{FeedState, add, count};
use crate::feed::tables::Survey;
use crate::group::{Feed, GroupConfig};
use crate::session::SessionError;
use crate::snapshot::{Snapshot, Xid};

/// The cluster is asked at most so often to remember how far everybody has dealt with the topics. Who takes over repeats what came since.
const REMEMBER_EVERY: Duration = Duration::from_secs(5);

/// Follows the topics for as long as the feed is open.
struct Follower {
    address: Address,
    outlet: Outlet,
    memory: FeedMemory,
    ids: BTreeMap<String, String>,
    offsets: Offsets,
    /// The number of the last event, and of the last gap.
    told: u64,
    told_gap: u64,
    /// Why reading has to begin anew at the end.
    missed: Option<String>,
    remembered: BTreeMap<String, TopicMemory>,
    said: Said,
}

/// One try.
struct Following {
    control: PgConnection,
    front: Front,
    tables: Tables,
    part: Part,
    /// Where transactions are now, and whether that may be asked once more: all that was fetched together is of transactions that had begun.
    now: Snapshot,
    may_ask: bool,
    settling: Option<Settling>,
    looks: u32,
    remembered_at: Instant,
    /// Behind the last message of each partition.
    ends: ByPlace,
}

/// What is gathered of one transaction, or of messages that name none.
#[derive(Default)]
struct Part {
    of: Option<Transaction>,
    committed_at: Option<SystemTime>,
    gathered: Gathered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Transaction {
    xid: Xid,
    /// It may be another database's.
    is_hearsay: bool,
}

/// Runs until the feed is closed.
pub(super) async fn run(address: Address, outlet: Outlet) {
    let memory = outlet.config.memory.clone().unwrap_or_default();
    let (next, ids) = from_memory(&memory.topics);
    let mut offsets = Offsets::default();
    offsets.go_on(next);
    let remembered = memory.topics.clone();
    let follower = Follower {
        address,
        outlet,
        memory,
        ids,
        offsets,
        told: 0,
        told_gap: 0,
        missed: None,
        remembered,
        said: Said::default(),
    };
    follow_until_closed(follower).await;
}

impl Source for Follower {
    fn outlet(&mut self) -> &mut Outlet {
        &mut self.outlet
    }

    async fn follow(&mut self) -> Result<Infallible, End> {
        self.outlet.wait_until_wanted(Feed::Kafka).await?;
        if let Some(fault) = self.outlet.config.kafka.fault() {
            return Err(self.outlet.refuse(fault));
        }
        let mut control = self.outlet.connect(&self.address).await?;
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        let survey = self.prepare(&mut control, &groups).await?;
        let attached = match attach(&self.outlet.config.kafka, self.outlet.config.patience).await {
            Ok(attached) => attached,
            Err(not) => return Err(self.not_attached(not)),
        };
        // Only now: what was told of before the ends of the topics is seen by whoever asks from here on.
        let asked = self.ask(&mut control).await?;
        let now = asked.snapshot.clone();
        let Attached { front, lanes, held, ids } = attached;
        let settling = self.go_on(&held, ids, &survey, asked).await?;
        self.outlet.follows();
        let following = Following {
            control,
            tables: Tables::of(&groups, &survey),
            part: Part::default(),
            now,
            may_ask: true,
            settling,
            looks: 0,
            remembered_at: Instant::now(),
            ends: ends_of(&held),
            front,
        };
        self.pump(lanes, following).await
    }

    fn failed(&mut self, error: &SessionError) {
        self.outlet.note(error, &self.address.user);
    }
}

impl Follower {
    fn not_attached(&self, not: NotAttached) -> End {
        match not {
            NotAttached::Fault(fault) => self.outlet.refuse(fault),
            NotAttached::Failed(error) => error.into(),
        }
    }

    async fn ask(&self, control: &mut PgConnection) -> Result<Asked, SessionError> {
        self.outlet.within(self.outlet.config.patience, ask(control)).await
    }

    async fn prepare(&mut self, control: &mut PgConnection, groups: &[GroupConfig]) -> Result<Survey, End> {
        let survey = Survey::make(control, groups, Feed::Kafka).await?;
        self.outlet.tell_faults(survey.told());
        if survey.tables.is_empty() {
            let fault = Fault::unplaced("feed", "there is no table to be followed", "see the faults of the groups");
            return Err(self.outlet.refuse(fault));
        }
        Ok(survey)
    }

    /// Goes on where the reading was, if nothing can have been missed; otherwise begins at the end, after which everything is suspect.
    async fn go_on(
        &mut self,
        held: &BTreeMap<Place, Held>,
        ids: BTreeMap<String, String>,
        survey: &Survey,
        asked: Asked,
    ) -> Result<Option<Settling>, End> {
        let from = match self.missed.take().or_else(|| self.made_anew(&ids)) {
            Some(reason) => Err(reason),
            None => go_on_from(&self.offsets.next, held),
        };
        self.ids = ids;
        match from {
            Ok(next) => {
                self.offsets.go_on(next);
                self.tell_of_missed(survey, FURTHER_TABLES, asked, None).await
            }
            Err(reason) => {
                // Until it is told of, it is not over.
                self.missed = Some(reason.clone());
                self.memory.covered.clear();
                self.offsets.begin(ends_of(held), self.told + 1);
                let settling = self.tell_of_missed(survey, &reason, asked, None).await?;
                self.missed = None;
                Ok(settling)
            }
        }
    }

    fn made_anew(&self, ids: &BTreeMap<String, String>) -> Option<String> {
        let differs = |(topic, id): &(&String, &String)| {
            ids.get(*topic).is_some_and(|now| !id.is_empty() && !now.is_empty() && now != *id)
        };
        self.ids.iter().find(differs).map(|(topic, _)| format!("the topic `{topic}` was made anew"))
    }

    /// Tells which entries are suspect: those of groups that were not told of. `settling` is what is waited for already.
    async fn tell_of_missed(
        &mut self,
        survey: &Survey,
        reason: &str,
        asked: Asked,
        settling: Option<Settling>,
    ) -> Result<Option<Settling>, End> {
        let is_other_history = !self.memory.timeline.is_empty() && self.memory.timeline != asked.timeline;
        if is_other_history {
            self.memory.covered.clear();
        }
        self.memory.timeline = asked.timeline;
        let groups = self.memory.lacks(&survey.covered);
        self.memory.covered = survey.covered.clone();
        if groups.is_empty() {
            return Ok(settling);
        }
        let settling = Settling::joined(settling, Settling::begin(&asked.snapshot, &groups));
        let (reason, after) = match is_other_history {
            true => ("another server has taken over", None),
            false => (reason, Some(asked.snapshot)),
        };
        let memory = settling.is_none().then(|| self.memory_of(self.missed.is_some()));
        self.tell_gap(Gap { groups, after, reason: reason.to_owned(), memory, position: None }).await?;
        Ok(settling)
    }

    /// What is to be remembered now: how far everybody has dealt with the topics, or where reading begins.
    fn memory_of(&self, begins: bool) -> FeedMemory {
        let offsets = if begins { &self.offsets.next } else { self.offsets.dealt() };
        FeedMemory { topics: to_memory(offsets, &self.ids), ..self.memory.clone() }
    }

    async fn tell_gap(&mut self, gap: Gap) -> Result<(), End> {
        self.outlet.note_gap(&gap);
        self.told += 1;
        self.told_gap = self.told;
        let gap = Gap { position: Some(Position::new(self.told)), ..gap };
        self.hand_out(gap.weight(), FeedEvent::Gap(gap)).await
    }

    /// However long it takes until there is room: nothing is read meanwhile, and the brokers keep what comes.
    async fn hand_out(&self, weight: usize, event: FeedEvent) -> Result<(), End> {
        self.outlet.places.room_for(weight).await?.take(event);
        Ok(())
    }

    async fn pump(&mut self, lanes: Vec<Lane>, mut following: Following) -> Result<Infallible, End> {
        let mut watching = tokio::time::interval(self.outlet.config.watch_every);
        watching.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fetching = FuturesUnordered::new();
        for lane in lanes {
            let next = lane.next(&self.offsets.next);
            fetching.push(lane.fetch(next));
        }
        loop {
            tokio::select! {
                biased;
                changed = self.outlet.confirmed.changed() => {
                    changed.map_err(|_| End::Closed)?;
                    self.note_confirmed();
                }
                _ = watching.tick() => self.watch(&mut following).await?,
                changed = self.outlet.groups.changed() => {
                    changed.map_err(|_| End::Closed)?;
                    self.look_again(&mut following).await?;
                }
                Some((lane, fetched)) = fetching.next() => {
                    self.take(fetched?, &mut following).await?;
                    let next = lane.next(&self.offsets.next);
                    fetching.push(lane.fetch(next));
                }
            }
        }
    }

    fn note_confirmed(&mut self) {
        let confirmed = *self.outlet.confirmed.borrow_and_update();
        self.offsets.confirm(confirmed.at());
        self.outlet.board.update(|status| status.confirmed = confirmed);
    }

    async fn take(&mut self, fetched: ByTopic<Fetched>, following: &mut Following) -> Result<(), End> {
        following.may_ask = true;
        for (topic, partitions) in fetched {
            let topic: Arc<str> = topic.into();
            for fetched in partitions {
                let place = Place { topic: Arc::clone(&topic), partition: fetched.partition };
                let partition = fetched.partition;
                match (fetched.error, self.offsets.next.get(&place)) {
                    (0, Some(next)) => self.read(&place, *next, &fetched, following).await?,
                    (OFFSET_OUT_OF_RANGE, Some(next)) => {
                        let reason =
                            format!("partition {partition} of `{topic}` does not hold message {next} any more");
                        return Err(self.miss(reason));
                    }
                    (_, None) => {}
                    (error, _) => {
                        let problem = format!("partition {partition} of `{topic}`: {}", in_words(error));
                        return Err(SessionError::Unreachable(problem).into());
                    }
                }
            }
        }
        let waiting = following.ends.iter().map(|(place, end)| end - self.offsets.next.get(place).unwrap_or(end));
        let waiting = waiting.map(|messages| messages.max(0) as u64).sum();
        self.outlet.board.update(|status| status.lag_messages = waiting);
        Ok(())
    }

    /// Something may be missing: reading begins anew at the end.
    fn miss(&mut self, reason: String) -> End {
        self.missed = Some(reason.clone());
        End::Lost(reason)
    }

    /// Tells of what a partition has sent. If that fails, all of it is read once more.
    async fn read(
        &mut self,
        place: &Place,
        from: i64,
        fetched: &Fetched,
        following: &mut Following,
    ) -> Result<(), End> {
        let mut next = from;
        for batch in batches(&fetched.records) {
            if batch.last < next {
                continue;
            }
            if batch.first > next || batch.is_thinned() {
                let Place { topic, partition } = place;
                let reason = format!(
                    "messages from {next} on of partition {partition} of `{topic}` were removed before they were read"
                );
                return Err(self.miss(reason));
            }
            self.gather(place, next, &batch, following).await?;
            next = batch.last + 1;
            // A long batch keeps others waiting who run on this thread.
            tokio::task::yield_now().await;
        }
        self.tell(&mut following.part).await?;
        following.ends.insert(place.clone(), fetched.end);
        if next > from {
            self.offsets.read(place, next, self.told);
        }
        Ok(())
    }

    async fn gather(&mut self, place: &Place, next: i64, batch: &Batch, following: &mut Following) -> Result<(), End> {
        if let Content::Unreadable(problem) = batch.content {
            self.take_poison(place, batch.first, &problem, following).await?;
        }
        for record in batch.records() {
            match record {
                Err(malformed) => self.take_poison(place, batch.first, &malformed, following).await?,
                Ok(record) if record.offset < next => {}
                Ok(record) => match record.value.map(Message::read) {
                    // Such a message lets a topic forget its key, of which another has told.
                    None | Some(Ok(None)) => {}
                    Some(Ok(Some(message))) => self.take_message(&message, following).await?,
                    Some(Err(poison)) => self.take_poison(place, record.offset, &poison, following).await?,
                },
            }
        }
        Ok(())
    }

    async fn take_message(&mut self, message: &Message, following: &mut Following) -> Result<(), End> {
        count(&self.outlet.board.counters.rows);
        let of = self.transaction(message.xid, following).await?;
        self.turn_to(of, &mut following.part).await?;
        let part = &mut following.part;
        part.committed_at = part.committed_at.or(message.committed_at);
        let taken = following.tables.take(message, &mut part.gathered);
        let counters = &self.outlet.board.counters;
        add(&counters.null_keys, taken.mapped.null_keys);
        add(&counters.untold_keys, taken.mapped.untold_keys);
        let table = message.schema.iter().chain([&message.table]).cloned().collect::<Vec<_>>().join(".");
        if taken.is_unmapped {
            count(&counters.unmapped);
            if self.said.is_news("unmapped", &table) {
                tracing::info!(table, "a topic tells of a table that no group names");
            }
        }
        if taken.mapped.untold_keys > 0 && self.said.is_news("untold", &table) {
            tracing::warn!(
                table,
                "a message does not tell the key of its row, so every key of its groups is invalidated"
            );
        }
        if taken.mapped.null_keys > 0 && self.said.is_news("null", &table) {
            tracing::info!(table, "a changed row has no key, since a column of it is NULL");
        }
        Ok(())
    }

    async fn take_poison(
        &mut self,
        place: &Place,
        offset: i64,
        poison: &impl std::fmt::Display,
        following: &mut Following,
    ) -> Result<(), End> {
        count(&self.outlet.board.counters.unreadable);
        self.turn_to(None, &mut following.part).await?;
        following.tables.take_poison(&mut following.part.gathered);
        if self.said.is_news("poison", poison) {
            let Place { topic, partition } = place;
            tracing::error!(%topic, partition, offset, %poison, "a message cannot be read, so every key is invalidated");
        }
        Ok(())
    }

    /// The transaction that a message names, if the database has given that number.
    async fn transaction(
        &mut self,
        told: Option<ToldXid>,
        following: &mut Following,
    ) -> Result<Option<Transaction>, End> {
        let Some(told) = told else { return Ok(None) };
        let named = |now: &Snapshot| match told {
            ToldXid::Whole(number) => Transaction { xid: Xid(number), is_hearsay: false },
            ToldXid::Low(low) => Transaction { xid: Xid::extend(low, now.xmax()), is_hearsay: true },
        };
        if named(&following.now).xid >= following.now.xmax() && std::mem::take(&mut following.may_ask) {
            following.now = self.ask(&mut following.control).await?.snapshot;
        }
        let transaction = named(&following.now);
        if transaction.xid < following.now.xmax() {
            return Ok(Some(transaction));
        }
        // It would keep its key out until the database gets there.
        if self.said.is_news("xid", &"ahead") {
            tracing::warn!(xid = %transaction.xid, "a message names a transaction that the database has not begun yet: is the topic of this database?");
        }
        Ok(None)
    }

    /// What belongs to another transaction than before is told of first.
    async fn turn_to(&mut self, of: Option<Transaction>, part: &mut Part) -> Result<(), End> {
        if of != part.of || part.gathered.is_full() {
            self.tell(part).await?;
        }
        if of != part.of || of.is_none() {
            part.of = of;
            part.gathered.begin();
        }
        Ok(())
    }

    async fn tell(&mut self, part: &mut Part) -> Result<(), End> {
        let committed_at = part.committed_at.take();
        if part.gathered.is_empty() {
            return Ok(());
        }
        let affected = part.gathered.take();
        self.outlet.board.count(&affected);
        count(&self.outlet.board.counters.transactions);
        self.outlet.note_delay(committed_at);
        let xid = part.of.map(|of| of.xid);
        if part.of.is_some_and(|of| of.is_hearsay) {
            // The number may mean nothing here, so that what has seen it need not have seen the change: nothing that is there survives. If it
            // does mean something, it keeps out who does not see the change yet.
            self.tell_change(Change { xid: None, committed_at, affected: affected.clone(), position: None }).await?;
        }
        self.told += 1;
        let position = Position::new(self.told);
        self.outlet.board.update(|status| status.read = position);
        self.tell_change(Change { xid, committed_at, affected, position: Some(position) }).await
    }

    async fn tell_change(&self, change: Change) -> Result<(), End> {
        self.hand_out(change.weight(), FeedEvent::Change(change)).await
    }

    /// Looks at the server's transactions, has the cluster remember how far we are, and looks at what may have been altered.
    async fn watch(&mut self, following: &mut Following) -> Result<(), End> {
        following.now = self.ask(&mut following.control).await?.snapshot;
        if let Some(gap) = Settling::end(&mut following.settling, following.now.clone()) {
            self.tell_gap(Gap { memory: Some(self.memory_of(false)), ..gap }).await?;
        }
        self.remember(following).await?;
        following.looks = (following.looks + 1) % LOOK_EVERY;
        if following.looks == 0 { self.look_again(following).await } else { Ok(()) }
    }

    async fn remember(&mut self, following: &mut Following) -> Result<(), End> {
        let is_settled = following.settling.is_none() && self.offsets.is_confirmed(self.told_gap);
        if !is_settled || following.remembered_at.elapsed() < REMEMBER_EVERY {
            return Ok(());
        }
        let memory = self.memory_of(false);
        if memory.topics == self.remembered {
            return Ok(());
        }
        following.remembered_at = Instant::now();
        self.remembered = memory.topics.clone();
        self.hand_out(0, FeedEvent::Remember(memory)).await
    }

    /// Looks at the groups, which may have been replaced, at their tables, which may have been altered, and at the topics.
    async fn look_again(&mut self, following: &mut Following) -> Result<(), End> {
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        if !is_wanted(&groups, Feed::Kafka) {
            self.outlet.board.update(|status| status.state = FeedState::Starting);
            self.memory.covered.clear();
            return Err(End::Lost("no group wants the feed".to_owned()));
        }
        let survey = self.prepare(&mut following.control, &groups).await?;
        following.tables = Tables::of(&groups, &survey);
        self.memory.covered.retain(|group, _| survey.covered.contains_key(group));
        let asked = self.ask(&mut following.control).await?;
        let settling = following.settling.take();
        following.settling = self.tell_of_missed(&survey, FURTHER_TABLES, asked, settling).await?;
        let layout = match following.front.look(&self.outlet.config.kafka).await {
            Ok(layout) => layout,
            Err(not) => return Err(self.not_attached(not)),
        };
        if let Some(reason) = self.made_anew(&layout.ids) {
            return Err(self.miss(reason));
        }
        match layout.leaders.keys().eq(self.offsets.next.keys()) {
            true => Ok(()),
            false => Err(End::Lost("the topics have other partitions".to_owned())),
        }
    }
}

fn ends_of(held: &BTreeMap<Place, Held>) -> ByPlace {
    held.iter().map(|(place, held)| (place.clone(), held.end)).collect()
}
