//! Worker threads. Each runs a scheduler of its own, so a connection stays on the thread that it was given to and nothing is stolen
//! or shared between threads on a request's way.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;

use forebay_cluster::door::PeerPort;
use forebay_cluster::peer::{Lane, LaneStream, enter, gather_on_this_thread, send_gathered};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::TaskTracker;

use super::Listed;
use super::connection::{Connection, unless_killed};
use super::scheduler::{Scheduler, Spawner};
use super::socket::{Line, Socket};
use crate::engine::Engine;
use crate::expiry::expire;
use crate::session::Session;
use crate::tls::{HANDSHAKE, TlsAcceptor};
use crate::turns::FIRST_LANE;
use crate::{compaction, eviction, groups};

/// Accepted connections that may wait for a worker to take them up.
const HANDOVER: usize = 1024;

/// The worker threads and the way to them.
pub struct Workers {
    hands: Vec<mpsc::Sender<Arrival>>,
    next: AtomicUsize,
}

/// The threads, to be joined once all connections have ended.
pub struct Threads(Vec<JoinHandle<()>>);

/// An accepted connection.
enum Arrival {
    Client { stream: std::net::TcpStream, listed: Listed },
    Peer { stream: std::net::TcpStream, port: Arc<PeerPort> },
}

/// What a worker is to the connections with other nodes.
struct WorkerLane(Spawner);

impl Lane for WorkerLane {
    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>) {
        self.0.spawn_beside(task);
    }

    fn take_up(&self, stream: std::net::TcpStream) -> io::Result<Box<dyn LaneStream>> {
        Ok(Box::new(self.0.share(mio::net::TcpStream::from_std(stream))?))
    }
}

impl Workers {
    /// Starts `count` threads. They end when the returned [`Workers`] is dropped and their connections have ended. What sleeps on
    /// them is woken by `timers`, a runtime that must not end before they do.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        count: usize,
        engine: &Arc<Engine>,
        tls: Option<&TlsAcceptor>,
        timers: &Handle,
    ) -> io::Result<(Workers, Threads)> {
        let mut hands = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for lane in 0..count {
            let (hand, arrivals) = mpsc::channel(HANDOVER);
            let worker =
                Worker { engine: Arc::clone(engine), lane, tls: tls.cloned(), bulk: Arc::new(Semaphore::new(1)) };
            let (scheduler, timers) = (Scheduler::new()?, timers.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{lane}")).spawn(move || {
                let _timers = timers.enter();
                gather_on_this_thread();
                if let Err(error) = scheduler.run(|spawner| work(arrivals, worker, spawner), send_gathered) {
                    tracing::error!(%error, "a worker does not hear of its connections any more");
                }
            })?;
            hands.push(hand);
            threads.push(thread);
        }
        Ok((Workers { hands, next: AtomicUsize::new(0) }, Threads(threads)))
    }

    /// Hands a client's connection to the next worker in turn. It is closed when it cannot be served because the workers have ended.
    pub(super) async fn serve(&self, stream: TcpStream, listed: Listed) {
        if let Ok(stream) = stream.into_std() {
            self.hand(Arrival::Client { stream, listed }).await;
        }
    }

    /// Hands another node's connection to the next worker in turn.
    pub(crate) async fn serve_peer(&self, stream: TcpStream, port: &Arc<PeerPort>) {
        if let Ok(stream) = stream.into_std() {
            self.hand(Arrival::Peer { stream, port: Arc::clone(port) }).await;
        }
    }

    async fn hand(&self, arrival: Arrival) {
        let turn = self.next.fetch_add(1, Relaxed) % self.hands.len();
        let _closed = self.hands[turn].send(arrival).await;
    }
}

impl Threads {
    /// Waits for all threads. Blocking.
    pub fn join(self) {
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!("a worker thread ended by a panic");
            }
        }
    }
}

/// Serves connections, and tends the store between their requests, until no more connections come and the last one has ended.
async fn work(arrivals: mpsc::Receiver<Arrival>, worker: Worker, spawner: Spawner) {
    let worker = Arc::new(worker);
    let _entered = enter(worker.lane, Rc::new(WorkerLane(spawner.clone())));
    tokio::select! {
        () = serve_all(arrivals, &worker, &spawner) => {}
        never = tend(&worker) => match never {},
    }
}

/// What a worker does beside answering requests, for ever.
async fn tend(worker: &Worker) -> Infallible {
    let (node, lane) = (worker.engine.node(), worker.lane);
    let expiring = expire(node, lane);
    if lane != FIRST_LANE {
        return expiring.await;
    }
    tokio::select! {
        never = expiring => never,
        never = compaction::compact(node) => never,
        never = eviction::evict(node) => never,
        never = groups::look_through(node) => never,
    }
}

async fn serve_all(mut arrivals: mpsc::Receiver<Arrival>, worker: &Arc<Worker>, spawner: &Spawner) {
    let connections = TaskTracker::new();
    let lane = Rc::new(WorkerLane(spawner.clone()));
    while let Some(arrival) = arrivals.recv().await {
        match arrival {
            Arrival::Client { stream, listed } => {
                let stream = mio::net::TcpStream::from_std(stream);
                let taken_up = spawner.spawn(stream, |socket| {
                    let worker = Arc::clone(worker);
                    connections.track_future(async move { worker.serve(socket, &listed).await })
                });
                if let Err(error) = taken_up {
                    tracing::debug!(%error, "a connection could not be taken up");
                }
            }
            // Not waited for at the end: other nodes keep their connections.
            Arrival::Peer { stream, port } => {
                let lane = Rc::clone(&lane);
                spawner.spawn_beside(Box::pin(async move { port.serve(lane, stream).await }));
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// What one worker thread knows.
struct Worker {
    engine: Arc<Engine>,
    lane: usize,
    tls: Option<TlsAcceptor>,
    /// Held by the one connection that is writing much.
    bulk: Arc<Semaphore>,
}

impl Worker {
    async fn serve(&self, socket: Socket, listed: &Listed) {
        match &self.tls {
            None => self.converse(socket, listed).await,
            // In a box: what TLS needs is many times what a plain connection does, and a future is as large as the largest of its ways.
            Some(tls) => {
                if let Err(error) = Box::pin(self.serve_tls(tls, socket, listed)).await {
                    tracing::debug!(%error, "a connection could not be taken up");
                }
            }
        }
    }

    async fn serve_tls(&self, tls: &TlsAcceptor, socket: Socket, listed: &Listed) -> io::Result<()> {
        let handshake = Box::pin(tokio::time::timeout(HANDSHAKE, tls.accept(socket)));
        if let Ok(agreed) = unless_killed(&listed.client, handshake).await {
            self.converse(agreed??, listed).await;
        }
        Ok(())
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Line + Unpin, listed: &Listed) {
        let authenticated = !self.engine.node().settings.needs_password();
        let session = Session::new(Arc::clone(&listed.client), self.lane, authenticated, listed.door);
        Connection::new(stream, session, Arc::clone(&self.engine), Arc::clone(&self.bulk)).serve().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most that a plain connection's task may take of the 2 KiB that an idle connection may cost.
    const TASK_BYTES: usize = 1024;

    fn task<'w>(worker: &'w Worker, socket: Socket, listed: &'w Listed) -> impl Future<Output = ()> {
        worker.serve(socket, listed)
    }

    fn size_of_task<'w, F>(_: fn(&'w Worker, Socket, &'w Listed) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connections_task_is_small() {
        let size = size_of_task(task);
        assert!(size <= TASK_BYTES, "{size} bytes");
    }
}
