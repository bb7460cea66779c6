//! Who is taken for whom.

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::membership::Request;
use forebay_proto::raft::raft_client::RaftClient;
use forebay_proto::raft::{Call, Renewal};
use tonic::Code;

use super::super::admin::Admin;
use super::super::channels::dial;
use super::super::disk::FILE;
use super::super::proposing::{Outcome, Proposal, ProposeError};
use super::super::service;
use super::*;
use crate::state::{Applied, Change};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_identity_is_refused() {
    let nodes = cluster(3).await;
    let follower = (leader(&nodes) + 1) % 3;
    let incarnation = nodes[follower].membership.incarnation();
    let mut double = Place::new(u8::try_from(follower + 1).expect("small")).await;
    double.timing.patience = Duration::from_millis(500);
    let double = double.join_through(&nodes[0]).await;
    let mut failure = double.membership.failure();
    let told = tokio::time::timeout(DEADLINE, failure.wait_for(Option::is_some))
        .await
        .expect("in time")
        .expect("it lives")
        .clone();
    let told = told.expect("it is one");
    assert!(told.contains("is already running at 127.0.0.1:"), "{told}");
    assert!(!double.has_lease());
    assert_eq!(nodes[follower].membership.incarnation(), incarnation, "the first goes on");
    double.crash().await;
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_strangers_are_refused_and_both_sides_named() {
    let node = Place::new(1).await.start(&[], 1).await;
    node.joined().await;
    let raft_port = node.state().members().next().expect("itself").description.raft_port;
    let ours = node.state().cluster();
    let mut client = RaftClient::new(dial(&format!("127.0.0.1:{raft_port}"), None).expect("an address"));
    let call = |cluster: [u8; 16], protocol, to| Call {
        cluster: cluster.to_vec().into(),
        protocol,
        to,
        content: Vec::new().into(),
    };
    for (call, parts) in [
        (call([7; 16], PEER_PROTOCOL, 1), [ours.to_string(), "07070707".to_owned()]),
        (call(ours.0, PEER_PROTOCOL + 1, 1), [PEER_PROTOCOL.to_string(), (PEER_PROTOCOL + 1).to_string()]),
        (call(ours.0, PEER_PROTOCOL, 9), ["node 1".to_owned(), "node 9".to_owned()]),
    ] {
        let refused = client.vote(call).await.expect_err("a stranger");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(parts.iter().all(|part| refused.message().contains(part)), "{refused}");
    }
    let renewal = Renewal { cluster: vec![7; 16].into(), protocol: PEER_PROTOCOL, number: 1, incarnation: 1, epoch: 0 };
    assert_eq!(client.renew(renewal).await.expect_err("a stranger").code(), Code::FailedPrecondition);
    let question = Request { protocol: PEER_PROTOCOL, cluster: vec![7; 16].into(), content: Vec::new().into() };
    let mut desk = service::client(dial(&node.address, None).expect("an address"));
    assert_eq!(desk.status(question).await.expect_err("a stranger").code(), Code::FailedPrecondition);
    node.crash().await;
}

/// Addresses are given anew, and what stands in a node's book may be old.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_where_a_member_was_ends_nobody() {
    let (stranger, first) = (Place::new(9).await.start(&[], 1).await, Place::new(1).await.start(&[], 1).await);
    stranger.joined().await;
    let second = Place::new(2).await.join_through(&first).await;
    second.joined().await;
    let gone = first.number();
    first.crash().await;
    let node = &second.membership.node;
    let theirs = stranger.state().members().next().expect("itself").description.clone();
    node.book.enter(gone, &theirs);
    let (proposal, cluster) = (Proposal::new(Change::Rebalance), second.membership.cluster().expect("it has one"));
    let asked = node.propose(&proposal, &[], Instant::now() + Duration::from_millis(500)).await;
    assert!(matches!(asked, Err(ProposeError::NoLeader(_))), "{asked:?}");
    let content = super::super::wire::encode(&proposal).into();
    let request = Request { content, cluster: cluster.0.to_vec().into(), ..question() };
    let mut desk = service::client(dial(&second.address, None).expect("an address"));
    let forwarded = desk.propose(request).await.expect("it answers").into_inner();
    let forwarded: Outcome = super::super::wire::decode(&forwarded.content).expect("an outcome");
    assert!(matches!(forwarded, Outcome::NotNow(_)), "{forwarded}");
    stranger.crash().await;
    second.crash().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_another_node_or_a_damaged_one_keeps_a_node_from_starting() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = Place::new(1).await.on_disk(&directory).start(&[], 1).await;
    node.joined().await;
    let taken = Place::new(1).await.on_disk(&directory).try_start(&[], 1).await.err().expect("it is in use");
    assert!(taken.to_string().contains("in use by another"), "{taken}");
    node.crash().await;
    let another = Place::new(2).await.on_disk(&directory).try_start(&[], 1).await.err().expect("another's");
    assert!(matches!(another, MembershipError::AnotherNodes { .. }), "{another}");
    let file = directory.path().join(FILE);
    let mut content = std::fs::read(&file).expect("the log");
    let middle = content.len() / 2;
    content[..middle].fill(0xff);
    std::fs::write(&file, &content).expect("a file");
    let damaged = Place::new(1).await.on_disk(&directory).try_start(&[], 1).await.err().expect("damaged");
    assert!(damaged.to_string().contains(file.to_str().expect("a plain path")), "{damaged}");
    assert_eq!(std::fs::read(&file).expect("the log"), content, "nothing is lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_any_node() {
    use futures_util::StreamExt;

    let nodes = cluster(3).await;
    let admin = Admin::new(&nodes[2].address, None).expect("an address");
    let mut states = Box::pin(admin.watch().await.expect("it answers"));
    let status = admin.status().await.expect("it answers");
    assert_eq!((up(&status.state), status.voters.len()), (3, 3));
    assert_eq!(admin.groups().await.expect("it answers"), None);
    let applied =
        admin.propose(Change::SetGroups { text: "# groups".to_owned(), over: None }).await.expect("there is a leader");
    assert!(matches!(applied, Applied::Done { .. }), "{applied:?}");
    let seen = tokio::time::timeout(DEADLINE, async {
        loop {
            let state = states.next().await.expect("it goes on").expect("a state");
            if let Some(groups) = state.groups() {
                return groups.text.clone();
            }
        }
    });
    assert_eq!(seen.await.expect("in time"), "# groups");
    let victim = admin.find(&nodes[0].address).await.expect("a member").number;
    assert_eq!(victim, nodes[0].number());
    assert!(admin.find("nobody").await.is_err());
    admin.drain(&victim.0.to_string()).await.expect("there is a leader");
    nodes[1].until("it drains", |state| !stands(state, victim, Standing::Up)).await;
    for node in nodes {
        node.crash().await;
    }
    assert!(admin.status().await.expect_err("it has ended").to_string().contains("hint:"));
}
