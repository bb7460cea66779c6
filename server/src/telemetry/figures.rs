//! The handful of numbers that tell what the read-through does, for people who watch it.

use std::fmt;
use std::iter::Sum;
use std::ops::Sub;
use std::sync::atomic::Ordering::Relaxed;

use crate::freshness::meter::AGES;
use crate::memory;
use crate::node::Node;

/// Totals since the start, or between two moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub commands: u64,
    /// Reads answered from memory, those of a known absence included.
    pub hits: u64,
    pub misses: u64,
    /// Loads that were begun.
    pub loads: u64,
    /// Requests that joined a load under way instead of beginning one.
    pub coalesced: u64,
    /// Times that the origin was asked. In Postgres that is one query for all keys that were missing together.
    pub batches: u64,
    /// Keys asked for in them.
    pub batch_keys: u64,
    pub failed_loads: u64,
    pub stale_served: u64,
    pub expired: u64,
    pub evicted: u64,
}

impl Figures {
    /// The totals now.
    pub fn of(node: &Node) -> Figures {
        let store = node.store.counters();
        let loads = &node.telemetry.loads;
        let groups = node.origin.as_ref().map(|origin| origin.status().groups).unwrap_or_default();
        Figures {
            commands: node.telemetry.lanes.calls(),
            hits: store.hits + store.absent_hits,
            misses: store.misses,
            loads: loads.loads.load(Relaxed),
            coalesced: loads.coalesced.load(Relaxed),
            batches: groups.iter().flat_map(|group| group.batch_sizes).sum(),
            batch_keys: groups.iter().map(|group| group.keys).sum(),
            failed_loads: loads.failed.load(Relaxed),
            stale_served: store.stale_served,
            expired: store.expired,
            evicted: store.evicted,
        }
    }

    /// Keys of a batch on average.
    pub fn keys_per_batch(&self) -> f64 {
        self.batch_keys as f64 / self.batches.max(1) as f64
    }
}

impl Sum for Figures {
    /// What several nodes have done together.
    fn sum<I: Iterator<Item = Figures>>(all: I) -> Figures {
        all.fold(Figures::default(), |sum, one| Figures {
            commands: sum.commands + one.commands,
            hits: sum.hits + one.hits,
            misses: sum.misses + one.misses,
            loads: sum.loads + one.loads,
            coalesced: sum.coalesced + one.coalesced,
            batches: sum.batches + one.batches,
            batch_keys: sum.batch_keys + one.batch_keys,
            failed_loads: sum.failed_loads + one.failed_loads,
            stale_served: sum.stale_served + one.stale_served,
            expired: sum.expired + one.expired,
            evicted: sum.evicted + one.evicted,
        })
    }
}

impl Sub for Figures {
    type Output = Figures;

    /// What happened between `earlier` and now; nothing where the counters were reset meanwhile.
    fn sub(self, earlier: Figures) -> Figures {
        Figures {
            commands: self.commands.saturating_sub(earlier.commands),
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            loads: self.loads.saturating_sub(earlier.loads),
            coalesced: self.coalesced.saturating_sub(earlier.coalesced),
            batches: self.batches.saturating_sub(earlier.batches),
            batch_keys: self.batch_keys.saturating_sub(earlier.batch_keys),
            failed_loads: self.failed_loads.saturating_sub(earlier.failed_loads),
            stale_served: self.stale_served.saturating_sub(earlier.stale_served),
            expired: self.expired.saturating_sub(earlier.expired),
            evicted: self.evicted.saturating_sub(earlier.evicted),
        }
    }
}

/// A node's figures as a page of text.
pub struct Page<'n>(pub &'n Node);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0;
        let figures = Figures::of(node);
        let phase = if node.gates.is_draining() { "draining" } else { "serving" };
        let topology = node.topology.load();
        let id = topology.here().map_or("-", |node| node.id.as_str());
        writeln!(f, "Forebay {} {phase}, node {id}\n", env!("CARGO_PKG_VERSION"))?;
        let mut line = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<22}{value:>16}");
        let uptime = (node.clock.unix_millis() - node.identity.started_at) / 1000;
        line("uptime, seconds", &uptime)?;
        line("connections", &node.clients.len())?;
        line("commands", &figures.commands)?;
        line("keys in database 0", &node.store.len(0))?;
        line("memory, bytes", &memory::used())?;
        line("hits", &figures.hits)?;
        line("misses", &figures.misses)?;
        line("loads", &figures.loads)?;
        line("coalesced", &figures.coalesced)?;
        line("failed loads", &figures.failed_loads)?;
        line("stale served", &figures.stale_served)?;
        line("batches", &figures.batches)?;
        line("keys per batch", &format!("{:.1}", figures.keys_per_batch()))?;
        line("expired", &figures.expired)?;
        line("evicted", &figures.evicted)?;
        let totals = node.freshness.meter.totals();
        for (age, (_, name)) in AGES.iter().enumerate().filter(|_| node.origin.is_some()) {
            line(&format!("fresh after {name}"), &totals.share(age).to_string())?;
        }
        targets(node, f)
    }
}

fn targets(node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(origin) = &node.origin else {
        return writeln!(f, "\nno origin: a plain cache");
    };
    for target in origin.status().targets {
        writeln!(
            f,
            "\n{:?} {}\n  breaker {:?}, {} of {} connections in use, {} queries, {} failures",
            target.role,
            target.url,
            target.breaker,
            target.in_use,
            target.max_connections,
            target.queries,
            target.failures
        )?;
        if !target.last_failure.is_empty() {
            writeln!(f, "  last failure: {}", target.last_failure)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_between_two_readings_reads_as_nothing() {
        let earlier = Figures { commands: 10, batches: 2, batch_keys: 9, ..Figures::default() };
        let later = Figures { commands: 3, batches: 4, batch_keys: 17, ..Figures::default() };
        let between = later - earlier;
        assert_eq!((between.commands, between.batches), (0, 2));
        assert_eq!(between.keys_per_batch(), 4.0);
    }
}
