//! What clients did and were told, with times: the evidence that the checks judge.

use std::fmt;
use std::time::Duration;

/// One call of a client to one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub client: u32,
    pub key: u32,
    pub call: Call,
    pub outcome: Outcome,
    /// When the call was sent, on the one monotonic clock of the test, since the history's begin.
    pub began: Duration,
    /// When the outcome was known.
    pub ended: Duration,
}

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    /// No value is ever written twice, so a read tells which write it saw.
    Write(u64),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read's value; `None`: there is none.
    Seen(Option<u64>),
    /// The write was acknowledged.
    Written,
    /// The server said that it did not carry the call out.
    Refused(String),
    /// Nobody knows: no reply came, or one that leaves it open. A write may take effect at any later time, or never.
    Unknown(String),
}

impl Outcome {
    /// What an error reply means for a call. Only errors that are given before anything is done say that nothing was done.
    pub fn of_error(words: &str) -> Self {
        let code = words.split(' ').next().unwrap_or_default();
        let is_refusal = matches!(code, "CLUSTERDOWN" | "MOVED" | "TRYAGAIN" | "LOADING" | "MASTERDOWN");
        match is_refusal && !words.contains("may or may not") {
            true => Self::Refused(words.to_owned()),
            false => Self::Unknown(words.to_owned()),
        }
    }
}

/// All events of a test, in no certain order.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub events: Vec<Event>,
}

impl History {
    /// The keys that occur, in order.
    pub fn keys(&self) -> Vec<u32> {
        let mut keys: Vec<u32> = self.events.iter().map(|event| event.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The events of one key.
    pub fn of_key(&self, key: u32) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.key == key)
    }

    /// How many events have an outcome like this.
    pub fn count(&self, is_meant: impl Fn(&Outcome) -> bool) -> usize {
        self.events.iter().filter(|event| is_meant(&event.outcome)).count()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, call, outcome, began, ended } = self;
        write!(f, "{:>12.6} – {:>12.6} s  client {client}, key {key}: ", began.as_secs_f64(), ended.as_secs_f64())?;
        match call {
            Call::Read => f.write_str("read")?,
            Call::Write(value) => write!(f, "write {}", Shown(*value))?,
        }
        match outcome {
            Outcome::Seen(Some(value)) => write!(f, " {}", Shown(*value)),
            Outcome::Seen(None) => f.write_str(" nothing"),
            Outcome::Written => f.write_str(", acknowledged"),
            Outcome::Refused(words) => write!(f, ", refused: {words}"),
            Outcome::Unknown(words) => write!(f, ", outcome unknown: {words}"),
        }
    }
}

/// A summary, as a test prints it.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reads = self.count(|outcome| matches!(outcome, Outcome::Seen(_)));
        let writes = self.count(|outcome| matches!(outcome, Outcome::Written));
        let refused = self.count(|outcome| matches!(outcome, Outcome::Refused(_)));
        let unknown = self.count(|outcome| matches!(outcome, Outcome::Unknown(_)));
        let keys = self.keys().len();
        write!(f, "{reads} reads and {writes} writes of {keys} keys, {refused} refused, {unknown} of unknown outcome")
    }
}

/// A value as `client.number`, the way the register clients make it.
struct Shown(u64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_refusal_only_where_it_says_so() {
        let refused = |words: &str| matches!(Outcome::of_error(words), Outcome::Refused(_));
        assert!(refused("CLUSTERDOWN this node has no lease"));
        assert!(refused("MOVED 7 127.0.0.1:6380"));
        assert!(!refused("CLUSTERDOWN the owner died: the write may or may not have been carried out"));
        assert!(!refused("NOREPLICAS 1 of 2 acknowledged"));
        assert!(!refused(""));
    }
}
