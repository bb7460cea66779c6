//! What the agreed state waits for from this node.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::NodeNumber;
use forebay_cluster::membership::Membership;
use forebay_cluster::state::{Applied, Change, ClusterState, Position, SlotSet};
use tracing::{debug, warn};

use super::follow::role;
use crate::groups;
use crate::node::Node;
use crate::roles::Role;

/// Slots that are handed over at the same time: their requests wait for one change of the state.
const TOGETHER: usize = 2048;

/// How long the taker may need to acknowledge the last effects, while requests wait.
const DRAIN: Duration = Duration::from_secs(1);

/// How long others are waited for, who would else ask for whole slots.
const DRAIN_OTHERS: Duration = Duration::from_millis(50);

/// Between two attempts at the same.
const AGAIN: Duration = Duration::from_millis(50);

/// Hands over what is to be another's, for ever.
pub async fn hand_over(node: Arc<Node>, membership: Arc<Membership>) -> Infallible {
    let (mut states, numbers) = (membership.state(), membership.number());
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let Some(number) = *numbers.borrow() else {
            let _changed = states.changed().await;
            continue;
        };
        let mut all_went = true;
        for (to, slots) in state.handovers(number) {
            for slots in chunks(&slots) {
                all_went &= hand_over_to(&node, &membership, state.epoch(), number, to, &slots).await;
            }
        }
        match all_went {
            true => drop(states.changed().await),
            false => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Tells how far this node's copies of slots without an owner have come, for ever. The one that has come furthest will be their owner.
pub async fn report(node: Arc<Node>, membership: Arc<Membership>) -> Infallible {
    let (mut changes, numbers) = (node.changes.subscribe(), membership.number());
    loop {
        // By then no effect of a former owner is taken any more, so that the positions stay what they are.
        let epoch = *changes.borrow_and_update();
        let state = Arc::clone(&membership.state().borrow());
        let number = *numbers.borrow();
        let told = match number {
            Some(number) if state.epoch() == epoch => report_as(&node, &membership, &state, number).await,
            _ => true,
        };
        match told {
            true => drop(changes.changed().await),
            false => tokio::time::sleep(AGAIN).await,
        }
    }
}

/// Whether there is nothing more to tell.
async fn report_as(node: &Node, membership: &Membership, state: &ClusterState, number: NodeNumber) -> bool {
    let (Some(here), Some(member)) = (node.member(), state.member(number)) else { return true };
    let holds = |slot: &u16| state.slot(*slot).replicas.contains(&number) && !state.has_reported(*slot, number);
    let orphaned: Vec<_> = state.orphaned().filter(holds).collect();
    if orphaned.is_empty() {
        return true;
    }
    let positions = here.replication.positions(orphaned.iter().copied());
    // A copy that is incomplete is told, too: at the beginning, behind all others.
    let position = |slot: u16| {
        positions.iter().find(|(known, _)| *known == slot).map_or_else(Position::default, |(_, position)| *position)
    };
    let positions = orphaned.into_iter().map(|slot| (slot, position(slot))).collect();
    let report = Change::Report { number, incarnation: member.incarnation, positions, epoch: state.epoch() };
    match membership.propose(report).await {
        Ok(_) => true,
        Err(error) => {
            warn!(%error, "it could not be told how far the copies here have come");
            false
        }
    }
}

fn chunks(slots: &SlotSet) -> Vec<SlotSet> {
    let all: Vec<_> = slots.iter().collect();
    all.chunks(TOGETHER).map(|chunk| chunk.iter().copied().collect()).collect()
}

/// Freezes the slots, lets the taker have the last effects, and has the change agreed on. Whatever comes, no slot stays frozen that is
/// still this node's. Tells whether they went.
///
/// **Invariant.** *There are never two owners of a slot.* From the freezing on this node serves it no more; it serves it again only when
/// the change is known not to have been made, or to be made never: the proposal is repeated until there is a definite answer.
async fn hand_over_to(
    node: &Node,
    membership: &Membership,
    epoch: u64,
    from: NodeNumber,
    to: NodeNumber,
    slots: &SlotSet,
) -> bool {
    let frozen: SlotSet = slots.iter().filter(|slot| freeze(node, *slot)).collect();
    if frozen.is_empty() {
        return false;
    }
    let went = match tokio::time::timeout(DRAIN, drained(node, &frozen, to)).await {
        Ok(true) => agree(membership, from, to, &frozen, epoch).await,
        Ok(false) | Err(_) => {
            debug!(%to, "the last effects are not acknowledged yet: the slots stay for now");
            false
        }
    };
    thaw(node, &membership.state().borrow(), from, &frozen);
    went
}

/// Waits until there are no copies of hot keys of the slots, and until `to` has all that was done to them, and other holders as well as far
/// as they keep up.
async fn drained(node: &Node, slots: &SlotSet, to: NodeNumber) -> bool {
    let Some(member) = node.member() else { return false };
    // The slots are frozen, so that no write begins from here on; those under way at the origin come to their end first.
    node.writes.turns.quiet(|slot| slots.contains(slot)).await;
    // The slots are frozen, so that there are no grants from here on.
    slots.iter().for_each(|slot| member.hot.grants.changed_slot(slot, None));
    for take_back in member.hot.grants.all_under_way() {
        take_back.over().await;
    }
    let is_whole = member.replication.drained(slots, to).await.is_ok();
    if is_whole {
        let _in_vain = tokio::time::timeout(DRAIN_OTHERS, member.replication.drained_everywhere()).await;
    }
    is_whole
}

async fn agree(membership: &Membership, from: NodeNumber, to: NodeNumber, slots: &SlotSet, epoch: u64) -> bool {
    loop {
        match membership.propose(Change::HandOver { from, to, slots: slots.clone(), epoch }).await {
            Ok(Applied::Refused(refusal)) => {
                debug!(%to, %refusal, "slots were not handed over");
                return false;
            }
            Ok(Applied::Done { epoch } | Applied::Joined { epoch, .. }) => {
                let mut states = membership.state();
                let _seen = states.wait_for(|state| state.epoch() >= epoch).await;
                return true;
            }
            Ok(Applied::Unchanged) => return true,
            Err(error) => {
                warn!(%to, %error, "it is not known yet whether slots were handed over");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn freeze(node: &Node, slot: u16) -> bool {
    let mut keyspace = node.store.lock(slot, node.clock.unix_millis());
    let serves = node.roles.get(slot).serves();
    if serves {
        node.roles.set(&mut keyspace, slot, Role::Frozen);
    }
    serves
}

/// Gives each slot the role that it has by `state`.
fn thaw(node: &Node, state: &ClusterState, number: NodeNumber, slots: &SlotSet) {
    for slot in slots.iter() {
        let mut keyspace = node.store.lock(slot, node.clock.unix_millis());
        if node.roles.get(slot) == Role::Frozen {
            let role = role(state.slot(slot), number);
            node.roles.set(&mut keyspace, slot, role);
            if role.serves() {
                // It may have been another's for a while, whose groups were others.
                groups::suspect(node, &mut keyspace, slot);
            }
        }
    }
    node.changes.send_modify(|_| {});
}
