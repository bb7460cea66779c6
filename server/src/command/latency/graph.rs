//! LATENCY GRAPH: spikes as columns of characters, with their age written below.

use crate::telemetry::latency::{LatencyEvent, LatencySample};

/// Columns of a drawing: the newest spikes that fit on a screen.
const COLUMNS: usize = 80;

const ROWS: usize = 4;

/// A row's character by how much of it a column fills, thirds first.
const FILLS: [char; 4] = ['_', 'o', '#', '|'];

/// Draws the spikes of an event as they are seen at `now`, in Unix seconds.
pub(super) fn draw(name: &str, event: &LatencyEvent, now: i64) -> String {
    let shown: Vec<_> = event.samples.iter().skip(event.samples.len().saturating_sub(COLUMNS)).copied().collect();
    let high = event.samples.iter().map(|sample| sample.millis).max().unwrap_or(0);
    let low = event.samples.iter().map(|sample| sample.millis).min().unwrap_or(0);
    let mut drawing = format!("{name} - high {high} ms, low {low} ms (all time high {} ms)\n", event.worst);
    drawing += &"-".repeat(COLUMNS);
    drawing.push('\n');
    for row in (0..ROWS).rev() {
        drawing.extend(shown.iter().map(|sample| fill(sample.millis - low, high - low, row)));
        drawing.push('\n');
    }
    drawing.push('\n');
    drawing + &labels(&shown, now)
}

/// What a column shows in a row, counted from below.
fn fill(above_low: u64, range: u64, row: usize) -> char {
    let steps = ((FILLS.len() - 1) * ROWS) as u64;
    let height = (above_low * steps / range.max(1)).min(steps - 1) as usize;
    match height.checked_sub(row * (FILLS.len() - 1)) {
        None => ' ',
        Some(step) => FILLS[step.min(FILLS.len() - 1)],
    }
}

/// The age of each spike, written downwards.
fn labels(samples: &[LatencySample], now: i64) -> String {
    let ages: Vec<Vec<char>> = samples.iter().map(|sample| age(now - sample.at).chars().collect()).collect();
    let longest = ages.iter().map(Vec::len).max().unwrap_or(0);
    let line = |at: usize| ages.iter().map(|age| age.get(at).copied().unwrap_or(' ')).chain(['\n']).collect::<String>();
    (0..longest).map(line).collect()
}

fn age(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds {
        ..MINUTE => format!("{}s", seconds.max(0)),
        MINUTE..HOUR => format!("{}m", seconds / MINUTE),
        HOUR..DAY => format!("{}h", seconds / HOUR),
        DAY.. => format!("{}d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_rise_and_tell_their_age() {
        let samples = [(0, 10), (40, 20), (100, 30)].map(|(at, millis)| LatencySample { at, millis });
        let event = LatencyEvent { samples: samples.into_iter().collect(), worst: 30 };
        let drawing = draw("command", &event, 100);
        let lines: Vec<_> = drawing.lines().collect();
        assert_eq!(lines[0], "command - high 30 ms, low 10 ms (all time high 30 ms)");
        assert_eq!(lines[2..6], ["  #", " _|", " ||", "_||"], "{drawing}");
        assert_eq!(lines[6..], ["", "110", "mms"], "{drawing}");
    }
}
