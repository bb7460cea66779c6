//! What the process is and who is connected to it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use super::Report;
use crate::engine::gates::PauseMode;
use crate::identity::REDIS_VERSION;
use crate::process;

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// Redis tells its LRU clock in 24 bits of seconds.
const LRU_CLOCK_BITS: u32 = 24;

pub(super) fn server(report: &mut Report<'_>) {
    let identity = &report.node.identity;
    let uptime = (report.now - identity.started_at) / 1000;
    report.field("redis_version", REDIS_VERSION);
    report.field("server_name", "forebay");
    report.field("forebay_version", env!("CARGO_PKG_VERSION"));
    report.field("forebay_mode", if report.node.is_frontend() { "frontend" } else { "node" });
    report.fields([
        ("redis_git_sha1", "00000000"),
        ("redis_git_dirty", "0"),
        ("redis_build_id", "0"),
        ("redis_mode", report.door.mode()),
    ]);
    report.field("os", operating_system());
    report.field("arch_bits", usize::BITS);
    report.fields([
        ("monotonic_clock", "cycle counter"),
        ("multiplexing_api", "epoll"),
        ("atomicvar_api", "rust"),
        ("gcc_version", "0.0.0"),
    ]);
    report.field("process_id", std::process::id());
    report.field("process_supervised", "no");
    report.field("run_id", &identity.run_id);
    report.field("tcp_port", identity.port);
    report.field("server_time_usec", report.node.clock.unix().as_micros());
    report.field("uptime_in_seconds", uptime);
    report.field("uptime_in_days", uptime / DAY);
    report.fields([("hz", 10), ("configured_hz", 10)]);
    report.field("lru_clock", (report.now / 1000) & ((1 << LRU_CLOCK_BITS) - 1));
    report.field("executable", identity.executable.display());
    report.field("config_file", identity.config_file.as_deref().unwrap_or("".as_ref()).display());
    report.field("io_threads_active", u8::from(identity.worker_threads > 1));
    report.field("availability_zone", identity.zone.as_deref().unwrap_or_default());
    report.field("listener0", format_args!("name=tcp,bind={},port={}", identity.bind, identity.port));
}

pub(super) fn clients(report: &mut Report<'_>) {
    let node = report.node;
    let clients = node.clients.all();
    let most =
        |bytes: fn(&crate::clients::Client) -> usize| clients.iter().map(|client| bytes(client)).max().unwrap_or(0);
    report.field("connected_clients", clients.len());
    report.field("cluster_connections", 0);
    report.field("maxclients", node.settings.maxclients.load(Relaxed));
    report.field("client_recent_max_input_buffer", most(|client| client.query_bytes.load(Relaxed)));
    report.field("client_recent_max_output_buffer", most(|client| client.unsent.bytes()));
    report.field("blocked_clients", clients.iter().filter(|client| client.blocked.load(Relaxed)).count());
    report.field("tracking_clients", node.tracking.clients());
    report.field("pubsub_clients", clients.iter().filter(|client| client.is_subscribed()).count());
    report.zeros(&[
        "watching_clients",
        "clients_in_timeout_table",
        "total_watched_keys",
        "total_blocking_keys",
        "total_blocking_keys_on_nokey",
    ]);
    pause(report);
}

fn pause(report: &mut Report<'_>) {
    let paused = report.node.gates.paused(report.now);
    let (reason, actions) = match paused {
        None => ("none", "none"),
        Some((PauseMode::All, _)) => ("client_pause", "all"),
        Some(_) => ("client_pause", "write"),
    };
    report.fields([("paused_reason", reason), ("paused_actions", actions)]);
    report.field("paused_timeout_milliseconds", paused.map_or(0, |(_, until)| until - report.now));
}

/// A node is its own primary: copies at other nodes are the cluster's affair and not of Redis' kind.
pub(super) fn replication(report: &mut Report<'_>) {
    report.field("role", "master");
    report.field("connected_slaves", 0);
    report.field("master_failover_state", "no-failover");
    report.field("master_replid", &report.node.identity.run_id);
    report.field("master_replid2", "0".repeat(40));
    report.fields([("master_repl_offset", 0), ("second_repl_offset", -1), ("repl_backlog_active", 0)]);
    report.field("repl_backlog_size", 1 << 20);
    report.zeros(&["repl_backlog_first_byte_offset", "repl_backlog_histlen"]);
}

pub(super) fn cpu(report: &mut Report<'_>) {
    let cpu = process::cpu_time();
    let seconds = |time: std::time::Duration| format!("{:.6}", time.as_secs_f64());
    report.fields([
        ("used_cpu_sys", seconds(cpu.system)),
        ("used_cpu_user", seconds(cpu.user)),
        ("used_cpu_sys_children", seconds(cpu.children_system)),
        ("used_cpu_user_children", seconds(cpu.children_user)),
    ]);
}

/// Every node answers CLUSTER, alone as well, by both doors. `redis-cli --cluster` wants to be told so; clients that are not for clusters do not ask, and
/// go by `redis_mode` ([`Door::mode`]).
pub(super) fn cluster(report: &mut Report<'_>) {
    report.field("cluster_enabled", 1);
    // Whether every slot is where it is to be.
    let state = report.node.cluster.as_ref().map(|cluster| Arc::clone(&cluster.state().borrow()));
    let is_settled = state.is_none_or(|state| state.is_settled());
    report.field("cluster_settled", u8::from(is_settled));
    if let Some(member) = report.node.member() {
        report.field("raft_role", member.membership.role().as_str());
    }
}

/// `Linux 6.1.0 x86_64`.
fn operating_system() -> &'static str {
    static SYSTEM: OnceLock<String> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let kernel = |file: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{file}")).unwrap_or_default();
        format!("{} {} {}", kernel("ostype").trim(), kernel("osrelease").trim(), std::env::consts::ARCH)
    })
}
