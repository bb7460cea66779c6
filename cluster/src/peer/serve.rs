//! The answering side: what peers ask is handed to the node.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_proto::peer::peer_server::{Peer, PeerServer};
use forebay_proto::peer::{Batch, Frame};
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, error};

use super::batch::Calls;
use super::feed::{self, FRAMES, Feed};
use super::hello::{Hello, Stranger};
use super::queue::{Batches, Queue};
use super::{MAX_CALL, MAX_MESSAGE};

/// What a node does for its peers.
pub trait PeerHandler: Send + Sync + 'static {
    /// Runs a request that was placed by the topology of `epoch`, as far as it can at once, and answers it then or later. Called for the
    /// requests of one peer in their order.
    fn serve(&self, caller: &Hello, epoch: u64, request: Bytes, answer: Answer);

    /// Takes part in a feed that a peer has begun. Must not block.
    ///
    /// # Errors
    /// When the node does not want it; the caller is told why.
    fn feed(&self, caller: &Hello, feed: Feed) -> Result<(), String>;
}

/// Where the answer to one request goes.
pub struct Answer {
    number: u64,
    queue: Arc<Queue>,
}

impl Answer {
    /// Sends the answer, of at most [`MAX_CALL`] bytes; an empty one goes in the place of one that is larger. It is lost if the caller has
    /// gone.
    #[inline]
    pub fn send(self, content: &[u8]) {
        let content = if content.len() > MAX_CALL { too_large(content) } else { content };
        let _gone = self.queue.push_anyway(self.number, content);
    }

    /// The same for an answer that is better not copied.
    pub fn send_shared(self, content: Bytes) {
        let content = if content.len() > MAX_CALL { Bytes::from_static(too_large(&content)) } else { content };
        let _gone = self.queue.push_shared(self.number, content);
    }
}

#[cold]
fn too_large(content: &[u8]) -> &'static [u8] {
    error!(bytes = content.len(), limit = MAX_CALL, "an answer to a peer is too large and was not sent");
    &[]
}

/// The Peer service of a node.
pub struct PeerService<H> {
    handler: Arc<H>,
    hello: Arc<Mutex<Option<Hello>>>,
}

impl<H: PeerHandler> PeerService<H> {
    /// A service that hands on what comes to `handler`. It listens to nobody before it was introduced to the cluster.
    pub fn new(handler: Arc<H>) -> Self {
        PeerService { handler, hello: Arc::default() }
    }

    /// Says who this node is.
    pub fn introduction(&self) -> impl Fn(Hello) + Send + Sync + 'static {
        let hello = Arc::clone(&self.hello);
        move |own| *hello.lock() = Some(own)
    }

    /// The service for a gRPC server.
    pub fn into_server(self) -> PeerServer<impl Peer> {
        PeerServer::new(self).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Hello, Stranger> {
        let own = *self.hello.lock();
        Hello::read(request.metadata(), own.as_ref())
    }
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl<H: PeerHandler> Peer for PeerService<H> {
    type ServeStream = Out<Batch>;
    type FeedStream = Out<Frame>;

    async fn serve(&self, request: Request<Streaming<Batch>>) -> Result<Response<Self::ServeStream>, Status> {
        let caller = self.caller(&request)?;
        let queue = Arc::new(Queue::default());
        let answers = Batches::new(Arc::clone(&queue), into_answer as fn(Bytes) -> Result<Batch, Status>);
        let requests = request.into_inner();
        let (handler, calls) = (Arc::clone(&self.handler), Calls::default());
        Ok(Response::new(Box::pin(Serving { handler, caller, requests, calls, queue, answers })))
    }

    async fn feed(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::FeedStream>, Status> {
        use futures_util::StreamExt as _;
        let caller = self.caller(&request)?;
        let (outgoing, frames) = mpsc::channel(FRAMES);
        let (sender, incoming) = mpsc::channel(FRAMES);
        self.handler.feed(&caller, Feed { outgoing, incoming }).map_err(Status::failed_precondition)?;
        tokio::spawn(async move {
            if let Err(status) = feed::receive(request.into_inner(), sender).await {
                debug!(caller = ?caller.number, reason = status.message(), "a feed has ended");
            }
        });
        Ok(Response::new(Box::pin(feed::outgoing(frames).map(Ok))))
    }
}

/// One peer's requests and the answers to them. Requests are run by whoever wants answers: on the connection's own thread, and in its own
/// task, so that what can be answered at once wakes nobody.
struct Serving<H> {
    handler: Arc<H>,
    caller: Hello,
    requests: Streaming<Batch>,
    calls: Calls,
    queue: Arc<Queue>,
    answers: Batches<fn(Bytes) -> Result<Batch, Status>>,
}

impl<H: PeerHandler> Serving<H> {
    fn run(&mut self, Batch { epoch, mut content }: Batch) -> Result<(), Status> {
        while let Some((number, request)) = self.calls.next(&mut content)? {
            self.handler.serve(&self.caller, epoch, request, Answer { number, queue: Arc::clone(&self.queue) });
        }
        Ok(())
    }
}

impl<H: PeerHandler> Stream for Serving<H> {
    type Item = Result<Batch, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            // Whoever does not take its answers is not asked for more.
            let has_run = self.queue.has_room() && {
                let batch = match Pin::new(&mut self.requests).poll_next(context) {
                    Poll::Ready(Some(batch)) => Some(batch.and_then(|batch| self.run(batch))),
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Pending => None,
                };
                if let Some(Err(status)) = &batch {
                    debug!(caller = ?self.caller.number, reason = status.message(), "a peer's requests have ended");
                    return Poll::Ready(None);
                }
                batch.is_some()
            };
            // What was answered at once goes out at once; without room there are answers.
            match Pin::new(&mut self.answers).poll_next(context) {
                Poll::Pending if has_run => {}
                answers => return answers,
            }
        }
    }
}

impl<H> Drop for Serving<H> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn into_answer(content: Bytes) -> Result<Batch, Status> {
    Ok(Batch { epoch: 0, content })
}
