//! Many clients that read and write all the time, with a tally of every second: what users notice of a fault.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::roaming::{Answer, Ends, Roaming};
use crate::process::eventually;
use crate::reply::Reply;

/// Kinds of failures that a report shows word for word.
const SHOWN_KINDS: usize = 6;

/// How the description of a reply begins that is no error and not what it should be.
const WRONG: &str = "wrong reply to";

/// What the clients ask. Each value follows from its key, so that every reply can be checked.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub clients: usize,
    /// What the keys that are read begin with: `product` for `product:0` and so on. They are never written.
    pub reads: String,
    /// What the keys that are written begin with.
    pub writes: String,
    /// Keys of each kind.
    pub keys: u32,
    /// Share of writes, 0 to 1.
    pub write_share: f64,
    /// Share of increments of a counter that each client has for itself, 0 to 1: one that is lost or made twice is a wrong reply.
    pub count_share: f64,
    /// Whether clients trust orderly ends (see [`Roaming::trusting_ends`]).
    pub trusts_ends: bool,
    /// The pause between two requests of a client. Clients that never rest take the processors from the nodes that share the machine.
    pub rest: Duration,
    /// How long a client waits for a reply before it gives up.
    pub patience: Duration,
    pub seed: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        let (rest, patience) = (Duration::from_millis(4), Duration::from_secs(8));
        let (reads, writes) = ("product".to_owned(), "note".to_owned());
        let (clients, keys, write_share, count_share, trusts_ends, seed) = (24, 1000, 0.1, 0.0, false, 1);
        Self { clients, reads, writes, keys, write_share, count_share, trusts_ends, rest, patience, seed }
    }
}

/// Running clients.
pub struct Load {
    began: Instant,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Sample>>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    right: AtomicU64,
    right_reads: AtomicU64,
    failed: AtomicU64,
    counted: AtomicU64,
    ends_seen: AtomicU64,
    ends_crossed: AtomicU64,
}

/// One request.
#[derive(Debug)]
struct Sample {
    /// When it was sent, since the load began.
    began: Duration,
    took: Duration,
    /// What went wrong.
    failure: Option<String>,
}

impl Load {
    /// Starts the clients; the first one begins at the first node, the second one at the second, and so on.
    pub fn start(options: &LoadOptions, nodes: &[SocketAddr]) -> Self {
        let (began, shared) = (Instant::now(), Arc::<Shared>::default());
        let client = |number: usize| {
            let roaming = Roaming::new(nodes.to_vec(), number, options.patience);
            let mut client = Client {
                roaming: if options.trusts_ends { roaming.trusting_ends() } else { roaming },
                counter: (format!("{}:counter:{number}", options.writes), None),
                random: StdRng::seed_from_u64(options.seed ^ ((number as u64) << 32)),
                options: options.clone(),
                shared: Arc::clone(&shared),
            };
            thread::spawn(move || client.run(began))
        };
        let clients = (0..options.clients).map(client).collect();
        Self { began, shared, clients }
    }

    /// The time on the load's clock.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Requests that were answered rightly so far.
    pub fn right(&self) -> u64 {
        self.shared.right.load(Ordering::Relaxed)
    }

    /// The reads among them.
    pub fn right_reads(&self) -> u64 {
        self.shared.right_reads.load(Ordering::Relaxed)
    }

    /// Requests that failed so far.
    pub fn failed(&self) -> u64 {
        self.shared.failed.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests were answered rightly.
    ///
    /// # Panics
    /// When they are not before `limit` is over.
    pub fn await_right(&self, more: u64, limit: Duration) {
        let enough = self.right() + more;
        assert!(eventually(limit, || self.right() >= enough), "fewer than {more} right answers within {limit:?}");
    }

    /// Waits until `more` requests in a row were answered and none failed.
    ///
    /// # Panics
    /// When that does not come about before `limit` is over.
    pub fn await_calm(&self, more: u64, limit: Duration) {
        let (mut failed, mut enough) = (self.failed(), self.right() + more);
        let is_calm = eventually(limit, || {
            if self.failed() != failed {
                (failed, enough) = (self.failed(), self.right() + more);
            }
            self.right() >= enough
        });
        assert!(is_calm, "there are failures still after {limit:?}");
    }

    /// Ends the clients.
    pub fn end(self) -> Report {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let took = self.began.elapsed();
        let samples = self.clients.into_iter().flat_map(|client| client.join().expect("a client does not panic"));
        let mut samples: Vec<Sample> = samples.collect();
        samples.sort_by_key(|sample| sample.began);
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { counted, ends_seen, ends_crossed, .. } = &*self.shared;
        let ends = Ends { seen: of(ends_seen), crossed: of(ends_crossed) };
        Report { samples, took, counted: of(counted), ends }
    }
}

struct Client {
    roaming: Roaming,
    /// Its name, and its value if that is known.
    counter: (String, Option<i64>),
    random: StdRng,
    options: LoadOptions,
    shared: Arc<Shared>,
}

impl Client {
    fn run(&mut self, began: Instant) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !self.shared.is_over.load(Ordering::Relaxed) {
            let sent = began.elapsed();
            if let Some(failure) = self.ask() {
                samples.push(Sample { began: sent, took: began.elapsed() - sent, failure });
            }
            thread::sleep(self.options.rest);
        }
        let Ends { seen, crossed } = self.roaming.ends();
        self.shared.ends_seen.fetch_add(seen, Ordering::Relaxed);
        self.shared.ends_crossed.fetch_add(crossed, Ordering::Relaxed);
        samples
    }

    /// Asks one thing: what went wrong with it, if anything did. Nothing at all if no node took the request.
    fn ask(&mut self) -> Option<Option<String>> {
        if self.random.random_bool(self.options.count_share) {
            return self.count_up();
        }
        let number = self.random.random_range(0..self.options.keys);
        let is_write = self.random.random_bool(self.options.write_share);
        let (key, request) = if is_write { self.write(number) } else { self.read(number) };
        let failure = match self.roaming.call(&request) {
            Answer::NotSent(_) => return None,
            Answer::Lost(words) => Some(words),
            Answer::Reply(Reply::Error(words)) => Some(String::from_utf8_lossy(&words).into_owned()),
            Answer::Reply(Reply::Simple(words)) if is_write && words == b"OK" => None,
            Answer::Reply(Reply::Bulk(value)) if !is_write && value == value_of(&key).into_bytes() => None,
            Answer::Reply(other) => Some(format!("{WRONG} {}: {other}", request.join(" "))),
        };
        self.count(is_write, failure.is_some());
        Some(failure)
    }

    fn count_up(&mut self) -> Option<Option<String>> {
        let (name, known) = &mut self.counter;
        let expected = known.take().map(|value| value + 1);
        let failure = match self.roaming.call(&["INCR", name]) {
            Answer::NotSent(_) => {
                *known = expected.map(|value| value - 1);
                return None;
            }
            Answer::Lost(words) => Some(words),
            Answer::Reply(Reply::Integer(value)) => {
                *known = Some(value);
                let is_right = expected.is_none_or(|expected| expected == value);
                (!is_right).then(|| format!("{WRONG} INCR {name}: {value}, not {expected:?}"))
            }
            Answer::Reply(Reply::Error(words)) => Some(String::from_utf8_lossy(&words).into_owned()),
            Answer::Reply(other) => Some(format!("{WRONG} INCR {name}: {other}")),
        };
        self.shared.counted.fetch_add(u64::from(failure.is_none()), Ordering::Relaxed);
        self.count(true, failure.is_some());
        Some(failure)
    }

    fn write(&self, number: u32) -> (String, Vec<String>) {
        let key = format!("{}:{number}", self.options.writes);
        let request = vec!["SET".to_owned(), key.clone(), value_of(&key)];
        (key, request)
    }

    fn read(&self, number: u32) -> (String, Vec<String>) {
        let key = format!("{}:{number}", self.options.reads);
        let request = vec!["GET".to_owned(), key.clone()];
        (key, request)
    }

    fn count(&self, is_write: bool, has_failed: bool) {
        let Shared { right, right_reads, failed, .. } = &*self.shared;
        if has_failed {
            failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        right.fetch_add(1, Ordering::Relaxed);
        if !is_write {
            right_reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The value that a key must have.
pub fn value_of(key: &str) -> String {
    format!("value of {key}")
}

/// What the clients were told.
#[derive(Debug)]
pub struct Report {
    /// In the order of their begin.
    samples: Vec<Sample>,
    took: Duration,
    /// Increments that gave what they should.
    counted: u64,
    ends: Ends,
}

impl Report {
    /// All requests.
    pub fn total(&self) -> usize {
        self.samples.len()
    }

    /// Those that failed.
    pub fn failed(&self) -> usize {
        self.failures().count()
    }

    /// Replies that were no error and not what they should be. None is ever forgiven.
    pub fn wrong(&self) -> Vec<&str> {
        let words = self.failures().filter_map(|sample| sample.failure.as_deref());
        words.filter(|words| words.starts_with(WRONG)).collect()
    }

    /// What share of a minute's requests at this rate failed: of all requests if the load lasted longer.
    pub fn failed_share_of_a_minute(&self) -> f64 {
        let per_minute = self.total() as f64 * (60.0 / self.took.as_secs_f64()).max(1.0);
        self.failed() as f64 / per_minute.max(1.0)
    }

    /// When the last request failed that was sent or answered after `fault`: the time from the fault to that answer.
    pub fn errors_ended_after(&self, fault: Duration) -> Duration {
        let ends = self.failures().map(|sample| sample.began + sample.took).filter(|end| *end >= fault);
        ends.max().map_or(Duration::ZERO, |end| end - fault)
    }

    /// The longest that a request took that was sent before `to` and answered after `from`.
    pub fn slowest(&self, from: Duration, to: Duration) -> Duration {
        let meant = self.samples.iter().filter(|sample| sample.began < to && sample.began + sample.took >= from);
        meant.map(|sample| sample.took).max().unwrap_or_default()
    }

    /// What `share` of the requests, 0 to 1, took at most.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took: Vec<Duration> = self.samples.iter().map(|sample| sample.took).collect();
        took.sort_unstable();
        let at = (share * took.len().saturating_sub(1) as f64).round() as usize;
        took.get(at).copied().unwrap_or_default()
    }

    /// For each second the requests that were answered rightly, and those that failed.
    pub fn seconds(&self) -> Vec<(usize, usize)> {
        let mut seconds = Vec::new();
        for sample in &self.samples {
            let second = sample.began.as_secs() as usize;
            seconds.resize(seconds.len().max(second + 1), (0, 0));
            match sample.failure {
                None => seconds[second].0 += 1,
                Some(_) => seconds[second].1 += 1,
            }
        }
        seconds
    }

    /// How often each kind of failure occurred, the most frequent first; digits are left out, so that ports make no kinds of their own.
    pub fn kinds(&self) -> Vec<(String, usize)> {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for words in self.failures().filter_map(|sample| sample.failure.as_deref()) {
            *kinds.entry(words.replace(|c: char| c.is_ascii_digit(), "")).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    fn failures(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.failure.is_some())
    }
}

/// The figures, as a test prints them.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        let (total, failed, share) = (self.total(), self.failed(), self.failed_share_of_a_minute() * 100.0);
        let slowest = self.quantile(1.0);
        writeln!(f, "{total} requests in {:.1?}, {failed} failed ({share:.4} % of a minute's)", self.took)?;
        writeln!(f, "    p50 {p50:.2?}, p99 {p99:.2?}, slowest {slowest:.2?}")?;
        for (words, count) in self.kinds().iter().take(SHOWN_KINDS) {
            writeln!(f, "    {count} × {words}")?;
        }
        if self.counted > 0 {
            writeln!(f, "    {} increments counted once", self.counted)?;
        }
        if self.ends.seen + self.ends.crossed > 0 {
            let Ends { seen, crossed } = self.ends;
            writeln!(
                f,
                "    connections closed in order: {seen} seen before a request, {crossed} crossed by one, which was asked again"
            )?;
        }
        let seconds: Vec<String> = self.seconds().iter().map(|(right, failed)| format!("{right}/{failed}")).collect();
        write!(f, "    right/failed by seconds: {}", seconds.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nodes::{Cluster, ClusterOptions};
    use crate::server::{Forebay, ForebayOptions};

    fn sample(began: u64, took: u64, failure: Option<&str>) -> Sample {
        let [began, took] = [began, took].map(Duration::from_millis);
        Sample { began, took, failure: failure.map(str::to_owned) }
    }

    #[test]
    fn a_report_tells_when_the_errors_ended() {
        let samples = vec![
            sample(100, 1, None),
            sample(900, 300, Some("closed by 7")),
            sample(1300, 1, Some("closed by 8")),
            sample(2500, 1, None),
        ];
        let report = Report { samples, took: Duration::from_secs(3), counted: 0, ends: Ends::default() };
        assert_eq!(report.errors_ended_after(Duration::from_millis(1000)), Duration::from_millis(301));
        assert_eq!(report.errors_ended_after(Duration::from_millis(2000)), Duration::ZERO);
        assert_eq!(report.seconds(), [(1, 1), (0, 1), (1, 0)]);
        assert_eq!(report.kinds(), [("closed by ".to_owned(), 2)]);
        assert!((report.failed_share_of_a_minute() - 2.0 / 80.0).abs() < 1e-9);
        assert_eq!(
            report.slowest(Duration::from_millis(1100), Duration::from_millis(1200)),
            Duration::from_millis(300)
        );
    }

    #[test]
    fn each_client_of_a_killed_node_loses_one_request() {
        let limit = Duration::from_secs(20);
        let mut cluster = Cluster::prepare(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
        cluster.nodes[0].restart();
        let other = Forebay::start(ForebayOptions::default()).unwrap_or_else(|error| panic!("{error}"));
        // Nobody reads: the two nodes know nothing of each other.
        let options = LoadOptions { clients: 6, write_share: 1.0, ..LoadOptions::default() };
        let load = Load::start(&options, &[cluster.nodes[0].address(), other.address()]);
        load.await_calm(200, limit);
        let fault = load.now();
        cluster.nodes[0].kill();
        load.await_calm(200, limit);
        assert_eq!(load.failed(), 3);
        let report = load.end();
        assert_eq!(report.failed(), 3, "{report}");
        assert_eq!(report.kinds(), [("closed".to_owned(), 3)], "{report}");
        assert!(report.errors_ended_after(fault) < limit && report.total() > 400, "{report}");
    }
}
