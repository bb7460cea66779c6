//! What the leader does besides Raft: it declares silent members down, gives up those that stay away, and keeps Raft's own members and
//! voters in step with the cluster's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use openraft::{BasicNode, ChangeMembers};
use tokio::time::MissedTickBehavior;

use super::grants::is_voter;
use super::node::{Node, Seated};
use super::raft::{Command, Metrics, number_of, raft_id};
use super::voters::{self, Elector};
use crate::slots::NodeNumber;
use crate::state::{Change, ClusterState};

type Members = ChangeMembers<u64, BasicNode>;

/// Entries that a voter may be behind when it gets its vote.
const ABREAST: u64 = 50;

impl Node {
    /// Looks after the cluster whenever this node leads, until it ends.
    pub(super) async fn look_after(self: Arc<Node>) {
        let Some(seated) = self.seated.get() else { return };
        let mut ticks = tokio::time::interval(self.timing.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let is_changing = Arc::new(AtomicBool::new(false));
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.closing.cancelled() => return,
            }
            let now = Instant::now();
            let leadership = seated.leadership(&self.timing);
            let state = self.state();
            let changes = {
                let mut grants = seated.grants.lock();
                grants.look(leadership, &state, now);
                if !leadership.is_sure {
                    continue;
                }
                let silent = grants.condemn_silent(&state, now).into_iter();
                let down = silent.map(|(number, incarnation)| Change::Down { number, incarnation });
                let lost = grants.lost(now).into_iter().map(|number| Change::Lose { number });
                let forgotten = grants.forgotten(now).into_iter().map(|number| Change::Remove { number });
                down.chain(lost).chain(forgotten).collect::<Vec<_>>()
            };
            for change in changes {
                self.decree(change);
            }
            if !is_changing.load(Ordering::Relaxed) {
                if let Some((members, retain)) = step(&seated.metrics(), &state) {
                    self.change_raft(members, retain, &is_changing);
                }
            }
        }
    }

    /// Proposes what only the leader may. It is repeated as long as it is needed, so its failure is not.
    fn decree(self: &Arc<Node>, change: Change) {
        match &change {
            Change::Down { number, .. } => {
                tracing::warn!("cluster: node {number} is declared down: nothing was heard of it in time")
            }
            Change::Lose { number } => tracing::warn!("cluster: node {number} is given up for lost"),
            Change::Remove { number } => {
                tracing::warn!("cluster: node {number} is removed: it was away for {:?}", self.timing.remove_after)
            }
            _ => {}
        }
        let node = Arc::clone(self);
        tokio::spawn(async move {
            let Some(seated) = node.seated.get() else { return };
            let command = Command::Change { id: rand::random(), change };
            let outcome = node.write(seated, command, node.timing.proposal).await;
            tracing::debug!("cluster: {outcome}");
        });
    }

    fn change_raft(self: &Arc<Node>, members: Members, retain: bool, is_changing: &Arc<AtomicBool>) {
        is_changing.store(true, Ordering::Relaxed);
        tracing::debug!("cluster: {members}");
        let (node, is_changing) = (Arc::clone(self), Arc::clone(is_changing));
        tokio::spawn(async move {
            let Some(seated) = node.seated.get() else { return };
            let change = seated.raft.change_membership(members, retain);
            // What is not done by then is looked at anew.
            if let Ok(Err(error)) = tokio::time::timeout(node.timing.proposal, change).await {
                tracing::debug!("cluster: {error}");
            }
            is_changing.store(false, Ordering::Relaxed);
        });
    }
}

/// The next change of Raft's members, if they are not as they should be; and whether voters that lose their vote stay as learners.
fn step(metrics: &Metrics, state: &ClusterState) -> Option<(Members, bool)> {
    let membership = metrics.membership_config.membership();
    let present: BTreeSet<NodeNumber> = membership.nodes().map(|(id, _)| number_of(*id)).collect();
    let missing = state.members().filter(|member| !present.contains(&member.number));
    let missing: BTreeMap<u64, BasicNode> =
        missing.map(|member| (raft_id(member.number), BasicNode::new(member.description.raft_address()))).collect();
    if !missing.is_empty() {
        return Some((ChangeMembers::AddNodes(missing), true));
    }
    let electors: Vec<Elector> = state.members().map(|member| elector(metrics, member)).collect();
    let voters: BTreeSet<u64> = voters::choose(&electors).into_iter().map(raft_id).collect();
    let present_voters: BTreeSet<u64> = membership.voter_ids().collect();
    let is_joint = membership.get_joint_config().len() > 1;
    if !voters.is_empty() && (voters != present_voters || is_joint) {
        return Some((ChangeMembers::ReplaceAllVoters(voters), true));
    }
    let gone: BTreeSet<u64> =
        present.iter().filter(|number| state.member(**number).is_none()).map(|number| raft_id(*number)).collect();
    (!gone.is_empty()).then_some((ChangeMembers::RemoveNodes(gone), false))
}

fn elector(metrics: &Metrics, member: &crate::state::Member) -> Elector {
    let leads = metrics.id == raft_id(member.number);
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&raft_id(member.number))).copied().flatten();
    let last = metrics.last_log_index.unwrap_or(0);
    let is_abreast = leads || matched.is_some_and(|matched| matched.index + ABREAST >= last);
    Elector::new(member, is_voter(metrics, member.number), leads, is_abreast)
}

impl Seated {
    /// Gives the lead to a voter that has the most of the log, if there is one that may take it.
    pub(super) async fn hand_lead_over(&self, state: &ClusterState) {
        let metrics = self.metrics();
        let others = state
            .members()
            .filter(|member| member.standing == crate::state::Standing::Up && member.number != self.seat.number);
        let voters = others.filter(|member| is_voter(&metrics, member.number)).map(|member| raft_id(member.number));
        let matched = |id: &u64| {
            metrics.replication.as_ref().and_then(|all| all.get(id)).copied().flatten().map(|matched| matched.index)
        };
        if let Some(best) = voters.max_by_key(matched) {
            // A leader that is ending already has nothing to hand over.
            let _handed_on = self.raft.trigger().transfer_leader(best).await;
        }
    }
}
