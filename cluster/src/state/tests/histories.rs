//! Whatever happens, in whatever order, and however late it is committed.
//!
//! The nodes of these histories have contents in a sample of the slots: what a replica in sync holds is compared with what the owner
//! holds, effect by effect.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::world::World;
use super::*;

/// Contents are followed in every so many-th slot.
const SAMPLE: usize = 97;

const NODES: u32 = 8;

#[derive(Clone, Debug)]
enum Step {
    Start(u32),
    /// The process ends, and the cluster is told.
    Crash(u32),
    /// The process ends and starts anew before anybody noticed.
    Restart(u32),
    /// It is taken for dead, but lives.
    Suspect(u32),
    /// It asks to be a member again.
    Return(u32),
    Leave(u32),
    Drain(u32),
    Undrain(u32),
    Lose(u32),
    Remove(u32),
    Rebalance,
    /// The owners write.
    Write,
    /// Some replicas get what is on the way to them.
    Deliver(u16),
    /// Nodes do what they are to do, for a part of the slots. What they propose is committed, or is late.
    Work {
        part: u16,
        is_late: bool,
    },
    /// A late proposal is committed after all.
    Commit(prop::sample::Index),
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        4 => node.clone().prop_map(Step::Start),
        2 => node.clone().prop_map(Step::Crash),
        2 => node.clone().prop_map(Step::Restart),
        1 => node.clone().prop_map(Step::Suspect),
        2 => node.clone().prop_map(Step::Return),
        1 => node.clone().prop_map(Step::Leave),
        1 => node.clone().prop_map(Step::Drain),
        1 => node.clone().prop_map(Step::Undrain),
        1 => node.clone().prop_map(Step::Lose),
        1 => node.prop_map(Step::Remove),
        1 => Just(Step::Rebalance),
        4 => Just(Step::Write),
        2 => (0..4u16).prop_map(Step::Deliver),
        8 => (0..4u16, prop::bool::weighted(0.3)).prop_map(|(part, is_late)| Step::Work { part, is_late }),
        4 => any::<prop::sample::Index>().prop_map(Step::Commit),
    ]
}

/// What a process holds of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copy {
    position: Position,
    content: u64,
    /// Effects that are on the way.
    pending: VecDeque<(Position, u64)>,
}

impl Copy {
    fn take(&mut self, position: Position, effect: u64) {
        self.position = position;
        self.content = (self.content ^ effect).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17);
    }

    fn take_all(&mut self) {
        while let Some((position, effect)) = self.pending.pop_front() {
            self.take(position, effect);
        }
    }

    fn caught_up(&self) -> u64 {
        let mut copy = self.clone();
        copy.take_all();
        copy.content
    }
}

struct History {
    world: World,
    log: Vec<Change>,
    late: Vec<Change>,
    copies: BTreeMap<(u16, NodeNumber), Copy>,
    effects: u64,
}

impl History {
    fn new(copies: u8) -> History {
        let (log, late) = (Vec::new(), Vec::new());
        History { world: World::new(copies), log, late, copies: BTreeMap::new(), effects: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Start(node) => self.start(node),
            Step::Restart(node) => {
                if self.lives(node).is_some() {
                    self.start(node);
                }
            }
            Step::Crash(node) => {
                if let Some((number, incarnation)) = self.lives(node) {
                    self.world.lives.remove(&number);
                    self.copies.retain(|(_, holder), _| *holder != number);
                    self.apply(Change::Down { number, incarnation });
                }
            }
            Step::Suspect(node) => self.of_life(node, |number, incarnation| Change::Down { number, incarnation }),
            Step::Return(node) => {
                self.of_life(node, |_, incarnation| Change::Join { description: description(node), incarnation });
            }
            Step::Leave(node) => self.of_life(node, |number, incarnation| Change::Leave { number, incarnation }),
            Step::Drain(node) => self.of_member(node, |number| Change::Drain { number }),
            Step::Undrain(node) => self.of_member(node, |number| Change::Undrain { number }),
            Step::Lose(node) => self.of_member(node, |number| Change::Lose { number }),
            Step::Remove(node) => self.of_member(node, |number| Change::Remove { number }),
            Step::Rebalance => self.apply(Change::Rebalance),
            Step::Write => self.write(),
            Step::Deliver(part) => {
                // At some holders of a slot and not at others.
                let fits = |slot: u16, holder: NodeNumber| (u32::from(slot) + holder.0) % 4 == u32::from(part);
                let reached = self.copies.iter_mut().filter(|((slot, holder), _)| fits(*slot, *holder));
                reached.for_each(|(_, copy)| copy.take_all());
            }
            Step::Work { part, is_late } => self.work(|slot| slot % 4 == part, is_late),
            Step::Commit(index) => {
                if !self.late.is_empty() {
                    let change = self.late.swap_remove(index.index(self.late.len()));
                    self.apply(change);
                }
            }
        }
    }

    fn number(&self, node: u32) -> Option<NodeNumber> {
        self.world.state.member_by_id(&description(node).id).map(|member| member.number)
    }

    fn lives(&self, node: u32) -> Option<(NodeNumber, Incarnation)> {
        let number = self.number(node)?;
        self.world.lives.get(&number).map(|incarnation| (number, *incarnation))
    }

    fn of_life(&mut self, node: u32, change: impl Fn(NodeNumber, Incarnation) -> Change) {
        if let Some((number, incarnation)) = self.lives(node) {
            self.apply(change(number, incarnation));
        }
    }

    fn of_member(&mut self, node: u32, change: impl Fn(NodeNumber) -> Change) {
        if let Some(number) = self.number(node) {
            self.apply(change(number));
        }
    }

    /// A new process of the node, whether there is one already or not.
    fn start(&mut self, node: u32) {
        if let Some(number) = self.number(node) {
            self.copies.retain(|(_, holder), _| *holder != number);
        }
        let incarnation = self.world.next_life();
        self.apply(Change::Join { description: description(node), incarnation });
        let number = self.number(node).expect("a member");
        self.world.lives.insert(number, incarnation);
    }

    fn work(&mut self, fits: impl Fn(u16) -> bool, is_late: bool) {
        for change in self.world.to_do() {
            let Some(change) = self.prepare(change, &fits) else { continue };
            match is_late {
                true => self.late.push(change),
                false => self.apply(change),
            }
        }
    }

    /// What the proposer does before it proposes: for some of the slots alone.
    fn prepare(&mut self, change: Change, fits: &impl Fn(u16) -> bool) -> Option<Change> {
        let part_of = |slots: SlotSet| slots.iter().filter(|slot| fits(*slot)).collect::<SlotSet>();
        match change {
            Change::Synced { number, incarnation, slots, epoch } => {
                let slots = part_of(slots);
                slots.iter().filter(|slot| is_sampled(*slot)).for_each(|slot| self.sync(slot, number));
                (!slots.is_empty()).then_some(Change::Synced { number, incarnation, slots, epoch })
            }
            Change::HandOver { from, to, slots, epoch } => {
                let slots = part_of(slots);
                for copy in self.copies.iter_mut().filter(|((slot, _), _)| slots.contains(*slot)) {
                    copy.1.take_all();
                }
                (!slots.is_empty()).then_some(Change::HandOver { from, to, slots, epoch })
            }
            Change::Report { number, incarnation, positions, epoch } => {
                let reported = positions.into_iter().filter(|(slot, _)| fits(*slot));
                let position =
                    |slot| self.copies.get(&(slot, number)).map_or(Position::default(), |copy| copy.position);
                let positions: Vec<_> = reported.map(|(slot, _)| (slot, position(slot))).collect();
                (!positions.is_empty()).then_some(Change::Report { number, incarnation, positions, epoch })
            }
            other => Some(other),
        }
    }

    /// The owner sends the slot anew.
    fn sync(&mut self, slot: u16, to: NodeNumber) {
        let owner = self.world.state.slot(slot).owner.expect("the proposer");
        let copy = Copy { pending: VecDeque::new(), ..self.copies[&(slot, owner)].clone() };
        self.copies.insert((slot, to), copy);
    }

    fn write(&mut self) {
        // Who has proposed a hand-over serves no more until it knows what came of it.
        let slots_of = |change: &Change| match change {
            Change::HandOver { slots, .. } => Some(slots.clone()),
            _ => None,
        };
        let frozen: Vec<_> = self.late.iter().filter_map(slots_of).collect();
        for slot in sampled().filter(|slot| !frozen.iter().any(|slots| slots.contains(*slot))) {
            let state = self.world.state.slot(slot);
            let Some(owner) = state.owner.filter(|owner| self.world.lives.contains_key(owner)) else { continue };
            self.effects += 1;
            let former = self.copies[&(slot, owner)].position;
            let position = Position { epoch: state.owned_since, sequence: former.sequence + 1 };
            self.copies.get_mut(&(slot, owner)).expect("its own").take(position, self.effects);
            for holder in state.replicas.iter().chain(&state.syncing) {
                if let Some(copy) = self.copies.get_mut(&(slot, *holder)) {
                    copy.pending.push_back((position, self.effects));
                }
            }
        }
    }

    /// Makes a change, lets the nodes see it, and checks all that must hold.
    fn apply(&mut self, change: Change) {
        self.log.push(change.clone());
        let before = self.world.state.clone();
        let applied = self.world.apply(change.clone());
        let after = &self.world.state;
        match &applied {
            Applied::Done { epoch } => assert_eq!((*epoch, after.epoch()), (before.epoch() + 1, before.epoch() + 1)),
            Applied::Joined { epoch, .. } => {
                assert_eq!(*epoch, after.epoch());
                assert!(after.epoch() <= before.epoch() + 1);
            }
            Applied::Unchanged | Applied::Refused(_) => assert_eq!(*after, before),
        }
        check_structure(after);
        if !matches!(change, Change::Join { .. } | Change::Down { .. } | Change::Remove { .. }) {
            check_that_no_copy_is_lost(&before, after, &change);
        }
        sampled().for_each(|slot| self.see(slot, &before));
    }

    /// The nodes see what has become of the slot.
    fn see(&mut self, number: u16, before: &ClusterState) {
        let (former, slot) = (before.slot(number), self.world.state.slot(number));
        let (copies, lives) = (&mut self.copies, &self.world.lives);
        copies.retain(|(of, holder), _| *of != number || slot.is_held_by(*holder));
        let Some(owner) = slot.owner else {
            // The feed has ended: what was on the way does not come any more, and who was being sent the slot has a part of it.
            copies.retain(|(of, holder), _| *of != number || slot.replicas.contains(holder));
            copies.iter_mut().filter(|((of, _), _)| *of == number).for_each(|(_, copy)| copy.pending.clear());
            return;
        };
        if former.owner != Some(owner) || former.owned_since != slot.owned_since {
            let copy = copies.entry((number, owner)).or_default();
            copy.pending.clear();
            copy.position.epoch = slot.owned_since;
            copies.retain(|(of, holder), _| *of != number || !slot.syncing.contains(holder));
        }
        for replica in slot.replicas.iter().filter(|replica| lives.contains_key(replica)) {
            let copy = copies.get(&(number, *replica));
            let content = copy.unwrap_or_else(|| panic!("{replica} has nothing of slot {number}")).caught_up();
            assert_eq!(content, copies[&(number, owner)].caught_up(), "slot {number} of {owner} at {replica}");
        }
    }

    /// Everybody is there, nothing is late any more: all comes to where it is to be.
    fn end(&mut self) {
        while let Some(change) = self.late.pop() {
            self.apply(change);
        }
        let is_gone = |node: &u32| {
            self.number(*node)
                .and_then(|number| self.world.state.member(number))
                .is_some_and(|member| !self.world.lives.contains_key(&member.number) || member.standing != Standing::Up)
        };
        let gone: Vec<_> = (0..NODES).filter(is_gone).collect();
        for node in gone {
            self.start(node);
            self.of_member(node, |number| Change::Undrain { number });
        }
        for _ in 0..20 {
            self.work(|_| true, false);
        }
        let state = &self.world.state;
        assert!(self.world.to_do().is_empty() && (state.is_settled() || state.members().count() == 0));
        check_shares(state);
        // All processes end at once.
        let target = state.target().clone();
        let nodes: Vec<_> = (0..NODES).filter(|node| self.number(*node).is_some()).collect();
        nodes.iter().for_each(|node| self.start(*node));
        for _ in 0..20 {
            self.work(|_| true, false);
        }
        assert!(nodes.is_empty() || self.world.state.is_settled());
        assert_eq!(*self.world.state.target(), target);
    }
}

fn is_sampled(slot: u16) -> bool {
    usize::from(slot).is_multiple_of(SAMPLE)
}

fn sampled() -> impl Iterator<Item = u16> {
    (0..SLOT_COUNT).step_by(SAMPLE)
}

fn check_structure(state: &ClusterState) {
    let may_hold = |number: NodeNumber| state.member(number).is_some_and(Member::may_hold);
    for (number, slot) in state.slots() {
        let mut holders: Vec<_> = slot.holders().chain(slot.syncing.iter().copied()).collect();
        assert!(holders.iter().all(|holder| may_hold(*holder)), "slot {number}: {slot:?}");
        assert!(slot.owned_since.max(slot.syncing_since) <= state.epoch(), "slot {number}: {slot:?}");
        let count = holders.len();
        holders.sort_unstable();
        holders.dedup();
        assert_eq!(holders.len(), count, "slot {number} names somebody twice: {slot:?}");
    }
    assert!(state.reports.iter().all(|(slot, _)| state.slot(*slot).owner.is_none()), "reports are forgotten");
}

/// Nobody is let go as long as there are fewer copies than there can be. A succession counts what is behind out, and rightly so.
fn check_that_no_copy_is_lost(before: &ClusterState, after: &ClusterState, change: &Change) {
    if matches!(change, Change::Report { .. }) {
        return;
    }
    let seats = after.members().filter(|member| member.standing == Standing::Up && member.has_seat()).count();
    for ((number, before), (_, after_slot)) in before.slots().zip(after.slots()) {
        let (had, has) = (before.holders().count(), after_slot.holders().count());
        assert!(has >= had.min(after.copies().min(seats)), "slot {number}: {before:?}, {after_slot:?}");
        assert!(had == 0 || has > 0, "slot {number}: {before:?}, {after_slot:?}");
    }
}

fn check_shares(state: &ClusterState) {
    let seats = state.members().filter(|member| member.has_seat()).count();
    if seats > 0 {
        let most = owned(state).into_iter().max().unwrap_or_default();
        assert!(most * seats * 100 <= usize::from(SLOT_COUNT) * 102, "{most} of {seats} nodes");
    }
}

/// Anything at all, from a node that has lost its mind.
fn any_change() -> impl Strategy<Value = Change> {
    let number = || (0..12u32).prop_map(NodeNumber);
    let incarnation = || (0..12u64).prop_map(Incarnation);
    let slots = || {
        (0..SLOT_COUNT, 1..SLOT_COUNT)
            .prop_map(|(first, length)| (first..first.saturating_add(length).min(SLOT_COUNT)).collect::<SlotSet>())
    };
    let position = (0..9u64, 0..9u64).prop_map(|(epoch, sequence)| Position { epoch, sequence });
    let positions = prop::collection::vec((any::<u16>(), position), 0..30);
    prop_oneof![
        (0..9u32, 0..20u64, 0..200_000u32).prop_map(|(node, life, weight)| Change::Join {
            description: Description { weight, ..description(node) },
            incarnation: Incarnation(life),
        }),
        (number(), incarnation()).prop_map(|(number, incarnation)| Change::Down { number, incarnation }),
        number().prop_map(|number| Change::Lose { number }),
        (number(), incarnation()).prop_map(|(number, incarnation)| Change::Leave { number, incarnation }),
        number().prop_map(|number| Change::Drain { number }),
        number().prop_map(|number| Change::Undrain { number }),
        number().prop_map(|number| Change::Remove { number }),
        (number(), incarnation(), slots(), 0..50u64).prop_map(|(number, incarnation, slots, epoch)| Change::Synced {
            number,
            incarnation,
            slots,
            epoch
        }),
        (number(), number(), slots(), 0..50u64).prop_map(|(from, to, slots, epoch)| Change::HandOver {
            from,
            to,
            slots,
            epoch
        }),
        (number(), incarnation(), positions, 0..50u64).prop_map(|(number, incarnation, positions, epoch)| {
            Change::Report { number, incarnation, positions, epoch }
        }),
        Just(Change::Rebalance),
        proptest::option::of(number()).prop_map(|number| Change::SetKeeper { number }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_happens_copies_are_whole_and_all_comes_to_rest(
        steps in prop::collection::vec(any_step(), 1..80),
        copies in 1u8..5,
    ) {
        let mut history = History::new(copies);
        steps.iter().for_each(|step| history.step(step));
        history.end();
        // The same changes give the same state, to one that was saved and read in between as well.
        let mut twin = new_state(copies);
        for (index, change) in history.log.into_iter().enumerate() {
            twin.apply(change);
            if index % 8 == 0 {
                twin = postcard::from_bytes(&postcard::to_stdvec(&twin).unwrap()).unwrap();
            }
        }
        prop_assert!(twin == history.world.state, "the twin differs");
    }

    #[test]
    fn whatever_is_proposed_nothing_breaks(changes in prop::collection::vec(any_change(), 1..40), copies in 0u8..9) {
        let mut state = new_state(copies);
        for change in changes {
            let (before, applied) = (state.clone(), state.apply(change));
            if matches!(applied, Applied::Refused(_) | Applied::Unchanged) {
                prop_assert!(state == before, "{:?}", applied);
            }
            check_structure(&state);
        }
    }
}
