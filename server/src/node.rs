//! What one node is made of, as the command handlers see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_cluster::Topology;
use forebay_origin::Origin;
use forebay_store::{Store, UnixMillis};

use crate::clients::Clients;
use crate::clock::Clock;
use crate::compaction::Compactions;
use crate::engine::gates::Gates;
use crate::eviction::Shortage;
use crate::identity::Identity;
use crate::reclaim::Reclaimer;
use crate::settings::Settings;
use crate::telemetry::Telemetry;

/// The parts of a node. Each guards itself; there is no lock around the whole.
pub struct Node {
    pub identity: Identity,
    pub settings: Settings,
    pub clock: Clock,
    pub store: Store,
    pub reclaimer: Reclaimer,
    /// None for a plain cache.
    pub origin: Option<Arc<Origin>>,
    pub topology: ArcSwap<Topology>,
    pub clients: Clients,
    pub gates: Gates,
    pub telemetry: Telemetry,
    pub compactions: Compactions,
    pub shortage: Shortage,
}

impl Node {
    /// Whether there is a group that could load a missing key.
    #[inline]
    pub fn reads_through(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| !origin.is_empty())
    }

    /// Whether nothing may change by itself: while clients are paused, and when a test wants it so.
    pub fn rests(&self, now: UnixMillis) -> bool {
        !self.settings.housekeeping.load(Relaxed) || self.gates.paused(now).is_some()
    }

    /// Whether what has expired is left lying until somebody asks for it.
    pub fn expires_nothing(&self, now: UnixMillis) -> bool {
        !self.settings.active_expire.load(Relaxed) || self.rests(now)
    }

    /// Notes that an event took this long, if that is long enough to be called a spike.
    #[inline]
    pub fn note_latency(&self, event: &'static str, took: Duration, now: UnixMillis) {
        if self.settings.is_spike(took.as_millis() as u64) {
            self.telemetry.latency.add(event, now / 1000, took.as_millis() as u64);
        }
    }

    /// Whether a group has keys like this one.
    pub fn is_of_a_group(&self, key: &[u8]) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.matches(key).is_some())
    }

    /// The lane that threads without one of their own (the background runtime) must not write, but HTTP's single thread does.
    pub fn http_lane(&self) -> usize {
        self.identity.worker_threads
    }
}
