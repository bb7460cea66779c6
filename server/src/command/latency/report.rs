//! LATENCY DOCTOR: the spikes in words.

use crate::telemetry::latency::LatencyEvent;

/// What can be done about an event's spikes.
fn advice(event: &str) -> &'static str {
    match event {
        "command" => {
            "SLOWLOG GET shows which commands take long; CONFIG SET slowlog-log-slower-than tells it from when on."
        }
        "fast-command" => {
            "A fast command that takes long was kept waiting by the machine: look for swapping and for busy neighbours."
        }
        "expire-cycle" => "Many keys expire at the same time: give their groups a ttl_jitter.",
        _ => "LATENCY GRAPH shows when it happens.",
    }
}

/// The report on all events. `is_on` tells whether spikes are watched for now.
pub(super) fn report(events: &[(&'static str, LatencyEvent)], is_on: bool) -> String {
    if events.is_empty() {
        return match is_on {
            true => "No spike has been seen since the start or the last LATENCY RESET.\n".to_owned(),
            false => "Spikes are not watched for. CONFIG SET latency-monitor-threshold <milliseconds> begins it.\n"
                .to_owned(),
        };
    }
    let described =
        events.iter().enumerate().map(|(at, (name, event))| format!("{}. {}", at + 1, describe(name, event)));
    described.collect()
}

fn describe(name: &str, event: &LatencyEvent) -> String {
    let count = event.samples.len().max(1) as u64;
    let mean = event.samples.iter().map(|sample| sample.millis).sum::<u64>() / count;
    let deviation = event.samples.iter().map(|sample| sample.millis.abs_diff(mean)).sum::<u64>() / count;
    let span = event.samples.back().zip(event.samples.front()).map_or(0, |(last, first)| last.at - first.at);
    format!(
        "{name}: {} spikes within {span} s, {mean} ms on average (mean deviation {deviation} ms), the worst ever {} ms.\n   {}\n",
        event.samples.len(),
        event.worst,
        advice(name),
    )
}

#[cfg(test)]
mod tests {
    use crate::telemetry::latency::LatencySample;

    use super::*;

    #[test]
    fn a_report_has_a_paragraph_for_each_event() {
        let samples = [(5, 100), (15, 300)].map(|(at, millis)| LatencySample { at, millis });
        let event = LatencyEvent { samples: samples.into_iter().collect(), worst: 900 };
        let report = report(&[("command", event)], true);
        assert!(report.starts_with(
            "1. command: 2 spikes within 10 s, 200 ms on average (mean deviation 100 ms), the worst ever 900 ms."
        ));
        assert!(report.contains("SLOWLOG"));
    }

    #[test]
    fn nothing_to_report_is_said() {
        assert!(report(&[], false).contains("latency-monitor-threshold"));
        assert!(report(&[], true).starts_with("No spike"));
    }
}
