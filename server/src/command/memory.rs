//! MEMORY: what takes how much.

use std::fmt::Write;

use forebay_store::Keyspace;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Spec};
use crate::memory;

const TIPS: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

/// Elements of a collection that USAGE looks at when it is not told how many.
const SAMPLES: usize = 5;

pub(super) const TABLE: &[Spec] = &[Spec::new("memory", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("doctor", 2, Flags::empty(), Categories::empty()).on_node(doctor).tips(TIPS).docs(
            "server",
            "4.0.0",
            "O(1)",
            "Says in words whether memory gives reason to worry.",
            "",
        ),
        help::row(Categories::empty(), "server", "4.0.0"),
        Spec::new("malloc-stats", 2, Flags::empty(), Categories::empty())
            .on_node(allocator_statistics)
            .tips(TIPS)
            .docs(
                "server",
                "4.0.0",
                "Depends on how much memory is allocated, could be slow",
                "Tells what the allocator says of itself.",
                "",
            ),
        Spec::new("purge", 2, Flags::empty(), Categories::empty())
            .on_node(purge)
            .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
            .docs(
                "server",
                "4.0.0",
                "Depends on how much memory is allocated, could be slow",
                "Asks the allocator to give back to the system what it keeps for later.",
                "",
            ),
        Spec::new("stats", 2, Flags::empty(), Categories::empty()).on_node(statistics).tips(TIPS).docs(
            "server",
            "4.0.0",
            "O(1)",
            "Tells what takes how much memory.",
            "",
        ),
        Spec::new("usage", -3, Flags::READONLY, Categories::empty())
            .keys(&[KeySpec::range(KeyUse::RO, 2, 0, 1)])
            .on_keys(usage)
            .docs(
                "server",
                "4.0.0",
                "O(N) where N is the number of samples.",
                "Tells what a key takes.",
                "key [SAMPLES count]",
            ),
    ])
    .docs("server", "4.0.0", "Depends on subcommand.", "What takes how much memory.", "")];

fn usage(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let samples = parse_samples(call)?;
    match keyspace.peek(&call.keys[0]).map(|entry| entry.memory_usage(samples)) {
        Some(bytes) => call.reply.integer(bytes as i64),
        None => call.reply.null(),
    }
    Ok(())
}

/// The number of elements to look at; `None` for all.
fn parse_samples(call: &Call<'_>) -> Result<Option<usize>, CommandError> {
    let mut samples = Some(SAMPLES);
    for at in (3..call.args.len()).step_by(2) {
        if !call.is(at, "samples") || at + 1 == call.args.len() {
            return Err(CommandError::Syntax);
        }
        samples = match call.integer(at + 1)? {
            0 => None,
            count => Some(usize::try_from(count).map_err(|_| CommandError::Syntax)?),
        };
    }
    Ok(samples)
}

fn statistics(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let node = call.node;
    let figures = Figures::now(call);
    let databases: Vec<u16> = (0..node.identity.databases).filter(|&db| node.store.len(db) > 0).collect();
    let reply = &mut *call.reply;
    let counts = figures.counts();
    let shares = figures.shares();
    reply.map(counts.len() + shares.len() + databases.len());
    for (name, bytes) in counts {
        reply.bulk(name.as_bytes());
        reply.integer(bytes);
    }
    for db in databases {
        // Keys, values and deadlines share one table, whose room MEMORY USAGE counts with each key.
        reply.bulk_text(format_args!("db.{db}"));
        reply.map(3);
        for name in ["overhead.hashtable.main", "overhead.hashtable.expires", "overhead.hashtable.slot-to-keys"] {
            reply.bulk(name.as_bytes());
            reply.integer(0);
        }
    }
    for (name, share) in shares {
        reply.bulk(name.as_bytes());
        reply.double(share);
    }
    Ok(Flow::Continue)
}

/// What is known of memory at one moment. In bytes.
struct Figures {
    used: u64,
    peak: u64,
    resident: u64,
    startup: u64,
    clients: u64,
    keys: u64,
}

impl Figures {
    fn now(call: &Call<'_>) -> Figures {
        let node = call.node;
        let used = memory::used();
        Figures {
            used,
            peak: memory::peak(),
            resident: memory::resident(),
            startup: node.telemetry.used_at_start.min(used),
            clients: node.clients.memory() as u64,
            keys: (0..node.identity.databases).map(|db| node.store.len(db) as u64).sum(),
        }
    }

    fn dataset(&self) -> u64 {
        self.used - self.startup
    }

    /// In Redis' names; what does not exist here is 0.
    fn counts(&self) -> Vec<(&'static str, i64)> {
        let resident_more = self.resident as i64 - self.used as i64;
        vec![
            ("peak.allocated", self.peak as i64),
            ("total.allocated", self.used as i64),
            ("startup.allocated", self.startup as i64),
            ("replication.backlog", 0),
            ("clients.slaves", 0),
            ("clients.normal", self.clients as i64),
            ("cluster.links", 0),
            ("aof.buffer", 0),
            ("lua.caches", 0),
            ("functions.caches", 0),
            ("overhead.total", self.startup as i64),
            ("keys.count", self.keys as i64),
            ("keys.bytes-per-key", self.dataset().checked_div(self.keys).unwrap_or(0) as i64),
            ("dataset.bytes", self.dataset() as i64),
            ("allocator.allocated", self.used as i64),
            ("allocator.active", self.used as i64),
            ("allocator.resident", self.resident as i64),
            ("allocator-fragmentation.bytes", 0),
            ("allocator-rss.bytes", resident_more),
            ("rss-overhead.bytes", 0),
            ("fragmentation.bytes", resident_more),
        ]
    }

    fn shares(&self) -> Vec<(&'static str, f64)> {
        let resident_times = share(self.resident, self.used);
        vec![
            ("dataset.percentage", 100.0 * share(self.dataset(), self.used - self.startup)),
            ("peak.percentage", 100.0 * share(self.used, self.peak)),
            ("allocator-fragmentation.ratio", 1.0),
            ("allocator-rss.ratio", resident_times),
            ("rss-overhead.ratio", 1.0),
            ("fragmentation", resident_times),
        ]
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Allocated bytes below which nothing that is said of memory means anything.
const TOO_LITTLE: u64 = 5 << 20;

/// Times of the allocated bytes that the process may occupy without remark.
const MUCH_RESIDENT: f64 = 1.4;

/// Times of the allocated bytes that the peak may have been without remark.
const HIGH_PEAK: f64 = 1.5;

/// Share of `maxmemory` from which on it is worth a word.
const NEARLY_FULL: f64 = 0.95;

fn doctor(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let figures = Figures::now(call);
    let limit = call.node.settings.maxmemory.load(std::sync::atomic::Ordering::Relaxed);
    call.reply.verbatim("txt", diagnose(&figures, limit).as_bytes());
    Ok(Flow::Continue)
}

fn diagnose(figures: &Figures, limit: u64) -> String {
    if figures.used < TOO_LITTLE {
        return "So little is stored that nothing can be said about memory yet.\n".to_owned();
    }
    let mut findings = String::new();
    let mut find = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _written = writeln!(findings, "* {text}");
    };
    if limit > 0 && share(figures.used, limit) > NEARLY_FULL {
        find(format_args!(
            "{:.0} % of maxmemory is in use: entries are being evicted, or soon will be.",
            100.0 * share(figures.used, limit)
        ));
    }
    if share(figures.peak, figures.used) > HIGH_PEAK {
        find(format_args!(
            "The peak was {:.1} times of what is used now; the system may not have all of it back yet.",
            share(figures.peak, figures.used)
        ));
    }
    if share(figures.resident, figures.used) > MUCH_RESIDENT {
        find(format_args!(
            "The process occupies {:.1} times of what is allocated; MEMORY PURGE may give some back.",
            share(figures.resident, figures.used)
        ));
    }
    match findings.is_empty() {
        true => "Memory gives no reason to worry.\n".to_owned(),
        false => findings,
    }
}

fn allocator_statistics(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.bulk(b"Stats not supported for the current allocator");
    Ok(Flow::Continue)
}

/// What became free within the last second stays: it is most likely to be taken again, and the housekeeping sees to it.
fn purge(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    memory::give_back();
    call.reply.ok();
    Ok(Flow::Continue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(used: u64, peak: u64, resident: u64) -> Figures {
        Figures { used, peak, resident, startup: 0, clients: 0, keys: 0 }
    }

    #[test]
    fn findings_are_told_and_health_too() {
        const MIB: u64 = 1 << 20;
        assert!(diagnose(&figures(MIB, MIB, MIB), 0).starts_with("So little"));
        assert!(diagnose(&figures(10 * MIB, 10 * MIB, 11 * MIB), 0).starts_with("Memory gives no reason"));
        let sick = diagnose(&figures(10 * MIB, 20 * MIB, 20 * MIB), 10 * MIB);
        assert_eq!(sick.lines().count(), 3, "{sick}");
    }
}
