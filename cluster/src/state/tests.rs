use super::*;
use crate::slot::SLOT_COUNT;

mod histories;
mod members;
mod settling;
mod speed;
mod world;

/// What a node says of itself; its number is in its id.
fn description(node: u32) -> Description {
    // Identities are random in life: taken here from the number, so that a failure can be repeated.
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&u64::from(node + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Description {
        id: NodeId::from_bytes(bytes),
        host: format!("host-{node}"),
        open_port: 6379,
        direct_port: 6380,
        http_port: 0,
        peer_port: 8001,
        raft_port: 7000,
        zone: None,
        weight: 1000,
        version: "0.1.0".to_owned(),
    }
}

fn new_state(copies: u8) -> ClusterState {
    ClusterState::new(ClusterId([7; 16]), copies)
}

fn owned(state: &ClusterState) -> Vec<usize> {
    let count = |member: &Member| state.slots().filter(|(_, slot)| slot.owner == Some(member.number)).count();
    state.members().map(count).collect()
}

#[test]
fn a_cluster_id_is_32_digits() {
    let id = ClusterId([0xab; 16]);
    assert_eq!(id.to_string(), "ab".repeat(16));
    assert_eq!(ClusterId::parse(&id.to_string()), Ok(id));
    assert_eq!(ClusterId::parse("00000000000000000000000000000001").unwrap().to_string(), format!("{:032x}", 1));
    for wrong in ["", "ab", &"g".repeat(32), &"+".repeat(32), &"ab".repeat(17)] {
        assert!(ClusterId::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_state_of_too_few_slots_is_not_read() {
    let bytes = postcard::to_stdvec(&vec![Slot::default(); usize::from(SLOT_COUNT) - 1]).unwrap();
    assert!(postcard::from_bytes::<PerSlot<Slot>>(&bytes).is_err());
}
