//! Who comes and goes.

use super::world::World;
use super::*;

#[test]
fn joining_twice_is_joining_once() {
    let mut state = new_state(3);
    let join = |life| Change::Join { description: description(1), incarnation: Incarnation(life) };
    assert_eq!(state.apply(join(5)), Applied::Joined { number: NodeNumber(1), epoch: 1 });
    assert_eq!(state.apply(join(5)), Applied::Joined { number: NodeNumber(1), epoch: 1 });
    assert_eq!(state.apply(join(6)), Applied::Joined { number: NodeNumber(1), epoch: 2 });
    assert_eq!(state.member(NodeNumber(1)).map(|member| member.incarnation), Some(Incarnation(6)));
}

#[test]
fn a_number_is_never_given_again() {
    let mut world = World::settled(2, 1);
    world.crash(NodeNumber(2));
    assert_eq!(world.apply(Change::Remove { number: NodeNumber(2) }), Applied::Done { epoch: world.state.epoch() });
    assert_eq!(world.start(description(1)), NodeNumber(3));
}

#[test]
fn who_is_down_keeps_its_seat_until_it_is_lost() {
    let mut world = World::settled(4, 2);
    let target = world.state.target().clone();
    world.crash(NodeNumber(4));
    assert_eq!(world.state.target(), &target);
    assert_eq!(world.apply(Change::Lose { number: NodeNumber(1) }), Applied::Refused(Refusal::IsUp(NodeNumber(1))));
    world.apply(Change::Lose { number: NodeNumber(4) });
    world.settle();
    let fewest = owned(&world.state)[..3].iter().copied().min();
    assert!(fewest >= Some(5400), "{fewest:?}");
}

#[test]
fn a_process_that_was_taken_for_dead_is_taken_back() {
    let mut world = World::settled(3, 3);
    let (number, incarnation) = (NodeNumber(2), world.incarnation(NodeNumber(2)));
    world.apply(Change::Down { number, incarnation });
    assert_eq!(world.state.slots().filter(|(_, slot)| slot.is_held_by(number)).count(), 0);
    world.apply(Change::Join { description: description(1), incarnation });
    world.settle();
    assert_eq!(owned(&world.state), [5462, 5461, 5461]);
}

#[test]
fn who_is_drained_holds_nothing_and_may_go() {
    let mut world = World::settled(3, 3);
    let number = NodeNumber(2);
    assert_eq!(world.apply(Change::Remove { number }), Applied::Refused(Refusal::HoldsSlots(number)));
    world.apply(Change::Drain { number });
    assert_eq!(world.state.member(number).map(|member| member.standing), Some(Standing::Draining));
    world.settle();
    assert_eq!(world.state.member(number).map(|member| member.standing), Some(Standing::Drained));
    assert_eq!(world.state.slots().filter(|(_, slot)| slot.is_held_by(number)).count(), 0);
    world.restart(number);
    assert_eq!(world.state.member(number).map(|member| member.standing), Some(Standing::Drained), "it stays so");
    assert!(matches!(world.apply(Change::Remove { number }), Applied::Done { .. }));
    assert_eq!(owned(&world.state), [8192, 8192]);
}

#[test]
fn a_drain_can_be_called_off() {
    let mut world = World::settled(3, 2);
    world.apply(Change::Drain { number: NodeNumber(2) });
    world.settle();
    world.apply(Change::Undrain { number: NodeNumber(2) });
    world.settle();
    let fewest = owned(&world.state).into_iter().min();
    assert!(fewest >= Some(5400), "{fewest:?}");
}

#[test]
fn the_last_node_is_not_drained() {
    let mut world = World::settled(2, 2);
    assert!(matches!(world.apply(Change::Drain { number: NodeNumber(1) }), Applied::Done { .. }));
    assert_eq!(
        world.apply(Change::Drain { number: NodeNumber(2) }),
        Applied::Refused(Refusal::LastNode(NodeNumber(2)))
    );
}

#[test]
fn who_crashes_while_it_is_drained_is_drained() {
    let mut world = World::settled(3, 2);
    world.apply(Change::Drain { number: NodeNumber(3) });
    world.crash(NodeNumber(3));
    assert_eq!(world.state.member(NodeNumber(3)).map(|member| member.standing), Some(Standing::Drained));
    world.settle();
}

#[test]
fn another_life_is_not_taken_for_this_one() {
    let mut world = World::settled(2, 2);
    let (number, before) = (NodeNumber(1), world.state.clone());
    for change in [
        Change::Down { number, incarnation: Incarnation(77) },
        Change::Leave { number, incarnation: Incarnation(77) },
        Change::Report { number, incarnation: Incarnation(77), positions: Vec::new(), epoch: 9 },
        Change::Synced { number, incarnation: Incarnation(77), slots: SlotSet::all(), epoch: 9 },
    ] {
        assert_eq!(world.apply(change), Applied::Refused(Refusal::AnotherLife(number)));
    }
    assert_eq!(world.state, before);
}

#[test]
fn nobody_is_weighed_beyond_measure() {
    let mut state = new_state(3);
    let description = Description { weight: u32::MAX, ..description(1) };
    let applied = state.apply(Change::Join { description, incarnation: Incarnation(1) });
    assert!(matches!(applied, Applied::Refused(Refusal::Other(_))), "{applied:?}");
}

#[test]
fn groups_and_keeper() {
    let mut world = World::settled(2, 2);
    let set_over = |text: &str, over| Change::SetGroups { text: text.to_owned(), over };
    let set_groups = |text: &str| set_over(text, None);
    assert!(matches!(world.apply(set_groups("a")), Applied::Done { .. }));
    assert_eq!(world.apply(set_groups("a")), Applied::Unchanged);
    assert!(matches!(world.apply(set_groups("b")), Applied::Done { .. }));
    assert_eq!(world.state.groups(), Some(&GroupsText { version: 2, text: "b".to_owned() }));
    assert_eq!(world.apply(set_over("c", Some(1))), Applied::Refused(Refusal::OtherGroups(2)));
    assert_eq!(world.apply(set_over("b", Some(1))), Applied::Unchanged, "what is wanted is there");
    assert!(matches!(world.apply(set_over("c", Some(2))), Applied::Done { .. }));
    assert_eq!(world.state.groups(), Some(&GroupsText { version: 3, text: "c".to_owned() }));

    let set_keeper = |number| Change::SetKeeper { number };
    assert!(matches!(world.apply(set_keeper(Some(NodeNumber(2)))), Applied::Done { .. }));
    assert_eq!(world.apply(set_keeper(Some(NodeNumber(2)))), Applied::Unchanged);
    world.crash(NodeNumber(1));
    let refused = Applied::Refused(Refusal::IsNotUp(NodeNumber(1)));
    assert_eq!(world.apply(set_keeper(Some(NodeNumber(1)))), refused);
    assert_eq!(world.apply(set_keeper(Some(NodeNumber(9)))), Applied::Refused(Refusal::NoSuchNode(NodeNumber(9))));
    assert_eq!(world.state.keeper(), Some(NodeNumber(2)));
    world.crash(NodeNumber(2));
    world.apply(Change::Remove { number: NodeNumber(2) });
    assert_eq!(world.state.keeper(), None);
}

#[test]
fn who_comes_back_without_its_disk_has_the_place_of_its_former_self() {
    let mut world = World::settled(3, 2);
    world.crash(NodeNumber(3));
    let former = description(2);
    let newcomer = world.start(Description { id: NodeId::from_bytes([9; 20]), ..former });
    assert_eq!(world.state.member(NodeNumber(3)).map(|member| member.standing), Some(Standing::Lost));
    world.settle();
    assert_eq!(world.state.slots().filter(|(_, slot)| slot.owner == Some(newcomer)).count(), 5461);

    // So it is if the cluster finds out later that the former one is gone.
    let (number, incarnation) = (NodeNumber(2), world.incarnation(NodeNumber(2)));
    world.start(Description { id: NodeId::from_bytes([10; 20]), ..description(1) });
    world.apply(Change::Down { number, incarnation });
    assert_eq!(world.state.member(number).map(|member| member.standing), Some(Standing::Lost));
}
