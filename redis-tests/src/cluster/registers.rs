//! Clients that write values which occur once and read them again, and keep a history of all that they did.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::history::{Call, Event, History, Outcome};
use super::roaming::{Answer, Roaming};
use crate::process::eventually;
use crate::reply::Reply;

/// How the clients behave.
#[derive(Clone, Debug)]
pub struct RegisterOptions {
    /// What the keys begin with; a history must start with keys that do not exist.
    pub prefix: String,
    pub keys: u32,
    /// Share of writes, 0 to 1.
    pub writes: f64,
    /// The pause between two calls of a client.
    pub rest: Duration,
    /// How long a client waits for a reply before it gives up and goes to another node.
    pub patience: Duration,
    pub seed: u64,
}

/// Running clients.
pub struct Registers {
    options: RegisterOptions,
    began: Instant,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Event>>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    answered: AtomicU64,
    acknowledged: AtomicU64,
}

impl Default for RegisterOptions {
    fn default() -> Self {
        let (rest, patience) = (Duration::from_millis(2), Duration::from_secs(8));
        Self { prefix: "register".to_owned(), keys: 24, writes: 0.5, rest, patience, seed: 1 }
    }
}

impl Registers {
    /// No clients yet; the history begins.
    pub fn new(options: RegisterOptions) -> Self {
        Self { options, began: Instant::now(), shared: Arc::default(), clients: Vec::new() }
    }

    /// Adds clients that know `nodes`; the first begins at the first node, the second at the second, and so on.
    pub fn add(&mut self, count: usize, nodes: &[SocketAddr]) {
        for at in 0..count {
            let number = u32::try_from(self.clients.len()).expect("fewer clients than that");
            let client = Client {
                number,
                roaming: Roaming::new(nodes.to_vec(), at, self.options.patience),
                random: StdRng::seed_from_u64(self.options.seed ^ (u64::from(number) << 32)),
                options: self.options.clone(),
                began: self.began,
                shared: Arc::clone(&self.shared),
                writes: 0,
                events: Vec::new(),
            };
            self.clients.push(thread::spawn(move || client.run()));
        }
    }

    /// Waits until `more` further calls have been answered without an error.
    ///
    /// # Panics
    /// When they are not before `limit` is over.
    pub fn await_answers(&self, more: u64, limit: Duration) {
        await_more(&self.shared.answered, more, limit);
    }

    /// Waits until `more` further writes have been acknowledged.
    ///
    /// # Panics
    /// When they are not before `limit` is over.
    pub fn await_writes(&self, more: u64, limit: Duration) {
        await_more(&self.shared.acknowledged, more, limit);
    }

    /// The names of all keys.
    pub fn names(&self) -> Vec<String> {
        (0..self.options.keys).map(|key| self.options.name(key)).collect()
    }

    /// The time on the history's clock.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends the clients, and reads each key once more at `node`, as events of one more client. What was read comes with the history.
    ///
    /// # Panics
    /// When a key is not answered for before `limit` is over.
    pub fn end(self, node: SocketAddr, limit: Duration) -> (History, Vec<(u32, Option<u64>)>) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let reader = u32::try_from(self.clients.len()).expect("fewer clients than that");
        let mut events = Vec::new();
        for client in self.clients {
            events.extend(client.join().expect("a client does not panic"));
        }
        let mut roaming = Roaming::new(vec![node], 0, self.options.patience);
        let mut finally = Vec::new();
        for key in 0..self.options.keys {
            let name = self.options.name(key);
            let deadline = self.began.elapsed() + limit;
            let (began, seen) = loop {
                let began = self.began.elapsed();
                match outcome(Call::Read, roaming.call(&["GET", &name])) {
                    Some(Outcome::Seen(value)) => break (began, value),
                    other => assert!(began < deadline, "{name} is not to be read: {other:?}"),
                }
            };
            let (outcome, ended) = (Outcome::Seen(seen), self.began.elapsed());
            events.push(Event { client: reader, key, call: Call::Read, outcome, began, ended });
            finally.push((key, seen));
        }
        (History { events }, finally)
    }
}

impl RegisterOptions {
    /// The name of a key.
    pub fn name(&self, key: u32) -> String {
        format!("{}:{key}", self.prefix)
    }
}

fn await_more(counter: &AtomicU64, more: u64, limit: Duration) {
    let enough = counter.load(Ordering::Relaxed) + more;
    let is_enough = || counter.load(Ordering::Relaxed) >= enough;
    assert!(eventually(limit, is_enough), "fewer than {more} calls were answered within {limit:?}");
}

struct Client {
    number: u32,
    roaming: Roaming,
    random: StdRng,
    options: RegisterOptions,
    began: Instant,
    shared: Arc<Shared>,
    writes: u64,
    events: Vec<Event>,
}

impl Client {
    fn run(mut self) -> Vec<Event> {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            self.call();
            thread::sleep(self.options.rest);
        }
        self.events
    }

    fn call(&mut self) {
        let key = self.random.random_range(0..self.options.keys);
        let name = self.options.name(key);
        let call = if self.random.random_bool(self.options.writes) { self.next_write() } else { Call::Read };
        let args = match call {
            Call::Read => vec!["GET".to_owned(), name],
            Call::Write(value) => vec!["SET".to_owned(), name, value.to_string()],
        };
        let began = self.began.elapsed();
        let answer = self.roaming.call(&args);
        let ended = self.began.elapsed();
        if let Some(outcome) = outcome(call, answer) {
            self.count(&outcome);
            self.events.push(Event { client: self.number, key, call, outcome, began, ended });
        }
    }

    fn next_write(&mut self) -> Call {
        self.writes += 1;
        Call::Write((u64::from(self.number) << 32) | self.writes)
    }

    fn count(&self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Seen(_) | Outcome::Written) {
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        if *outcome == Outcome::Written {
            self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What an answer says; nothing if the call was never sent.
fn outcome(call: Call, answer: Answer) -> Option<Outcome> {
    let reply = match answer {
        Answer::Reply(reply) => reply,
        Answer::Lost(words) => return Some(Outcome::Unknown(words)),
        Answer::NotSent(_) => return None,
    };
    Some(match (call, reply) {
        (_, Reply::Error(words)) => Outcome::of_error(&String::from_utf8_lossy(&words)),
        (Call::Read, reply) if reply.is_nil() => Outcome::Seen(None),
        (Call::Read, Reply::Bulk(value)) => Outcome::Seen(Some(number(&value))),
        (Call::Write(_), Reply::Simple(words)) if words == b"OK" => Outcome::Written,
        (call, reply) => panic!("{call:?} is answered by {reply}"),
    })
}

/// What no client wrote is no number of ours: the largest one is never written, and so is found out.
fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nodes::{Cluster, ClusterOptions};
    use crate::cluster::{durability, register};
    use crate::server::{Forebay, ForebayOptions};

    #[test]
    fn the_history_of_one_node_is_linearizable() {
        let server = Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        let mut registers =
            Registers::new(RegisterOptions { keys: 3, rest: Duration::ZERO, ..RegisterOptions::default() });
        registers.add(6, &[server.address()]);
        registers.await_writes(500, Duration::from_secs(20));
        let (mut history, finally) = registers.end(server.address(), Duration::from_secs(20));
        assert!(history.count(|outcome| matches!(outcome, Outcome::Seen(Some(_)))) > 100, "{history}");
        let found = register::violations(&history);
        assert!(found.is_empty(), "{}", found[0]);
        assert!(durability::losses(&history, &finally).is_empty());

        // The same history without one acknowledged write that was seen is refused.
        let seen = finally[0].1.expect("every key was written");
        history.events.retain(|event| event.call != Call::Write(seen));
        assert!(!register::violations(&history).is_empty());
        assert!(!durability::losses(&history, &finally).is_empty());
    }

    /// Two nodes that know nothing of each other are two owners of each key: the checks must find that.
    #[test]
    fn two_nodes_that_do_not_know_each_other_are_found_out() {
        let [one, other] =
            [(); 2].map(|()| Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}")));
        let mut registers = Registers::new(RegisterOptions { keys: 3, ..RegisterOptions::default() });
        registers.add(4, &[one.address(), other.address()]);
        registers.await_writes(100, Duration::from_secs(20));
        let (history, _) = registers.end(one.address(), Duration::from_secs(20));
        assert_eq!(register::violations(&history).len(), 3, "{history}");
    }

    /// A node without copies forgets what it acknowledged.
    #[test]
    fn a_node_that_forgets_is_found_out() {
        let mut cluster = Cluster::prepare(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
        cluster.nodes[0].restart();
        let mut registers = Registers::new(RegisterOptions { keys: 40, writes: 0.2, ..RegisterOptions::default() });
        registers.add(2, &cluster.addresses());
        registers.await_writes(100, Duration::from_secs(20));
        cluster.nodes[0].kill();
        cluster.nodes[0].restart();
        let (history, finally) = registers.end(cluster.nodes[0].address(), Duration::from_secs(20));
        assert!(!register::violations(&history).is_empty(), "{history}");
        assert!(!durability::losses(&history, &finally).is_empty(), "{history}");
    }
}
