//! The origin: which group has a key, and loading it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::batch::{Arrivals, BatchLimits, Batcher, Request, Whom};
use crate::check::{self, Checked};
use crate::config::OriginConfig;
use crate::fault::Fault;
use crate::feed::{self, ChangeFeed, FeedConfig};
use crate::group::{Feed, GroupConfig, GroupId, WriteStrategy};
use crate::group_file::{fault_group_set, fault_invalidations, fault_load_many, fault_statements, fault_writes};
use crate::group_load::GroupLoad;
use crate::group_writes::{GroupWrites, with_captures};
use crate::groups::{Groups, Queue, Rules, Served};
use crate::load::{LoadError, Loaded, TargetId};
use crate::pending::{PendingLoad, Progress};
use crate::session::{Connector, Wanted};
use crate::status::OriginStatus;
use crate::target::Targets;
use crate::waiting::WaitingLoads;
use crate::window::WindowClock;
use crate::write::{NewValue, Write, WriteChange, WriteError, Written};

/// The source of truth: groups, and the databases that answer their loads.
///
/// Dropping it stops everything at once; [`Origin::close`] lets queries under way end first.
#[derive(Debug)]
pub struct Origin {
    config: OriginConfig,
    groups: ArcSwap<Groups>,
    /// The same for change feeds, which wait for them to be replaced.
    told_groups: watch::Sender<Arc<Vec<GroupConfig>>>,
    /// Whether there are any groups: all that a request asks which finds what it wants.
    has_groups: AtomicBool,
    /// Whether one of them has a write strategy: all that a write of another group's keys asks.
    writes: AtomicBool,
    waiting: Arc<WaitingLoads>,
    targets: Arc<Targets>,
    clock: Arc<WindowClock>,
    batchers: tokio::sync::Mutex<Batchers>,
    /// Those who look after the targets.
    keepers: tokio::sync::Mutex<JoinSet<()>>,
}

/// Whoever changes the groups holds them.
#[derive(Debug, Default)]
struct Batchers {
    tasks: JoinSet<()>,
    next_id: u32,
    /// How often what a group had loaded was called in, by the group's name.
    generations: HashMap<String, u16>,
    is_closed: bool,
}

/// What a configuration amounts to before any database is asked.
pub(crate) struct Blueprint {
    pub(crate) targets: Targets,
    pub(crate) loads: Vec<Arc<GroupLoad>>,
}

impl Blueprint {
    /// Reads URLs and statements; all that is wrong, at once.
    pub(crate) fn draw(config: &OriginConfig, groups: &[GroupConfig]) -> Result<Self, Vec<Fault>> {
        let mut faults = config.faults();
        faults.extend(faults_of(config, groups));
        let connectors = connectors(config, groups.len(), &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let loads = groups.iter().map(|group| group_load(group, None)).collect::<Result<_, _>>()?;
        Ok(Blueprint { loads, targets: Targets::new(config, connectors) })
    }
}

impl Origin {
    /// Starts the origin. A database that is down is no error: it is used once it is up. A bad configuration is.
    ///
    /// Must be called within a tokio runtime.
    pub async fn start(config: OriginConfig, groups: Vec<GroupConfig>) -> Result<Origin, Vec<Fault>> {
        let Blueprint { targets, .. } = Blueprint::draw(&config, &groups)?;
        let clock = WindowClock::start()
            .map_err(|error| vec![Fault::unplaced("origin", format!("no thread can be started: {error}"), "")])?;
        let targets = Arc::new(targets);
        let mut keepers = JoinSet::new();
        for id in 0..targets.len() as u16 {
            keepers.spawn(Arc::clone(&targets).look_after(TargetId(id)));
        }
        let origin = Origin {
            groups: ArcSwap::from_pointee(Groups::new(0, Vec::new())),
            told_groups: watch::Sender::default(),
            has_groups: AtomicBool::new(false),
            writes: AtomicBool::new(false),
            waiting: Arc::new(WaitingLoads::new(config.max_waiting_loads)),
            clock: Arc::new(clock),
            batchers: tokio::sync::Mutex::new(Batchers::default()),
            keepers: tokio::sync::Mutex::new(keepers),
            config,
            targets,
        };
        origin.replace(groups, 0).await?;
        Ok(origin)
    }

    /// Serves these groups in place of the former ones, at once and all together. What is defined as before keeps its id, its plan and
    /// its counters. Loads under way of what is not served any more come to their end: whoever waits for them asks
    /// [`Origin::rules`] whether they are still good.
    ///
    /// # Errors
    /// When they cannot be groups, whatever the databases say; then nothing has changed.
    pub async fn replace(&self, groups: Vec<GroupConfig>, version: u64) -> Result<(), Vec<Fault>> {
        let faults = faults_of(&self.config, &groups);
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut batchers = self.batchers.lock().await;
        if batchers.is_closed {
            return Ok(());
        }
        let before = self.groups.load_full();
        // Before anything is begun that would have to be ended again.
        let loads = groups.iter().map(|group| match before.alike(group) {
            Some(_) => Ok(None),
            None => group_load(group, before.named(&group.name).map(|former| &*former.load)).map(Some),
        });
        let loads = loads.collect::<Result<Vec<_>, _>>()?;
        let writes = groups.iter().map(|group| group_writes(group, before.named(&group.name)));
        let writes = writes.collect::<Result<Vec<_>, _>>()?;
        let served = groups.into_iter().zip(loads).zip(writes).map(|((group, load), writes)| {
            match (load, before.alike(&group)) {
                (None, Some(alike)) => {
                    let rules = Rules::of(group, batchers.generation(alike.name()));
                    Arc::new(Served { writes, ..alike.with(alike.id, rules) })
                }
                (load, _) => {
                    let load = load.unwrap_or_else(|| unreachable!("what is like nothing before has got its load"));
                    Arc::new(self.serve(&mut batchers, group, load, writes))
                }
            }
        });
        let after = Groups::new(version, served.collect());
        let gone: Vec<_> =
            before.all().iter().filter(|served| after.served(served.id).is_none()).map(Arc::clone).collect();
        self.has_groups.store(!after.is_empty(), Relaxed);
        self.writes.store(after.iter().any(|group| group.write != WriteStrategy::None), Relaxed);
        let told = after.iter().cloned().collect();
        self.groups.store(Arc::new(after));
        // Only now: what is loaded by a new group from here on is older than the gap by which a feed begins to tell of it.
        self.told_groups.send_replace(Arc::new(told));
        gone.iter().for_each(|served| served.close());
        while batchers.tasks.try_join_next().is_some() {}
        Ok(())
    }

    fn serve(
        &self,
        batchers: &mut Batchers,
        group: GroupConfig,
        load: Arc<GroupLoad>,
        writes: Option<Arc<GroupWrites>>,
    ) -> Served {
        let queue = self.gather(batchers, &load, Whom::Anybody);
        let primary_queue = match self.targets.len() {
            1 => Arc::clone(&queue),
            _ => self.gather(batchers, &load, Whom::Primary),
        };
        let rules = Rules::of(group, batchers.generation(&load.name));
        Served { id: batchers.new_id(), rules, load, writes, queue, primary_queue }
    }

    /// Has a group's loads gathered that come by the queue.
    fn gather(&self, batchers: &mut Batchers, load: &Arc<GroupLoad>, whom: Whom) -> Arc<Queue> {
        let OriginConfig { batch_window, batch_max, load_timeout, max_waiting_loads, .. } = self.config;
        // The cap on waiting loads holds for all groups together, so no queue ever has more than that.
        let (sender, queue) = mpsc::channel(max_waiting_loads);
        let batcher = Batcher {
            group: Arc::clone(load),
            targets: Arc::clone(&self.targets),
            clock: Arc::clone(&self.clock),
            arrivals: Arrivals::new(queue),
            limits: BatchLimits { window: batch_window, max_keys: batch_max, load_timeout },
            whom,
        };
        batchers.tasks.spawn(batcher.run());
        Arc::new(Queue::new(sender))
    }

    /// From now on nothing counts that was loaded for a group before its generation was this one; groups that are not named are of generation
    /// 0. Their entries are not of the present [`Rules::definition`] any more, and their loads under way not of the present [`GroupId`].
    /// Tells whether a group that is served is concerned; then `first` was called before anything of the new generation is loaded.
    pub async fn call_in(&self, generations: HashMap<String, u16>, first: impl FnOnce()) -> bool {
        let mut batchers = self.batchers.lock().await;
        let former = std::mem::replace(&mut batchers.generations, generations);
        let before = self.groups.load_full();
        let is_same = |batchers: &Batchers, name: &str| {
            former.get(name).copied().unwrap_or_default() == batchers.generation(name)
        };
        if before.iter().all(|group| is_same(&batchers, &group.name)) {
            return false;
        }
        first();
        let mut after = Vec::with_capacity(before.len());
        for served in before.all() {
            after.push(match is_same(&batchers, served.name()) {
                true => Arc::clone(served),
                false => {
                    let rules = Rules::of((*served.rules.group).clone(), batchers.generation(served.name()));
                    Arc::new(served.with(batchers.new_id(), rules))
                }
            });
        }
        self.groups.store(Arc::new(Groups::new(before.version(), after)));
        true
    }

    /// Tells when transactions of the primary are seen; `None` where there are no snapshots.
    pub fn visibility(&self) -> Option<feed::Visibility> {
        feed::Visibility::of(&self.config.url, &self.config.feed_name)
    }

    /// How feeds are followed here, by a keeper of this term.
    pub fn feed_config(&self, term: u64, memory: Option<crate::FeedMemory>) -> FeedConfig {
        let OriginConfig { feed_name, feed_max_retained, kafka, .. } = &self.config;
        let (name, kafka) = (feed_name.clone(), kafka.clone());
        FeedConfig { name, max_retained: *feed_max_retained, kafka, ..FeedConfig::new(term, memory) }
    }

    /// Follows the changes of the primary's rows, as the groups with this feed name them; whenever groups are replaced, as the new ones do.
    /// There is to be one follower in a cluster: who follows with a higher term displaces the others.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the primary can have no such feed. What may be otherwise in a moment is no error: it is told by [`ChangeFeed::status`].
    pub fn follow(&self, feed: Feed, config: FeedConfig) -> Result<ChangeFeed, Fault> {
        feed::follow(&self.config.url, feed, config, self.told_groups.subscribe())
    }

    /// What the databases say of these groups, without serving them.
    pub async fn check(&self, groups: Vec<GroupConfig>) -> Checked {
        check::examine(self.config.clone(), groups).await
    }

    /// The group that has `key` now.
    pub fn group_of(&self, key: &[u8]) -> Option<GroupId> {
        self.groups.load().matches(key).map(|found| found.group)
    }

    /// The rules of a group, if it is still the one that has `key`.
    pub fn rules(&self, id: GroupId, key: &[u8]) -> Option<Rules> {
        let groups = self.groups.load();
        let is_still = groups.matches(key).is_some_and(|found| found.group == id);
        groups.served(id).filter(|_| is_still).map(|served| served.rules.clone())
    }

    /// All groups as they are now.
    pub fn groups(&self) -> Arc<Groups> {
        self.groups.load_full()
    }

    /// How long a load may take.
    pub fn load_timeout(&self) -> std::time::Duration {
        self.config.load_timeout
    }

    /// Whether there are no groups, so that no key can be loaded.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.has_groups.load(Relaxed)
    }

    /// Whether a group has a write strategy.
    #[inline]
    pub fn writes(&self) -> bool {
        self.writes.load(Relaxed)
    }

    /// The group that has `key`, with its rules, if it has a write strategy.
    pub fn writes_of(&self, key: &[u8]) -> Option<(GroupId, Rules)> {
        let groups = self.groups.load();
        let id = groups.matches(key)?.group;
        let rules = &groups.served(id)?.rules;
        (rules.group.write != WriteStrategy::None).then(|| (id, rules.clone()))
    }

    /// Loads one key together with whatever else is missing in its group now; a key that the group's pattern does not
    /// have is absent.
    ///
    /// # Errors
    /// As for [`PendingLoad::result`].
    pub async fn load(&self, group: GroupId, key: Bytes) -> Result<Loaded, LoadError> {
        let mut messages = Messages::new();
        let load = self.prepare(&self.groups.load(), group, key, &mut messages);
        send(messages);
        load.result().await
    }

    /// Begins loads that belong together, such as those of one MGET; the loads are in the order of the keys. Keys of one
    /// group share a query, up to the most keys of one.
    pub fn begin(&self, keys: impl IntoIterator<Item = (GroupId, Bytes)>) -> Vec<PendingLoad> {
        let mut messages = Messages::new();
        let groups = self.groups.load();
        let loads = keys.into_iter().map(|(group, key)| self.prepare(&groups, group, key, &mut messages)).collect();
        send(messages);
        loads
    }

    /// Begins a load that only the primary may answer.
    pub fn begin_at_primary(&self, group: GroupId, key: Bytes) -> PendingLoad {
        let mut messages = Messages::new();
        let groups = self.groups.load();
        let load = self.prepare(&groups, group, key, &mut messages);
        let queue = groups.served(group).map(|served| Arc::clone(&served.primary_queue));
        for ((_, message), queue) in messages.into_values().zip(queue) {
            queue.send(message);
        }
        load
    }

    /// Puts what is to be asked into the message to the group's batcher.
    fn prepare(&self, groups: &Groups, group: GroupId, key: Bytes, messages: &mut Messages) -> PendingLoad {
        let Some(served) = groups.served(group) else {
            return PendingLoad { group: None, progress: Progress::Over(Err(LoadError::Replaced)) };
        };
        let load = &served.load;
        load.counters.count_load();
        let progress = match served.rules.group.key.matches(&key).map(|captures| Wanted { key, captures }) {
            None => Progress::Over(Ok(Loaded::absent_unasked())),
            Some(wanted) if load.is_surely_absent(&wanted) => {
                load.counters.count_unasked();
                Progress::Over(Ok(Loaded::absent_unasked()))
            }
            Some(wanted) => match self.waiting.enter(&load.waiting) {
                None => Progress::Over(Err(LoadError::TooManyWaiting { limit: self.waiting.cap() })),
                Some(waiting) => {
                    let (reply, answer) = oneshot::channel();
                    let message = messages.entry(group).or_insert_with(|| (Arc::clone(&served.queue), Vec::new()));
                    message.1.push(Request { wanted, reply, _waiting: waiting });
                    let limit = self.config.load_timeout;
                    Progress::Asked { answer, deadline: Instant::now() + limit, late: LoadError::Timeout { limit } }
                }
            },
        };
        PendingLoad { group: Some(Arc::clone(load)), progress }
    }

    /// Saves a value in the primary, and waits until that is committed.
    ///
    /// # Errors
    /// When it is not known to be committed; the error tells whether it may be, and whether it can be tried again.
    pub async fn save(&self, group: GroupId, key: Bytes, value: NewValue) -> Result<Written, WriteError> {
        self.write(group, Write { key, change: WriteChange::Save(value) }).await
    }

    /// Removes a key's row from the primary, and waits until that is committed.
    ///
    /// # Errors
    /// As for [`Origin::save`]; [`WriteError::NoStatement`] if the group has no `remove`.
    pub async fn remove(&self, group: GroupId, key: Bytes) -> Result<Written, WriteError> {
        self.write(group, Write { key, change: WriteChange::Remove }).await
    }

    async fn write(&self, group: GroupId, write: Write) -> Result<Written, WriteError> {
        self.write_all(group, vec![write]).await.pop().unwrap_or(Err(WriteError::NoStatement))
    }

    /// Makes many changes of one group's keys in the primary, in their order, with one statement for hundreds of them, and tells of each
    /// what became of it. What one statement writes is one transaction; what the database refuses is left out of it. Behind a write that
    /// failed otherwise nothing is tried, so that those of one key stay in their order.
    pub async fn write_all(&self, group: GroupId, writes: Vec<Write>) -> Vec<Result<Written, WriteError>> {
        let served = self.groups.load().served(group).map(Arc::clone);
        let Some((writing, rules)) = served.and_then(|served| Some((served.writes.clone()?, served.rules.clone())))
        else {
            return vec![Err(WriteError::NoStatement); writes.len()];
        };
        writing.write(&self.targets, self.config.load_timeout, with_captures(&rules.group, writes)).await
    }

    /// Health and counters as they are now.
    pub fn status(&self) -> OriginStatus {
        OriginStatus {
            targets: self.targets.status(),
            groups: self.groups.load().with_status().map(|(_, status)| status).collect(),
            waiting_loads: self.waiting.now(),
            refused_loads: self.waiting.refused(),
        }
    }

    /// Waits for the queries under way and closes the connections. Loads that come later fail with
    /// [`LoadError::Closed`].
    pub async fn close(&self) {
        let mut batchers = self.batchers.lock().await;
        batchers.is_closed = true;
        self.groups.load().all().iter().for_each(|served| served.close());
        while batchers.tasks.join_next().await.is_some() {}
        self.keepers.lock().await.shutdown().await;
        self.targets.close().await;
    }
}

impl Batchers {
    fn generation(&self, group: &str) -> u16 {
        self.generations.get(group).copied().unwrap_or_default()
    }

    fn new_id(&mut self) -> GroupId {
        self.next_id += 1;
        GroupId(self.next_id - 1)
    }
}

/// What is sent to the batchers at once.
type Messages = BTreeMap<GroupId, (Arc<Queue>, Vec<Request>)>;

fn send(messages: Messages) {
    for (queue, message) in messages.into_values() {
        queue.send(message);
    }
}

/// What is wrong with groups, whatever the databases say.
fn faults_of(config: &OriginConfig, groups: &[GroupConfig]) -> Vec<Fault> {
    let mut faults = Vec::new();
    fault_group_set(groups, &mut faults);
    for group in groups {
        fault_statements(group, &mut faults);
        fault_load_many(group, &mut faults);
        faults.extend(fault_of_arrays(config, group));
        fault_invalidations(group, &mut faults);
        fault_writes(group, &mut faults);
    }
    faults
}

/// A query for many keys is given arrays, which SQLite does not have.
fn fault_of_arrays(config: &OriginConfig, group: &GroupConfig) -> Option<Fault> {
    let is_sqlite = config.url.starts_with("sqlite:");
    (is_sqlite && group.load_many.is_some()).then(|| {
        let problem = "SQLite has no arrays that a query for many keys could be given";
        group.fault(
            "load_many",
            problem,
            "leave it out: SQLite is in this process, where a query for each key costs no way",
        )
    })
}

/// `former` had the group's name.
fn group_load(group: &GroupConfig, former: Option<&GroupLoad>) -> Result<Arc<GroupLoad>, Vec<Fault>> {
    let unreadable = |error| vec![group.fault("load", format!("{error}"), "")];
    GroupLoad::new(group, former).map(Arc::new).map_err(unreadable)
}

/// `former` had the group's name.
fn group_writes(group: &GroupConfig, former: Option<&Arc<Served>>) -> Result<Option<Arc<GroupWrites>>, Vec<Fault>> {
    let unreadable = |error| vec![group.fault("save", format!("{error}"), "")];
    let writes = GroupWrites::of(group).map_err(unreadable)?;
    let former = former.and_then(|former| former.writes.clone());
    Ok(writes.map(|writes| former.filter(|former| former.is_like(&writes)).unwrap_or(writes)))
}

/// Reads the URLs of the targets.
fn connectors(config: &OriginConfig, groups: usize, faults: &mut Vec<Fault>) -> Vec<Connector> {
    let mut connectors: Vec<Connector> = Vec::new();
    for (index, url) in config.targets().enumerate() {
        let place = if index == 0 { "origin".to_owned() } else { format!("origin replica {index}") };
        match Connector::parse(url, config.load_timeout, groups) {
            Ok(connector) if connectors.first().is_some_and(|primary| !primary.same_kind(&connector)) => faults.push(
                Fault::unplaced(place, "it is not the kind of database that the primary is", "both are one kind"),
            ),
            Ok(connector) => connectors.push(connector),
            Err(problem) => faults.push(Fault::unplaced(
                place,
                problem,
                "write postgres://user:password@host:5432/database or sqlite://FILE",
            )),
        }
    }
    connectors
}
