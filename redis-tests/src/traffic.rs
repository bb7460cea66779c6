//! Clients that ask all the time while something happens to the server or to its database, and a tally of what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::reply::Reply;

/// Replies that a tally keeps word for word, to show what went wrong.
const KEPT_SAMPLES: usize = 3;

/// How long a client rests between two commands. Clients that never do take the processors from a database that shares the machine:
/// its processes were seen to wait for seconds until they could run.
const REST: Duration = Duration::from_millis(1);

/// Running clients. What happens is divided into phases, which the test calls out.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    ended: AtomicBool,
    phase: AtomicUsize,
    /// By phase and by the name of the clients.
    tallies: Mutex<BTreeMap<(usize, &'static str), Tally>>,
}

/// What clients of one name were told in one phase.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Replies that the test calls right.
    pub right: u64,
    /// `-ORIGINDOWN …`
    pub origin_down: u64,
    /// All other replies, and connections that broke.
    pub wrong: u64,
    /// Some of the wrong replies.
    pub samples: Vec<String>,
    /// The longest that one reply took.
    pub slowest: Duration,
}

impl Traffic {
    /// No clients yet, in phase 0.
    pub fn new() -> Self {
        let shared = Shared { ended: AtomicBool::new(false), phase: AtomicUsize::new(0), tallies: Mutex::default() };
        Self { shared: Arc::new(shared), clients: Vec::new() }
    }

    /// Adds a client: its n-th command is `command(n)`, and a reply is right if `is_right(n, reply)`.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub fn add(
        &mut self,
        name: &'static str,
        address: SocketAddr,
        command: impl Fn(u64) -> String + Send + 'static,
        is_right: impl Fn(u64, &Reply) -> bool + Send + 'static,
    ) {
        let mut connection = Connection::open(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let shared = Arc::clone(&self.shared);
        self.clients.push(thread::spawn(move || {
            for n in 0.. {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let phase = shared.phase.load(Ordering::SeqCst);
                let began = Instant::now();
                let line = command(n);
                let reply = connection.call(&line.split(' ').collect::<Vec<_>>());
                let took = began.elapsed();
                let is_over = reply.is_err();
                let verdict = match reply.map(|raw| Reply::parse(&raw)) {
                    Ok(reply) if is_right(n, &reply) => Verdict::Right,
                    Ok(Reply::Error(words)) if words.starts_with(b"ORIGINDOWN ") => Verdict::OriginDown,
                    Ok(reply) => Verdict::Wrong(format!("{line}: {reply}")),
                    Err(error) => Verdict::Wrong(format!("{line}: {error}")),
                };
                // What was asked in one phase and answered in another belongs to neither.
                if shared.phase.load(Ordering::SeqCst) == phase {
                    shared.count(phase, name, verdict, took);
                }
                if is_over {
                    return;
                }
                thread::sleep(REST);
            }
        }));
    }

    /// Begins the next phase.
    pub fn next_phase(&self) -> usize {
        self.shared.phase.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// What clients called `name` were told in `phase`, so far.
    pub fn tally(&self, phase: usize, name: &'static str) -> Tally {
        let tallies = self.shared.tallies.lock().expect("no client panics with the tally in hand");
        tallies.get(&(phase, name)).cloned().unwrap_or_default()
    }

    /// Stops the clients and waits for them.
    pub fn end(self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("a client does not panic"));
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new()
    }
}

enum Verdict {
    Right,
    OriginDown,
    Wrong(String),
}

impl Shared {
    fn count(&self, phase: usize, name: &'static str, verdict: Verdict, took: Duration) {
        let mut tallies = self.tallies.lock().expect("no client panics with the tally in hand");
        let tally = tallies.entry((phase, name)).or_default();
        tally.slowest = tally.slowest.max(took);
        match verdict {
            Verdict::Right => tally.right += 1,
            Verdict::OriginDown => tally.origin_down += 1,
            Verdict::Wrong(sample) => {
                tally.wrong += 1;
                if tally.samples.len() < KEPT_SAMPLES {
                    tally.samples.push(sample);
                }
            }
        }
    }
}
