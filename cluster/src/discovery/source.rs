//! A source of nodes that is asked anew when its last answer is old, and remembers that answer while it does not give another one.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex as Lock;
use tokio::sync::Mutex;

#[cfg(feature = "cloudmap")]
use super::cloud_map::CloudMap;
use super::dns::DnsName;

/// An answer is used for this long. It is short, since a cluster that forms waits for it; in one that has a leader nobody asks.
const FRESH: Duration = Duration::from_secs(2);
/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How often it is said that a source still does not answer.
const REMIND: Duration = Duration::from_secs(60);

/// How nodes are looked up.
pub(super) enum Lookup {
    Dns(Box<DnsName>),
    #[cfg(feature = "cloudmap")]
    CloudMap(CloudMap),
}

/// A source and what it said last.
pub(super) struct Source {
    /// As the user wrote it.
    name: String,
    lookup: Lookup,
    /// Held while the source is asked, so that it is asked once.
    last: Mutex<Answer>,
    trouble: Lock<Option<Trouble>>,
}

#[derive(Default)]
struct Answer {
    addresses: Vec<String>,
    at: Option<Instant>,
}

/// Why there was no answer, since it was last said in the log.
struct Trouble {
    problem: String,
    told: Instant,
}

impl Source {
    pub(super) fn new(name: String, lookup: Lookup) -> Source {
        Source { name, lookup, last: Mutex::default(), trouble: Lock::default() }
    }

    /// The peer ports, as `host:port`.
    pub(super) async fn addresses(&self) -> Vec<String> {
        let mut last = self.last.lock().await;
        if last.at.is_none_or(|at| at.elapsed() >= FRESH) {
            let looked_up = tokio::time::timeout(TIMEOUT, self.lookup.look_up()).await;
            let looked_up = looked_up.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
            last.at = Some(Instant::now());
            match looked_up {
                Ok(mut addresses) => {
                    addresses.sort();
                    addresses.dedup();
                    self.note_answer(&last.addresses, &addresses);
                    last.addresses = addresses;
                }
                Err(problem) => self.note_trouble(problem, !last.addresses.is_empty()),
            }
        }
        last.addresses.clone()
    }

    pub(super) fn problem(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.as_ref().map(|trouble| format!("{} cannot be looked up: {}", self.name, trouble.problem))
    }

    fn note_answer(&self, before: &[String], now: &[String]) {
        if before != now {
            tracing::info!("cluster: {} stands for {}", self.name, now.join(", "));
        } else if self.trouble.lock().is_some() {
            tracing::info!("cluster: {} can be looked up again", self.name);
        }
        *self.trouble.lock() = None;
    }

    fn note_trouble(&self, problem: String, has_others: bool) {
        let mut trouble = self.trouble.lock();
        let told = trouble.as_ref().map(|trouble| trouble.told).filter(|told| told.elapsed() < REMIND);
        if told.is_none() {
            let meanwhile = if has_others { "; the nodes of the last answer are asked" } else { "" };
            tracing::warn!(
                "cluster: {} cannot be looked up, which is tried again and again: {problem}{meanwhile}",
                self.name
            );
        }
        *trouble = Some(Trouble { problem, told: told.unwrap_or_else(Instant::now) });
    }
}

impl Lookup {
    async fn look_up(&self) -> Result<Vec<String>, String> {
        match self {
            Lookup::Dns(name) => name.look_up().await,
            #[cfg(feature = "cloudmap")]
            Lookup::CloudMap(service) => service.look_up().await,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
