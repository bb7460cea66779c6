//! `LATENCY`: spikes above a threshold, by event.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

/// Samples that are kept per event (Redis' `LATENCY_TS_LEN`).
const HISTORY: usize = 160;

/// Spikes by event name. Only events of our own code have names here, so their number is bounded.
#[derive(Default)]
pub struct LatencyEvents {
    events: Mutex<BTreeMap<&'static str, LatencyEvent>>,
}

/// One event's spikes.
#[derive(Debug, Clone, Default)]
pub struct LatencyEvent {
    /// Oldest first; at most one per second, the worst of it.
    pub samples: VecDeque<LatencySample>,
    /// The worst since the start or the last reset, in milliseconds.
    pub worst: u64,
}

/// The worst spike of one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencySample {
    /// Unix time in seconds.
    pub at: i64,
    /// Milliseconds.
    pub millis: u64,
}

impl LatencyEvents {
    /// Records a spike.
    pub fn add(&self, event: &'static str, at: i64, millis: u64) {
        let mut events = self.events.lock();
        let event = events.entry(event).or_default();
        event.worst = event.worst.max(millis);
        match event.samples.back_mut() {
            Some(last) if last.at == at => last.millis = last.millis.max(millis),
            _ => {
                event.samples.push_back(LatencySample { at, millis });
                if event.samples.len() > HISTORY {
                    event.samples.pop_front();
                }
            }
        }
    }

    /// Every event with its spikes, in alphabetical order.
    pub fn all(&self) -> Vec<(&'static str, LatencyEvent)> {
        self.events.lock().iter().map(|(name, event)| (*name, event.clone())).collect()
    }

    /// Forgets events: all, or those that `which` names. Returns how many there were.
    pub fn reset(&self, which: impl Fn(&str) -> bool) -> usize {
        let mut events = self.events.lock();
        let before = events.len();
        events.retain(|name, _| !which(name));
        before - events.len()
    }
}
