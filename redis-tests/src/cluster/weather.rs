//! Bad weather between nodes: a small proxy before each node's ports for its peers, by which everything comes late, and now and then much later.
//!
//! The node listens at one address of the loopback interface and advertises another one, where the proxy listens at the same ports. TCP makes
//! up for lost packets by sending them again a good while later, so a lost packet is here a pause of the connection.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Chunks of bytes that may be on their way over one connection in one direction.
const ON_THE_WAY: usize = 1024;

/// How long a connection to the node itself may take to be made.
const CONNECTING: Duration = Duration::from_secs(5);

/// Between two looks at whether a cut is over.
const LOOK: Duration = Duration::from_millis(5);

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// What everything is late by.
    pub delay: Duration,
    /// What may come on top of it, by chance.
    pub jitter: Duration,
    /// How many of a million chunks are held up for `pause`, and with them all that follow.
    pub lost_in_a_million: u32,
    pub pause: Duration,
    /// Nothing arrives. What is sent is lost, and with it its connection, once it is over.
    pub is_cut: bool,
}

/// Proxies before the ports of one node; they end with this value.
pub struct Weather {
    shared: Arc<Shared>,
    listening: Vec<(SocketAddr, JoinHandle<()>)>,
}

struct Shared {
    conditions: Mutex<Conditions>,
    is_over: AtomicBool,
    /// Of each proxied connection both ends, to be shut when all is over.
    streams: Mutex<Vec<TcpStream>>,
    connections: AtomicU64,
    /// How often something came during a cut.
    held_up: AtomicU64,
    seed: u64,
}

impl Weather {
    /// Listens at each of `ports` of `outside`, and goes on to the same port of `inside`.
    ///
    /// # Panics
    /// When a port cannot be had.
    pub fn between(outside: Ipv4Addr, inside: Ipv4Addr, ports: &[u16], seed: u64) -> Self {
        let shared = Arc::new(Shared {
            conditions: Mutex::default(),
            is_over: AtomicBool::new(false),
            streams: Mutex::default(),
            connections: AtomicU64::new(0),
            held_up: AtomicU64::new(0),
            seed,
        });
        let listen = |port: &u16| {
            let (from, to) = (SocketAddr::from((outside, *port)), SocketAddr::from((inside, *port)));
            let listener = TcpListener::bind(from).unwrap_or_else(|error| panic!("{from}: {error}"));
            let shared = Arc::clone(&shared);
            (from, thread::spawn(move || shared.accept(&listener, to)))
        };
        Self { listening: ports.iter().map(listen).collect(), shared }
    }

    /// The conditions from now on.
    pub fn set(&self, conditions: Conditions) {
        *self.shared.conditions.lock().expect("no thread panics with the conditions in hand") = conditions;
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for (address, accepting) in self.listening.drain(..) {
            // Wakes the thread that accepts; it ends before it looks at the connection.
            drop(TcpStream::connect(address));
            let _ = accepting.join();
        }
        if let Ok(streams) = self.shared.streams.lock() {
            // The threads that carry bytes end with their streams.
            streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
        }
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: &TcpListener, to: SocketAddr) {
        while let Ok((from, _)) = listener.accept() {
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(&self);
            // A node that is not there refuses; its peer notices when the proxy closes.
            thread::spawn(move || drop(shared.carry(&from, to)));
        }
    }

    fn carry(self: Arc<Self>, outside: &TcpStream, to: SocketAddr) -> io::Result<()> {
        let inside = TcpStream::connect_timeout(&to, CONNECTING)?;
        for stream in [outside, &inside] {
            stream.set_nodelay(true)?;
            self.streams.lock().expect("no thread panics with the list in hand").push(stream.try_clone()?);
        }
        for (from, to) in [(outside, &inside), (&inside, outside)] {
            let (source, sink, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(&self));
            let (sender, chunks) = mpsc::sync_channel(ON_THE_WAY);
            thread::spawn(move || shared.receive(source, &sender));
            thread::spawn(move || deliver(sink, &chunks));
        }
        Ok(())
    }

    /// Reads chunks and gives each the moment at which it may arrive; none overtakes another.
    fn receive(&self, mut source: TcpStream, chunks: &SyncSender<(Instant, Vec<u8>)>) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut random = StdRng::seed_from_u64(self.seed ^ (number << 32));
        let mut last = Instant::now();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length) = source.read(&mut buffer) {
            if length == 0 {
                return;
            }
            if self.waits_out_a_cut() {
                let _ = source.shutdown(Shutdown::Both);
                return;
            }
            last = last.max(Instant::now() + self.lateness(&mut random));
            if chunks.send((last, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    }

    /// Whether there was one.
    fn waits_out_a_cut(&self) -> bool {
        let is_cut = || self.conditions.lock().expect("no thread panics with the conditions in hand").is_cut;
        let was_cut = is_cut();
        self.held_up.fetch_add(u64::from(was_cut), Ordering::SeqCst);
        while is_cut() && !self.is_over.load(Ordering::SeqCst) {
            thread::sleep(LOOK);
        }
        was_cut
    }

    fn lateness(&self, random: &mut StdRng) -> Duration {
        let conditions = *self.conditions.lock().expect("no thread panics with the conditions in hand");
        let jitter = conditions.jitter.mul_f64(random.random());
        let is_lost = random.random_range(0..1_000_000) < conditions.lost_in_a_million;
        conditions.delay + jitter + if is_lost { conditions.pause } else { Duration::ZERO }
    }
}

/// Writes each chunk when its moment has come. What the sender has closed is closed when all before it has been delivered.
fn deliver(mut sink: TcpStream, chunks: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((moment, bytes)) = chunks.recv() {
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        if sink.write_all(&bytes).is_err() {
            // The reader notices by its own stream, which belongs to the same connection.
            let _ = sink.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = sink.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::network::{Network, NetworkKind};
    use crate::cluster::node::PORTS;
    use crate::connection::Connection;
    use crate::process::eventually;

    #[test]
    fn what_is_sent_during_a_cut_is_lost() {
        let network = Network::take(NetworkKind::Loopback);
        let (inside, outside) = (network.address(0), network.address(1));
        let silent = TcpListener::bind((inside, PORTS.resp)).expect("the address is ours");
        let hearing = thread::spawn(move || {
            let (mut stream, _) = silent.accept()?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).map(|_| heard)
        });
        let weather = Weather::between(outside, inside, &[PORTS.resp], 1);
        let mut connection = Connection::open(SocketAddr::from((outside, PORTS.resp))).expect("the proxy accepts");
        weather.set(Conditions { is_cut: true, ..Conditions::default() });
        connection.send(b"never heard").expect("the system takes it");
        let is_held_up = || weather.shared.held_up.load(Ordering::SeqCst) > 0;
        assert!(eventually(CONNECTING, is_held_up), "nothing came to the proxy");
        drop(connection);
        weather.set(Conditions::default());
        assert_eq!(hearing.join().expect("no panic").expect("the end comes through"), b"");
    }

    #[test]
    fn what_goes_through_comes_late_and_whole() {
        let network = Network::take(NetworkKind::Loopback);
        let (inside, outside) = (network.address(0), network.address(1));
        let echo = TcpListener::bind((inside, PORTS.resp)).expect("the address is ours");
        let answering = thread::spawn(move || {
            let (mut stream, _) = echo.accept()?;
            io::copy(&mut stream.try_clone()?, &mut stream)
        });
        let weather = Weather::between(outside, inside, &[PORTS.resp], 1);
        let mut connection = Connection::open(SocketAddr::from((outside, PORTS.resp))).expect("the proxy accepts");
        let large = "x".repeat(1 << 20);
        let delay = Duration::from_millis(30);
        weather.set(Conditions { delay, jitter: delay, lost_in_a_million: 100_000, pause: delay, is_cut: false });
        let began = Instant::now();
        let echoed = connection.call(&["SET", &large]).expect("what was sent comes back");
        assert!(began.elapsed() >= delay * 2, "it was late in both directions");
        assert_eq!(echoed.len(), large.len() + "*2\r\n$3\r\nSET\r\n$1048576\r\n\r\n".len());
        drop(connection);
        answering.join().expect("no panic").expect("the end comes through");
    }
}
