//! Restarts, with and without what was on the disk.

use super::*;
use crate::state::{Applied, Change};

fn directories(count: usize) -> Vec<tempfile::TempDir> {
    (0..count).map(|_| tempfile::tempdir().expect("a directory")).collect()
}

async fn places(directories: &[tempfile::TempDir]) -> Vec<Place> {
    let mut places = Vec::new();
    for (node, directory) in (1..).zip(directories) {
        places.push(Place::new(node).await.on_disk(directory));
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_restarts_keeps_its_number() {
    let directories = directories(3);
    let mut nodes = form(places(&directories).await).await;
    let follower = (leader(&nodes) + 1) % 3;
    let ended = nodes.remove(follower);
    let (number, incarnation) = (ended.number(), ended.membership.incarnation());
    ended.crash().await;
    // At another address, and with a seed that is gone: the others must learn where it is.
    let id = u8::try_from(follower + 1).expect("small");
    let again = Place::new(id).await.on_disk(&directories[follower]).start(&[nodes[0].address.clone()], 3).await;
    assert_eq!(again.joined().await, number);
    assert_ne!(again.membership.incarnation(), incarnation);
    nodes.push(again);
    settle(&nodes).await;
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_cluster_that_restarts_elsewhere_has_all_it_knew() {
    let directories = directories(3);
    let nodes = form(places(&directories).await).await;
    nodes[0]
        .membership
        .propose(Change::SetGroups { text: "# kept".to_owned(), over: None })
        .await
        .expect("there is a leader");
    let (cluster, numbers) = (nodes[0].state().cluster(), nodes.iter().map(Running::number).collect::<Vec<_>>());
    for node in nodes {
        node.crash().await;
    }
    let began = Instant::now();
    let nodes = form(places(&directories).await).await;
    println!("three nodes that were started again served after {:?}", began.elapsed());
    assert_eq!(nodes.iter().map(Running::number).collect::<Vec<_>>(), numbers);
    for node in &nodes {
        assert_eq!(node.state().cluster(), cluster);
        assert_eq!(node.state().groups().map(|groups| groups.text.as_str()), Some("# kept"));
    }
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_that_restarts_serves_at_once() {
    let directories = directories(1);
    let node = form(places(&directories).await).await.remove(0);
    node.membership.propose(Change::SetGroups { text: "# kept".to_owned(), over: None }).await.expect("it leads");
    let term = node.membership.leads();
    node.crash().await;
    let node = Place::new(1).await.on_disk(&directories[0]).start(&[], 1).await;
    assert_eq!(node.joined().await, NodeNumber(1));
    assert_eq!(node.state().groups().map(|groups| groups.text.as_str()), Some("# kept"));
    eventually("it has a lease", || node.has_lease()).await;
    assert!(
        node.membership.leads() > term,
        "a term is led by one process: {:?}, after {term:?}",
        node.membership.leads()
    );
    node.crash().await;
}

/// As a founder does that was killed before it knew that it was a member.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_says_nothing_of_its_own_log_keeps_its_number() {
    let node = Place::new(1).await.start(&[], 1).await;
    let number = node.joined().await;
    let incarnation = Incarnation(rand::random());
    *node.membership.node.incarnation.lock() = incarnation;
    let change = Change::Join { description: node.membership.node.me.clone(), incarnation };
    let joined = node.membership.propose(change).await.expect("it leads");
    assert!(matches!(joined, Applied::Joined { number: same, .. } if same == number), "{joined:?}");
    node.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_called_by_raft_says_where() {
    let first = Place::new(1).await.start(&[], 1).await;
    first.joined().await;
    let mut place = Place::new(2).await;
    let nobody = Place::new(9).await.description.raft_port;
    place.description.raft_port = nobody;
    place.timing.proposal = Duration::from_secs(1);
    let second = place.join_through(&first).await;
    let mut phase = second.membership.phase();
    let (what, at) = ("learns nothing", format!("127.0.0.1:{nobody}, its raft port"));
    let told = phase.wait_for(|phase| phase.contains(what) && phase.contains(&at));
    drop(tokio::time::timeout(DEADLINE, told).await.expect("in time").expect("it lives"));
    second.crash().await;
    first.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_lost_its_log_gets_another_number() {
    let mut nodes = cluster(3).await;
    let voter = (leader(&nodes) + 1) % 3;
    let ended = nodes.remove(voter);
    let number = ended.number();
    ended.crash().await;
    let id = u8::try_from(voter + 1).expect("small");
    let again = Place::new(id).await.join_through(&nodes[0]).await;
    assert_eq!(again.joined().await, NodeNumber(4));
    nodes.push(again);
    settle(&nodes).await;
    for node in &nodes {
        node.until("the old number is gone", |state| state.member(number).is_none()).await;
        eventually("for Raft, too", || !node.voters().contains(&number)).await;
    }
    for node in nodes {
        node.crash().await;
    }
}

/// Snapshots replace the log, and a newcomer learns from one.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_replaced_by_a_snapshot() {
    let directories = directories(2);
    let first = Place::new(1).await.on_disk(&directories[0]).start(&[], 1).await;
    first.joined().await;
    let began = Instant::now();
    let changes = 1_300;
    for round in 0..changes {
        first.membership.propose(Change::SetGroups { text: format!("# {round}"), over: None }).await.expect("it leads");
    }
    println!("a change takes {:?} (on disk, one node)", began.elapsed() / changes);
    eventually("there is a snapshot", || first.membership.status().snapshot.is_some()).await;
    let second = Place::new(2).await.on_disk(&directories[1]).join_through(&first).await;
    second.joined().await;
    let last = format!("# {}", changes - 1);
    second.until("it has all", |state| state.groups().is_some_and(|groups| groups.text == last)).await;
    second.crash().await;
    first.crash().await;
    let again = Place::new(1).await.on_disk(&directories[0]).start(&[], 1).await;
    again.joined().await;
    assert_eq!(again.state().groups().map(|groups| groups.text.clone()), Some(last));
    again.crash().await;
}
