//! Using what the cluster has agreed on.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use forebay_cluster::SLOT_COUNT;
use forebay_cluster::state::{ClusterState, GroupsText};
use forebay_origin::{Fault, GroupConfig, Origin, parse_groups};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::{Told, one_line, suspect};
use crate::node::Node;

/// How faults of the agreed groups name their file.
pub(super) const AGREED: &str = "agreed groups";

/// Takes the groups of each new state over.
pub struct Follower {
    node: Arc<Node>,
    taken: u64,
    /// What the databases say of the groups that were taken over last.
    check: JoinSet<()>,
}

impl Follower {
    pub fn new(node: Arc<Node>) -> Follower {
        Follower { node, taken: 0, check: JoinSet::new() }
    }

    /// Makes the groups of a state this node's, if they are not yet. What cannot be used is told, and changes nothing.
    pub async fn take(&mut self, state: &ClusterState) {
        self.call_in(state).await;
        let Some(agreed) = state.groups().filter(|agreed| agreed.version != self.taken) else { return };
        self.taken = agreed.version;
        // What was found out about the former ones is of no interest any more.
        self.check = JoinSet::new();
        let faults = match self.use_groups(agreed).await {
            Ok(()) => Vec::new(),
            Err(faults) => {
                let used = self.node.origin.as_ref().map_or(0, |origin| origin.groups().version());
                for fault in &faults {
                    error!(version = agreed.version, used, "the agreed groups cannot be used: {}", one_line(fault));
                }
                faults
            }
        };
        self.node.groups.tell(Told { version: agreed.version, faults });
    }

    /// What was loaded by former generations of groups is not served any more.
    async fn call_in(&self, state: &ClusterState) {
        let Some(origin) = &self.node.origin else { return };
        let generations = state.called_in().generations().map(|(group, times)| (group.to_owned(), times as u16));
        let generations: HashMap<String, u16> = generations.collect();
        let news = self.node.groups.called_in.news(&generations);
        if origin.call_in(generations, || forget_all(&self.node)).await {
            self.node.groups.called_in.note(news);
            suspect_all(&self.node);
        }
    }

    /// Waits until the databases have been asked about the groups that were taken over last. For ever, if nobody asks.
    pub async fn checked(&mut self) {
        match self.check.join_next().await {
            Some(_) => {}
            None => std::future::pending().await,
        }
    }

    async fn use_groups(&mut self, agreed: &GroupsText) -> Result<(), Vec<Fault>> {
        let groups = parse_groups(&agreed.text, AGREED)?;
        let Some(origin) = &self.node.origin else {
            let hint = "start it with the --origin that the other nodes have";
            return Err(vec![Fault::unplaced("groups", "this node has no origin to load their keys from", hint)]);
        };
        let before = origin.groups();
        if before.version() == 0 && !before.is_empty() {
            info!("the groups of this node's configuration are not used any more: the cluster has agreed on groups");
        }
        origin.replace(groups.clone(), agreed.version).await?;
        // Not before: see the invariant.
        suspect_all(&self.node);
        info!(version = agreed.version, groups = groups.len(), "the agreed groups are used");
        self.check.spawn(check(Arc::clone(&self.node), Arc::clone(origin), agreed.version, groups));
        Ok(())
    }
}

/// As an agreement on a new generation of these groups, at a node that is alone.
pub async fn call_in_alone(node: &Node, groups: &BTreeSet<String>) {
    let Some(origin) = &node.origin else { return };
    let generations = node.groups.call_in(groups);
    if origin.call_in(generations, || forget_all(node)).await {
        node.groups.called_in.note(groups.iter().cloned());
        suspect_all(node);
    }
}

/// What a replica of the database loads from now on has to be newer than what is known by now: it may not have seen yet what calls for new
/// loads, and no key says so.
fn forget_all(node: &Node) {
    let now = Instant::now();
    (0..SLOT_COUNT).for_each(|slot| node.freshness.memory.forget(slot, now));
}

fn suspect_all(node: &Node) {
    for slot in 0..SLOT_COUNT {
        suspect(node, &mut node.store.lock(slot, node.clock.unix_millis()), slot);
    }
}

/// Tells what the databases of this node do not like about the groups: their loads will fail.
async fn check(node: Arc<Node>, origin: Arc<Origin>, version: u64, groups: Vec<GroupConfig>) {
    let faults = origin.check(groups).await.faults;
    for fault in &faults {
        warn!(version, "a group cannot be loaded here: {}", one_line(fault));
    }
    if !faults.is_empty() {
        node.groups.tell(Told { version, faults });
    }
}
