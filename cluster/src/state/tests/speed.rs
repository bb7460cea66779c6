//! What a state costs: printed, and bounded where it is no matter of time.

use std::time::Instant;

use super::world::World;
use super::*;

#[test]
fn a_whole_state_is_small() {
    for nodes in [3, 12] {
        let world = World::settled(nodes, 3);
        let size = postcard::to_stdvec(&world.state).unwrap().len();
        let mut orphaned = world;
        orphaned.crash(NodeNumber(1));
        (2..=nodes).for_each(|number| {
            orphaned.apply(Change::Report {
                number: NodeNumber(number),
                incarnation: Incarnation(number.into()),
                positions: (0..SLOT_COUNT).map(|slot| (slot, Position { epoch: 1 << 20, sequence: 1 << 40 })).collect(),
                epoch: 1 << 20,
            });
        });
        println!("{nodes} nodes: {size} bytes");
        assert!(size < 400_000, "{nodes} nodes: {size} bytes");
    }
}

#[test]
fn what_changes_take_is_printed() {
    for nodes in [3, 12] {
        let mut world = World::settled(nodes, 3);
        let mut took = Vec::new();
        let mut time = |name, world: &mut World, change| {
            let shared = world.state.clone();
            let start = Instant::now();
            world.apply(change);
            took.push(format!("{name} {} µs", start.elapsed().as_micros()));
            drop(shared);
        };
        let incarnation = Incarnation(900);
        time("join", &mut world, Change::Join { description: description(900), incarnation });
        for change in world.to_do().into_iter().take(1) {
            time("synced", &mut world, change);
        }
        let (number, incarnation) = (NodeNumber(2), world.incarnation(NodeNumber(2)));
        time("down", &mut world, Change::Down { number, incarnation });
        for change in world.to_do().into_iter().filter(|change| matches!(change, Change::Report { .. })) {
            time("report", &mut world, change);
        }
        time("lose", &mut world, Change::Lose { number });
        let start = Instant::now();
        let bytes = postcard::to_stdvec(&world.state).unwrap();
        took.push(format!("write {} µs", start.elapsed().as_micros()));
        let start = Instant::now();
        assert_eq!(postcard::from_bytes::<ClusterState>(&bytes).unwrap(), world.state);
        took.push(format!("read {} µs", start.elapsed().as_micros()));
        println!("{nodes} nodes, with assertions: {}", took.join(", "));
    }
}
