//! The table of parameters: what this server can be told, what it tells of itself, and the names that only Redis has a use for.
//!
//! Clients, dashboards and Redis' own test suite read and set many names whose machinery does not exist here. Three answers are
//! honest: a name that only tunes is accepted and told again ([`Effect::None`]); a name that promises something is accepted as far as
//! the promise is kept ([`Effect::Always`], [`Effect::Fact`]); and what is unknown is refused.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_store::EvictionPolicy;

use super::checks;
use super::kind::{Kind, Value};
use super::parameter::{Access, Effect, Parameter};
use crate::freshness::meter::MOST_SAMPLES;
use crate::identity::DebugCommands;
use crate::node::Node;
use crate::output_limits::CLASSES;

/// The bounds of Redis' own types.
const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const LONG_SIZE: u64 = i64::MAX as u64;

const SWITCH: Kind = Kind::Switch;
const TEXT: Kind = Kind::Text;
const NO_PERSISTENCE: &str = "this server keeps its data in memory alone: no append-only file and no snapshots";
const NO_REPLICAS: &str = "this server has no replicas of Redis' kind";
const NO_TLS: &str = "TLS is set up when the process starts";
const NO_CLIENT_LIMIT: &str = "this server does not disconnect clients by the memory that they use";

const fn integer(least: i64, most: i64) -> Kind {
    Kind::Integer { least, most }
}

const fn size(least: u64, most: u64) -> Kind {
    Kind::Size { least, most }
}

/// A name that tunes what does not exist here.
const fn unused(name: &'static str, kind: Kind, default: &'static str) -> Parameter {
    Parameter::new(name, kind, Effect::None(default))
}

/// A name whose one right value is this.
const fn always(name: &'static str, kind: Kind, value: &'static str, otherwise: &'static str) -> Parameter {
    Parameter::new(name, kind, Effect::Always { value, otherwise })
}

/// What the process was started with.
const fn given(name: &'static str, kind: Kind, read: fn(&Node) -> String) -> Parameter {
    Parameter::new(name, kind, Effect::Fact { read, otherwise: "it is set when the process starts" })
        .access(Access::Immutable)
}

/// What Redis is started with, and has no counterpart here.
const fn foreign(name: &'static str, kind: Kind, value: &'static str) -> Parameter {
    Parameter::new(name, kind, Effect::Always { value, otherwise: "it has no counterpart here" })
        .access(Access::Immutable)
}

/// Every policy that `maxmemory-policy` takes: Redis' in its order, then our own.
const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
    "allkeys-fifo",
    "allkeys-lrfu",
    "volatile-lrfu",
];

/// Of this server.
static OWN: &[Parameter] = &[
    Parameter::new(
        "active-defrag-ignore-bytes",
        size(1, LONG_SIZE),
        Effect::Unsigned(|s| &s.active_defrag_ignore_bytes),
    ),
    Parameter::new(
        "active-defrag-threshold-lower",
        integer(0, 1000),
        Effect::Unsigned(|s| &s.active_defrag_threshold_lower),
    ),
    Parameter::new("active-expire-effort", integer(1, 10), Effect::None("1")),
    Parameter::new("activedefrag", SWITCH, Effect::Switch(|s| &s.active_defrag)),
    Parameter::new(
        "client-query-buffer-limit",
        size(1 << 20, LONG_SIZE),
        Effect::Size(|s| &s.client_query_buffer_limit),
    ),
    Parameter::new(
        "client-output-buffer-limit",
        Kind::Checked(checks::output_limits),
        Effect::Custom { read: output_limits, write: set_output_limits },
    ),
    Parameter::new(
        "compress-over",
        size(0, LONG_SIZE),
        Effect::Custom { read: compress_over, write: set_compress_over },
    ),
    Parameter::new(
        "hash-max-listpack-entries",
        integer(0, LONG),
        Effect::Custom {
            read: |node| node.store.settings().hash_max_compact_entries().to_string(),
            write: |node, value| node.store.settings().set_hash_max_compact_entries(value.size()),
        },
    )
    .alias("hash-max-ziplist-entries"),
    Parameter::new(
        "hash-max-listpack-value",
        size(0, LONG_SIZE),
        Effect::Custom {
            read: |node| node.store.settings().hash_max_compact_value().to_string(),
            write: |node, value| node.store.settings().set_hash_max_compact_value(value.size()),
        },
    )
    .alias("hash-max-ziplist-value"),
    Parameter::new("freshness-samples", integer(0, MOST_SAMPLES as i64), Effect::Unsigned(|s| &s.freshness_samples)),
    Parameter::new("hot-key-reads", integer(0, LONG), Effect::Unsigned(|s| &s.hot_key_reads)),
    Parameter::new("latency-monitor-threshold", integer(0, LONG), Effect::Unsigned(|s| &s.latency_monitor_threshold)),
    Parameter::new("latency-tracking", SWITCH, Effect::Switch(|s| &s.latency_tracking)),
    Parameter::new(
        "latency-tracking-info-percentiles",
        Kind::Checked(checks::percentiles),
        Effect::Custom { read: percentiles, write: set_percentiles },
    ),
    Parameter::new(
        "lfu-decay-time",
        integer(0, INT),
        Effect::Custom {
            read: |node| node.store.settings().lfu_decay_minutes().to_string(),
            write: |node, value| node.store.settings().set_lfu_decay_minutes(value.unsigned() as u32),
        },
    ),
    Parameter::new(
        "lfu-log-factor",
        integer(0, INT),
        Effect::Custom {
            read: |node| node.store.settings().lfu_log_factor().to_string(),
            write: |node, value| node.store.settings().set_lfu_log_factor(value.unsigned() as u32),
        },
    ),
    Parameter::new("maxclients", integer(1, u32::MAX as i64), Effect::Size(|s| &s.maxclients)),
    Parameter::new("maxmemory", size(0, u64::MAX), Effect::Unsigned(|s| &s.maxmemory)),
    Parameter::new("maxmemory-policy", Kind::Word(POLICIES), Effect::Custom { read: policy, write: set_policy }),
    Parameter::new(
        "maxmemory-samples",
        integer(1, INT),
        Effect::Custom {
            read: |node| node.store.settings().maxmemory_samples().to_string(),
            write: |node, value| node.store.settings().set_maxmemory_samples(value.size()),
        },
    ),
    Parameter::new("proto-max-bulk-len", size(1 << 20, LONG_SIZE), Effect::Size(|s| &s.proto_max_bulk_len)),
    Parameter::new("requirepass", TEXT, Effect::Custom { read: password, write: set_password }).access(Access::Secret),
    Parameter::new("slowlog-log-slower-than", integer(-1, LONG), Effect::Integer(|s| &s.slowlog_log_slower_than)),
    Parameter::new(
        "slowlog-max-len",
        integer(0, LONG),
        Effect::Custom { read: slowlog_entries, write: set_slowlog_entries },
    ),
    Parameter::new("tcp-keepalive", integer(0, INT), Effect::Unsigned(|s| &s.tcp_keepalive)),
    Parameter::new("timeout", integer(0, INT), Effect::Unsigned(|s| &s.timeout)),
];

/// Facts of this process.
static FACTS: &[Parameter] = &[
    Parameter::new(
        "bind",
        TEXT,
        Effect::Fact {
            read: |node| node.identity.bind.clone(),
            otherwise: "listeners are bound when the process starts",
        },
    ),
    given("databases", integer(1, INT), |node| node.identity.databases.to_string()),
    Parameter::new("dir", TEXT, Effect::Fact { read: directory, otherwise: "it is set when the process starts" })
        .access(Access::Protected),
    given("enable-debug-command", Kind::Word(&["no", "yes", "local"]), debug_commands),
    given("io-threads", integer(1, 128), |node| node.identity.worker_threads.to_string()),
    Parameter::new(
        "port",
        integer(0, 65535),
        Effect::Fact {
            read: |node| node.identity.port.to_string(),
            otherwise: "Unable to listen on this port: listeners are bound when the process starts",
        },
    ),
];

/// Promises that Redis may give, and which of them hold here.
static PROMISES: &[Parameter] = &[
    always("appendonly", SWITCH, "no", NO_PERSISTENCE),
    foreign("cluster-enabled", SWITCH, "no"),
    foreign("daemonize", SWITCH, "no"),
    foreign("enable-module-command", Kind::Word(&["no", "yes", "local"]), "no"),
    foreign("enable-protected-configs", Kind::Word(&["no", "yes", "local"]), "no"),
    always("masterauth", TEXT, "", NO_REPLICAS).access(Access::Secret),
    always("masteruser", TEXT, "", NO_REPLICAS).access(Access::Secret),
    always("maxmemory-clients", Kind::SizeOrShare, "0", NO_CLIENT_LIMIT),
    always("min-replicas-to-write", integer(0, INT), "0", NO_REPLICAS).alias("min-slaves-to-write"),
    always(
        "notify-keyspace-events",
        Kind::Checked(checks::event_classes),
        "",
        "this server does not publish keyspace events",
    ),
    always(
        "oom-score-adj",
        Kind::Word(&["no", "yes", "relative", "absolute"]),
        "no",
        "this server leaves its OOM score alone",
    ),
    always("protected-mode", SWITCH, "no", "an open address without a password is refused when the process starts"),
    foreign("replicaof", TEXT, "").alias("slaveof"),
    always("tls-auth-clients", Kind::Word(&["no", "yes", "optional"]), "yes", NO_TLS),
    always("tls-cluster", SWITCH, "no", NO_TLS),
    always("tls-port", integer(0, 65535), "0", NO_TLS),
    always("tls-replication", SWITCH, "no", NO_TLS),
];

/// Names that tune what does not exist here.
static UNUSED: &[Parameter] = &[
    unused("acl-pubsub-default", Kind::Word(&["allchannels", "resetchannels"]), "resetchannels"),
    foreign("aclfile", TEXT, ""),
    unused("acllog-max-len", integer(0, LONG), "128"),
    unused("active-defrag-cycle-max", integer(1, 99), "25"),
    unused("active-defrag-cycle-min", integer(1, 99), "1"),
    unused("active-defrag-max-scan-fields", integer(1, LONG), "1000"),
    unused("active-defrag-threshold-upper", integer(0, 1000), "100"),
    unused("activerehashing", SWITCH, "yes"),
    foreign("always-show-logo", SWITCH, "no"),
    foreign("aof_rewrite_cpulist", TEXT, ""),
    unused("aof-disable-auto-gc", SWITCH, "no"),
    unused("aof-load-truncated", SWITCH, "yes"),
    unused("aof-rewrite-incremental-fsync", SWITCH, "yes"),
    unused("aof-timestamp-enabled", SWITCH, "no"),
    unused("aof-use-rdb-preamble", SWITCH, "yes"),
    foreign("appenddirname", TEXT, "appendonlydir"),
    foreign("appendfilename", TEXT, "appendonly.aof"),
    unused("appendfsync", Kind::Word(&["everysec", "always", "no"]), "everysec"),
    unused("auto-aof-rewrite-min-size", size(0, LONG_SIZE), "67108864"),
    unused("auto-aof-rewrite-percentage", integer(0, INT), "100"),
    foreign("bgsave_cpulist", TEXT, ""),
    unused("bind-source-addr", TEXT, ""),
    foreign("bio_cpulist", TEXT, ""),
    unused("busy-reply-threshold", integer(0, LONG), "5000").alias("lua-time-limit"),
    unused("cluster-allow-pubsubshard-when-down", SWITCH, "yes"),
    unused("cluster-allow-reads-when-down", SWITCH, "no"),
    unused("cluster-allow-replica-migration", SWITCH, "yes"),
    unused("cluster-announce-bus-port", integer(0, 65535), "0"),
    unused("cluster-announce-hostname", TEXT, ""),
    unused("cluster-announce-human-nodename", TEXT, ""),
    unused("cluster-announce-ip", TEXT, ""),
    unused("cluster-announce-port", integer(0, 65535), "0"),
    unused("cluster-announce-tls-port", integer(0, 65535), "0"),
    foreign("cluster-config-file", TEXT, "nodes.conf"),
    unused("cluster-link-sendbuf-limit", size(0, u64::MAX), "0"),
    unused("cluster-migration-barrier", integer(0, INT), "1"),
    unused("cluster-node-timeout", integer(0, LONG), "15000"),
    foreign("cluster-port", integer(0, 65535), "0"),
    unused("cluster-preferred-endpoint-type", Kind::Word(&["ip", "hostname", "unknown-endpoint"]), "ip"),
    unused("cluster-replica-no-failover", SWITCH, "no").alias("cluster-slave-no-failover"),
    unused("cluster-replica-validity-factor", integer(0, INT), "10").alias("cluster-slave-validity-factor"),
    unused("cluster-require-full-coverage", SWITCH, "yes"),
    unused("crash-log-enabled", SWITCH, "yes"),
    unused("crash-memcheck-enabled", SWITCH, "yes"),
    unused("dbfilename", TEXT, "dump.rdb").access(Access::Protected),
    foreign("disable-thp", SWITCH, "yes"),
    unused("dynamic-hz", SWITCH, "yes"),
    unused("hll-sparse-max-bytes", size(0, LONG_SIZE), "3000"),
    unused("hz", Kind::Checked(checks::ticks), "10"),
    unused("ignore-warnings", TEXT, ""),
    foreign("io-threads-do-reads", SWITCH, "no"),
    unused("jemalloc-bg-thread", SWITCH, "yes"),
    unused("key-load-delay", integer(i32::MIN as i64, INT), "0").access(Access::Hidden),
    unused("latency-history-length", integer(1, 160), "160").access(Access::Hidden),
    unused("lazyfree-lazy-eviction", SWITCH, "no"),
    unused("lazyfree-lazy-expire", SWITCH, "no"),
    unused("lazyfree-lazy-server-del", SWITCH, "no"),
    unused("lazyfree-lazy-user-del", SWITCH, "no"),
    unused("lazyfree-lazy-user-flush", SWITCH, "no"),
    unused("list-compress-depth", integer(0, INT), "0"),
    unused("list-max-listpack-size", integer(i32::MIN as i64, INT), "-2").alias("list-max-ziplist-size"),
    unused("loading-process-events-interval-bytes", integer(1024, INT), "2097152").access(Access::Hidden),
    unused("locale-collate", TEXT, ""),
    foreign("logfile", TEXT, ""),
    unused("loglevel", Kind::Word(&["debug", "verbose", "notice", "warning", "nothing"]), "notice"),
    unused("maxmemory-eviction-tenacity", integer(0, 100), "10"),
    unused("min-replicas-max-lag", integer(0, INT), "10").alias("min-slaves-max-lag"),
    unused("no-appendfsync-on-rewrite", SWITCH, "no"),
    unused("oom-score-adj-values", Kind::Checked(checks::oom_scores), "0 200 800"),
    foreign("pidfile", TEXT, ""),
    unused("proc-title-template", Kind::Checked(checks::title_template), "{title} {listen-addr} {server-mode}"),
    unused("propagation-error-behavior", Kind::Word(&["ignore", "panic", "panic-on-replicas"]), "ignore"),
    unused("rdb-del-sync-files", SWITCH, "no"),
    unused("rdb-key-save-delay", integer(i32::MIN as i64, INT), "0").access(Access::Hidden),
    unused("rdb-save-incremental-fsync", SWITCH, "yes"),
    foreign("rdbchecksum", SWITCH, "yes"),
    unused("rdbcompression", SWITCH, "yes"),
    unused("repl-backlog-size", size(1, LONG_SIZE), "1048576"),
    unused("repl-backlog-ttl", integer(0, LONG), "3600"),
    unused("repl-disable-tcp-nodelay", SWITCH, "no"),
    unused("repl-diskless-load", Kind::Word(&["disabled", "on-empty-db", "swapdb"]), "disabled"),
    unused("repl-diskless-sync", SWITCH, "yes"),
    unused("repl-diskless-sync-delay", integer(0, INT), "5"),
    unused("repl-diskless-sync-max-replicas", integer(0, INT), "0"),
    unused("repl-ping-replica-period", integer(1, INT), "10").alias("repl-ping-slave-period"),
    unused("repl-timeout", integer(1, INT), "60"),
    unused("replica-announce-ip", TEXT, "").alias("slave-announce-ip"),
    unused("replica-announce-port", integer(0, 65535), "0").alias("slave-announce-port"),
    unused("replica-announced", SWITCH, "yes"),
    unused("replica-ignore-disk-write-errors", SWITCH, "no"),
    unused("replica-ignore-maxmemory", SWITCH, "yes").alias("slave-ignore-maxmemory"),
    unused("replica-lazy-flush", SWITCH, "no").alias("slave-lazy-flush"),
    unused("replica-priority", integer(0, INT), "100").alias("slave-priority"),
    unused("replica-read-only", SWITCH, "yes").alias("slave-read-only"),
    unused("replica-serve-stale-data", SWITCH, "yes").alias("slave-serve-stale-data"),
    unused("sanitize-dump-payload", Kind::Word(&["no", "yes", "clients"]), "no"),
    // A snapshot schedule is a wish about a file that a cache does not keep; dashboards and Redis' suite set and reset it.
    unused("save", Kind::Checked(checks::save_points), ""),
    foreign("server_cpulist", TEXT, ""),
    unused("set-max-intset-entries", integer(0, LONG), "512"),
    unused("set-max-listpack-entries", integer(0, LONG), "128"),
    unused("set-max-listpack-value", size(0, LONG_SIZE), "64"),
    foreign("set-proc-title", SWITCH, "yes"),
    unused("shutdown-on-sigint", Kind::Checked(checks::shutdown_words), "default"),
    unused("shutdown-on-sigterm", Kind::Checked(checks::shutdown_words), "default"),
    unused("shutdown-timeout", integer(0, INT), "10"),
    foreign("socket-mark-id", integer(0, u32::MAX as i64), "0"),
    unused("stop-writes-on-bgsave-error", SWITCH, "yes"),
    unused("stream-node-max-bytes", size(0, LONG_SIZE), "4096"),
    unused("stream-node-max-entries", integer(0, LONG), "100"),
    foreign("supervised", Kind::Word(&["upstart", "systemd", "auto", "no"]), "no"),
    foreign("syslog-enabled", SWITCH, "no"),
    foreign("syslog-facility", TEXT, "local0"),
    foreign("syslog-ident", TEXT, "redis"),
    foreign("tcp-backlog", integer(0, INT), "511"),
    Parameter::new("tracking-table-max-keys", integer(0, LONG), Effect::Size(|s| &s.tracking_table_max_keys)),
    foreign("unixsocket", TEXT, ""),
    foreign("unixsocketperm", TEXT, "0"),
    unused("use-exit-on-panic", SWITCH, "no").access(Access::Hidden),
    unused("watchdog-period", integer(0, INT), "0").access(Access::Hidden),
    unused("zset-max-listpack-entries", integer(0, LONG), "128").alias("zset-max-ziplist-entries"),
    unused("zset-max-listpack-value", size(0, LONG_SIZE), "64").alias("zset-max-ziplist-value"),
];

/// Every parameter.
pub(super) fn all() -> impl Iterator<Item = &'static Parameter> {
    OWN.iter().chain(FACTS).chain(PROMISES).chain(UNUSED)
}

/// The parameter with this name or alias, in any case.
pub(super) fn find(name: &[u8]) -> Option<&'static Parameter> {
    all().find(|parameter| parameter.names().any(|known| known.as_bytes().eq_ignore_ascii_case(name)))
}

fn output_limits(node: &Node) -> String {
    let limits = CLASSES.iter().zip(node.settings.output_limits.all());
    let told = limits.map(|(class, [hard, soft, seconds])| format!("{class} {hard} {soft} {seconds}"));
    told.collect::<Vec<_>>().join(" ")
}

/// Classes that are left out keep what they have.
fn set_output_limits(node: &Node, value: &Value) {
    let mut classes = node.settings.output_limits.all();
    for (class, limits) in checks::output_limits_of(&value.to_string()) {
        classes[class] = limits;
    }
    node.settings.output_limits.set(classes);
}

fn compress_over(node: &Node) -> String {
    node.store.settings().compress_over().unwrap_or(0).to_string()
}

fn set_compress_over(node: &Node, value: &Value) {
    node.store.settings().set_compress_over(Some(value.size()).filter(|&bytes| bytes > 0));
}

fn debug_commands(node: &Node) -> String {
    let word = match node.identity.debug_commands {
        DebugCommands::No => "no",
        DebugCommands::Local => "local",
        DebugCommands::Yes => "yes",
    };
    word.to_owned()
}

fn directory(_: &Node) -> String {
    std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default()
}

fn password(node: &Node) -> String {
    let password = node.settings.requirepass.load();
    password.as_ref().map(|password| String::from_utf8_lossy(password).into_owned()).unwrap_or_default()
}

fn set_password(node: &Node, value: &Value) {
    let password = value.to_string().into_bytes();
    node.settings.requirepass.store((!password.is_empty()).then(|| Arc::new(password)));
}

fn percentiles(node: &Node) -> String {
    let percentiles = node.settings.latency_percentiles.load();
    percentiles.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")
}

fn set_percentiles(node: &Node, value: &Value) {
    let percentiles = value.to_string().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    node.settings.latency_percentiles.store(Arc::new(percentiles));
}

fn policy(node: &Node) -> String {
    node.store.settings().policy().as_str().to_owned()
}

fn set_policy(node: &Node, value: &Value) {
    if let Ok(policy) = value.to_string().parse::<EvictionPolicy>() {
        node.store.settings().set_policy(policy);
    }
}

fn slowlog_entries(node: &Node) -> String {
    node.settings.slowlog_max_len.load(Relaxed).to_string()
}

fn set_slowlog_entries(node: &Node, value: &Value) {
    node.settings.slowlog_max_len.store(value.size(), Relaxed);
    node.telemetry.slowlog.truncate(value.size());
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_stands_twice() {
        let mut seen = HashSet::new();
        for name in all().flat_map(Parameter::names) {
            assert!(seen.insert(name), "{name}");
            assert_eq!(name, name.to_ascii_lowercase());
        }
    }

    #[test]
    fn defaults_are_of_their_kind_and_in_their_plain_form() {
        for parameter in all() {
            if let Effect::None(default) | Effect::Always { value: default, .. } = parameter.effect {
                let value = parameter.kind.parse(default).unwrap_or_else(|error| panic!("{}: {error}", parameter.name));
                assert_eq!(value.to_string(), default, "{}", parameter.name);
            }
        }
    }

    #[test]
    fn every_policy_of_the_store_can_be_set() {
        let names: HashSet<_> = EvictionPolicy::ALL.iter().map(|policy| policy.as_str()).collect();
        assert_eq!(POLICIES.iter().copied().collect::<HashSet<_>>(), names);
    }
}
