//! The way to one peer: its connection, its stream of requests, and the calls that are under way.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::RandomState;
use forebay_proto::peer::Batch;
use forebay_proto::peer::peer_client::PeerClient;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::InvalidUri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tracing::{debug, info, warn};

use super::batch::Calls;
use super::connection::Connection;
use super::feed::{self, FRAMES, Feed, FeedError};
use super::hello::Hello;
use super::lane::{self, Lane};
use super::queue::{Batches, Queue};
use super::{MAX_CALL, MAX_MESSAGE, WINDOW};
use crate::refusal::{self, in_words};
use crate::tls::PeerTls;

/// Calls under way to one peer at the same time.
const MAX_CALLS: usize = 100_000;

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_millis(1_000);

/// A silent connection is asked for a sign of life this often, and is given up when none comes within the second time.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a peer that cannot be reached is not tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Between two looks at what has no answer yet. One timer of the link serves all its calls.
const LOOK: Duration = Duration::from_millis(250);

/// How long an answer is waited for, 30 s. The peer may have to load, and to wait until it knows that it is the owner.
const ANSWER_LOOKS: usize = 120;

/// How long an answer is waited for by who is out of touch with the cluster, 1 s: a new leader of the cluster is found sooner. Nobody answers a node that is cut
/// off, and connections do not end by that.
const CUT_OFF_LOOKS: usize = 4;

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was sent: it may be sent again.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// It was sent, and the connection ended before the answer came: nobody knows whether it was carried out.
    #[error("the connection to the node ended before it answered")]
    Broken,
    /// Nothing was sent.
    #[error("too much is under way to the node already")]
    Busy,
    /// Nothing was sent, and nothing would ever be.
    #[error("{0} bytes are too many to be sent to another node: it takes at most {MAX_CALL}")]
    TooLarge(usize),
}

/// A call's answer, to be awaited. A call that is dropped may be carried out all the same.
#[derive(Debug)]
pub struct Call {
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
}

impl Future for Call {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| answer.unwrap_or(Err(CallError::Broken)))
    }
}

/// How links dial and introduce themselves.
pub(super) struct Manner {
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) tls: Option<PeerTls>,
    pub(super) hello: Mutex<Option<Hello>>,
    /// Whether this process hears of its cluster. While it does not, it is probably cut off.
    pub(super) is_in_touch: Box<dyn Fn() -> bool + Send + Sync>,
}

/// The way to one peer.
pub(super) struct Link {
    address: String,
    manner: Arc<Manner>,
    /// Whether it is a lane's own: then no other thread calls here.
    is_lanes: bool,
    calls: Mutex<Calling>,
    /// The latest that a call was placed by; each batch says it.
    epoch: Arc<AtomicU64>,
}

#[derive(Default)]
struct Calling {
    last_number: u64,
    under_way: HashMap<u64, oneshot::Sender<Result<Bytes, CallError>>, RandomState>,
    /// The last number at each of the last looks, the latest one at the end.
    looks: VecDeque<u64>,
    looks_out_of_touch: usize,
    /// There while the stream is, or is being made.
    queue: Option<Arc<Queue>>,
    /// Why the last attempt failed, for a short while in which there is no other.
    failed: Option<(tokio::time::Instant, String)>,
    /// What streams are opened on, as long as it works.
    channel: Option<Channel>,
}

impl Calling {
    /// Fails the calls that were made too many looks ago.
    fn look(&mut self, is_in_touch: bool) {
        self.looks_out_of_touch = if is_in_touch { 0 } else { self.looks_out_of_touch + 1 };
        let patience = if self.looks_out_of_touch > CUT_OFF_LOOKS { CUT_OFF_LOOKS } else { ANSWER_LOOKS };
        if let Some(late) = self.looks.len().checked_sub(patience).and_then(|look| self.looks.get(look)).copied() {
            let late: Vec<u64> = self.under_way.keys().copied().filter(|number| *number <= late).collect();
            for sender in late.iter().filter_map(|number| self.under_way.remove(number)) {
                let _gone = sender.send(Err(CallError::Broken));
            }
        }
        if self.looks.len() == ANSWER_LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back(self.last_number);
    }
}

impl Link {
    pub(super) fn new(address: String, manner: Arc<Manner>, is_lanes: bool) -> Link {
        Link { address, manner, is_lanes, calls: Mutex::default(), epoch: Arc::default() }
    }

    /// Sends a request, with the next batch.
    pub(super) fn call(self: &Arc<Self>, epoch: u64, content: &[u8]) -> Call {
        let (sender, answer) = oneshot::channel();
        self.epoch.fetch_max(epoch, Relaxed);
        if let Err((sender, error)) = self.enqueue(sender, content) {
            let _gone = sender.send(Err(error));
        }
        Call { answer }
    }

    fn enqueue(
        self: &Arc<Self>,
        sender: oneshot::Sender<Result<Bytes, CallError>>,
        content: &[u8],
    ) -> Result<(), (oneshot::Sender<Result<Bytes, CallError>>, CallError)> {
        if content.len() > MAX_CALL {
            return Err((sender, CallError::TooLarge(content.len())));
        }
        let mut calls = self.calls.lock();
        if let Some((at, reason)) = &calls.failed {
            if at.elapsed() < RETRY {
                return Err((sender, CallError::Unreachable(reason.clone())));
            }
        }
        if calls.under_way.len() >= MAX_CALLS {
            return Err((sender, CallError::Busy));
        }
        let queue = match &calls.queue {
            Some(queue) => Arc::clone(queue),
            None => {
                let queue = Arc::new(Queue::default());
                calls.queue = Some(Arc::clone(&queue));
                self.begin(&queue);
                queue
            }
        };
        calls.last_number += 1;
        let number = calls.last_number;
        calls.under_way.insert(number, sender);
        // Under the lock, so that numbers rise within the queue.
        match queue.push(number, content) {
            true => Ok(()),
            false => match calls.under_way.remove(&number) {
                Some(sender) => Err((sender, CallError::Busy)),
                None => unreachable!("it was entered above, under the same lock"),
            },
        }
    }

    /// Has what is put into the queue sent, and answers taken.
    fn begin(self: &Arc<Self>, queue: &Arc<Queue>) {
        let (link, queue) = (Arc::clone(self), Arc::clone(queue));
        // A task of its own: within the other it would be polled with each answer.
        let ended = CancellationToken::new();
        let looking = Arc::clone(self).look_after_calls(ended.clone());
        match lane::here().filter(|_| self.is_lanes) {
            Some(lane) => {
                let its_lane = Rc::clone(&lane);
                lane.spawn(Box::pin(looking));
                lane.spawn(Box::pin(async move {
                    let _ended = ended.drop_guard();
                    link.converse(&queue, link.stream_on(its_lane, &queue)).await;
                }));
            }
            None => {
                self.manner.runtime.spawn(looking);
                self.manner.runtime.spawn(async move {
                    let _ended = ended.drop_guard();
                    link.converse(&queue, link.stream(&queue)).await;
                });
            }
        }
    }

    /// Makes the stream and reads answers from it until it ends.
    async fn converse(&self, queue: &Arc<Queue>, stream: impl Future<Output = Result<Streaming<Batch>, Status>>) {
        let ended = self.exchange(stream).await;
        queue.close();
        let mut calls = self.calls.lock();
        calls.queue = None;
        calls.channel = None;
        // Who is refused as a stranger has been listened to in nothing.
        let is_stranger = matches!(&ended, Err(status) if status.code() == Code::PermissionDenied);
        let last_sent = if is_stranger { 0 } else { queue.last_taken() };
        let reason = match &ended {
            Ok(()) => "it has ended the connection".to_owned(),
            Err(status) => refusal::of(status, self.manner.tls.is_some()),
        };
        if last_sent == 0 {
            calls.failed = Some((tokio::time::Instant::now(), reason.clone()));
        }
        for (number, sender) in calls.under_way.drain() {
            let error = if number <= last_sent { CallError::Broken } else { CallError::Unreachable(reason.clone()) };
            let _gone = sender.send(Err(error));
        }
        drop(calls);
        match is_stranger {
            true => warn!(peer = self.address, "{reason}"),
            false => debug!(peer = self.address, reason, "no requests go to the peer for now"),
        }
    }

    async fn exchange(&self, stream: impl Future<Output = Result<Streaming<Batch>, Status>>) -> Result<(), Status> {
        let answers = stream.await?;
        self.read(answers).await
    }

    /// Gives up calls that are not answered for too long, until the conversation has ended.
    async fn look_after_calls(self: Arc<Self>, ended: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK);
        while ended.run_until_cancelled(looks.tick()).await.is_some() {
            let is_in_touch = (self.manner.is_in_touch)();
            self.calls.lock().look(is_in_touch);
        }
    }

    async fn stream(&self, queue: &Arc<Queue>) -> Result<Streaming<Batch>, Status> {
        let hello = self.hello()?;
        let channel = self.channel().await.map_err(|error| Status::unavailable(in_words(&error)))?;
        let answers = limited(PeerClient::new(channel)).serve(hello.request(self.batches(queue))).await?.into_inner();
        info!(peer = self.address, "requests go to the peer");
        Ok(answers)
    }

    /// The same, on a connection of the lane's own.
    async fn stream_on(&self, lane: Rc<dyn Lane>, queue: &Arc<Queue>) -> Result<Streaming<Batch>, Status> {
        let hello = self.hello()?;
        let origin = self.origin()?;
        let connection = Connection::open(lane, &self.address, self.manner.tls.as_ref()).await;
        let connection = connection.map_err(|error| Status::unavailable(in_words(&*error)))?;
        let client = PeerClient::with_origin(connection, origin);
        let answers = limited(client).serve(hello.request(self.batches(queue))).await?.into_inner();
        debug!(peer = self.address, "requests go to the peer from a thread of its own");
        Ok(answers)
    }

    fn hello(&self) -> Result<Hello, Status> {
        (*self.manner.hello.lock()).ok_or_else(|| Status::unavailable("this node is not a member yet"))
    }

    fn batches(&self, queue: &Arc<Queue>) -> Batches<impl FnMut(Bytes) -> Batch + Unpin + Send + 'static> {
        let epoch = Arc::clone(&self.epoch);
        Batches::new(Arc::clone(queue), move |content| Batch { epoch: epoch.load(Relaxed), content })
    }

    /// The address, as gRPC wants it.
    fn origin(&self) -> Result<Uri, Status> {
        let scheme = if self.manner.tls.is_some() { "https" } else { "http" };
        let origin = format!("{scheme}://{}", self.address).parse();
        origin.map_err(|error: InvalidUri| Status::unavailable(format!("{} is no address: {error}", self.address)))
    }

    async fn read(&self, mut answers: Streaming<Batch>) -> Result<(), Status> {
        let mut begun = Calls::default();
        while let Some(Batch { mut content, .. }) = answers.message().await? {
            // Before the lock: a large one is copied until it is whole.
            let mut next = begun.next(&mut content)?;
            let mut calls = self.calls.lock();
            while let Some((number, answer)) = next {
                if let Some(sender) = calls.under_way.remove(&number) {
                    let _gone = sender.send(Ok(answer));
                }
                next = begun.next(&mut content)?;
            }
        }
        Ok(())
    }

    /// Begins a feed to the peer.
    pub(super) async fn open_feed(&self) -> Result<Feed, FeedError> {
        let hello = (*self.manner.hello.lock()).ok_or(FeedError::NotYet)?;
        let channel = self.channel().await.map_err(|error| FeedError::Unreachable(in_words(&error)))?;
        let mut client = limited(PeerClient::new(channel));
        let (outgoing, frames) = mpsc::channel(FRAMES);
        let (sender, incoming) = mpsc::channel(FRAMES);
        let stream =
            client.feed(hello.request(feed::outgoing(frames))).await.map_err(|status| match status.code() {
                Code::PermissionDenied | Code::FailedPrecondition => FeedError::Refused(status.message().to_owned()),
                _ => FeedError::Unreachable(refusal::of(&status, self.manner.tls.is_some())),
            })?;
        let address = self.address.clone();
        self.manner.runtime.spawn(async move {
            if let Err(status) = feed::receive(stream.into_inner(), sender).await {
                debug!(peer = address, reason = status.message(), "a feed has ended");
            }
        });
        Ok(Feed { outgoing, incoming })
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        if let Some(channel) = self.calls.lock().channel.clone() {
            return Ok(channel);
        }
        let scheme = if self.manner.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.address))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        if let Some(tls) = &self.manner.tls {
            endpoint = endpoint.tls_config(tls.client(&self.address, CONNECT))?;
        }
        let channel = endpoint.connect().await?;
        self.calls.lock().channel = Some(channel.clone());
        Ok(channel)
    }
}

fn limited<C>(client: PeerClient<C>) -> PeerClient<C>
where
    C: GrpcService<Body>,
    C::Error: Into<StdError>,
    C::ResponseBody: tonic::transport::Body<Data = Bytes> + Send + 'static,
    <C::ResponseBody as tonic::transport::Body>::Error: Into<StdError> + Send,
{
    client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(calls: &mut Calling) -> Call {
        let (sender, answer) = oneshot::channel();
        calls.last_number += 1;
        calls.under_way.insert(calls.last_number, sender);
        Call { answer }
    }

    fn is_given_up(call: &mut Call) -> bool {
        matches!(call.answer.try_recv(), Ok(Err(CallError::Broken)))
    }

    #[test]
    fn a_call_is_given_up_after_its_time_and_not_before() {
        let mut calls = Calling::default();
        (0..7).for_each(|_| calls.look(true));
        let mut early = call(&mut calls);
        calls.look(true);
        let mut late = call(&mut calls);
        (1..ANSWER_LOOKS).for_each(|_| calls.look(true));
        assert!(!is_given_up(&mut early));
        calls.look(true);
        assert!(is_given_up(&mut early) && !is_given_up(&mut late));
        calls.look(true);
        assert!(is_given_up(&mut late) && calls.under_way.is_empty());
    }

    #[test]
    fn who_is_cut_off_gives_up_soon() {
        let mut calls = Calling::default();
        (0..2 * ANSWER_LOOKS).for_each(|_| calls.look(true));
        let mut early = call(&mut calls);
        (0..CUT_OFF_LOOKS).for_each(|_| calls.look(false));
        assert!(!is_given_up(&mut early));
        calls.look(false);
        assert!(is_given_up(&mut early));
        let mut after = call(&mut calls);
        calls.look(true);
        (0..CUT_OFF_LOOKS).for_each(|_| calls.look(false));
        assert!(!is_given_up(&mut after), "it was in touch meanwhile");
    }
}
