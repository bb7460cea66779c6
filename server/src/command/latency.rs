//! LATENCY: spikes by event, and how long each command takes.

mod graph;
mod report;

use std::sync::atomic::Ordering::Relaxed;

use super::call::{Call, Flow};
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, Spec};
use super::table::{Command, Table};
use crate::telemetry::lanes::{CommandTotals, upper_bound};
use crate::telemetry::latency::LatencyEvent;

const ADMIN: Flags = Flags::ADMIN.union(Flags::NOSCRIPT).union(Flags::LOADING).union(Flags::STALE);
const TIPS: &[&str] = &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

pub(super) const TABLE: &[Spec] = &[Spec::new("latency", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        Spec::new("doctor", 2, ADMIN, Categories::empty()).on_node(doctor).tips(TIPS).docs(
            "server",
            "2.8.13",
            "O(1)",
            "Says in words what the spikes look like, and what could be done.",
            "",
        ),
        Spec::new("graph", 3, ADMIN, Categories::empty()).on_node(draw).tips(TIPS).docs(
            "server",
            "2.8.13",
            "O(1)",
            "Draws the spikes of an event.",
            "event",
        ),
        help::row(Categories::empty(), "server", "2.8.13"),
        Spec::new("histogram", -2, ADMIN, Categories::empty()).on_node(histogram).tips(TIPS).docs(
            "server",
            "7.0.0",
            "O(N) where N is the number of commands with latency information being retrieved.",
            "Tells how many calls took how long, command by command.",
            "[command [command ...]]",
        ),
        Spec::new("history", 3, ADMIN, Categories::empty()).on_node(history).tips(TIPS).docs(
            "server",
            "2.8.13",
            "O(1)",
            "Tells the spikes of an event.",
            "event",
        ),
        Spec::new("latest", 2, ADMIN, Categories::empty()).on_node(latest).tips(TIPS).docs(
            "server",
            "2.8.13",
            "O(1)",
            "Tells the last and the worst spike of every event.",
            "",
        ),
        Spec::new("reset", -2, ADMIN, Categories::empty())
            .on_node(reset)
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
            .docs("server", "2.8.13", "O(1)", "Forgets the spikes of some events, or of all.", "[event [event ...]]"),
    ])
    .docs("server", "2.8.13", "Depends on subcommand.", "Spikes by event, and how long each command takes.", "")];

fn latest(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let events = call.node.telemetry.latency.all();
    call.reply.array(events.len());
    for (name, event) in events {
        let last = event.samples.back();
        call.reply.array(4);
        call.reply.bulk(name.as_bytes());
        call.reply.integer(last.map_or(0, |sample| sample.at));
        call.reply.integer(last.map_or(0, |sample| sample.millis) as i64);
        call.reply.integer(event.worst as i64);
    }
    Ok(Flow::Continue)
}

fn history(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let samples = event(call).map(|(_, event)| event.samples).unwrap_or_default();
    call.reply.array(samples.len());
    for sample in samples {
        call.reply.array(2);
        call.reply.integer(sample.at);
        call.reply.integer(sample.millis as i64);
    }
    Ok(Flow::Continue)
}

/// The event that argument 2 names exactly.
fn event(call: &Call<'_>) -> Option<(&'static str, LatencyEvent)> {
    call.node.telemetry.latency.all().into_iter().find(|(name, _)| name.as_bytes() == call.arg(2))
}

fn reset(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let latency = &call.node.telemetry.latency;
    let named = |name: &str| call.args.iter().skip(2).any(|wanted| wanted.eq_ignore_ascii_case(name.as_bytes()));
    let forgotten = match call.args.len() {
        2 => latency.reset(|_| true),
        _ => latency.reset(named),
    };
    call.reply.integer(forgotten as i64);
    Ok(Flow::Continue)
}

fn draw(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let (name, event) = event(call)
        .ok_or_else(|| CommandError::from(format!("ERR No samples available for event '{}'", call.text(2))))?;
    let drawing = graph::draw(name, &event, call.now / 1000);
    call.reply.verbatim("txt", drawing.as_bytes());
    Ok(Flow::Continue)
}

fn doctor(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let is_on = call.node.settings.latency_monitor_threshold.load(Relaxed) > 0;
    let report = report::report(&call.node.telemetry.latency.all(), is_on);
    call.reply.verbatim("txt", report.as_bytes());
    Ok(Flow::Continue)
}

fn histogram(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let totals = |command: &&Command| (command.full_name, call.node.telemetry.lanes.totals(command.id));
    let is_on = call.node.settings.latency_tracking.load(Relaxed);
    let with_calls: Vec<_> = wanted(call).iter().map(totals).filter(|(_, totals)| is_on && totals.calls > 0).collect();
    call.reply.map(with_calls.len());
    for (name, totals) in with_calls {
        call.reply.bulk(name.as_bytes());
        distribution(call, &totals);
    }
    Ok(Flow::Continue)
}

/// The commands that are named, each with its subcommands; all when none is.
fn wanted(call: &Call<'_>) -> Vec<&'static Command> {
    let table = Table::get();
    match call.args.len() {
        2 => table.all().collect(),
        _ => {
            let named = call.args.iter().skip(2).filter_map(|name| table.by_full_name(name));
            named.flat_map(|command| std::iter::once(command).chain(&command.subcommands)).collect()
        }
    }
}

/// For each bucket that holds something, what its calls are below and how many calls are.
fn distribution(call: &mut Call<'_>, totals: &CommandTotals) {
    let mut sum = 0;
    let filled: Vec<_> = (0..)
        .zip(totals.histogram)
        .filter(|(_, count)| *count > 0)
        .map(|(bucket, count)| {
            sum += count;
            (upper_bound(bucket), sum)
        })
        .collect();
    call.reply.map(2);
    call.reply.bulk(b"calls");
    call.reply.integer(totals.calls as i64);
    call.reply.bulk(b"histogram_usec");
    call.reply.map(filled.len());
    for (below, calls) in filled {
        call.reply.integer(below as i64);
        call.reply.integer(calls as i64);
    }
}
