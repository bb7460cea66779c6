//! One connection: read what has come, answer every complete request of it, write all replies at once.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use forebay_resp::{Decoded, Decoder, Frame, Limits, Protocol, ProtocolError, Reply};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::{poll_read_buf, poll_write_buf};
use tracing::debug;

use super::bench::{Bench, READ_BYTES};
use crate::clients::{Ask, Client};
use crate::engine::{Engine, Step, Wait};
use crate::session::Session;

/// Bytes of replies at which they are written although the batch is not answered to its end.
const FLUSH_BYTES: usize = 256 * 1024;

/// Most bytes that the input buffer grows by ahead of what has arrived: a length in a header is only a claim.
const GROWTH_BYTES: usize = 1024 * 1024;

/// How long a closed connection waits for the peer's end, so that what the peer still sends does not turn the last replies into a
/// reset (RFC 1122, 4.2.2.13).
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of an unfinished request up to which its connection gives its bench back and keeps only them. Decoding starts over when more
/// comes, so this is also what a client that sends single bytes can make us look at for each of them.
const SMALL_UNFINISHED: usize = 1024;

/// Requests of one batch whose loads are begun ahead of their turn.
const PREFETCH_REQUESTS: usize = 4096;

/// A connection and its state.
pub(super) struct Connection<S> {
    stream: S,
    session: Session,
    engine: Arc<Engine>,
    decoder: Decoder,
    protocol: Protocol,
    /// Present while something is in work.
    bench: Option<Bench>,
    /// The beginning of a request whose end has not come, while there is no bench; so ten thousand clients that stall within a request
    /// hold ten thousand short vectors and no more.
    unfinished: Vec<u8>,
}

/// Why a connection ends.
pub(super) enum End {
    /// The peer has closed.
    ByPeer,
    /// After a reply that says so, or because the server drains: what was written is to arrive.
    InOrder,
    /// At once: killed, or the peer broke a limit.
    AtOnce,
    Failed(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::ByPeer => f.write_str("the peer closed it"),
            End::InOrder => f.write_str("closed in order"),
            End::AtOnce => f.write_str("cut"),
            End::Failed(error) => write!(f, "the socket failed: {error}"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, session: Session, engine: Arc<Engine>) -> Connection<S> {
        Connection {
            stream,
            session,
            engine,
            decoder: Decoder::new(),
            protocol: Protocol::Resp2,
            bench: None,
            unfinished: Vec::new(),
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn serve(mut self) {
        let end = self.run().await;
        debug!(id = self.session.client.id, %end, "a connection has ended");
        if matches!(end, End::InOrder) {
            self.close_in_order().await;
        }
    }

    async fn run(&mut self) -> End {
        loop {
            let mut received = self.receive().await;
            if matches!(received, Err(End::InOrder)) {
                // A drain. What has arrived is still to be answered, and the scheduler may not have told of it yet; after one turn it has.
                tokio::task::yield_now().await;
                received = self.receive().await;
            }
            if let Err(end) = received {
                return end;
            }
            let answered = self.answer().await;
            // What was answered before the end is sent even then.
            if let Err(end) = self.flush().await {
                return end;
            }
            if let Err(end) = answered {
                return end;
            }
            self.rest();
        }
    }

    /// Waits for bytes. Takes up a bench only when there are some.
    async fn receive(&mut self) -> Result<(), End> {
        let Connection { stream, session, bench, protocol, decoder, unfinished, .. } = self;
        let client = &session.client;
        std::future::poll_fn(|context| {
            let mut taken = bench.take().unwrap_or_else(|| Bench::take_with(std::mem::take(unfinished)));
            taken.reply.set_protocol(*protocol);
            let read = poll_read_buf(Pin::new(&mut *stream), context, &mut taken.input);
            match read {
                Poll::Pending if taken.input.len() <= SMALL_UNFINISHED => {
                    unfinished.extend_from_slice(&taken.input);
                    // What it has found so far is in the bench's frame.
                    *decoder = Decoder::new();
                    taken.leave();
                }
                _ => *bench = Some(taken),
            }
            match read {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(End::ByPeer)),
                // What came after a kill is not answered any more.
                Poll::Ready(Ok(_)) if client.asked() == Ask::Kill => Poll::Ready(Err(End::AtOnce)),
                Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(End::Failed(error))),
                Poll::Pending => {
                    client.wake_me(context.waker());
                    match client.asked() {
                        Ask::Nothing => Poll::Pending,
                        Ask::Drain => Poll::Ready(Err(End::InOrder)),
                        Ask::Kill => Poll::Ready(Err(End::AtOnce)),
                    }
                }
            }
        })
        .await
    }

    /// Answers every complete request of the input.
    async fn answer(&mut self) -> Result<(), End> {
        self.note_arrival();
        // Whether a request of this batch has waited for loads.
        let mut waited = false;
        loop {
            let limits = self.limits();
            let Some(bench) = &mut self.bench else {
                return Ok(());
            };
            let consumed = match self.decoder.decode(&bench.input, &limits, &mut bench.frame) {
                Ok(Decoded::Request { consumed }) => consumed,
                Ok(Decoded::Nothing { consumed }) => {
                    bench.input.advance(consumed);
                    continue;
                }
                Ok(Decoded::Incomplete { missing }) => return self.make_room(missing),
                Err(error) => return self.complain(error),
            };
            let args = bench.frame.args(&bench.input);
            let mark = bench.reply.mark();
            let step = match self.engine.begin(&mut self.session, args, &mut bench.reply) {
                Step::Wait(wait) => {
                    let begins_loads = matches!(wait, Wait::Loads(_)) && !std::mem::replace(&mut waited, true);
                    if begins_loads {
                        prefetch(&self.engine, &self.session, &limits, &bench.input[consumed..]);
                    }
                    // What stands before a wait is not held back by it. Before a rest it is: its own reply is written already.
                    if begins_loads || matches!(wait, Wait::Pause) {
                        send(&mut self.stream, &self.session, &self.engine, &mut bench.reply).await?;
                    }
                    let client = Arc::clone(&self.session.client);
                    let finish = self.engine.finish(&mut self.session, args, &mut bench.reply, wait);
                    unless_killed(&client, finish).await?
                }
                step => step,
            };
            if !self.session.sends_reply() {
                bench.reply.rewind(mark);
            }
            bench.input.advance(consumed);
            let unsent = bench.reply.len();
            if self.engine.node().settings.output_limits.forbid(unsent) {
                debug!(id = self.session.client.id, unsent, "the output buffer limit is passed");
                bench.reply.clear();
                return Err(End::AtOnce);
            }
            if matches!(step, Step::Close) {
                return Err(End::InOrder);
            }
            if unsent >= FLUSH_BYTES {
                self.flush().await?;
            }
            if self.session.client.asked() == Ask::Kill {
                return Err(End::InOrder);
            }
        }
    }

    fn note_arrival(&mut self) {
        let now = self.engine.node().clock.unix_millis();
        self.session.now = now;
        let (bytes, capacity) = self.bench.as_ref().map_or((0, 0), |bench| (bench.input.len(), bench.input.capacity()));
        let client = &self.session.client;
        client.query_capacity.store(capacity, Relaxed);
        client.last_request_at.store(now, Relaxed);
        client.query_bytes.store(bytes, Relaxed);
        self.engine.node().telemetry.lanes.lane(self.session.lane).read(bytes);
    }

    fn limits(&self) -> Limits {
        Limits {
            bulk: self.engine.node().settings.proto_max_bulk_len.load(Relaxed),
            authenticated: self.session.authenticated,
            ..Limits::default()
        }
    }

    /// Makes room for the rest of a request, within the limit and not far ahead of what has come.
    fn make_room(&mut self, missing: usize) -> Result<(), End> {
        let limit = self.engine.node().settings.client_query_buffer_limit.load(Relaxed);
        let Some(bench) = &mut self.bench else {
            return Ok(());
        };
        if bench.input.len() > limit {
            debug!(id = self.session.client.id, limit, "the query buffer limit is passed");
            return Err(End::AtOnce);
        }
        if !bench.input.is_empty() {
            let most = bench.input.len().clamp(READ_BYTES, GROWTH_BYTES);
            bench.input.reserve(missing.clamp(READ_BYTES, most));
        }
        Ok(())
    }

    /// Answers a violation of the protocol; after it nothing that comes can be understood.
    fn complain(&mut self, error: ProtocolError) -> Result<(), End> {
        if let Some(bench) = &mut self.bench {
            bench.reply.protocol_error(error);
        }
        self.engine.node().telemetry.errors.count("ERR");
        Err(End::InOrder)
    }

    /// Writes all replies.
    async fn flush(&mut self) -> Result<(), End> {
        let Some(bench) = &mut self.bench else {
            return Ok(());
        };
        self.protocol = bench.reply.protocol();
        send(&mut self.stream, &self.session, &self.engine, &mut bench.reply).await
    }

    /// Gives the bench back when nothing is left on it.
    fn rest(&mut self) {
        if let Some(bench) = self.bench.take_if(|bench| bench.input.is_empty()) {
            bench.leave();
            self.session.client.query_bytes.store(0, Relaxed);
            self.session.client.query_capacity.store(0, Relaxed);
        }
    }

    /// Ends the sending side, and takes what the peer still sends until it ends as well.
    async fn close_in_order(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 1024];
        let drained =
            async { while matches!(tokio::io::AsyncReadExt::read(&mut self.stream, &mut rest).await, Ok(1..)) {} };
        // A peer that never ends is left to the system after this.
        let _ended = tokio::time::timeout(LINGER, drained).await;
    }
}

/// Writes replies until none is left.
async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &Session,
    engine: &Engine,
    reply: &mut Reply,
) -> Result<(), End> {
    let client = &session.client;
    let lane = engine.node().telemetry.lanes.lane(session.lane);
    std::future::poll_fn(|context| {
        while reply.has_remaining() {
            let Poll::Ready(written) = poll_write_buf(Pin::new(&mut *stream), context, reply) else {
                client.unsent.stalled(reply.len(), engine.node().clock.unix_millis());
                return stalled(client, context);
            };
            match written {
                Ok(bytes) => lane.wrote(bytes),
                Err(error) => return Poll::Ready(Err(End::Failed(error))),
            }
        }
        client.unsent.sent();
        Poll::Ready(Ok(()))
    })
    .await
}

/// Begins the loads of the requests behind the one that waits.
fn prefetch(engine: &Engine, session: &Session, limits: &Limits, input: &[u8]) {
    let mut decoder = Decoder::new();
    let mut frame = Frame::new();
    let mut prefetch = engine.prefetch();
    let mut at = 0;
    for _ in 0..PREFETCH_REQUESTS {
        match decoder.decode(&input[at..], limits, &mut frame) {
            Ok(Decoded::Request { consumed }) => {
                prefetch.add(session, frame.args(&input[at..]));
                at += consumed;
            }
            Ok(Decoded::Nothing { consumed }) => at += consumed,
            Ok(Decoded::Incomplete { .. }) | Err(_) => return,
        }
    }
}

/// Waits for `future`, unless the connection is killed meanwhile.
pub(super) async fn unless_killed<T>(client: &Client, future: impl Future<Output = T>) -> Result<T, End> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        client.wake_me(context.waker());
        match client.asked() {
            Ask::Kill => Poll::Ready(Err(End::AtOnce)),
            Ask::Nothing | Ask::Drain => Poll::Pending,
        }
    })
    .await
}

/// The peer does not take its replies: wait, but not beyond a kill.
fn stalled(client: &Client, context: &mut Context<'_>) -> Poll<Result<(), End>> {
    client.wake_me(context.waker());
    match client.asked() {
        Ask::Kill => Poll::Ready(Err(End::AtOnce)),
        Ask::Nothing | Ask::Drain => Poll::Pending,
    }
}
