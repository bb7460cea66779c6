//! One connection: read what has come, answer every complete request of it, write all replies at once.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use forebay_cluster::peer::CallError;
use forebay_resp::{Args, Decoded, Decoder, Frame, Limits, Mark, Protocol, ProtocolError, Reply};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio_util::io::{poll_read_buf, poll_write_buf};
use tracing::{debug, warn};

use super::bench::{Bench, READ_BYTES, Received};
use super::socket::Line;
use crate::clients::{Ask, Client};
use crate::engine::{BATCH_REQUESTS, BatchKeys, Engine, Requests, Sent, Step, Wait};
use crate::session::{Replies, Session};
use crate::tracking::write_pushes;

/// Bytes of replies at which they are written although the batch is not answered to its end.
const FLUSH_BYTES: usize = 256 * 1024;

/// Bytes that a connection reads or writes before others have their turn: copying them takes a tenth of a millisecond.
const TURN_BYTES: usize = 256 * 1024;

/// How long a closed connection waits for the peer's end, so that what the peer still sends does not turn the last replies into a
/// reset (RFC 1122, 4.2.2.13).
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of an unfinished request up to which its connection gives its bench back and keeps only them. Decoding starts over when more
/// comes, so this is also what a client that sends single bytes can make us look at for each of them.
const SMALL_UNFINISHED: usize = 1024;

/// Bytes of replies that are written without waiting for a turn.
const LITTLE_BYTES: usize = 64 * 1024;

/// Requests of one batch whose loads are begun ahead of their turn.
const PREFETCH_REQUESTS: usize = 4096;

/// A connection and its state.
pub(super) struct Connection<S> {
    stream: S,
    session: Session,
    engine: Arc<Engine>,
    /// For turns in writing much; one for each thread.
    bulk: Arc<Semaphore>,
    decoder: Decoder,
    protocol: Protocol,
    /// Present while something is in work.
    bench: Option<Box<Bench>>,
    /// Whether the client knows whom to wake. It does not forget that before something is asked.
    is_listed: bool,
    /// The beginning of a request whose end has not come, while there is no bench; so ten thousand clients that stall within a request
    /// hold ten thousand short vectors and no more.
    unfinished: Vec<u8>,
}

/// How far the decoded requests have been run.
enum Turn {
    /// All that could be prepared together.
    Done,
    /// There are replies enough to be written.
    Flush,
    /// The next request waits; its reply begins at the mark.
    Wait(Wait, Mark),
}

/// What a connection has waited for.
enum Arrival {
    /// So many have been read.
    Bytes(usize),
    /// There was something in its mailbox, which stands in the bench's reply.
    Pushes,
}

/// Why a connection ends.
pub(super) enum End {
    /// The peer has closed.
    ByPeer,
    /// After a reply that says so, or because the server drains: what was written is to arrive.
    InOrder,
    /// At once: killed, or the peer broke a limit.
    AtOnce,
    /// At once, and something that was run is not answered, or not to its end. The peer is told by a reset: of what any other end leaves
    /// unanswered, nothing was run.
    Unanswered,
    Failed(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::ByPeer => f.write_str("the peer closed it"),
            End::InOrder => f.write_str("closed in order"),
            End::AtOnce => f.write_str("cut"),
            End::Unanswered => f.write_str("cut with a request under way"),
            End::Failed(error) => write!(f, "the socket failed: {error}"),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Line + Unpin> Connection<S> {
    /// A connection that has sent nothing yet. Of those that share `bulk`, one at a time writes much.
    pub(super) fn new(stream: S, session: Session, engine: Arc<Engine>, bulk: Arc<Semaphore>) -> Connection<S> {
        Connection {
            stream,
            session,
            engine,
            bulk,
            decoder: Decoder::new(),
            protocol: Protocol::Resp2,
            bench: None,
            is_listed: false,
            unfinished: Vec::new(),
        }
    }

    /// Serves the connection until it ends.
    pub(super) async fn serve(mut self) {
        let end = self.run().await;
        debug!(id = self.session.client.id, %end, "a connection has ended");
        match end {
            // In a box, as everything is that few connections do, and those once: an idle one holds room for all that it may do.
            End::InOrder => Box::pin(self.close_in_order()).await,
            End::Unanswered => self.stream.end_by_reset(),
            End::ByPeer | End::AtOnce | End::Failed(_) => {}
        }
    }

    async fn run(&mut self) -> End {
        loop {
            let mut received = self.receive().await;
            if matches!(received, Err(End::InOrder)) {
                // A drain. What has arrived is still to be answered, and the scheduler may not have told of it yet.
                self.stream.look_again();
                received = self.receive().await;
            }
            let bytes = match received {
                Ok(Arrival::Bytes(bytes)) => bytes,
                Ok(Arrival::Pushes) => match self.flush().await {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                Err(end) => return end,
            };
            let answered = self.answer().await;
            // What was answered before the end is sent even then.
            if let Err(end) = self.flush().await {
                return end;
            }
            if let Err(end) = answered {
                return end;
            }
            self.leave_if_answered();
            if bytes >= READ_BYTES {
                // There is more where this came from. Without this, the scheduler would take it for fair to serve nobody else for a
                // hundred such turns.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes leave behind an answer, if that is wanted and no request has come in part: its rest may be a pipeline's.
    fn leave_if_answered(&self) {
        let client = &self.session.client;
        if client.asked() == Ask::Leave && self.bench.as_ref().is_none_or(|bench| bench.input.is_empty()) {
            client.ask(Ask::Drain);
        }
    }

    /// Waits for bytes, and gives the bench back for that time. Should the connection have to be told something meanwhile, that is its reply.
    async fn receive(&mut self) -> Result<Arrival, End> {
        let Connection { stream, session, bench, protocol, decoder, unfinished, is_listed, .. } = self;
        std::future::poll_fn(|context| {
            let client = &session.client;
            let mut taken = bench.take().unwrap_or_else(|| Bench::take_with(&std::mem::take(unfinished)));
            taken.reply.set_protocol(*protocol);
            let read = poll_read_buf(Pin::new(&mut *stream), context, &mut (&mut taken.input).limit(TURN_BYTES));
            match read {
                Poll::Pending if taken.input.len() <= SMALL_UNFINISHED => {
                    unfinished.extend_from_slice(&taken.input);
                    // What it has found so far is in the bench's frame.
                    *decoder = Decoder::new();
                    taken.leave();
                    client.query_bytes.store(unfinished.len(), Relaxed);
                    client.query_capacity.store(unfinished.capacity(), Relaxed);
                }
                _ => *bench = Some(taken),
            }
            match read {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(End::ByPeer)),
                // What came after a kill is not answered any more.
                Poll::Ready(Ok(_)) if client.asked() == Ask::Kill => Poll::Ready(Err(End::AtOnce)),
                Poll::Ready(Ok(bytes)) => Poll::Ready(Ok(Arrival::Bytes(bytes))),
                Poll::Ready(Err(error)) => Poll::Ready(Err(End::Failed(error))),
                Poll::Pending => {
                    if !std::mem::replace(is_listed, true) || client.asked() == Ask::Leave || session.has_heard {
                        client.wake_me(context.waker());
                    }
                    match client.asked() {
                        Ask::Nothing | Ask::Leave if client.has_pushes() => {
                            debug_assert!(session.ahead.is_none(), "all that was decoded has been answered");
                            session.has_heard = true;
                            let told = bench.get_or_insert_with(|| Bench::take_with(&std::mem::take(unfinished)));
                            told.reply.set_protocol(*protocol);
                            write_pushes(&session.client, &mut told.reply);
                            Poll::Ready(Ok(Arrival::Pushes))
                        }
                        Ask::Nothing | Ask::Leave => Poll::Pending,
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
        // Whether a request of this arrival has waited for loads.
        let mut waited = false;
        loop {
            if let Some(missing) = self.decode()? {
                return self.make_room(missing);
            }
            match self.run_decoded()? {
                Turn::Done => {}
                Turn::Flush => self.flush().await?,
                // In boxes, since a connection's task is as large as the largest of its ways.
                Turn::Wait(wait, mark) => match Box::pin(self.hear(wait, mark)).await? {
                    None => {}
                    Some((wait, mark)) => Box::pin(self.wait(wait, mark, &mut waited)).await?,
                },
            }
        }
    }

    /// Decodes the next requests, unless there are some. Answers how many bytes are missing for one.
    fn decode(&mut self) -> Result<Option<usize>, End> {
        let limits = self.limits();
        let Some(bench) = &mut self.bench else {
            return Ok(Some(1));
        };
        let Bench { input, received, .. } = &mut **bench;
        if !received.is_done() {
            return Ok(None);
        }
        // A stranger's next request may be allowed more than this one.
        let most = if limits.authenticated { BATCH_REQUESTS } else { 1 };
        received.decode(&mut self.decoder, input, &limits, most).map_err(|error| self.complain(error))
    }

    /// Runs decoded requests until there is something to wait for.
    fn run_decoded(&mut self) -> Result<Turn, End> {
        let Connection { session, engine, bench: Some(bench), .. } = self else {
            return Ok(Turn::Done);
        };
        let Bench { input, received, reply } = &mut **bench;
        match received.take_large(input) {
            None => {
                let (done, turn) = run_batch(engine, session, received.undone(input), reply);
                received.done(done, input);
                turn
            }
            Some(request) => {
                let (done, turn) = run_batch(engine, session, std::iter::once(received.large(&request)), reply);
                match done {
                    0 => Received::put_back(request, input),
                    _ => received.done_large(input),
                }
                turn
            }
        }
    }

    /// Waits for the owner's answer, if that is what the next request waits for. `None` if the next one can run.
    async fn hear(&mut self, wait: Wait, mark: Mark) -> Result<Option<(Wait, Mark)>, End> {
        let turn = match wait {
            Wait::Ahead => {
                let client = Arc::clone(&self.session.client);
                unless_killed(&client, self.engine.answered_ahead(&mut self.session)).await?;
                Turn::Done
            }
            Wait::Forward { call, sent } => {
                let answer = unless_killed(&self.session.client, call).await?;
                self.forwarded(answer, sent, mark)?
            }
            other => Turn::Wait(other, mark),
        };
        match turn {
            Turn::Done => Ok(None),
            Turn::Flush => self.flush().await.map(|()| None),
            Turn::Wait(wait, mark) => Ok(Some((wait, mark))),
        }
    }

    /// Waits for what the next request needs, and runs it to its end.
    async fn wait(&mut self, wait: Wait, mark: Mark, waited: &mut bool) -> Result<(), End> {
        let limits = self.limits();
        let Some(bench) = &mut self.bench else {
            return Ok(());
        };
        let Bench { input, received, reply } = &mut **bench;
        let Some((args, end)) = received.next(input) else {
            return Ok(());
        };
        let begins_loads = matches!(wait, Wait::Loads(_)) && !std::mem::replace(waited, true);
        if begins_loads {
            prefetch(&self.engine, &self.session, &limits, &input[end..]);
        }
        // What stands before a wait is not held back by it. Before a rest it is: its own reply is written already.
        if begins_loads || matches!(wait, Wait::Pause) {
            send(&mut self.stream, &mut self.session, &self.engine, &self.bulk, reply).await?;
        }
        let client = Arc::clone(&self.session.client);
        let finish = self.engine.finish(&mut self.session, args, reply, wait);
        let step = unless_killed(&client, finish).await?;
        received.done(1, input);
        match replied(&mut self.session, &self.engine, reply, mark, matches!(step, Step::Close))? {
            Turn::Flush => self.flush().await,
            Turn::Done | Turn::Wait(..) => Ok(()),
        }
    }

    /// Goes on with the next request, which was forwarded and has been answered.
    fn forwarded(&mut self, answer: Result<Bytes, CallError>, sent: Sent, mark: Mark) -> Result<Turn, End> {
        let Connection { session, engine, bench: Some(bench), .. } = self else {
            return Ok(Turn::Done);
        };
        let Bench { input, received, reply } = &mut **bench;
        let Some((args, _)) = received.next(input) else {
            return Ok(Turn::Done);
        };
        match engine.forwarded(session, args, reply, answer, sent) {
            Step::Wait(wait) => Ok(Turn::Wait(wait, mark)),
            step => {
                received.done(1, input);
                replied(session, engine, reply, mark, matches!(step, Step::Close))
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
            bench.make_room(missing);
        }
        Ok(())
    }

    /// Answers a violation of the protocol; after it nothing that comes can be understood.
    #[cold]
    fn complain(&mut self, error: ProtocolError) -> End {
        if let Some(bench) = &mut self.bench {
            bench.reply.protocol_error(error);
        }
        self.engine.node().telemetry.errors.count("ERR");
        End::InOrder
    }

    /// Writes all replies.
    async fn flush(&mut self) -> Result<(), End> {
        let Some(bench) = &mut self.bench else {
            return Ok(());
        };
        self.protocol = bench.reply.protocol();
        send(&mut self.stream, &mut self.session, &self.engine, &self.bulk, &mut bench.reply).await
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

/// Runs as many of `requests` as can be prepared together, until one waits or the connection has something else to do; answers how
/// many are done.
fn run_batch<'r>(
    engine: &'r Engine,
    session: &mut Session,
    requests: impl Iterator<Item = Args<'r>>,
    reply: &mut Reply,
) -> (usize, Result<Turn, End>) {
    let (mut prepared, mut keys) = (Requests::new(), BatchKeys::new());
    let mut batch = engine.batch(&mut prepared, &mut keys);
    for args in requests {
        if !batch.add(session, args) {
            break;
        }
    }
    batch.send_ahead(session, reply.protocol());
    batch.prefetch(session);
    let calm = engine.node().settings.output_limits.allowed().min(FLUSH_BYTES - 1);
    let mut clock = engine.node().clock.instant();
    for at in 0..batch.count() {
        let mark = reply.mark();
        let step = batch.begin(at, session, reply, &mut clock);
        if let Step::Wait(wait) = step {
            return (at, Ok(Turn::Wait(wait, mark)));
        }
        let eventless = matches!(step, Step::Done) && session.replies == Replies::On;
        if eventless && reply.len() <= calm && session.client.is_undisturbed() {
            continue;
        }
        match replied(session, engine, reply, mark, matches!(step, Step::Close)) {
            Ok(Turn::Done) => {}
            stop => return (at + 1, stop),
        }
    }
    (batch.count(), Ok(Turn::Done))
}

/// After a request was answered, with what `reply` holds from `mark` on: whether the next one can run at once.
#[cold]
fn replied(session: &mut Session, engine: &Engine, reply: &mut Reply, mark: Mark, closes: bool) -> Result<Turn, End> {
    if !session.sends_reply() {
        reply.rewind(mark);
    }
    let unsent = reply.len();
    if engine.node().settings.output_limits.forbid(unsent) {
        debug!(id = session.client.id, unsent, "the output buffer limit is passed");
        reply.clear();
        return Err(End::Unanswered);
    }
    if closes || session.client.asked() == Ask::Kill {
        return Err(End::InOrder);
    }
    // While requests are on their way to others, what came back of them may be older than what is to be told.
    if session.client.has_pushes() && session.ahead.is_none() {
        session.has_heard = true;
        write_pushes(&session.client, reply);
    }
    Ok(if unsent >= FLUSH_BYTES { Turn::Flush } else { Turn::Done })
}

/// Writes replies until none is left. A little is written by everybody at any time; those with more to write take turns.
async fn send<S: AsyncWrite + Unpin>(
    stream: &mut S,
    session: &mut Session,
    engine: &Engine,
    bulk: &Semaphore,
    reply: &mut Reply,
) -> Result<(), End> {
    if let Some(recorded) = session.take_unacknowledged() {
        if !Box::pin(engine.acknowledged(&recorded)).await {
            warn!(
                id = session.client.id,
                "too few copies hold a write in time: its client is not told that it was made"
            );
            reply.clear();
            return Err(End::Unanswered);
        }
    }
    if session.by_lease && !engine.still_owns(session) {
        warn!(id = session.client.id, "the lease ended before the replies were sent: they may not be true any more");
        reply.clear();
        return Err(End::Unanswered);
    }
    let mut sender = Sender { stream, session, engine };
    sender.write(reply, LITTLE_BYTES).await?;
    if reply.has_remaining() {
        Box::pin(sender.write_in_turns(reply, bulk)).await?;
    }
    session.client.unsent.sent();
    Ok(())
}

/// The sending side of a connection.
struct Sender<'s, S> {
    stream: &'s mut S,
    session: &'s Session,
    engine: &'s Engine,
}

impl<S: AsyncWrite + Unpin> Sender<'_, S> {
    /// Writes all of `reply`. One connection of a thread at a time may write much without others having been looked at; so a thousand
    /// that all want much cost a small request the time of one turn, and not of a thousand.
    async fn write_in_turns(&mut self, reply: &mut Reply, bulk: &Semaphore) -> Result<(), End> {
        while reply.has_remaining() {
            if let Ok(_turn) = unless_killed(&self.session.client, bulk.acquire()).await? {
                std::future::poll_fn(|context| Poll::Ready(self.write_now(context, reply, TURN_BYTES))).await?;
                tokio::task::yield_now().await;
            }
            // Without a turn, since whoever waits for a slow peer must not hold one.
            self.write(reply, LITTLE_BYTES).await?;
        }
        Ok(())
    }

    /// Writes `most` bytes or what there is, and waits for a peer that does not take them.
    async fn write(&mut self, reply: &mut Reply, most: usize) -> Result<(), End> {
        let mut left = most;
        std::future::poll_fn(|context| {
            left -= match self.write_now(context, reply, left) {
                Ok(written) => written,
                Err(end) => return Poll::Ready(Err(end)),
            };
            if left == 0 || !reply.has_remaining() {
                return Poll::Ready(Ok(()));
            }
            self.session.client.unsent.stalled(reply.len(), self.engine.node().clock.unix_millis());
            stalled(&self.session.client, context)
        })
        .await
    }

    /// Writes as much of `most` bytes as the system takes at once, and answers how much that was.
    fn write_now(&mut self, context: &mut Context<'_>, reply: &mut Reply, most: usize) -> Result<usize, End> {
        let lane = self.engine.node().telemetry.lanes.lane(self.session.lane);
        let mut left = most;
        while left > 0 && reply.has_remaining() {
            match poll_write_reply(Pin::new(&mut *self.stream), context, reply, left) {
                Poll::Ready(Ok(bytes)) => {
                    left = left.saturating_sub(bytes);
                    lane.wrote(bytes);
                }
                Poll::Ready(Err(error)) => return Err(End::Failed(error)),
                Poll::Pending => break,
            }
        }
        Ok(most - left)
    }
}

/// Writes what the system takes at once of up to `most` bytes. A reply in one piece takes the plain system call, which is cheaper than
/// the vectored one.
fn poll_write_reply<S: AsyncWrite>(
    stream: Pin<&mut S>,
    context: &mut Context<'_>,
    reply: &mut Reply,
    most: usize,
) -> Poll<io::Result<usize>> {
    let chunk = reply.chunk();
    if chunk.len() < reply.len().min(most) {
        return poll_write_buf(stream, context, &mut reply.take(most));
    }
    let written = ready!(stream.poll_write(context, &chunk[..chunk.len().min(most)]))?;
    reply.advance(written);
    Poll::Ready(Ok(written))
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
            Ask::Kill => Poll::Ready(Err(End::Unanswered)),
            Ask::Nothing | Ask::Leave | Ask::Drain => Poll::Pending,
        }
    })
    .await
}

/// The peer does not take its replies: wait, but not beyond a kill.
fn stalled(client: &Client, context: &mut Context<'_>) -> Poll<Result<(), End>> {
    client.wake_me(context.waker());
    match client.asked() {
        Ask::Kill => Poll::Ready(Err(End::Unanswered)),
        Ask::Nothing | Ask::Leave | Ask::Drain => Poll::Pending,
    }
}
