use std::collections::BTreeSet;

use forebay_cluster::{
    Applied, Change, ClusterId, ClusterState, Description, Incarnation, NodeId, NodeNumber, SLOT_COUNT,
};
use forebay_resp::{Protocol, Reply};

use super::*;

fn description(node: u8, direct_port: u16) -> Description {
    Description {
        id: NodeId::from_bytes([node; 20]),
        host: format!("10.0.0.{node}"),
        open_port: 6379,
        direct_port,
        http_port: 0,
        peer_port: 8001,
        raft_port: 7000,
        zone: None,
        weight: 1000,
        version: "0.1.0".to_owned(),
    }
}

/// Three nodes, each of which has been sent all that it is to hold. The third has no direct door.
fn three_nodes() -> ClusterState {
    let mut state = ClusterState::new(ClusterId([1; 16]), 3);
    for (node, direct_port) in [(1, 6380), (2, 6380), (3, 0)] {
        let joined =
            state.apply(Change::Join { description: description(node, direct_port), incarnation: Incarnation(1) });
        assert!(matches!(joined, Applied::Joined { .. }));
        settle(&mut state);
    }
    state
}

fn settle(state: &mut ClusterState) {
    while !state.is_settled() {
        let numbers: Vec<_> = state.members().map(|member| member.number).collect();
        for owner in numbers {
            let epoch = state.epoch();
            for (number, slots) in state.to_sync(owner) {
                state.apply(Change::Synced { number, incarnation: Incarnation(1), slots, epoch });
            }
            let epoch = state.epoch();
            for (to, slots) in state.handovers(owner) {
                state.apply(Change::HandOver { from: owner, to, slots, epoch });
            }
        }
    }
}

fn topology(state: &ClusterState) -> Topology {
    Topology::of(state, Some(NodeNumber(1)))
}

fn text(write: impl Fn(&mut Reply)) -> String {
    let mut reply = Reply::new();
    reply.set_protocol(Protocol::Resp2);
    write(&mut reply);
    String::from_utf8(reply.chunks().collect::<Vec<_>>().concat()).expect("text")
}

#[test]
fn every_owner_is_introduced_as_one_before_it_is_named_as_a_replica() {
    let state = three_nodes();
    let told = text(|reply| slots::write(&topology(&state), reply));
    let id = |node: u8| NodeId::from_bytes([node; 20]);
    let first_owner = state.slot(0).owner.expect("an owner").0;
    let port = if first_owner == 3 { 6379 } else { 6380 };
    let introduction = format!(
        "*3\r\n:0\r\n:0\r\n*4\r\n$8\r\n10.0.0.{first_owner}\r\n:{port}\r\n$40\r\n{}\r\n*0\r\n",
        id(first_owner as u8)
    );
    assert!(told.split_once("\r\n").expect("an array").1.starts_with(&introduction), "{}", &told[..300]);
    // The first three ranges have one slot and one holder each.
    let lone = told.match_indices("*3\r\n:").count();
    assert_eq!(lone, 3);
    assert_eq!(told.match_indices("*4\r\n$8").count() - 3, 3 * told.match_indices("*5\r\n:").count());
    assert!(!told.contains("10.0.0.3\r\n:6380"), "a closed door is not told");
}

#[test]
fn every_slot_is_told_once_even_if_nobody_serves_it() {
    let mut state = three_nodes();
    state.apply(Change::Down { number: NodeNumber(2), incarnation: Incarnation(1) });
    assert!(state.orphaned().count() > 5000);
    let told = text(|reply| slots::write(&topology(&state), reply));
    let mut slots = BTreeSet::new();
    for range in told.split("\r\n*").filter_map(|part| part.split_once("\r\n:")).map(|(_, rest)| rest) {
        let mut numbers = range.split("\r\n:").map(|number| number.trim_end().parse::<u16>());
        if let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) {
            assert!((first..=last).all(|slot| slots.insert(slot)), "{first} to {last} is told twice");
        }
    }
    assert_eq!(slots.len(), usize::from(SLOT_COUNT));
}

#[test]
fn nodes_are_lines() {
    let mut state = three_nodes();
    let lines = nodes::list(&topology(&state));
    let owned = |line: &str| {
        let ranges = line.split(' ').skip(8).map(|range| range.split_once('-').unwrap_or((range, range)));
        ranges.map(|(first, last)| last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap()).sum::<usize>()
    };
    let lines: Vec<_> = lines.lines().collect();
    let id = |node: u8| NodeId::from_bytes([node; 20]);
    assert!(lines[0].starts_with(&format!(
        "{} 10.0.0.1:6380@8001 myself,master - 0 0 {} connected ",
        id(1),
        state.epoch()
    )));
    assert!(lines[2].starts_with(&format!("{} 10.0.0.3:6379@8001 master - 0 0 {} connected ", id(3), state.epoch())));
    assert_eq!(lines.iter().map(|line| owned(line)).sum::<usize>(), usize::from(SLOT_COUNT));

    state.apply(Change::Down { number: NodeNumber(2), incarnation: Incarnation(1) });
    let text = nodes::list(&topology(&state));
    assert!(text.contains(&format!("master,fail? - 0 0 {} disconnected", state.epoch())), "{text}");
}

#[test]
fn info_tells_whether_all_slots_are_served() {
    let mut state = three_nodes();
    let text = nodes::info(&topology(&state));
    let expected = format!(
        "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n\
         cluster_slots_fail:0\r\ncluster_known_nodes:3\r\ncluster_size:3\r\ncluster_current_epoch:{0}\r\n\
         cluster_my_epoch:{0}\r\n",
        state.epoch()
    );
    assert!(text.starts_with(&expected), "{text}");
    state.apply(Change::Down { number: NodeNumber(2), incarnation: Incarnation(1) });
    let text = nodes::info(&topology(&state));
    assert!(text.starts_with("cluster_state:fail\r\ncluster_slots_assigned:16384\r\n"), "{text}");
}

#[test]
fn a_shard_is_an_owner_with_those_who_copy_all_of_it() {
    let told = text(|reply| shards::write(&topology(&three_nodes()), reply));
    assert!(told.starts_with("*3\r\n*4\r\n$5\r\nslots\r\n*"), "{}", &told[..60]);
    assert_eq!(told.matches("$6\r\nmaster\r\n").count(), 3);
    assert_eq!(told.matches("$7\r\nreplica\r\n").count(), 6, "with three copies everybody copies everything");
    assert_eq!(told.matches("$6\r\nhealth\r\n$6\r\nonline\r\n").count(), 9);
    let alone = text(|reply| shards::write(&topology(&ClusterState::new(ClusterId([1; 16]), 3)), reply));
    assert_eq!(alone, "*0\r\n");
}
