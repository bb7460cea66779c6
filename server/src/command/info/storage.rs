//! What lies in memory.

use std::sync::atomic::Ordering::Relaxed;

use super::{Human, Report, ratio};
use crate::memory;

pub(super) fn memory(report: &mut Report<'_>) {
    let node = report.node;
    let (used, peak, resident) = (memory::used(), memory::peak(), memory::resident());
    let startup = node.telemetry.used_at_start.min(used);
    let dataset = used - startup;
    let limit = node.settings.maxmemory.load(Relaxed);
    report.bytes("used_memory", used);
    report.bytes("used_memory_rss", resident);
    report.bytes("used_memory_peak", peak);
    report.field("used_memory_peak_perc", format_args!("{:.2}%", 100.0 * ratio(used, peak)));
    report.field("used_memory_overhead", startup);
    report.field("used_memory_startup", startup);
    report.field("used_memory_dataset", dataset);
    report.field("used_memory_dataset_perc", format_args!("{:.2}%", 100.0 * ratio(dataset, used - startup)));
    report.fields([("allocator_allocated", used), ("allocator_active", used), ("allocator_resident", resident)]);
    report.bytes("total_system_memory", memory::of_machine());
    scripts(report);
    report.bytes("maxmemory", limit);
    report.field("maxmemory_policy", node.store.settings().policy().as_str());
    fragmentation(report, used, resident);
    report.zeros(&[
        "mem_not_counted_for_evict",
        "mem_replication_backlog",
        "mem_total_replication_buffers",
        "mem_clients_slaves",
    ]);
    report.field("mem_clients_normal", node.clients.memory());
    report.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    report.field("mem_allocator", "mimalloc");
    report.field("active_defrag_running", u8::from(node.compactions.running()));
    report.field("lazyfree_pending_objects", node.reclaimer.pending());
    report.field("lazyfreed_objects", node.reclaimer.reclaimed());
}

/// No scripts run here, so nothing is used for them.
fn scripts(report: &mut Report<'_>) {
    report.zeros(&["used_memory_lua", "used_memory_vm_eval"]);
    report.field("used_memory_lua_human", Human(0));
    report.zeros(&[
        "used_memory_scripts_eval",
        "number_of_cached_scripts",
        "number_of_functions",
        "number_of_libraries",
    ]);
    report.field("used_memory_vm_functions", 0);
    report.bytes("used_memory_vm_total", 0);
    report.field("used_memory_functions", 0);
    report.bytes("used_memory_scripts", 0);
}

fn fragmentation(report: &mut Report<'_>, used: u64, resident: u64) {
    let overhead = resident as i64 - used as i64;
    let times = format!("{:.2}", ratio(resident, used));
    report.field("allocator_frag_ratio", "1.00");
    report.field("allocator_frag_bytes", 0);
    report.field("allocator_rss_ratio", &times);
    report.field("allocator_rss_bytes", overhead);
    report.field("rss_overhead_ratio", "1.00");
    report.field("rss_overhead_bytes", 0);
    report.field("mem_fragmentation_ratio", &times);
    report.field("mem_fragmentation_bytes", overhead);
}

/// Nothing is written to a disk.
pub(super) fn persistence(report: &mut Report<'_>) {
    report.zeros(&["loading", "async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    report.field("current_fork_perc", "0.00");
    report.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    report.field("rdb_changes_since_last_save", report.node.store.counters().changes);
    report.zeros(&["rdb_bgsave_in_progress"]);
    report.field("rdb_last_save_time", report.node.identity.started_at / 1000);
    report.field("rdb_last_bgsave_status", "ok");
    report.fields([("rdb_last_bgsave_time_sec", -1), ("rdb_current_bgsave_time_sec", -1)]);
    report.zeros(&["rdb_saves", "rdb_last_cow_size", "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded"]);
    report.zeros(&["aof_enabled", "aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    report.fields([("aof_last_rewrite_time_sec", -1), ("aof_current_rewrite_time_sec", -1)]);
    report.field("aof_last_bgrewrite_status", "ok");
    report.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    report.field("aof_last_write_status", "ok");
    report.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
}

pub(super) fn keyspace(report: &mut Report<'_>) {
    let store = &report.node.store;
    for db in 0..report.node.identity.databases {
        let keys = store.len(db);
        if keys > 0 {
            let (volatile, ttl) = (store.volatile_len(db), store.average_ttl(db, report.now));
            report.line(format_args!("db{db}:keys={keys},expires={volatile},avg_ttl={ttl}"));
        }
    }
}
