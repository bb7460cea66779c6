//! The groups that are served, as one value: it is replaced as a whole while loads go on.
//!
//! **Invariant.** *A group's id stands for one definition (name, key, query and shape) for as long as the origin lives.* A group whose
//! definition changes gets an id that nothing had before, and one whose other rules change keeps its id. So whoever keeps an id across a
//! load learns by [`crate::Origin::rules`] whether what was loaded is still what the key's group says. A group
//! of which all that was loaded is called in gets a new id as well ([`crate::Origin::call_in`]).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::batch::Request;
use crate::dispatch::{Dispatch, GroupMatch};
use crate::group::{Group, GroupConfig, GroupId};
use crate::group_load::GroupLoad;
use crate::group_writes::GroupWrites;
use crate::status::GroupStatus;

/// All groups at one time.
#[derive(Debug)]
pub struct Groups {
    version: u64,
    dispatch: Dispatch,
    served: Vec<Arc<Served>>,
    by_id: HashMap<GroupId, usize>,
}

/// What is done with what a group's query gives.
#[derive(Debug, Clone)]
pub struct Rules {
    pub group: Arc<Group>,
    /// Its [`GroupConfig::fingerprint`], and how often what was loaded by it has been called in.
    pub definition: u16,
}

/// One group with what serves it.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) id: GroupId,
    pub(crate) rules: Rules,
    pub(crate) load: Arc<GroupLoad>,
    /// `None` if it has no statement for writes.
    pub(crate) writes: Option<Arc<GroupWrites>>,
    pub(crate) queue: Arc<Queue>,
    /// Of loads that only the primary may answer. The same one where there is no replica.
    pub(crate) primary_queue: Arc<Queue>,
}

/// The way to a group's batcher, which ends when this is closed.
#[derive(Debug)]
pub(crate) struct Queue(Mutex<Option<mpsc::Sender<Vec<Request>>>>);

impl Queue {
    pub(crate) fn new(sender: mpsc::Sender<Vec<Request>>) -> Self {
        Queue(Mutex::new(Some(sender)))
    }

    /// A message that is not taken is dropped, which tells its loads that nobody asks for them any more: a queue is never full, since
    /// it takes as many messages as loads may wait.
    pub(crate) fn send(&self, message: Vec<Request>) {
        if let Some(sender) = &*self.0.lock() {
            let _closed = sender.try_send(message);
        }
    }

    pub(crate) fn close(&self) {
        self.0.lock().take();
    }
}

impl Rules {
    /// `generation` tells how often what the group had loaded was called in, which no entry from before survives.
    pub(crate) fn of(group: GroupConfig, generation: u16) -> Self {
        Rules { definition: group.fingerprint().wrapping_add(generation), group: Arc::new(group) }
    }
}

impl Served {
    pub(crate) fn name(&self) -> &str {
        &self.rules.group.name
    }

    /// The same, by another id and other rules.
    pub(crate) fn with(&self, id: GroupId, rules: Rules) -> Served {
        let (load, writes) = (Arc::clone(&self.load), self.writes.clone());
        let (queue, primary_queue) = (Arc::clone(&self.queue), Arc::clone(&self.primary_queue));
        Served { id, rules, load, writes, queue, primary_queue }
    }

    /// Ends its batchers once they are done with what was sent to them.
    pub(crate) fn close(&self) {
        self.queue.close();
        self.primary_queue.close();
    }
}

impl Groups {
    pub(crate) fn new(version: u64, served: Vec<Arc<Served>>) -> Self {
        let patterns = served.iter().map(|served| (served.id, served.rules.group.key.clone()));
        Groups {
            version,
            dispatch: Dispatch::new(patterns),
            by_id: served.iter().enumerate().map(|(place, served)| (served.id, place)).collect(),
            served,
        }
    }

    /// Which version this is of what the nodes have agreed on; 0 for the groups that the origin was started with.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The group that has `key`; a few nanoseconds when there is none, and never an allocation.
    pub fn matches<'k>(&self, key: &'k [u8]) -> Option<GroupMatch<'k>> {
        self.dispatch.find(key)
    }

    /// The group that has `key`, with its rules.
    pub fn rules_of(&self, key: &[u8]) -> Option<&Rules> {
        let id = self.matches(key)?.group;
        self.served(id).map(|served| &served.rules)
    }

    /// All groups in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Group> {
        self.served.iter().map(|served| &*served.rules.group)
    }

    /// All groups in their order, each with its counters as they are now.
    pub fn with_status(&self) -> impl Iterator<Item = (&Group, GroupStatus)> {
        self.served.iter().map(|served| (&*served.rules.group, served.load.status()))
    }

    pub fn len(&self) -> usize {
        self.served.len()
    }

    pub fn is_empty(&self) -> bool {
        self.served.is_empty()
    }

    pub(crate) fn all(&self) -> &[Arc<Served>] {
        &self.served
    }

    pub(crate) fn served(&self, id: GroupId) -> Option<&Arc<Served>> {
        self.by_id.get(&id).map(|place| &self.served[*place])
    }

    /// The group that is loaded as this one is, so that its query's plan, its queue and its id can stay.
    pub(crate) fn alike(&self, group: &GroupConfig) -> Option<&Arc<Served>> {
        self.served
            .iter()
            .find(|served| served.rules.group.name == group.name && served.rules.group.is_defined_as(group))
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Served>> {
        self.served.iter().find(|served| served.rules.group.name == name)
    }
}
