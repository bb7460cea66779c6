//! What has been done since the start, or since `CONFIG RESETSTAT`.

use std::sync::atomic::Ordering::Relaxed;

use super::{Report, ratio};
use crate::command::table::Table;

pub(super) fn stats(report: &mut Report<'_>) {
    let node = report.node;
    let traffic = node.telemetry.lanes.traffic();
    let rates = node.telemetry.rates.per_second();
    let store = node.store.counters();
    report.field("total_connections_received", node.clients.accepted());
    report.field("total_commands_processed", node.telemetry.lanes.calls());
    report.field("instantaneous_ops_per_sec", rates.commands);
    report.fields([("total_net_input_bytes", traffic.bytes_in), ("total_net_output_bytes", traffic.bytes_out)]);
    report.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    report.field("instantaneous_input_kbps", format_args!("{:.2}", rates.bytes_in as f64 / 1024.0));
    report.field("instantaneous_output_kbps", format_args!("{:.2}", rates.bytes_out as f64 / 1024.0));
    report.fields([("instantaneous_input_repl_kbps", "0.00"), ("instantaneous_output_repl_kbps", "0.00")]);
    report.field("rejected_connections", node.clients.refused());
    report.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    report.field("expired_keys", store.expired);
    report.field("expired_stale_perc", "0.00");
    report.zeros(&["expired_time_cap_reached_count", "expire_cycle_cpu_milliseconds"]);
    report.field("evicted_keys", store.evicted);
    report.zeros(&["evicted_clients", "total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    report.fields([("keyspace_hits", store.hits), ("keyspace_misses", store.misses)]);
    absent_machinery(report);
    report.field("total_error_replies", node.telemetry.errors.total());
    report.field("dump_payload_sanitizations", 0);
    report.fields([("total_reads_processed", traffic.reads), ("total_writes_processed", traffic.writes)]);
    report.zeros(&[
        "io_threaded_reads_processed",
        "io_threaded_writes_processed",
        "reply_buffer_shrinks",
        "reply_buffer_expands",
    ]);
    report.zeros(&[
        "eventloop_cycles",
        "eventloop_duration_sum",
        "eventloop_duration_cmd_sum",
        "instantaneous_eventloop_cycles_per_sec",
    ]);
    report.field("instantaneous_eventloop_duration_usec", 0);
    report.zeros(&[
        "acl_access_denied_auth",
        "acl_access_denied_cmd",
        "acl_access_denied_key",
        "acl_access_denied_channel",
    ]);
}

fn absent_machinery(report: &mut Report<'_>) {
    report.field("pubsub_channels", report.node.channels.len());
    report.zeros(&["pubsub_patterns", "pubsubshard_channels", "latest_fork_usec", "total_forks"]);
    report.zeros(&["migrate_cached_sockets", "slave_expires_tracked_keys"]);
    compactions(report);
    let tracking = &report.node.tracking;
    let (keys, items, prefixes) = (tracking.keys(), tracking.items(), tracking.prefixes());
    report.field("tracking_total_keys", keys);
    report.field("tracking_total_items", items);
    report.field("tracking_total_prefixes", prefixes);
    report.field("unexpected_error_replies", 0);
}

/// A hit is a block of memory that was moved. How many keys those belong to is not counted.
fn compactions(report: &mut Report<'_>) {
    let compactions = &report.node.compactions;
    let (moved, looked_at, millis) = (compactions.moved(), compactions.looked_at(), compactions.time().as_millis());
    report.field("active_defrag_hits", moved);
    report.field("active_defrag_misses", looked_at.saturating_sub(moved));
    report.zeros(&["active_defrag_key_hits", "active_defrag_key_misses"]);
    report.field("total_active_defrag_time", millis);
    report.zeros(&["current_active_defrag_time"]);
}

pub(super) fn commands(report: &mut Report<'_>) {
    for command in Table::get().all() {
        let totals = report.node.telemetry.lanes.totals(command.id);
        if totals.calls + totals.rejected + totals.failed > 0 {
            let micros = totals.nanos / 1000;
            report.line(format_args!(
                "cmdstat_{}:calls={},usec={micros},usec_per_call={:.2},rejected_calls={},failed_calls={}",
                command.full_name,
                totals.calls,
                ratio(micros, totals.calls),
                totals.rejected,
                totals.failed,
            ));
        }
    }
}

pub(super) fn errors(report: &mut Report<'_>) {
    for (code, count) in report.node.telemetry.errors.all() {
        report.line(format_args!("errorstat_{code}:count={count}"));
    }
}

/// Percentiles are read off a histogram whose buckets double, so each lies within its bucket and no nearer.
pub(super) fn latencies(report: &mut Report<'_>) {
    if !report.node.settings.latency_tracking.load(Relaxed) {
        return;
    }
    let percentiles = report.node.settings.latency_percentiles.load();
    for command in Table::get().all() {
        let totals = report.node.telemetry.lanes.totals(command.id);
        if totals.calls > 0 {
            let told = |percentile: &f64| format!("p{percentile}={:.3}", totals.percentile_micros(*percentile));
            let told: Vec<_> = percentiles.iter().map(told).collect();
            report.line(format_args!("latency_percentiles_usec_{}:{}", command.full_name, told.join(",")));
        }
    }
}
