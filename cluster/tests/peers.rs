//! Two ends of the conversation between nodes, over loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::NodeNumber;
use forebay_cluster::peer::{
    Answer, CallError, Feed, FeedError, Hello, MAX_CALL, MAX_CONTENT, PeerHandler, PeerService, Peers,
};
use forebay_cluster::state::{ClusterId, Incarnation};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(30);

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn hello(cluster: ClusterId, number: u32) -> Hello {
    Hello { cluster, number: Some(NodeNumber(number)), incarnation: Incarnation(u64::from(number)), epoch: 1 }
}

/// Answers what it is asked, but for what is to wait; sends back what it is fed.
struct Echo;

impl PeerHandler for Echo {
    fn serve(&self, caller: &Hello, epoch: u64, request: Bytes, answer: Answer) {
        assert_eq!((caller.number, epoch), (Some(NodeNumber(1)), 5));
        match &request[..] {
            b"later" => {
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    answer.send(b"now");
                });
            }
            b"never" => drop(answer),
            large if large.len() > MAX_CONTENT => answer.send_shared(request),
            b"too much" => answer.send(&vec![0; MAX_CALL + 1]),
            _ => answer.send(&request),
        }
    }

    fn feed(&self, caller: &Hello, mut feed: Feed) -> Result<(), String> {
        if caller.number == Some(NodeNumber(9)) {
            return Err("no feeds of node 9".to_owned());
        }
        tokio::spawn(async move {
            while let Some(frame) = feed.incoming.recv().await {
                if feed.outgoing.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(())
    }
}

/// A node that serves on a runtime of its own, which ends with it, connections and all.
struct Server(Option<Runtime>);

impl Server {
    fn end(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve() -> (String, Server) {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (told, address) = oneshot::channel();
    runtime.spawn(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        told.send(listener.local_addr().expect("bound").to_string()).expect("wanted");
        let service = PeerService::new(Arc::new(Echo));
        service.introduction()(hello(CLUSTER, 2));
        let service = tonic::transport::Server::builder().add_service(service.into_server());
        service.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("served");
    });
    (address.await.expect("bound"), Server(Some(runtime)))
}

fn peers(cluster: ClusterId, number: u32) -> Peers {
    let peers = Peers::new(Handle::current(), 0, None, || true);
    peers.introduce(hello(cluster, number));
    peers
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

#[tokio::test]
async fn every_call_gets_its_own_answer() {
    let (address, _server) = serve().await;
    let peers = peers(CLUSTER, 1);
    let calls: Vec<_> = (0..10_000u32)
        .map(|number| match number % 3 {
            0 => (b"later".to_vec(), peers.call(&address, 5, b"later")),
            _ => (number.to_le_bytes().to_vec(), peers.call(&address, 5, &number.to_le_bytes())),
        })
        .collect();
    for (asked, call) in calls {
        let expected = if asked == b"later" { b"now".to_vec() } else { asked };
        assert_eq!(within(call).await.expect("answered"), expected);
    }
}

#[tokio::test]
async fn calls_larger_than_a_message_get_their_answers_among_others() {
    let (address, _server) = serve().await;
    let peers = peers(CLUSTER, 1);
    let sizes = [10, MAX_CONTENT, 3 * MAX_CONTENT + 5, 0, MAX_CONTENT - 12, 2 * MAX_CONTENT, 10];
    let contents: Vec<Vec<u8>> = (1..).zip(sizes).map(|(number, size)| vec![number; size]).collect();
    let calls: Vec<_> = contents.iter().map(|content| peers.call(&address, 5, content)).collect();
    for (content, call) in contents.iter().zip(calls) {
        assert!(within(call).await.expect("answered") == content[..]);
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_breaks_nothing() {
    let (address, _server) = serve().await;
    let peers = peers(CLUSTER, 1);
    let pending = peers.call(&address, 5, b"later");
    assert_eq!(within(peers.call(&address, 5, &vec![0; MAX_CALL + 1])).await, Err(CallError::TooLarge(MAX_CALL + 1)));
    assert_eq!(within(peers.call(&address, 5, b"too much")).await.as_deref(), Ok(&b""[..]));
    assert_eq!(within(pending).await.as_deref(), Ok(&b"now"[..]));
}

#[tokio::test]
async fn what_was_sent_to_a_node_that_ends_is_uncertain_and_what_was_not_is_not() {
    let (address, mut server) = serve().await;
    let peers = peers(CLUSTER, 1);
    assert_eq!(within(peers.call(&address, 5, b"a")).await.as_deref(), Ok(&b"a"[..]));
    let pending = peers.call(&address, 5, b"never");
    // Behind it on the same stream: once this is answered, the other one was sent.
    assert_eq!(within(peers.call(&address, 5, b"b")).await.as_deref(), Ok(&b"b"[..]));
    server.end();
    assert_eq!(within(pending).await, Err(CallError::Broken));
    let refused = async {
        // The connection's end may not be known at once.
        loop {
            match peers.call(&address, 5, b"c").await {
                Err(CallError::Unreachable(_)) => return,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    within(refused).await;
}

#[tokio::test]
async fn a_node_of_another_cluster_is_told_so() {
    let (address, _server) = serve().await;
    let stranger = peers(ClusterId([8; 16]), 1);
    let Err(CallError::Unreachable(reason)) = within(stranger.call(&address, 5, b"a")).await else {
        panic!("it was answered");
    };
    assert!(reason.contains(&CLUSTER.to_string()) && reason.contains(&ClusterId([8; 16]).to_string()), "{reason}");
    assert!(matches!(within(stranger.open_feed(&address)).await, Err(FeedError::Refused(_))));
}

#[tokio::test]
async fn frames_arrive_in_order_and_either_end_ends_both() {
    let (address, mut server) = serve().await;
    let peers = peers(CLUSTER, 1);
    let mut feed = within(peers.open_feed(&address)).await.expect("a feed");
    for number in 0..1_000u32 {
        let frame = Bytes::copy_from_slice(&number.to_le_bytes());
        within(feed.outgoing.send(frame.clone())).await.expect("sent");
        assert_eq!(within(feed.incoming.recv()).await, Some(frame));
    }
    server.end();
    assert_eq!(within(feed.incoming.recv()).await, None);
    within(feed.outgoing.closed()).await;
}

#[tokio::test]
async fn a_feed_that_is_not_wanted_is_refused_with_its_reason() {
    let (address, _server) = serve().await;
    let refused = within(peers(CLUSTER, 9).open_feed(&address)).await.expect_err("refused");
    assert_eq!(refused.to_string(), "the node refuses: no feeds of node 9");
}
