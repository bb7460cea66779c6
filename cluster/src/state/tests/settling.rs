//! From one target to the next.

use super::world::World;
use super::*;

#[test]
fn the_first_node_takes_everything_at_once() {
    let mut world = World::new(3);
    let first = world.start(description(1));
    assert_eq!(owned(&world.state), [usize::from(SLOT_COUNT)]);
    assert!(world.state.slots().all(|(_, slot)| slot.owner == Some(first) && slot.owned_since == 1));
    assert!(world.state.is_settled());
}

#[test]
fn a_newcomer_is_sent_copies_before_it_is_handed_anything() {
    let mut world = World::settled(3, 2);
    let newcomer = world.start(description(9));
    assert_eq!(owned(&world.state)[3], 0);
    let syncing = world.state.slots().filter(|(_, slot)| slot.syncing.contains(&newcomer)).count();
    assert_eq!(syncing, world.state.target().iter().filter(|(_, holders)| holders.contains(&newcomer)).count());
    assert_eq!(world.state.handovers(NodeNumber(1)), [], "nothing is handed over before there is a copy");
    world.settle();
    assert_eq!(owned(&world.state), [4096; 4]);
}

#[test]
fn what_loses_its_owner_goes_to_the_replica_that_has_come_furthest() {
    let mut world = World::settled(3, 3);
    let lost = NodeNumber(2);
    let slots: Vec<_> =
        world.state.slots().filter(|(_, slot)| slot.owner == Some(lost)).map(|(slot, _)| slot).collect();
    world.crash(lost);
    assert!(world.state.orphaned().eq(slots.iter().copied()));
    let report = |number: u32, sequence: u64, epoch: u64| {
        let positions = slots.iter().map(|slot| (*slot, Position { epoch: 1, sequence })).collect();
        Change::Report { number: NodeNumber(number), incarnation: Incarnation(number.into()), positions, epoch }
    };
    let epoch = world.state.epoch();
    assert_eq!(world.apply(report(1, 4, epoch)), Applied::Done { epoch: epoch + 1 });
    assert_eq!(world.apply(report(1, 4, epoch)), Applied::Unchanged);
    assert_eq!(world.state.orphaned().count(), slots.len(), "the other has not reported yet");
    assert_eq!(world.apply(report(3, 5, epoch)), Applied::Done { epoch: epoch + 2 });
    for slot in slots {
        let held = world.state.slot(slot);
        assert_eq!((held.owner, held.owned_since), (Some(NodeNumber(3)), epoch + 2));
        assert_eq!((&held.replicas[..], &held.syncing[..]), (&[][..], &[NodeNumber(1)][..]), "it is behind");
    }
}

#[test]
fn a_report_of_an_earlier_loss_does_not_count() {
    let mut world = World::settled(3, 3);
    let before = world.state.epoch();
    world.crash(NodeNumber(2));
    let slot = world.state.orphaned().next().expect("it had slots");
    let report = |epoch| Change::Report {
        number: NodeNumber(1),
        incarnation: Incarnation(1),
        positions: vec![(slot, Position::default()), (SLOT_COUNT, Position::default())],
        epoch,
    };
    assert_eq!(world.apply(report(before)), Applied::Unchanged);
    assert!(!world.state.has_reported(slot, NodeNumber(1)));
    assert_ne!(world.apply(report(before + 1)), Applied::Unchanged);
    assert!(world.state.has_reported(slot, NodeNumber(1)));
}

#[test]
fn a_copy_that_was_whole_once_is_not_taken_for_whole_after_a_restart() {
    let mut world = World::settled(3, 3);
    world.restart(NodeNumber(3));
    let late = world.state.epoch() - 1;
    let slot = (0..SLOT_COUNT).find(|slot| world.state.slot(*slot).owner == Some(NodeNumber(1))).expect("one");
    let synced = |epoch, incarnation| Change::Synced {
        number: NodeNumber(3),
        incarnation,
        slots: [slot].into_iter().collect(),
        epoch,
    };
    let incarnation = world.incarnation(NodeNumber(3));
    assert_eq!(world.apply(synced(late, incarnation)), Applied::Refused(Refusal::Overtaken(late)));
    let former = world.apply(synced(late + 1, Incarnation(3)));
    assert_eq!(former, Applied::Refused(Refusal::AnotherLife(NodeNumber(3))));
    assert_eq!(world.apply(synced(late + 1, incarnation)), Applied::Done { epoch: late + 2 });
    assert_eq!(world.apply(synced(late + 2, incarnation)), Applied::Unchanged);
    assert!(world.state.slot(slot).replicas.contains(&NodeNumber(3)));
}

#[test]
fn only_who_owns_a_slot_hands_it_over_and_only_to_a_whole_copy() {
    let mut world = World::settled(3, 2);
    let newcomer = world.start(description(9));
    let (number, slot) = world.state.slots().find(|(_, slot)| slot.syncing.contains(&newcomer)).expect("one");
    let (owner, epoch) = (slot.owner.expect("an owner"), world.state.epoch());
    let replica = slot.replicas[0];
    let hand_over = |from, to, epoch| Change::HandOver { from, to, slots: [number].into_iter().collect(), epoch };
    for wrong in [(owner, newcomer), (replica, owner), (owner, owner)] {
        let applied = world.apply(hand_over(wrong.0, wrong.1, epoch));
        assert!(matches!(applied, Applied::Refused(Refusal::Overtaken(_)) | Applied::Unchanged), "{applied:?}");
    }
    assert_eq!(world.apply(hand_over(owner, replica, epoch)), Applied::Done { epoch: epoch + 1 });
    let slot = world.state.slot(number);
    assert_eq!((slot.owner, slot.owned_since), (Some(replica), epoch + 1));
    assert!(slot.replicas.contains(&owner));
    assert_eq!(world.apply(hand_over(owner, replica, epoch)), Applied::Unchanged);
}

#[test]
fn without_copies_a_lost_slot_begins_anew_where_it_is_wanted() {
    let mut world = World::settled(3, 1);
    world.crash(NodeNumber(2));
    assert_eq!(world.state.orphaned().count(), 0);
    world.restart(NodeNumber(2));
    world.settle();
    assert_eq!(owned(&world.state), [5462, 5461, 5461]);
}

#[test]
fn when_all_are_down_the_first_to_return_has_everything_for_a_while() {
    let mut world = World::settled(3, 3);
    let target = world.state.target().clone();
    (1..=3).for_each(|number| world.crash(NodeNumber(number)));
    assert_eq!(world.state.orphaned().count(), usize::from(SLOT_COUNT));
    world.restart(NodeNumber(2));
    assert_eq!(owned(&world.state), [0, usize::from(SLOT_COUNT), 0]);
    world.restart(NodeNumber(1));
    world.restart(NodeNumber(3));
    world.settle();
    assert_eq!(world.state.target(), &target);
    assert!(world.state.slots().all(|(number, slot)| slot.owner == target.owner(number)));
}

#[test]
fn who_leaves_hands_everything_over_and_has_it_back_later() {
    let mut world = World::settled(3, 2);
    let (number, target) = (NodeNumber(1), world.state.target().clone());
    let incarnation = world.incarnation(number);
    world.apply(Change::Leave { number, incarnation });
    assert_eq!(world.state.target(), &target);
    world.to_do().into_iter().for_each(|change| {
        world.apply(change);
    });
    assert_eq!(owned(&world.state)[0], 0);
    world.crash(number);
    assert_eq!(world.state.orphaned().count(), 0);
    world.restart(number);
    world.settle();
    assert_eq!(owned(&world.state)[0], 5462);
}

#[test]
fn what_a_former_owner_said_late_does_not_count() {
    let mut world = World::settled(4, 2);
    let newcomer = world.start(description(9));
    let late = world.state.epoch();
    let is_between = |slot: &Slot| slot.syncing.contains(&newcomer) && slot.owner == Some(NodeNumber(2));
    let slot = (0..SLOT_COUNT).find(|slot| is_between(world.state.slot(*slot))).expect("one");
    let incarnation = world.incarnation(newcomer);
    let synced = Change::Synced { number: newcomer, incarnation, slots: [slot].into_iter().collect(), epoch: late };
    world.crash(NodeNumber(2));
    let reports = world.to_do().into_iter().filter(|change| matches!(change, Change::Report { .. }));
    reports.collect::<Vec<_>>().into_iter().for_each(|report| {
        world.apply(report);
    });
    let held = world.state.slot(slot).clone();
    assert!(held.owner.is_some() && held.syncing.contains(&newcomer), "{held:?}");
    assert_eq!(world.apply(synced), Applied::Refused(Refusal::Overtaken(late)));
    assert_eq!(*world.state.slot(slot), held);
}

#[test]
fn who_was_dropped_and_is_sent_a_slot_again_is_not_whole_by_what_was_said_before() {
    let mut world = World::settled(2, 2);
    let newcomer = world.start(description(9));
    let (late, incarnation) = (world.state.epoch(), world.incarnation(newcomer));
    let slots: SlotSet = world
        .state
        .to_sync(NodeNumber(1))
        .into_iter()
        .flat_map(|(number, slots)| slots.iter().filter(|_| number == newcomer).collect::<Vec<_>>())
        .collect();
    let synced = Change::Synced { number: newcomer, incarnation, slots, epoch: late };
    world.apply(Change::Drain { number: newcomer });
    world.apply(Change::Undrain { number: newcomer });
    assert_eq!(world.apply(synced), Applied::Refused(Refusal::Overtaken(late)));
}

#[test]
fn a_late_hand_over_does_not_take_a_slot_that_has_come_back() {
    let mut world = World::settled(3, 3);
    let slot = (0..SLOT_COUNT).find(|slot| world.state.slot(*slot).owner == Some(NodeNumber(1))).expect("one");
    let slots: SlotSet = [slot].into_iter().collect();
    let epoch = world.state.epoch();
    let hand_over = |from, to, epoch| Change::HandOver { from, to, slots: slots.clone(), epoch };
    let late = hand_over(NodeNumber(1), NodeNumber(2), epoch);
    world.apply(late.clone());
    world.apply(hand_over(NodeNumber(2), NodeNumber(1), epoch + 1));
    assert_eq!(world.state.slot(slot).owner, Some(NodeNumber(1)));
    assert_eq!(world.apply(late), Applied::Refused(Refusal::Overtaken(epoch)));
}
