//! A client that asks something small again and again and notes how long each answer took: what others notice of a large work.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::connection::encode;

/// How long one answer may take before the probe gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running probe. It asks until it is ended, each time as soon as the last answer is there and the rest is over.
pub struct Probe {
    ended: Arc<AtomicBool>,
    asking: JoinHandle<io::Result<Vec<Duration>>>,
}

/// What a probe asks.
pub struct Question {
    /// Requests that are sent at once.
    pub requests: Vec<Vec<u8>>,
    /// Bytes that the answer to each of them has.
    pub answer: usize,
    /// The pause between an answer and the next question.
    pub rest: Duration,
}

/// How long answers took.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Question {
    /// One request after the other, a thousand times a second at most, so that the probe itself is no load.
    pub fn single(args: &[&str], answer: usize) -> Self {
        Self { requests: vec![encode(args)], answer, rest: Duration::from_millis(1) }
    }

    /// A load: `requests` are sent together, again and again.
    pub fn pipeline(requests: Vec<Vec<u8>>, answer: usize) -> Self {
        Self { requests, answer, rest: Duration::ZERO }
    }
}

impl Probe {
    /// Starts asking.
    ///
    /// # Panics
    /// When the server does not accept the connection.
    pub fn start(address: SocketAddr, question: Question) -> Self {
        let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let ended = Arc::new(AtomicBool::new(false));
        let is_ended = Arc::clone(&ended);
        let asking = thread::spawn(move || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            ask_until(&is_ended, &mut stream, &question)
        });
        Self { ended, asking }
    }

    /// Ends the probe and tells how long its answers took.
    ///
    /// # Panics
    /// When an answer did not come.
    pub fn end(self) -> Latencies {
        self.ended.store(true, Relaxed);
        let answers = self.asking.join().expect("a probe does not panic");
        let mut sorted = answers.unwrap_or_else(|error| panic!("a probe was not answered: {error}"));
        sorted.sort_unstable();
        Latencies { sorted }
    }
}

fn ask_until(ended: &AtomicBool, stream: &mut TcpStream, question: &Question) -> io::Result<Vec<Duration>> {
    let request = question.requests.concat();
    let mut answer = vec![0; question.answer * question.requests.len()];
    let mut took = Vec::new();
    while !ended.load(Relaxed) {
        let began = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
        took.push(began.elapsed());
        if !question.rest.is_zero() {
            thread::sleep(question.rest);
        }
    }
    Ok(took)
}

impl Latencies {
    /// How many answers there were.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// What `share` of the answers (0 to 1) took at most.
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        let at = (share * last as f64).round() as usize;
        self.sorted.get(at).copied().unwrap_or_default()
    }

    /// The longest that one took.
    pub fn slowest(&self) -> Duration {
        self.quantile(1.0)
    }

    /// How many took longer than `limit`.
    pub fn over(&self, limit: Duration) -> usize {
        self.sorted.len() - self.sorted.partition_point(|took| *took <= limit)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, p999) = (self.quantile(0.5), self.quantile(0.99), self.quantile(0.999));
        write!(
            f,
            "{} answers, p50 {median:.2?}, p99 {p99:.2?}, p99.9 {p999:.2?}, slowest {:.2?}",
            self.count(),
            self.slowest()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_answers_that_were_seen() {
        let latencies = Latencies { sorted: (1..=1000).map(Duration::from_micros).collect() };
        assert_eq!(latencies.quantile(0.0), Duration::from_micros(1));
        assert_eq!(latencies.slowest(), Duration::from_micros(1000));
        assert_eq!(latencies.over(Duration::from_micros(990)), 10);
        assert_eq!(Latencies::default().slowest(), Duration::ZERO);
    }
}
