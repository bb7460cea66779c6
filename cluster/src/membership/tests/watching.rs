//! Following a cluster from outside.

use super::super::Watcher;
use super::*;
use crate::discovery::Seeds;
use crate::state::ClusterId;

/// A watcher that works until this is dropped.
struct Working {
    watcher: Arc<Watcher>,
    task: JoinHandle<()>,
}

impl Working {
    fn start(seeds: &[&str]) -> Working {
        let seeds: Vec<String> = seeds.iter().map(|seed| (*seed).to_owned()).collect();
        let watcher = Arc::new(Watcher::new(seeds.into(), None));
        let works = Arc::clone(&watcher);
        Working { watcher, task: tokio::spawn(async move { match works.watch().await {} }) }
    }

    async fn until(&self, what: &str, is_so: impl Fn(&ClusterState) -> bool) -> Arc<ClusterState> {
        let mut states = self.watcher.state();
        let found = tokio::time::timeout(DEADLINE, states.wait_for(|state| is_so(state))).await;
        Arc::clone(&found.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}")).expect("the watcher lives"))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_at_another_node_when_the_one_that_it_watches_is_gone() {
    let mut nodes = cluster(3).await;
    // It is told of one, and learns of the others from it.
    let watching = Working::start(&[&nodes[0].address]);
    watching.until("it knows the cluster", |state| up(state) == 3).await;
    assert!(watching.watcher.is_in_touch());
    assert_eq!(Some(watching.watcher.state().borrow().cluster()), nodes[0].membership.cluster());
    let gone = nodes.remove(0);
    let number = gone.number();
    gone.crash().await;
    watching.until("the others have told of the death", |state| stands(state, number, Standing::Down)).await;
    for node in nodes {
        node.crash().await;
    }
    eventually("it is seen that nobody tells anything", || !watching.watcher.is_in_touch()).await;
    assert!(watching.watcher.state().borrow().epoch() > 0, "the last state is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_a_node_that_is_cut_off_from_the_others() {
    let nodes = cluster(3).await;
    let watching = Working::start(&[&nodes[0].address]);
    watching.until("it knows the cluster", |state| up(state) == 3).await;
    // Each node in turn, so that the one that is watched is among them.
    for node in &nodes {
        let number = node.number();
        node.cut(true);
        watching.until("it is told by others", |state| stands(state, number, Standing::Down)).await;
        node.cut(false);
        watching.until("it is told by any", |state| up(state) == 3).await;
        settle(&nodes).await;
    }
    for node in nodes {
        node.crash().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_a_cluster_and_stays_with_it() {
    let (first, second) = (Place::new(1).await, Place::new(2).await);
    let watching = Working::start(&[&first.address(), &second.address()]);
    assert!(!watching.watcher.is_in_touch());
    let node = first.start(&[], 1).await;
    let ours = watching.until("there is a cluster", |state| up(state) == 1).await.cluster();
    assert_ne!(ours, ClusterId([0; 16]));
    // A seed that forms another cluster, with a later epoch, is not followed when the first one is gone.
    let stranger = second.start(&[], 1).await;
    stranger.joined().await;
    for _ in 0..10 {
        stranger.membership.propose(crate::state::Change::Rebalance).await.expect("it leads");
        let text = format!("# {}", stranger.state().epoch());
        stranger.membership.propose(crate::state::Change::SetGroups { text, over: None }).await.expect("it leads");
    }
    assert!(stranger.state().epoch() > node.state().epoch());
    node.crash().await;
    eventually("it has lost touch", || !watching.watcher.is_in_touch()).await;
    assert_eq!(watching.watcher.state().borrow().cluster(), ours);
    stranger.crash().await;
}

/// A source of seeds may take seconds to answer, in which a frontend would be out of touch.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_known_are_asked_before_a_source_of_seeds() {
    let node = Place::new(1).await.start(&[], 1).await;
    node.joined().await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    silent.set_nonblocking(true).expect("a socket");
    let server = silent.local_addr().expect("it is bound");
    let source = "dns:forebay.test".parse().expect("a source");
    let seeds = Seeds::new(Vec::new(), Some(&source), 8001, Some(server)).expect("it can be asked");
    let watcher = Arc::new(Watcher::new(seeds, None));
    watcher.state.send_replace(node.state());
    let works = Arc::clone(&watcher);
    let working = Working { watcher, task: tokio::spawn(async move { match works.watch().await {} }) };
    eventually("it is told by the member", || working.watcher.is_in_touch()).await;
    let asked = silent.recv(&mut [0; 512]).expect_err("the source was asked");
    assert_eq!(asked.kind(), std::io::ErrorKind::WouldBlock);
    node.crash().await;
}
