//! Metrics in Prometheus' text format, put together from what is counted anyway when somebody asks: the request path knows nothing of
//! them.

use std::fmt::Display;
use std::sync::atomic::Ordering::Relaxed;

use forebay_origin::{
    BATCH_SIZE_BOUNDS, BreakerState, Feed, FeedState, FeedStatus, GroupStatus, OriginStatus, Role, TargetStatus,
};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::lanes::{BUCKETS, CommandTotals};
use crate::command::table::Table;
use crate::freshness::Freshness;
use crate::freshness::meter::{AGES, Place, Verdict};
use crate::hot::Hot;
use crate::memory;
use crate::node::Node;

/// The type of what [`render`] answers, for HTTP.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// All metrics of a node.
///
/// # Errors
/// When a metric's name or labels are not what Prometheus takes.
pub fn render(node: &Node) -> prometheus::Result<Vec<u8>> {
    let mut families = Families(Vec::new());
    process(node, &mut families);
    connections(node, &mut families);
    commands(node, &mut families);
    store(node, &mut families);
    loads(node, &mut families);
    freshness(&node.freshness, &mut families);
    writes(node, &mut families);
    if let Some(member) = node.member() {
        hot(&member.hot, &mut families);
    }
    if let Some(origin) = &node.origin {
        let status = origin.status();
        let help = "Version of the groups that are used; 0: those of the configuration.";
        families.gauge("forebay_groups_version", help, origin.groups().version() as f64);
        groups(&status.groups, &mut families);
        targets(&status, &mut families);
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&families.0, &mut text)?;
    Ok(text)
}

fn process(node: &Node, families: &mut Families) {
    let zone = node.identity.zone.as_deref().unwrap_or_default();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("node", node.identity.node_id.as_str()), ("zone", zone)];
    families.gauges("forebay_build_info", "1, with what is running as labels.", [(labels_of(&labels), 1.0)]);
    let uptime = (node.clock.unix_millis() - node.identity.started_at) as f64 / 1000.0;
    families.gauge("forebay_uptime_seconds", "Seconds since the start.", uptime);
    let draining = f64::from(u8::from(node.gates.is_draining()));
    families.gauge("forebay_draining", "Whether the node is shutting down.", draining);
    let help = "Bytes of memory: allocated by the process, at most since the start, resident, and the limit (0: none).";
    let limit = node.settings.maxmemory.load(Relaxed);
    let kinds =
        [("allocated", memory::used()), ("peak", memory::peak()), ("resident", memory::resident()), ("limit", limit)];
    families.gauges(
        "forebay_memory_bytes",
        help,
        kinds.map(|(kind, bytes)| (labels_of(&[("kind", kind)]), bytes as f64)),
    );
}

fn connections(node: &Node, families: &mut Families) {
    families.gauge("forebay_connections", "RESP connections.", node.clients.len() as f64);
    let accepted = node.clients.accepted();
    families.counter("forebay_connections_accepted_total", "RESP connections accepted.", accepted);
    let refused = node.clients.refused();
    families.counter("forebay_connections_refused_total", "RESP connections refused because of maxclients.", refused);
    let traffic = node.telemetry.lanes.traffic();
    families.counter("forebay_received_bytes_total", "Bytes received from RESP clients.", traffic.bytes_in);
    families.counter("forebay_sent_bytes_total", "Bytes sent to RESP clients.", traffic.bytes_out);
}

fn commands(node: &Node, families: &mut Families) {
    let table = Table::get();
    let totals: Vec<(&str, CommandTotals)> = (0..table.size())
        .map(|id| (table.name_of(id), node.telemetry.lanes.totals(id)))
        .filter(|(_, totals)| totals.calls + totals.rejected > 0)
        .collect();
    let counts = |count: fn(&CommandTotals) -> u64| {
        totals.iter().map(move |(name, totals)| (labels_of(&[("command", name)]), count(totals)))
    };
    families.counters("forebay_requests_total", "Requests that ran, by command.", counts(|totals| totals.calls));
    families.counters(
        "forebay_requests_failed_total",
        "Requests that ran and answered an error.",
        counts(|totals| totals.failed),
    );
    let help = "Requests refused before they ran: wrong arity, no authentication, no memory.";
    families.counters("forebay_requests_rejected_total", help, counts(|totals| totals.rejected));
    let durations = totals.iter().map(|(name, totals)| (labels_of(&[("command", name)]), duration_histogram(totals)));
    families.histograms("forebay_request_duration_seconds", "Time in handlers, waiting for loads left out.", durations);
    let errors = node.telemetry.errors.all();
    let errors = errors.iter().map(|(code, count)| (labels_of(&[("code", code)]), *count));
    families.counters("forebay_errors_total", "Error replies by their first word.", errors);
}

fn store(node: &Node, families: &mut Families) {
    let counters = node.store.counters();
    for (name, help, count) in [
        ("forebay_hits_total", "Reads that found a value.", counters.hits),
        ("forebay_misses_total", "Reads that found nothing.", counters.misses),
        ("forebay_absent_hits_total", "Reads of keys known to be absent at the origin.", counters.absent_hits),
        (
            "forebay_stale_served_total",
            "Reads given a value past its deadline since the origin was ill.",
            counters.stale_served,
        ),
        ("forebay_expirations_total", "Entries removed because their time had passed.", counters.expired),
        ("forebay_evictions_total", "Entries removed because memory was short.", counters.evicted),
        ("forebay_fills_total", "Loaded values that were stored.", counters.fills),
        (
            "forebay_fenced_fills_total",
            "Loaded values kept out because the key had changed meanwhile.",
            counters.fenced_fills,
        ),
    ] {
        families.counter(name, help, count);
    }
    let databases = (0..node.identity.databases).filter(|db| *db == 0 || !node.store.is_empty(*db));
    let (all, volatile): (Vec<_>, Vec<_>) = databases
        .map(|db| {
            let labels = labels_of(&[("db", &db.to_string())]);
            ((labels.clone(), node.store.len(db) as f64), (labels, node.store.volatile_len(db) as f64))
        })
        .unzip();
    families.gauges("forebay_keys", "Keys by database.", all);
    families.gauges("forebay_volatile_keys", "Keys with a deadline by database.", volatile);
}

fn loads(node: &Node, families: &mut Families) {
    let loads = &node.telemetry.loads;
    for (name, help, count) in [
        ("forebay_loads_total", "Loads from the origin that were begun.", &loads.loads),
        ("forebay_coalesced_requests_total", "Requests that joined a load under way.", &loads.coalesced),
        ("forebay_failed_loads_total", "Loads that failed.", &loads.failed),
        ("forebay_refreshes_total", "Loads begun early, before the entry expired.", &loads.refreshed),
    ] {
        families.counter(name, help, count.load(Relaxed));
    }
    families.gauge("forebay_waiting_requests", "Requests that wait for loads.", loads.waiting.load(Relaxed) as f64);
}

fn freshness(freshness: &Freshness, families: &mut Families) {
    let counts = &freshness.counts;
    for (name, help, count) in [
        ("forebay_changed_keys_total", "Keys that the database was told to have changed.", &counts.changed),
        ("forebay_invalidated_entries_total", "Entries that were taken out because of that.", &counts.dropped),
        ("forebay_survived_changes_total", "Entries that had been loaded after the change.", &counts.survived),
        ("forebay_late_fills_total", "Loads that had not seen a change, and were repeated.", &counts.late),
    ] {
        families.counter(name, help, count.load(Relaxed));
    }
    let kinds = (0..AGES.len()).flat_map(|age| Place::ALL.map(|place| (age, place)));
    let samples = kinds.flat_map(|(age, place)| Verdict::ALL.map(|verdict| (age, place, verdict)));
    let samples = samples.map(|(age, place, verdict)| {
        let labels = [("age", AGES[age].1), ("place", place.as_str()), ("verdict", verdict.as_str())];
        (labels_of(&labels), freshness.meter.own(age, place, verdict))
    });
    let help = "What this node has found as the keeper when it looked at changed keys so long after the change.";
    families.counters("forebay_freshness_samples_total", help, samples);
    let bounds = (0..LONGEST_BOUND).map(|power| (2u64 << power) as f64 / 1e6);
    let delays = histogram(bounds, &freshness.delays.by_powers(), freshness.delays.sum() as f64 / 1e6);
    let help = "Time from a commit to when the owner of a changed key was told, by two clocks.";
    families.histograms("forebay_change_delay_seconds", help, [(Vec::new(), delays)]);
    let feeds = freshness.feeds();
    let label = |feed: &Feed| labels_of(&[("feed", feed.as_str())]);
    let is_followed = |state: FeedState| f64::from(u8::from(state == FeedState::Following));
    let help = "Whether this node, as the keeper, follows the changes of the database.";
    families.gauges(
        "forebay_feed_following",
        help,
        feeds.iter().map(|(feed, status)| (label(feed), is_followed(status.state))),
    );
    let help = "How long the oldest change has waited that not everybody has dealt with.";
    let lags = feeds.iter().map(|(feed, status)| (label(feed), status.unconfirmed_for.as_secs_f64()));
    families.gauges("forebay_feed_lag_seconds", help, lags);
    let help = "Bytes of write-ahead log that the database keeps for the feed.";
    let retained = feeds.iter().map(|(feed, status)| (label(feed), status.retained_bytes as f64));
    families.gauges("forebay_feed_retained_bytes", help, retained);
    let help = "Messages that wait at Kafka's brokers.";
    let waiting = feeds.iter().map(|(feed, status)| (label(feed), status.lag_messages as f64));
    families.gauges("forebay_feed_lag_messages", help, waiting);
    let counts = |count: fn(&FeedStatus) -> u64| feeds.iter().map(move |(feed, status)| (label(feed), count(status)));
    let help = "Times that changes may have been missed, so that everything was called in.";
    families.counters("forebay_feed_gaps_total", help, counts(|status| status.counts.gaps));
    let help = "Times that the connection of a feed was lost.";
    families.counters("forebay_feed_interruptions_total", help, counts(|status| status.counts.interruptions));
    let help = "Messages that could not be read; each counts as a change of every key.";
    families.counters("forebay_feed_unreadable_total", help, counts(|status| status.counts.unreadable));
    let help = "Changes of tables that no group names.";
    families.counters("forebay_feed_unmapped_total", help, counts(|status| status.counts.unmapped));
    let help = "Changed rows without a key, since a column was NULL.";
    families.counters("forebay_feed_null_keys_total", help, counts(|status| status.counts.null_keys));
    let help = "Times that a changed row did not tell its key, so that every key of a group was called in.";
    families.counters("forebay_feed_untold_keys_total", help, counts(|status| status.counts.untold_keys));
}

fn writes(node: &Node, families: &mut Families) {
    let counts = &node.writes.counts;
    for (name, help, count) in [
        (
            "forebay_origin_writes_total",
            "Writes that the origin has taken before their clients were answered.",
            &counts.written,
        ),
        ("forebay_origin_writes_refused_total", "Writes that the origin has refused.", &counts.refused),
        ("forebay_origin_writes_failed_total", "Writes that the origin could not take.", &counts.failed),
        (
            "forebay_origin_writes_unsure_total",
            "Writes of which it is not known whether they were made.",
            &counts.unsure,
        ),
    ] {
        families.counter(name, help, count.load(Relaxed));
    }
    let behind = &node.writes.behind;
    for (name, help, count) in [
        (
            "forebay_behind_writes_total",
            "Writes that were acknowledged and reach the origin later.",
            &behind.counts.accepted,
        ),
        (
            "forebay_behind_writes_refused_total",
            "Writes that could not be kept for the origin.",
            &behind.counts.refused,
        ),
        ("forebay_behind_flushed_total", "Keys of which the origin got what was pending.", &behind.counts.flushed),
        ("forebay_behind_retries_total", "Attempts to tell the origin that failed.", &behind.counts.retried),
        (
            "forebay_behind_dead_letters_total",
            "Writes that the origin has refused, and that were written down.",
            &behind.counts.dead_letters,
        ),
    ] {
        families.counter(name, help, count.load(Relaxed));
    }
    let (keys, bytes, oldest) = behind.pending();
    families.gauge("forebay_behind_pending_keys", "Keys whose value the origin does not have yet.", keys as f64);
    families.gauge("forebay_behind_pending_bytes", "Bytes of what the origin does not have yet.", bytes as f64);
    families.gauge("forebay_behind_oldest_seconds", "How long the oldest of it has waited.", oldest.as_secs_f64());
}

fn hot(hot: &Hot, families: &mut Families) {
    let Hot { grants, copies } = hot;
    families.gauge(
        "forebay_hot_keys",
        "Own keys of which other nodes hold copies for moments.",
        grants.hot_keys() as f64,
    );
    families.counter(
        "forebay_hot_grants_total",
        "Replies that other nodes were allowed to keep for moments.",
        grants.given(),
    );
    families.counter(
        "forebay_hot_take_backs_total",
        "Own keys that were taken back because of a change.",
        grants.taken_back(),
    );
    families.gauge("forebay_hot_copies", "Other nodes' keys of which this node holds copies.", copies.keys() as f64);
    families.counter("forebay_hot_copies_served_total", "Requests that such copies have answered.", copies.served());
}

fn groups(groups: &[GroupStatus], families: &mut Families) {
    let counts = |count: fn(&GroupStatus) -> u64| {
        groups.iter().map(move |group| (labels_of(&[("group", &group.name)]), count(group)))
    };
    families.counters("forebay_group_loads_total", "Keys that were asked for, by group.", counts(|group| group.loads));
    families.counters("forebay_group_errors_total", "Loads that ended in an error.", counts(|group| group.errors));
    let help = "Loads that needed no query because the key cannot be a row.";
    families.counters("forebay_group_absent_unasked_total", help, counts(|group| group.absent_unasked));
    let sizes = groups.iter().map(|group| (labels_of(&[("group", &group.name)]), batch_histogram(group)));
    families.histograms("forebay_batch_keys", "Keys of one query, by group.", sizes);
}

fn targets(status: &OriginStatus, families: &mut Families) {
    families.gauge("forebay_origin_waiting_loads", "Loads that wait for a database.", status.waiting_loads as f64);
    let help = "Loads refused because too many were waiting.";
    families.counter("forebay_origin_refused_loads_total", help, status.refused_loads);
    let targets = &status.targets;
    let connections = targets.iter().flat_map(|target| {
        let kinds = [("in_use", target.in_use), ("idle", target.idle), ("limit", target.max_connections)];
        kinds.map(|(state, count)| (target_labels(target, Some(("state", state))), f64::from(count)))
    });
    families.gauges("forebay_origin_connections", "Connections to a database, and the limit on them.", connections);
    let breakers = targets.iter().flat_map(|target| {
        BREAKER_STATES.map(|(state, name)| {
            let is = f64::from(u8::from(target.breaker == state));
            (target_labels(target, Some(("state", name))), is)
        })
    });
    families.gauges("forebay_origin_breaker_state", "1 for the state that the circuit breaker is in.", breakers);
    let latencies =
        targets.iter().filter_map(|target| Some((target_labels(target, None), target.latency?.as_secs_f64())));
    families.gauges("forebay_origin_latency_seconds", "Moving average of a query's time.", latencies);
    let counts = |count: fn(&TargetStatus) -> u64| {
        targets.iter().map(move |target| (target_labels(target, None), count(target)))
    };
    families.counters(
        "forebay_origin_queries_total",
        "Queries that a database answered.",
        counts(|target| target.queries),
    );
    families.counters(
        "forebay_origin_failures_total",
        "Times that a database could not be asked.",
        counts(|target| target.failures),
    );
    families.counters(
        "forebay_origin_breaker_openings_total",
        "Times that the breaker opened.",
        counts(|target| target.openings),
    );
}

const BREAKER_STATES: [(BreakerState, &str); 4] = [
    (BreakerState::Closed, "closed"),
    (BreakerState::Open, "open"),
    (BreakerState::HalfOpen, "half_open"),
    (BreakerState::Ramping, "ramping"),
];

fn target_labels(target: &TargetStatus, further: Option<(&str, &str)>) -> Vec<LabelPair> {
    let role = match target.role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    };
    let number = target.id.0.to_string();
    let mut labels = vec![("target", number.as_str()), ("role", role)];
    labels.extend(further);
    labels_of(&labels)
}

/// Buckets of durations that are told one by one, up to 17 seconds; what is longer has no bound.
const LONGEST_BOUND: usize = 25;
const _: () = assert!(LONGEST_BOUND < BUCKETS);

/// Lanes count durations by powers of two of a microsecond.
fn duration_histogram(totals: &CommandTotals) -> Histogram {
    let bounds = (0..LONGEST_BOUND).map(|bucket| (1u64 << bucket) as f64 / 1e6);
    histogram(bounds, &totals.histogram, totals.nanos as f64 / 1e9)
}

fn batch_histogram(group: &GroupStatus) -> Histogram {
    // The last of the counts takes everything above its bound, too: it is the one without an upper bound.
    let bounds = BATCH_SIZE_BOUNDS[..BATCH_SIZE_BOUNDS.len() - 1].iter().map(|bound| *bound as f64);
    histogram(bounds, &group.batch_sizes, group.keys as f64)
}

/// A histogram of `counts`, of which the last one has no upper bound.
fn histogram(bounds: impl Iterator<Item = f64>, counts: &[u64], sum: f64) -> Histogram {
    let mut histogram = Histogram::default();
    let mut cumulative = 0;
    let buckets = bounds.zip(counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum);
    histogram
}

fn labels_of(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let label = |(name, value): &(&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    };
    labels.iter().map(label).collect()
}

/// The metrics so far.
struct Families(Vec<MetricFamily>);

impl Families {
    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(Vec::new(), value)]);
    }

    fn counter(&mut self, name: &str, help: &str, count: u64) {
        self.counters(name, help, [(Vec::new(), count)]);
    }

    fn gauges(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Vec<LabelPair>, f64)>) {
        let metrics = values.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(labels);
            metric.set_gauge(gauge);
            metric
        });
        self.add(name, help, MetricType::GAUGE, metrics.collect());
    }

    fn counters(&mut self, name: &str, help: &str, counts: impl IntoIterator<Item = (Vec<LabelPair>, u64)>) {
        let metrics = counts.into_iter().map(|(labels, count)| {
            let mut counter = Counter::default();
            counter.set_value(count as f64);
            let mut metric = Metric::from_label(labels);
            metric.set_counter(counter);
            metric
        });
        self.add(name, help, MetricType::COUNTER, metrics.collect());
    }

    fn histograms(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Vec<LabelPair>, Histogram)>) {
        let metrics = values.into_iter().map(|(labels, histogram)| {
            let mut metric = Metric::from_label(labels);
            metric.set_histogram(histogram);
            metric
        });
        self.add(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    /// A family without metrics is left out: the format does not know it.
    fn add(&mut self, name: impl Display, help: impl Display, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_string());
        family.set_help(help.to_string());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_the_last_has_no_bound() {
        let histogram = histogram([1.0, 2.0].into_iter(), &[3, 4, 5], 20.0);
        let buckets: Vec<_> =
            histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        assert_eq!(buckets, [(1.0, 3), (2.0, 7)]);
        assert_eq!(histogram.get_sample_count(), 12);
    }

    #[test]
    fn a_family_reads_as_prometheus_wants_it() {
        let mut families = Families(Vec::new());
        families.counters("forebay_requests_total", "Help.", [(labels_of(&[("command", "a\"b")]), 7)]);
        families.gauges("forebay_nothing", "Left out.", []);
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.0, &mut text).expect("encoded");
        let expected = "# HELP forebay_requests_total Help.\n# TYPE forebay_requests_total counter\n\
                        forebay_requests_total{command=\"a\\\"b\"} 7\n";
        assert_eq!(String::from_utf8_lossy(&text), expected);
    }
}
