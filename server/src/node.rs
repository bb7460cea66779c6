//! What one node is made of, as the command handlers see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::ArcSwap;
use forebay_cluster::{SLOT_COUNT, Topology};
use forebay_origin::Origin;
use forebay_store::{EvictStep, Garbage, Store, UnixMillis};
use tokio::sync::watch;

use crate::channels::Channels;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::cluster::copies::Evictions;
use crate::cluster::{Cluster, Member, Part};
use crate::compaction::Compactions;
use crate::engine::gates::Gates;
use crate::eviction::Shortage;
use crate::freshness::{Freshness, Guard};
use crate::groups::Agreement;
use crate::identity::Identity;
use crate::reclaim::Reclaimer;
use crate::replication::Recorded;
use crate::roles::Roles;
use crate::settings::Settings;
use crate::telemetry::Telemetry;
use crate::tracking::Tracking;
use crate::writes::Writes;

/// The parts of a node. Each guards itself; there is no lock around the whole.
pub struct Node {
    pub identity: Identity,
    pub settings: Settings,
    pub clock: Clock,
    pub store: Store,
    pub reclaimer: Reclaimer,
    /// None for a plain cache.
    pub origin: Option<Arc<Origin>>,
    pub groups: Agreement,
    pub freshness: Freshness,
    pub writes: Writes,
    pub topology: ArcSwap<Topology>,
    pub roles: Roles,
    /// None for a node that is alone and stays so.
    pub cluster: Option<Cluster>,
    /// The epoch by which the roles are, for those who wait for another.
    pub changes: watch::Sender<u64>,
    pub clients: Clients,
    pub channels: Channels,
    pub gates: Gates,
    pub telemetry: Telemetry,
    pub tracking: Tracking,
    pub compactions: Compactions,
    pub shortage: Shortage,
}

/// What emptying databases has come to.
#[derive(Default)]
pub struct Flushed {
    pub garbage: Garbage,
    /// What copies were told.
    pub told: Recorded,
    /// Whether that was all that is this node's. If not, something is changing hands, or the node may not be the owner of anything any more: it is
    /// to be done again.
    pub is_settled: bool,
}

impl Node {
    /// Whether this node takes part in a formed cluster, by a state of which it answers; or is alone.
    pub fn is_taking_part(&self) -> bool {
        self.member().is_none_or(Member::is_ready) && self.topology.load().here().is_some()
    }

    /// Whether there is a group that could load a missing key.
    #[inline]
    pub fn reads_through(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| !origin.is_empty())
    }

    /// Whether some group's keys are written to the origin.
    #[inline]
    pub fn writes_to_origin(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.writes())
    }

    /// Whether this node may serve what it owns: while it is surely its owner.
    #[inline]
    pub fn has_lease(&self) -> bool {
        self.member().is_none_or(Member::has_lease) || !self.freshness.guards.has(Guard::Lease)
    }

    /// Whether this process learns of what the cluster agrees on.
    pub fn is_in_touch(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_in_touch)
    }

    /// Whether this process is a door of its cluster and nothing else.
    pub fn is_frontend(&self) -> bool {
        matches!(self.cluster.as_ref().map(|cluster| &cluster.part), Some(Part::Frontend(_)))
    }

    /// What this process has if it is one of several nodes.
    #[inline]
    pub fn member(&self) -> Option<&Member> {
        self.cluster.as_ref()?.member()
    }

    /// Evicts up to `budget` entries; who holds copies of them is told.
    pub fn evict_step(&self, now: UnixMillis, budget: usize) -> EvictStep {
        match self.member() {
            None => self.store.evict_step(now, budget, &mut rand::random::<u64>),
            Some(member) => {
                let mut evictions = Evictions { node: self, replication: &member.replication };
                self.store.evict_step_with(now, budget, &mut rand::random::<u64>, &mut evictions)
            }
        }
    }

    /// Whether a key is to be told of where keys are listed: not if another node owns it, who tells of it.
    pub fn lists(&self, key: &[u8]) -> bool {
        self.cluster.is_none() || self.roles.get(forebay_cluster::slot_of(key)).owns()
    }

    /// How many keys of the database are this node's own.
    pub fn len(&self, db: u16) -> usize {
        if (0..SLOT_COUNT).all(|slot| self.roles.is_owned_alone(slot)) {
            return self.store.len(db);
        }
        let own = (0..SLOT_COUNT).filter(|slot| self.roles.get(*slot).owns());
        own.map(|slot| self.store.count_in_slot(db, slot)).sum()
    }

    /// A key of the database that is this node's own, picked about evenly.
    pub fn random_key(&self, db: u16, now: UnixMillis) -> Option<Vec<u8>> {
        /// Of those that are found, a part is others'.
        const TRIES: usize = 256;
        let draw = || self.store.random_key(db, now, &mut rand::random::<u64>);
        (0..TRIES).map_while(|_| draw()).find(|key| self.lists(key))
    }

    /// Empties a database, or all of them, as far as it is this node's.
    pub fn flush(&self, db: Option<u16>) -> Flushed {
        let flushed = match self.member() {
            None => Flushed { garbage: self.store.flush(db), told: Recorded::default(), is_settled: true },
            Some(member) if self.has_lease() => self.flush_own(member, db),
            Some(_) => Flushed::default(),
        };
        self.tracking.flushed(self);
        flushed
    }

    fn flush_own(&self, member: &Member, db: Option<u16>) -> Flushed {
        let (topology, mut is_settled) = (self.topology.load_full(), true);
        let (garbage, told) = member.replication.flush(&self.store, db, &mut |slot| {
            let serves = self.roles.get(slot).serves();
            is_settled &= serves || !topology.is_here(slot);
            serves
        });
        Flushed { garbage, told, is_settled }
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
        self.origin.as_ref().is_some_and(|origin| origin.group_of(key).is_some())
    }

    /// The lane that threads without one of their own (the background runtime) must not write, but HTTP's single thread does.
    pub fn http_lane(&self) -> usize {
        self.identity.worker_threads
    }
}
