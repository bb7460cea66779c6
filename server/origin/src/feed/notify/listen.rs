//! Listening: signing on, telling of what comes, and trying again.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions};
use tokio::time::MissedTickBehavior;

use super::payload::Payload;
use super::triggers::{self, Completed};
use crate::fault::Fault;
use crate::feed::address::Address;
use crate::feed::asked::ask;
use crate::feed::attempts::{Source, follow_until_closed};
use crate::feed::change::{Change, FeedEvent, FeedMemory, Gap, Gathered, Position};
use crate::feed::mapping::{BoundRelation, Column, Facts, Mapping, Relation};
use crate::feed::outlet::{End, FURTHER_TABLES, LOOK_EVERY, Outlet, is_wanted};
use crate::feed::said::Said;
use crate::feed::settling::Settling;
use crate::feed::status::{FeedState, add, count};
use crate::feed::tables::Survey;
use crate::group::{Feed, GroupConfig};
use crate::postgres::session_error;
use crate::session::SessionError;
use crate::snapshot::Xid;

/// The most kinds of notifications that are known. Everybody who may connect to the database may send any.
const MAX_KINDS: usize = 10_000;

/// Listens for as long as the feed is open.
struct Listener {
    address: Address,
    outlet: Outlet,
    memory: FeedMemory,
    /// The number of the last change.
    told: u64,
}

/// One try.
struct Listening {
    control: PgConnection,
    settling: Option<Settling>,
    reader: Reader,
    part: Part,
    /// The looks at the server, of which some are at the tables, too.
    looks: u32,
    /// When the last notification came; our own come all the time.
    heard: Instant,
}

/// From notifications to keys.
struct Reader {
    mapping: Mapping,
    facts: Facts,
    tables: HashMap<(String, String, Vec<String>), BoundRelation>,
    said: Said,
}

/// Runs until the feed is closed.
pub(super) async fn run(address: Address, outlet: Outlet) {
    let timeline = outlet.config.memory.as_ref().map(|memory| memory.timeline.clone()).unwrap_or_default();
    let memory = FeedMemory { timeline, ..FeedMemory::default() };
    let listener = Listener { address, outlet, memory, told: 0 };
    follow_until_closed(listener).await;
}

impl Source for Listener {
    fn outlet(&mut self) -> &mut Outlet {
        &mut self.outlet
    }

    async fn follow(&mut self) -> Result<Infallible, End> {
        // Nobody has told of what was committed since an earlier attempt ended.
        self.memory.covered.clear();
        self.outlet.wait_until_wanted(Feed::Notify).await?;
        let patience = self.outlet.config.patience;
        let name = self.outlet.config.name.clone();
        let mut control = self.outlet.connect(&self.address).await?;
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        let survey = self.prepare(&mut control, &groups).await?;

        let options = self.address.options.clone().application_name(&self.outlet.connection_name());
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(patience).connect_lazy_with(options);
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(&name).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let listener = self.outlet.within(patience, async { listening.await.map_err(session_error) }).await?;
        // What commits from here on is heard of.
        let settling = self.tell_of_missed(&mut control, &survey, "the feed begins to listen", None).await?;
        let reader = Reader::new(&groups, survey.facts);
        self.outlet.follows();
        let listening = Listening { control, settling, reader, part: Part::default(), looks: 0, heard: Instant::now() };
        self.pump(listener, listening).await
    }

    fn failed(&mut self, error: &SessionError) {
        self.outlet.note(error, &self.address.user);
    }
}

impl Listener {
    async fn prepare(&mut self, control: &mut PgConnection, groups: &[GroupConfig]) -> Result<Survey, End> {
        let survey = Survey::make(control, groups, Feed::Notify).await?;
        let Completed { made, refused } = triggers::complete(control, &self.outlet.config.name, &survey.tables).await?;
        // Until now nothing was told of them.
        let untold = survey.groups_of(&made);
        self.memory.covered.retain(|group, _| !untold.contains(group));
        self.outlet.tell_faults(survey.told().into_iter().chain(refused.clone()).collect());
        match refused {
            Some(fault) => Err(self.outlet.refuse(fault)),
            None if survey.tables.is_empty() => Err(self.outlet.refuse(Fault::unplaced(
                "feed",
                "there is no table to be followed",
                "see the faults of the groups",
            ))),
            None => Ok(survey),
        }
    }

    /// Tells which entries are suspect: those of groups that were not listened for. `settling` is what is waited for already.
    async fn tell_of_missed(
        &mut self,
        control: &mut PgConnection,
        survey: &Survey,
        reason: &str,
        settling: Option<Settling>,
    ) -> Result<Option<Settling>, End> {
        let groups = self.memory.lacks(&survey.covered);
        self.memory.covered = survey.covered.clone();
        let asked = self.outlet.within(self.outlet.config.patience, ask(control)).await?;
        let is_other_history = !self.memory.timeline.is_empty() && self.memory.timeline != asked.timeline;
        self.memory.timeline = asked.timeline;
        let settling = Settling::joined(settling, Settling::begin(&asked.snapshot, &groups));
        let (reason, after) = match is_other_history {
            true => ("another server has taken over", None),
            false => (reason, Some(asked.snapshot)),
        };
        let memory = settling.is_none().then(|| self.memory.clone());
        self.tell_gap(Gap { groups, after, reason: reason.to_owned(), memory, position: None }).await?;
        Ok(settling)
    }

    async fn tell_gap(&self, gap: Gap) -> Result<(), End> {
        self.outlet.note_gap(&gap);
        self.hand_out(gap.weight(), FeedEvent::Gap(gap)).await
    }

    /// Whoever does not take events for long gets a gap instead: until they are taken nothing is read, and the database holds what was sent.
    async fn hand_out(&self, weight: usize, event: FeedEvent) -> Result<(), End> {
        let patience = self.outlet.config.patience;
        let Ok(room) = tokio::time::timeout(patience, self.outlet.places.room_for(weight)).await else {
            return Err(SessionError::Unreachable(format!("nobody took what the feed tells for {patience:?}")).into());
        };
        room?.take(event);
        Ok(())
    }

    async fn pump(&mut self, mut listener: PgListener, mut listening: Listening) -> Result<Infallible, End> {
        let mut watching = tokio::time::interval(self.outlet.config.watch_every);
        watching.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // It is waited for to its end, so that nothing is lost of a notification that has come in part.
            let first = {
                let receiving = listener.try_recv();
                tokio::pin!(receiving);
                loop {
                    tokio::select! {
                        biased;
                        changed = self.outlet.confirmed.changed() => {
                            changed.map_err(|_| End::Closed)?;
                            let confirmed = *self.outlet.confirmed.borrow_and_update();
                            self.outlet.board.update(|status| status.confirmed = confirmed);
                        }
                        _ = watching.tick() => self.watch(&mut listening).await?,
                        changed = self.outlet.groups.changed() => {
                            changed.map_err(|_| End::Closed)?;
                            self.look_again(&mut listening).await?;
                        }
                        received = &mut receiving => break received.map_err(session_error)?,
                    }
                }
            };
            // Whatever comes behind a broken connection, something may be missing before it.
            let Some(first) = first else {
                return Err(SessionError::Unreachable("the connection that listens was cut".to_owned()).into());
            };
            listening.heard = Instant::now();
            let mut notifications = Some(first);
            while let Some(notification) = notifications {
                if notification.payload().starts_with('{') {
                    self.gather(notification.payload(), &mut listening).await?;
                }
                notifications = listener.next_buffered();
            }
            self.tell(&mut listening.part).await?;
            listening.heard = Instant::now();
        }
    }

    /// Adds what a notification tells of; what belongs to another transaction than before is told of first.
    async fn gather(&mut self, payload: &str, listening: &mut Listening) -> Result<(), End> {
        let Listening { reader, part, .. } = listening;
        count(&self.outlet.board.counters.rows);
        let read = Payload::read(payload);
        let xid = read.as_ref().ok().and_then(Payload::xid);
        if xid != part.xid || part.gathered.is_full() {
            self.tell(part).await?;
        }
        if xid != part.xid || xid.is_none() {
            part.xid = xid;
            part.gathered.begin();
        }
        let taken = read.map_err(|error| error.to_string()).and_then(|read| reader.take(&read, part, &self.outlet));
        if let Err(poison) = taken {
            count(&self.outlet.board.counters.unreadable);
            reader.mapping.groups().for_each(|group| part.gathered.add_all(group));
            if reader.said.is_news("poison", &poison) {
                let begins: String = payload.chars().take(80).collect();
                tracing::error!(poison, begins, "a notification cannot be read, so every key is invalidated");
            }
        }
        Ok(())
    }

    async fn tell(&mut self, part: &mut Part) -> Result<(), End> {
        if part.gathered.is_empty() {
            return Ok(());
        }
        self.told += 1;
        let position = Position::new(self.told);
        let affected = part.gathered.take();
        self.outlet.board.count(&affected);
        count(&self.outlet.board.counters.transactions);
        self.outlet.board.update(|status| status.read = position);
        let change = Change { xid: part.xid, committed_at: None, affected, position: Some(position) };
        self.hand_out(change.weight(), FeedEvent::Change(change)).await
    }

    /// Sends itself a notification, and looks whether one has come.
    async fn watch(&mut self, listening: &mut Listening) -> Result<(), End> {
        let patience = self.outlet.config.patience;
        if listening.heard.elapsed() > patience {
            return Err(SessionError::Unreachable(format!("nothing was heard for {patience:?}")).into());
        }
        let name = self.outlet.config.name.clone();
        let control = &mut listening.control;
        let asking = async {
            let beat = sqlx::query("SELECT pg_catalog.pg_notify($1, 'beat')").bind(name);
            beat.execute(&mut *control).await.map_err(session_error)?;
            ask(control).await
        };
        let now = self.outlet.within(patience, asking).await?.snapshot;
        if let Some(gap) = Settling::end(&mut listening.settling, now) {
            self.tell_gap(Gap { memory: Some(self.memory.clone()), ..gap }).await?;
        }
        listening.looks = (listening.looks + 1) % LOOK_EVERY;
        if listening.looks == 0 { self.look_again(listening).await } else { Ok(()) }
    }

    /// Looks at the groups, which may have been replaced, and at their tables, which may have been altered.
    async fn look_again(&mut self, listening: &mut Listening) -> Result<(), End> {
        let groups = Arc::clone(&self.outlet.groups.borrow_and_update());
        if !is_wanted(&groups, Feed::Notify) {
            self.outlet.board.update(|status| status.state = FeedState::Starting);
            return Err(End::Lost("no group wants the feed".to_owned()));
        }
        let survey = self.prepare(&mut listening.control, &groups).await?;
        listening.reader.map(&groups, survey.facts.clone());
        self.memory.covered.retain(|group, _| survey.covered.contains_key(group));
        if !self.memory.lacks(&survey.covered).is_empty() {
            let settling = listening.settling.take();
            listening.settling = self.tell_of_missed(&mut listening.control, &survey, FURTHER_TABLES, settling).await?;
        }
        Ok(())
    }
}

/// What is gathered of one transaction.
#[derive(Default)]
struct Part {
    xid: Option<Xid>,
    gathered: Gathered,
}

impl Reader {
    fn new(groups: &[GroupConfig], facts: Facts) -> Self {
        Reader { mapping: Mapping::of(groups, Feed::Notify), facts, tables: HashMap::new(), said: Said::default() }
    }

    /// From now on this is how notifications become keys.
    fn map(&mut self, groups: &[GroupConfig], facts: Facts) {
        let said = std::mem::take(&mut self.said);
        *self = Reader { said, ..Reader::new(groups, facts) };
    }

    fn take(&mut self, read: &Payload, part: &mut Part, outlet: &Outlet) -> Result<(), String> {
        if self.tables.len() >= MAX_KINDS {
            self.tables.clear();
        }
        let place = (read.s.clone(), read.t.clone(), read.c.clone());
        let bound = self.tables.entry(place).or_insert_with(|| {
            let columns = read.c.iter().map(|name| Column {
                name: name.clone(),
                type_oid: self.facts.type_of(&read.s, &read.t, name),
                in_identity: true,
            });
            let relation = Relation { schema: read.s.clone(), name: read.t.clone(), columns: columns.collect() };
            self.mapping.bind(&relation, &self.facts)
        });
        if bound.is_unmapped() {
            count(&outlet.board.counters.unmapped);
        }
        match read.change() {
            None => bound.truncate(&mut part.gathered),
            Some(change) => {
                let mapped = bound.change(&change, &mut part.gathered).map_err(|wrong| wrong.to_string())?;
                add(&outlet.board.counters.null_keys, mapped.null_keys);
                add(&outlet.board.counters.untold_keys, mapped.untold_keys);
            }
        }
        Ok(())
    }
}
