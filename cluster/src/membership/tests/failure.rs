//! What becomes of a cluster whose nodes end, vanish or are cut off.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_ends_is_declared_down() {
    let mut nodes = cluster(3).await;
    let follower = (leader(&nodes) + 1) % 3;
    let ended = nodes.remove(follower);
    let number = ended.number();
    let began = Instant::now();
    ended.crash().await;
    for node in &nodes {
        node.until("it is down", |state| stands(state, number, Standing::Down)).await;
    }
    println!("a follower that ended was declared down after {:?}", began.elapsed());
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_has_a_successor_that_declares_it_down() {
    let mut nodes = cluster(3).await;
    let ended = nodes.remove(leader(&nodes));
    let number = ended.number();
    let began = Instant::now();
    ended.crash().await;
    eventually("there is another leader", || {
        nodes.iter().all(|node| node.membership.leader().is_some_and(|leader| leader != number))
    })
    .await;
    println!("a leader that ended had a successor after {:?}", began.elapsed());
    for node in &nodes {
        node.until("it is down", |state| stands(state, number, Standing::Down)).await;
    }
    println!("and was declared down after {:?}", began.elapsed());
    eventually("the others serve", || nodes.iter().all(Running::has_lease)).await;
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_has_lost_its_lease_before_it_is_declared_down() {
    let nodes = cluster(3).await;
    for cut_off in [(leader(&nodes) + 1) % 3, leader(&nodes)] {
        let cut = &nodes[cut_off];
        let (number, incarnation) = (cut.number(), cut.membership.incarnation());
        let others: Vec<&Running> = nodes.iter().filter(|node| node.number() != number).collect();
        cut.cut(true);
        let began = Instant::now();
        others[0].until("it is down", |state| stands(state, number, Standing::Down)).await;
        assert!(!cut.has_lease(), "node {number} was declared down while it served");
        println!("node {number} was declared down {:?} after it was cut off, and had no lease", began.elapsed());
        cut.cut(false);
        others[0].until("it is back", |state| stands(state, number, Standing::Up)).await;
        settle(&nodes).await;
        assert_ne!(cut.membership.incarnation(), incarnation, "what it held is worth nothing any more");
    }
    for node in nodes {
        node.crash().await;
    }
}

/// Raft may have applied a state long before the node has given up what it takes away.
#[tokio::test(flavor = "multi_thread")]
async fn who_still_serves_by_a_state_from_before_it_was_down_gets_no_lease() {
    let mut nodes = cluster(3).await;
    let slow = (leader(&nodes) + 1) % 3;
    let number = nodes[slow].number();
    nodes[slow].follows.abort();
    nodes[slow].cut(true);
    nodes[(slow + 1) % 3].until("it is down", |state| stands(state, number, Standing::Down)).await;
    nodes[slow].cut(false);
    nodes[slow].until("it is back", |state| stands(state, number, Standing::Up)).await;
    answered(&nodes, number).await;
    assert!(!nodes[slow].has_lease(), "node {number} would serve what it had before it was down");
    let follows = follow(&nodes[slow].membership);
    nodes[slow].follows = follows;
    settle(&nodes).await;
    for node in nodes {
        node.crash().await;
    }
}

/// Waits until the leader has answered a call of the member: until there is a call behind one that came from now on.
async fn answered(nodes: &[Running], number: NodeNumber) {
    let mut since = Instant::now();
    for _ in 0..3 {
        eventually("it calls again", || {
            let Some(seated) = nodes[leader(nodes)].membership.node.seated.get() else { return false };
            let now = Instant::now();
            let silence = seated.grants.lock().silence(now);
            let called =
                silence.iter().find(|(caller, _)| *caller == number).and_then(|(_, ago)| now.checked_sub(*ago));
            called.filter(|at| *at > since).inspect(|at| since = *at).is_some()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_changed_and_nobody_serves() {
    let nodes = cluster(3).await;
    for node in &nodes[1..] {
        node.cut(true);
    }
    eventually("no lease is left", || !nodes.iter().any(Running::has_lease)).await;
    let change = crate::state::Change::Rebalance;
    let proposal = super::super::proposing::Proposal::new(change);
    let refused = nodes[0].membership.node.propose(&proposal, &[], Instant::now() + Duration::from_millis(300)).await;
    assert!(refused.is_err(), "{refused:?}");
    for node in &nodes[1..] {
        node.cut(false);
    }
    settle(&nodes).await;
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_away_is_lost_and_its_vote_with_it_and_is_removed_in_the_end() {
    let mut nodes = impatient(Duration::from_secs(2)).await;
    let ended = nodes.remove((leader(&nodes) + 1) % 3);
    let number = ended.number();
    ended.crash().await;
    for node in &nodes {
        node.until("it is lost", |state| stands(state, number, Standing::Lost)).await;
    }
    eventually("of two, one votes", || nodes.iter().all(|node| node.voters().len() == 1)).await;
    for node in &nodes {
        node.until("it is no member", |state| state.member(number).is_none()).await;
        eventually("nor one of Raft's", || !node.membership.status().learners.contains(&number)).await;
    }
    for node in nodes {
        node.crash().await;
    }
}

/// It goes on under its number, and does not even have to be started again.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_until_it_was_lost_finds_back() {
    let nodes = impatient(Timing::default().remove_after).await;
    let cut = &nodes[(leader(&nodes) + 1) % 3];
    let (number, others) = (cut.number(), nodes.iter().filter(|node| node.number() != cut.number()));
    cut.cut(true);
    for other in others {
        other.until("it is lost", |state| stands(state, number, Standing::Lost)).await;
    }
    cut.cut(false);
    settle(&nodes).await;
    assert_eq!(cut.number(), number);
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_leaves_hands_the_lead_on_first() {
    let nodes = cluster(3).await;
    let leaving = &nodes[leader(&nodes)];
    let number = leaving.number();
    leaving.membership.leave().await;
    eventually("another leads", || {
        nodes.iter().all(|node| node.membership.leader().is_some_and(|leader| leader != number))
    })
    .await;
    for node in &nodes {
        node.until("it leaves", |state| stands(state, number, Standing::Leaving)).await;
    }
    eventually("it serves until all is handed over", || leaving.has_lease()).await;
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_voter_of_two_hands_its_vote_on_when_it_leaves() {
    let first = Place::new(1).await.start(&[], 1).await;
    first.joined().await;
    let second = Place::new(2).await.join_through(&first).await;
    let nodes = [first, second];
    settle(&nodes).await;
    nodes[0].membership.leave().await;
    let [first, second] = nodes;
    eventually("the other leads", || second.membership.leader() == Some(second.number())).await;
    let number = first.number();
    first.crash().await;
    second.until("it is down", |state| stands(state, number, Standing::Down)).await;
    second.crash().await;
}

/// Three nodes that give up soon who is away.
async fn impatient(remove_after: Duration) -> Vec<Running> {
    let lose_after = Duration::from_millis(500);
    let mut places = Vec::new();
    for node in 1..=3 {
        let place = Place::new(node).await;
        places.push(Place { timing: Timing { lose_after, remove_after, ..Timing::default() }, ..place });
    }
    form(places).await
}
