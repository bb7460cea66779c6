//! What the agreed state waits for from this node.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// The longest time between two attempts that have requests wait in vain.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// When slots may be frozen again to be handed over. Where that comes to nothing, since somebody writes one of them slowly or its taker is
/// slow, they are served for twice as long each time.
struct Pace {
    pause: Duration,
    next: Instant,
}

/// What came of one attempt.
struct Attempt {
    is_due: bool,
    wanted: usize,
    went: usize,
}

/// Hands over what is to be another's, for ever. Slots with writes under way at the origin are frozen apart from the others: there may always
/// be some, which take longer than requests are to wait.
pub async fn hand_over(node: Arc<Node>, membership: Arc<Membership>) -> Infallible {
    let (mut states, numbers) = (membership.state(), membership.number());
    let (mut quiet_pace, mut busy_pace) = (Pace::new(), Pace::new());
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let Some(number) = *numbers.borrow() else {
            let _changed = states.changed().await;
            continue;
        };
        let (mut quiet, mut busy) = (Attempt::new(&quiet_pace), Attempt::new(&busy_pace));
        let mut are_ready = true;
        for (to, slots) in state.handovers(number) {
            let (quiet_slots, busy_slots) = ready(&node, &slots, to);
            are_ready &= quiet_slots.len() + busy_slots.len() == slots.len();
            for (attempt, slots) in [(&mut quiet, quiet_slots), (&mut busy, busy_slots)] {
                for slots in chunks(&slots) {
                    attempt.wanted += slots.len();
                    if attempt.is_due {
                        attempt.went += hand_over_to(&node, &membership, state.epoch(), number, to, &slots).await;
                    }
                }
            }
        }
        quiet_pace.note(&quiet, Instant::now());
        busy_pace.note(&busy, Instant::now());
        match are_ready && quiet.is_complete() && busy.is_complete() {
            true => drop(states.changed().await),
            false => tokio::time::sleep(AGAIN).await,
        }
    }
}

impl Pace {
    fn new() -> Pace {
        Pace { pause: AGAIN, next: Instant::now() }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.next
    }

    fn note(&mut self, attempt: &Attempt, now: Instant) {
        if attempt.went > 0 {
            *self = Pace { pause: AGAIN, next: now };
        } else if attempt.is_due && attempt.wanted > 0 {
            *self = Pace { pause: (self.pause * 2).min(LONGEST_PAUSE), next: now + self.pause };
        }
    }
}

impl Attempt {
    fn new(pace: &Pace) -> Attempt {
        Attempt { is_due: pace.is_due(Instant::now()), wanted: 0, went: 0 }
    }

    fn is_complete(&self) -> bool {
        self.went == self.wanted
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

/// The slots that `to` can take at once: those that nobody writes at the origin, and the others. The rest stays for now, and is served.
fn ready(node: &Node, slots: &SlotSet, to: NodeNumber) -> (SlotSet, SlotSet) {
    let Some(member) = node.member() else { return Default::default() };
    let (held, busy) = (member.replication.held_by(slots, to), node.writes.turns.busy());
    held.iter().partition(|slot| !busy.contains(*slot))
}

fn chunks(slots: &SlotSet) -> Vec<SlotSet> {
    let all: Vec<_> = slots.iter().collect();
    all.chunks(TOGETHER).map(|chunk| chunk.iter().copied().collect()).collect()
}

/// Freezes the slots, lets the taker have the last effects, and has the change agreed on for those that it then holds. Whatever comes, no slot
/// stays frozen that is still this node's. Tells how many of them went.
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
) -> usize {
    let frozen: SlotSet = slots.iter().filter(|slot| freeze(node, *slot)).collect();
    if frozen.is_empty() {
        return 0;
    }
    let held = tokio::time::timeout(DRAIN, drained(node, &frozen, to)).await.unwrap_or_default();
    let left: SlotSet = frozen.iter().filter(|slot| !held.contains(*slot)).collect();
    if !left.is_empty() {
        debug!(%to, slots = left.len(), "the last effects are not acknowledged yet: slots stay for now");
        thaw(node, &membership.state().borrow(), from, &left);
    }
    let went = !held.is_empty() && agree(membership, from, to, &held, epoch).await;
    thaw(node, &membership.state().borrow(), from, &held);
    if went { held.len() } else { 0 }
}

/// Waits until there are no copies of hot keys of the slots, and until `to` has all that was done to them, and other holders as well as far
/// as they keep up. Tells which of the slots `to` holds.
async fn drained(node: &Node, slots: &SlotSet, to: NodeNumber) -> SlotSet {
    let Some(member) = node.member() else { return SlotSet::new() };
    // The slots are frozen, so that no write begins from here on; those under way at the origin come to their end first.
    node.writes.turns.quiet(|slot| slots.contains(slot)).await;
    // The slots are frozen, so that there are no grants from here on.
    slots.iter().for_each(|slot| member.hot.grants.changed_slot(slot, None));
    for take_back in member.hot.grants.all_under_way() {
        take_back.over().await;
    }
    let held = member.replication.drained(slots, to).await;
    if !held.is_empty() {
        let _in_vain = tokio::time::timeout(DRAIN_OTHERS, member.replication.drained_everywhere()).await;
    }
    held
}

/// Has the change agreed on, and waits until the state that is known here shows what came of it: by that the slots are thawed. Tells whether
/// they are `to`'s.
async fn agree(membership: &Membership, from: NodeNumber, to: NodeNumber, slots: &SlotSet, epoch: u64) -> bool {
    let change = Change::HandOver { from, to, slots: slots.clone(), epoch };
    let applied = membership.see_through(change.clone()).await;
    let mut states = membership.state();
    let _seen = states.wait_for(|state| shows(state, &change, &applied)).await;
    match applied {
        Applied::Done { .. } | Applied::Joined { .. } | Applied::Unchanged => true,
        Applied::Refused(refusal) => {
            debug!(%to, %refusal, "slots were not handed over");
            false
        }
    }
}

/// Whether `state` is as far as the answer to a change. An answer that has no epoch says that there was nothing to be done by that change:
/// where there is, be it that an earlier attempt was made meanwhile, the state is an older one.
fn shows(state: &ClusterState, change: &Change, applied: &Applied) -> bool {
    match applied {
        Applied::Done { epoch } | Applied::Joined { epoch, .. } => state.epoch() >= *epoch,
        Applied::Unchanged | Applied::Refused(_) => {
            !matches!(state.clone().apply(change.clone()), Applied::Done { .. } | Applied::Joined { .. })
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

#[cfg(test)]
mod tests {
    use forebay_cluster::NodeId;
    use forebay_cluster::state::{ClusterId, Description, Incarnation};

    use super::*;

    /// A cluster of two, the second of which holds copies of all that the first one owns.
    fn state() -> (ClusterState, NodeNumber, NodeNumber) {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        let mut join = |node: u8| {
            let description = Description {
                id: NodeId::from_bytes([node; 20]),
                host: format!("node-{node}"),
                open_port: 6379,
                direct_port: 0,
                http_port: 0,
                peer_port: 7000,
                raft_port: 7001,
                zone: None,
                weight: 1000,
                version: String::new(),
            };
            match state.apply(Change::Join { description, incarnation: Incarnation(u64::from(node)) }) {
                Applied::Joined { number, .. } => number,
                other => panic!("{other:?}"),
            }
        };
        let (first, second) = (join(1), join(2));
        let (incarnation, slots, epoch) = (Incarnation(2), SlotSet::all(), state.epoch());
        state.apply(Change::Synced { number: second, incarnation, slots, epoch });
        (state, first, second)
    }

    /// By a state that is behind the answer the slots are still this node's, and another's in truth.
    #[test]
    fn slots_are_thawed_by_no_state_that_is_behind_the_answer() {
        let (before, from, to) = state();
        let change = Change::HandOver { from, to, slots: [1, 2].into_iter().collect(), epoch: before.epoch() };
        let mut after = before.clone();
        let done = after.apply(change.clone());
        let again = after.apply(change.clone());
        assert!(matches!((&done, &again), (Applied::Done { .. }, Applied::Unchanged)), "{done:?} {again:?}");
        let mut down = after.clone();
        down.apply(Change::Down { number: to, incarnation: Incarnation(2) });
        let refused = down.apply(change.clone());
        assert!(matches!(refused, Applied::Refused(_)), "{refused:?}");
        for applied in [done, again, refused] {
            let [before, after, down] = [&before, &after, &down].map(|state| shows(state, &change, &applied));
            assert!(!before && after && down, "{applied:?}: {before} {after} {down}");
        }
    }

    /// What requests wait for in vain is tried less and less often; what goes, at once.
    #[test]
    fn slots_that_do_not_go_are_served_for_longer_each_time() {
        let (mut now, mut pace, mut served) = (Instant::now(), Pace::new(), Vec::new());
        let attempt = |is_due, wanted, went| Attempt { is_due, wanted, went };
        for _ in 0..10 {
            pace.note(&attempt(true, 2, 0), now);
            pace.note(&attempt(false, 2, 0), now);
            pace.note(&attempt(true, 0, 0), now);
            served.push(pace.next - now);
            assert!(!pace.is_due(now));
            now = pace.next;
            assert!(pace.is_due(now));
        }
        assert_eq!((served[0], served[9]), (AGAIN, LONGEST_PAUSE));
        assert!(served.is_sorted());
        pace.note(&attempt(true, 2, 1), now);
        assert!(pace.is_due(now) && pace.pause == AGAIN);
    }
}
