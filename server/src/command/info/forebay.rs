//! What only this server has: reading through to the origin.

use std::sync::atomic::Ordering::Relaxed;

use forebay_origin::{BreakerState, OriginStatus, Role};

use super::Report;
use crate::freshness::Freshness;
use crate::freshness::meter::{AGES, Place, Verdict};
use crate::groups::one_line;
use crate::hot::Hot;

pub(super) fn forebay(report: &mut Report<'_>) {
    let counts = &report.node.telemetry.loads;
    let store = report.node.store.counters();
    let status = report.node.origin.as_ref().map(|origin| origin.status());
    report.fields([
        ("loads", counts.loads.load(Relaxed)),
        ("coalesced", counts.coalesced.load(Relaxed)),
        ("batched", status.as_ref().map_or(0, batched)),
        ("fenced_fills", store.fenced_fills),
        ("absent_hits", store.absent_hits),
        ("stale_served", store.stale_served),
        ("refreshed", counts.refreshed.load(Relaxed)),
        ("failed_loads", counts.failed.load(Relaxed)),
        ("waiting", counts.waiting.load(Relaxed)),
        ("feed_lag_ms", report.node.freshness.lag_ms()),
    ]);
    freshness(report);
    meter(report);
    writes(report);
    if let Some(cluster) = &report.node.cluster {
        report.field("forwarded_requests", cluster.forwarded.load(Relaxed));
    }
    if let Some(member) = report.node.member() {
        let counts = member.replication.counts();
        report.fields([
            ("effects_recorded", counts.recorded.load(Relaxed)),
            ("effects_carried_out", counts.carried_out.load(Relaxed)),
            ("slots_sent_whole", counts.slots_sent.load(Relaxed)),
            ("copies_repaired", counts.repaired.load(Relaxed)),
            ("feeds_cut_off", counts.cut_off.load(Relaxed)),
        ]);
        let Hot { grants, copies } = &member.hot;
        report.fields([
            ("hot_keys", grants.hot_keys()),
            ("hot_grants", grants.given()),
            ("hot_take_backs", grants.taken_back()),
            ("hot_copies", copies.keys()),
            ("hot_copies_served", copies.served()),
        ]);
    }
    groups(report);
    if let Some(status) = status {
        origin(report, &status);
    }
}

/// What was done about changes of the database, and how the feeds do of which this node is the keeper.
fn freshness(report: &mut Report<'_>) {
    let Freshness { counts, delays, .. } = &report.node.freshness;
    report.fields([
        ("changed_keys", counts.changed.load(Relaxed)),
        ("invalidated_entries", counts.dropped.load(Relaxed)),
        ("survived_changes", counts.survived.load(Relaxed)),
        ("late_fills", counts.late.load(Relaxed)),
        ("change_delay_p50_us", delays.quantile(0.5)),
        ("change_delay_p99_us", delays.quantile(0.99)),
        ("change_delay_max_us", delays.quantile(1.0)),
    ]);
    for (feed, status) in report.node.freshness.feeds() {
        let mut tell =
            |what: &str, value: &dyn std::fmt::Display| report.field(&format!("feed_{}{what}", feed.as_str()), value);
        tell("", &status.state.as_str());
        tell("_retained_bytes", &status.retained_bytes);
        tell("_transactions", &status.counts.transactions);
        tell("_lag_messages", &status.lag_messages);
        tell("_gaps", &status.counts.gaps);
        tell("_unreadable", &status.counts.unreadable);
        tell("_unmapped", &status.counts.unmapped);
        tell("_null_keys", &status.counts.null_keys);
        tell("_untold_keys", &status.counts.untold_keys);
        tell("_interruptions", &status.counts.interruptions);
        tell("_fault", &status.faults.first().map(one_line).unwrap_or_default());
        tell("_last_error", &status.last_error.replace(['\r', '\n'], " "));
    }
}

/// What the meter has found, at all keepers since the first of the nodes that are left was started.
fn meter(report: &mut Report<'_>) {
    let totals = report.node.freshness.meter.totals();
    for (age, (_, name)) in AGES.iter().enumerate() {
        let share = totals.share(age);
        report.field(&format!("fresh_ratio_{name}"), share);
        report.field(&format!("fresh_nines_{name}"), format_args!("{:.2}", share.nines()));
    }
    for verdict in Verdict::ALL {
        report.field(&format!("freshness_samples_{}", verdict.as_str()), totals.sum(verdict));
    }
    for place in Place::ALL {
        let counts = AGES.iter().enumerate().flat_map(|(age, (_, name))| {
            Verdict::ALL.map(|verdict| format!("{}_{name}={}", verdict.as_str(), totals.of(age, place, verdict)))
        });
        report.field(&format!("freshness_{}", place.as_str()), counts.collect::<Vec<_>>().join(","));
    }
}

/// What was written to the origin.
fn writes(report: &mut Report<'_>) {
    let (writes, counts) = (&report.node.writes, &report.node.writes.counts);
    report.fields([
        ("origin_writes", counts.written.load(Relaxed)),
        ("origin_writes_refused", counts.refused.load(Relaxed)),
        ("origin_writes_failed", counts.failed.load(Relaxed)),
        ("origin_writes_unsure", counts.unsure.load(Relaxed)),
        ("origin_writes_waiting", writes.turns.waiting() as u64),
    ]);
    let (counts, (keys, bytes, oldest)) = (&writes.behind.counts, writes.behind.pending());
    report.fields([
        ("behind_writes", counts.accepted.load(Relaxed)),
        ("behind_writes_refused", counts.refused.load(Relaxed)),
        ("behind_flushed", counts.flushed.load(Relaxed)),
        ("behind_retries", counts.retried.load(Relaxed)),
        ("behind_pending_keys", keys as u64),
        ("behind_pending_bytes", bytes),
        ("behind_oldest_ms", oldest.as_millis() as u64),
        ("behind_dead_letters", counts.dead_letters.load(Relaxed)),
    ]);
}

/// Which groups are used, and whether anything is wrong with those that were agreed on.
fn groups(report: &mut Report<'_>) {
    let used = report.node.origin.as_ref().map_or(0, |origin| origin.groups().version());
    let told = report.node.groups.told();
    report.fields([
        ("groups_version", used),
        ("groups_agreed_version", told.version),
        ("groups_faults", told.faults.len() as u64),
        ("groups_dropped_entries", report.node.groups.dropped()),
    ]);
    if let Some(fault) = told.faults.first() {
        report.line(format_args!("groups_first_fault:{}", one_line(fault)));
    }
}

/// Keys that were loaded in the company of others.
fn batched(status: &OriginStatus) -> u64 {
    status.groups.iter().map(|group| group.keys.saturating_sub(group.queries)).sum()
}

fn origin(report: &mut Report<'_>, status: &OriginStatus) {
    report.field("origin_waiting_loads", status.waiting_loads);
    report.field("origin_refused_loads", status.refused_loads);
    for (at, target) in status.targets.iter().enumerate() {
        let role = if target.role == Role::Primary { "primary" } else { "replica" };
        report.line(format_args!(
            "target{at}:url={},role={role},breaker={},in_use={},idle={},max_connections={},latency_us={},queries={},failures={},openings={}",
            target.url,
            word_of(target.breaker),
            target.in_use,
            target.idle,
            target.max_connections,
            target.latency.map_or(0, |latency| latency.as_micros()),
            target.queries,
            target.failures,
            target.openings,
        ));
    }
    for group in &status.groups {
        report.line(format_args!(
            "group_{}:loads={},waiting={},absent_unasked={},queries={},keys={},errors={}",
            group.name, group.loads, group.waiting, group.absent_unasked, group.queries, group.keys, group.errors,
        ));
    }
}

fn word_of(breaker: BreakerState) -> &'static str {
    match breaker {
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half-open",
        BreakerState::Ramping => "ramping",
    }
}
