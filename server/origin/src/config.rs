//! The configuration of an origin, and its limits.

use std::time::Duration;

use crate::breaker::BreakerConfig;
use crate::fault::Fault;
use crate::feed::KafkaConfig;

/// Where the origin is, and how much it may be asked.
#[derive(Debug, Clone)]
pub struct OriginConfig {
    /// The primary: `postgres://…` (TLS by `sslmode`, `sslrootcert`, `sslcert`, `sslkey` in the URL) or
    /// `sqlite://FILE`.
    pub url: String,
    /// Read replicas, of the same kind as the primary.
    pub replicas: Vec<String>,
    /// The most connections per target, counting those that are being opened.
    pub max_connections: u32,
    /// How long a caller waits for a load at most; the database's own statement timeout is set to it.
    pub load_timeout: Duration,
    /// How long the first miss of a batch waits for company.
    pub batch_window: Duration,
    /// The most keys of one query.
    pub batch_max: usize,
    /// The most loads that wait at any time, in all groups together.
    pub max_waiting_loads: usize,
    /// When a target counts as ill, and how it is taken back.
    pub breaker: BreakerConfig,
    /// A connection that nobody used for so long is closed.
    pub idle_timeout: Duration,
    /// A connection is closed at this age, so that load balancers and certificates can change behind it.
    pub max_lifetime: Duration,
    /// [`FeedConfig::name`](crate::FeedConfig::name).
    pub feed_name: String,
    /// [`FeedConfig::max_retained`](crate::FeedConfig::max_retained), in bytes.
    pub feed_max_retained: u64,
    /// [`FeedConfig::kafka`](crate::FeedConfig::kafka).
    pub kafka: KafkaConfig,
}

impl OriginConfig {
    /// The defaults, with this primary and no replicas.
    pub fn new(url: impl Into<String>) -> Self {
        OriginConfig {
            url: url.into(),
            replicas: Vec::new(),
            max_connections: 16,
            load_timeout: Duration::from_secs(2),
            batch_window: Duration::from_micros(500),
            batch_max: 512,
            max_waiting_loads: 100_000,
            breaker: BreakerConfig::default(),
            idle_timeout: Duration::from_secs(300),
            max_lifetime: Duration::from_secs(1800),
            feed_name: "forebay".to_owned(),
            feed_max_retained: 4 << 30,
            kafka: KafkaConfig::default(),
        }
    }

    /// Every target's URL, the primary first.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.url.as_str()).chain(self.replicas.iter().map(String::as_str))
    }

    /// What is wrong with the numbers.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, place: &str, problem: &str, hint: &str| {
            if !holds {
                faults.push(Fault::unplaced(place, problem, hint));
            }
        };
        require(self.max_connections > 0, "origin.max_connections", "no connection is allowed", "allow at least 1");
        require(self.batch_max > 0, "origin.batch_max", "no key is allowed in a query", "allow at least 1");
        require(
            self.max_waiting_loads > 0,
            "origin.max_waiting_loads",
            "no load is allowed to wait",
            "allow at least 1",
        );
        require(
            self.load_timeout >= Duration::from_millis(1),
            "origin.load_timeout",
            "it is shorter than a millisecond",
            "the default is 2s",
        );
        require(
            self.batch_window < self.load_timeout,
            "origin.batch_window",
            "it is not shorter than the load timeout",
            "the default is 500us",
        );
        faults
    }
}
