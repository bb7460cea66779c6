//! The origin: which group has a key, and loading it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::batch::{Arrivals, BatchLimits, Batcher, Request};
use crate::config::OriginConfig;
use crate::dispatch::{Dispatch, GroupMatch};
use crate::fault::Fault;
use crate::group::{Group, GroupConfig, GroupId};
use crate::group_file::{fault_group_set, fault_statements};
use crate::group_load::GroupLoad;
use crate::load::{LoadError, Loaded, TargetId};
use crate::pending::{PendingLoad, Progress};
use crate::session::{Connector, Wanted};
use crate::status::OriginStatus;
use crate::target::Targets;
use crate::waiting::WaitingLoads;
use crate::window::WindowClock;

/// The source of truth: groups, and the databases that answer their loads.
///
/// Dropping it stops everything at once; [`Origin::close`] lets queries under way end first.
#[derive(Debug)]
pub struct Origin {
    config: OriginConfig,
    dispatch: Dispatch,
    groups: Vec<GroupConfig>,
    loads: Vec<Arc<GroupLoad>>,
    /// The queue of each group's batcher; empty once the origin is closed.
    queues: Mutex<Vec<mpsc::Sender<Vec<Request>>>>,
    waiting: Arc<WaitingLoads>,
    targets: Arc<Targets>,
    batchers: tokio::sync::Mutex<JoinSet<()>>,
    /// Those who look after the targets.
    keepers: tokio::sync::Mutex<JoinSet<()>>,
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
        fault_group_set(groups, &mut faults);
        groups.iter().for_each(|group| fault_statements(group, &mut faults));
        let connectors = connectors(config, groups.len(), &mut faults);
        if !faults.is_empty() {
            return Err(faults);
        }
        let unreadable = |group: &GroupConfig, error| vec![group.fault("load", format!("{error}"), "")];
        let loads =
            groups.iter().map(|group| GroupLoad::new(group).map(Arc::new).map_err(|error| unreadable(group, error)));
        Ok(Blueprint { loads: loads.collect::<Result<_, _>>()?, targets: Targets::new(config, connectors) })
    }
}

impl Origin {
    /// Starts the origin. A database that is down is no error: it is used once it is up. A bad configuration is.
    ///
    /// Must be called within a tokio runtime.
    pub async fn start(config: OriginConfig, groups: Vec<GroupConfig>) -> Result<Origin, Vec<Fault>> {
        let Blueprint { targets, loads } = Blueprint::draw(&config, &groups)?;
        let clock = WindowClock::start()
            .map_err(|error| vec![Fault::unplaced("origin", format!("no thread can be started: {error}"), "")])?;
        let targets = Arc::new(targets);
        let (queues, batchers) = spawn_batchers(&config, &loads, &targets, Arc::new(clock));
        let mut keepers = JoinSet::new();
        for id in 0..targets.len() as u16 {
            keepers.spawn(Arc::clone(&targets).look_after(TargetId(id)));
        }
        Ok(Origin {
            dispatch: Dispatch::new(groups.iter().map(|group| group.key.clone()).collect()),
            waiting: Arc::new(WaitingLoads::new(config.max_waiting_loads)),
            queues: Mutex::new(queues),
            batchers: tokio::sync::Mutex::new(batchers),
            keepers: tokio::sync::Mutex::new(keepers),
            config,
            groups,
            loads,
            targets,
        })
    }

    /// The group that has `key`; a few nanoseconds when there is none, and never an allocation.
    pub fn matches<'k>(&self, key: &'k [u8]) -> Option<GroupMatch<'k>> {
        self.dispatch.find(key)
    }

    /// The rules of a group that [`Origin::matches`] gave.
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[usize::from(id.0)]
    }

    /// All groups, in the order of their ids.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How long a load may take.
    pub fn load_timeout(&self) -> std::time::Duration {
        self.config.load_timeout
    }

    /// Whether there are no groups, so that no key can be loaded.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Loads one key together with whatever else is missing in its group now; a key that the group's pattern does not
    /// have is absent.
    ///
    /// # Errors
    /// As for [`PendingLoad::result`].
    pub async fn load(&self, group: GroupId, key: Bytes) -> Result<Loaded, LoadError> {
        let mut messages = Messages::new();
        let load = self.prepare(group, key, &mut messages);
        self.send(messages);
        load.result().await
    }

    /// Begins loads that belong together, such as those of one MGET; the loads are in the order of the keys. Keys of one
    /// group share a query, up to the most keys of one.
    pub fn begin(&self, keys: impl IntoIterator<Item = (GroupId, Bytes)>) -> Vec<PendingLoad> {
        let mut messages = Messages::new();
        let loads = keys.into_iter().map(|(group, key)| self.prepare(group, key, &mut messages)).collect();
        self.send(messages);
        loads
    }

    /// Puts what is to be asked into the message to the group's batcher.
    fn prepare(&self, group: GroupId, key: Bytes, messages: &mut Messages) -> PendingLoad {
        let load = &self.loads[usize::from(group.0)];
        load.counters.count_load();
        let progress = match self.dispatch.captures(group, &key).map(|captures| Wanted { key, captures }) {
            None => Progress::Over(Ok(Loaded::absent_unasked())),
            Some(wanted) if load.is_surely_absent(&wanted) => {
                load.counters.count_unasked();
                Progress::Over(Ok(Loaded::absent_unasked()))
            }
            Some(wanted) => match self.waiting.enter(&load.waiting) {
                None => Progress::Over(Err(LoadError::TooManyWaiting { limit: self.waiting.cap() })),
                Some(waiting) => {
                    let (reply, answer) = oneshot::channel();
                    messages.entry(group).or_default().push(Request { wanted, reply, _waiting: waiting });
                    let limit = self.config.load_timeout;
                    Progress::Asked { answer, deadline: Instant::now() + limit, late: LoadError::Timeout { limit } }
                }
            },
        };
        PendingLoad { group: Arc::clone(load), progress }
    }

    /// Sends each group's message to its batcher. A message that is not taken is dropped, which tells its loads that the
    /// origin is closed: a queue is never full, since it takes as many messages as loads may wait.
    fn send(&self, messages: Messages) {
        let queues = self.queues.lock();
        for (group, message) in messages {
            if let Some(queue) = queues.get(usize::from(group.0)) {
                let _closed = queue.try_send(message);
            }
        }
    }

    /// Health and counters as they are now.
    pub fn status(&self) -> OriginStatus {
        OriginStatus {
            targets: self.targets.status(),
            groups: self.loads.iter().map(|load| load.status()).collect(),
            waiting_loads: self.waiting.now(),
            refused_loads: self.waiting.refused(),
        }
    }

    /// Waits for the queries under way and closes the connections. Loads that come later fail with
    /// [`LoadError::Closed`].
    pub async fn close(&self) {
        self.queues.lock().clear();
        let mut batchers = self.batchers.lock().await;
        while batchers.join_next().await.is_some() {}
        self.keepers.lock().await.shutdown().await;
        self.targets.close().await;
    }
}

/// What is sent to the batchers at once.
type Messages = BTreeMap<GroupId, Vec<Request>>;

fn spawn_batchers(
    config: &OriginConfig,
    loads: &[Arc<GroupLoad>],
    targets: &Arc<Targets>,
    clock: Arc<WindowClock>,
) -> (Vec<mpsc::Sender<Vec<Request>>>, JoinSet<()>) {
    let mut batchers = JoinSet::new();
    let limits =
        BatchLimits { window: config.batch_window, max_keys: config.batch_max, load_timeout: config.load_timeout };
    let queues = loads.iter().map(|load| {
        // The cap on waiting loads holds for all groups together, so no queue ever has more than that.
        let (sender, queue) = mpsc::channel(config.max_waiting_loads);
        let (group, arrivals) = (Arc::clone(load), Arrivals::new(queue));
        let batcher = Batcher { group, targets: Arc::clone(targets), clock: Arc::clone(&clock), arrivals, limits };
        batchers.spawn(batcher.run());
        sender
    });
    (queues.collect(), batchers)
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
