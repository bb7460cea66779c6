//! How a cluster comes to be.

use super::*;
use crate::state::{Applied, Change};

#[tokio::test(flavor = "multi_thread")]
async fn three_form_a_cluster_and_a_fourth_joins_it() {
    let began = Instant::now();
    let mut nodes = cluster(3).await;
    println!("three nodes: formed, votes given out and leases held after {:?}", began.elapsed());
    let numbers: BTreeSet<NodeNumber> = nodes.iter().map(Running::number).collect();
    assert_eq!(numbers, (1..=3).map(NodeNumber).collect());
    assert_eq!(nodes[0].number(), NodeNumber(1), "the smallest id formed it");
    let clusters: BTreeSet<_> = nodes.iter().map(|node| node.state().cluster().0).collect();
    assert_eq!(clusters.len(), 1);

    let began = Instant::now();
    let fourth = Place::new(4).await.join_through(&nodes[1]).await;
    assert_eq!(fourth.joined().await, NodeNumber(4));
    println!("a fourth joined after {:?}", began.elapsed());
    nodes.push(fourth);
    settle(&nodes).await;
    eventually("the fourth learns", || nodes[3].membership.role() == crate::membership::Role::Learner).await;
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_forms_a_cluster_whose_lease_has_no_end_until_another_joins() {
    let first = Place::new(1).await.start(&[], 1).await;
    first.joined().await;
    eventually("it needs no renewal", || first.membership.lease().remaining(Instant::now()).is_none()).await;
    let second = Place::new(2).await.join_through(&first).await;
    second.joined().await;
    assert!(first.membership.lease().remaining(Instant::now()).is_some(), "another could be given its slots now");
    let nodes = [first, second];
    settle(&nodes).await;
    assert_eq!(nodes[0].voters(), BTreeSet::from([NodeNumber(1)]), "of two, one votes");
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_others_says_so_and_serves_nothing() {
    let place = Place::new(1).await;
    let nobody = Place::new(9).await;
    let unanswered = nobody.address();
    drop(nobody);
    let node = place.start(&[unanswered], 3).await;
    let mut phase = node.membership.phase();
    let waits = phase.wait_for(|phase| phase == "waiting for 2 more nodes: knows none");
    tokio::time::timeout(DEADLINE, waits).await.expect("in time").expect("it lives");
    assert_eq!(node.state().epoch(), 0);
    assert!(!node.has_lease());
    let refused = node
        .membership
        .node
        .propose(&super::super::proposing::Proposal::new(Change::Rebalance), &[], Instant::now())
        .await;
    assert!(refused.is_err(), "{refused:?}");
    node.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_made_once_wherever_it_is_proposed() {
    let nodes = cluster(3).await;
    let groups = |node: &Running| node.state().groups().map_or(0, |groups| groups.version);
    for (round, node) in nodes.iter().enumerate() {
        let change = Change::SetGroups { text: format!("# {round}"), over: None };
        let applied = node.membership.propose(change).await.expect("there is a leader");
        assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
    }
    let proposal = super::super::proposing::Proposal::new(Change::SetGroups { text: "# again".to_owned(), over: None });
    for node in &nodes {
        let deadline = Instant::now() + DEADLINE;
        let applied = node.membership.node.propose(&proposal, &[], deadline).await.expect("there is a leader");
        assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
    }
    for node in &nodes {
        node.until("all have it", |state| state.groups().is_some_and(|groups| groups.text == "# again")).await;
    }
    let versions: BTreeSet<u64> = nodes.iter().map(groups).collect();
    assert_eq!(versions.len(), 1);
    let began = Instant::now();
    for round in 0..50 {
        nodes[0]
            .membership
            .propose(Change::SetGroups { text: format!("## {round}"), over: None })
            .await
            .expect("there is a leader");
    }
    println!("a change takes {:?} (in memory, three nodes)", began.elapsed() / 50);
    assert_eq!(
        groups(&nodes[leader(&nodes)]),
        versions.first().copied().unwrap_or(0) + 50,
        "each made a version, and none two"
    );
    for node in nodes {
        node.crash().await;
    }
}
