//! Least frequently used, as Redis documents it: a logarithmic counter of eight bits, which rises with a probability
//! that falls the higher it is, and falls with the minutes in which the entry is not used.
//! Source: "Approximate LFU" in <https://redis.io/docs/latest/develop/reference/eviction/>.
//!
//! The metadata's low byte is the counter, and the 16 bits above it are the minute up to which it has decayed.

use super::{Algorithm, Moment};
use crate::UnixMillis;

/// What a new entry starts with, so that it is not the first to go.
const FIRST_COUNT: u32 = 5;
const MILLIS_PER_MINUTE: i64 = 60_000;

pub(super) struct Lfu;

impl Algorithm for Lfu {
    fn admitted(moment: &Moment<'_>) -> u32 {
        packed(minute(moment.now), FIRST_COUNT)
    }

    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        let count = u32::from(frequency(access, moment));
        packed(minute(moment.now), count + u32::from(rises(count, moment)))
    }

    fn worth(access: u32, _deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        u64::from(frequency(access, moment))
    }

    /// The metadata says how often an entry is used, not when it was last.
    fn idle_seconds(_access: u32, _now: UnixMillis) -> Option<u64> {
        None
    }
}

/// The counter as it has decayed by now.
pub(super) fn frequency(access: u32, moment: &Moment<'_>) -> u8 {
    let count = access & 0xff;
    let decayed_until = (access >> 8) as u16;
    let idle_minutes = u32::from(minute(moment.now).wrapping_sub(decayed_until));
    let fallen = idle_minutes.checked_div(moment.settings.lfu_decay_minutes()).unwrap_or(0);
    count.saturating_sub(fallen) as u8
}

/// True with a probability of 1 / ((count over the first) × factor + 1).
fn rises(count: u32, moment: &Moment<'_>) -> bool {
    if count >= u32::from(u8::MAX) {
        return false;
    }
    let over = u64::from(count.saturating_sub(FIRST_COUNT));
    let odds = over * u64::from(moment.settings.lfu_log_factor()) + 1;
    u64::from(moment.draw()) * odds <= u64::from(u32::MAX)
}

fn packed(minute: u16, count: u32) -> u32 {
    u32::from(minute) << 8 | count
}

/// Minutes, which come round after 45 days.
fn minute(now: UnixMillis) -> u16 {
    (now / MILLIS_PER_MINUTE) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn counts_logarithmically_and_decays() {
        let settings = Settings::default();
        let mut random = crate::random::Random::new(7);
        let mut moment = |now| Moment { now, settings: &settings, number: random.next() };
        let mut access = Lfu::admitted(&moment(0));
        for _ in 0..100_000 {
            access = Lfu::touched(access, &moment(0));
        }
        let count = frequency(access, &moment(0));
        // Redis documents 142 for a factor of 10 and 100,000 hits.
        assert!((125..=160).contains(&count), "{count}");
        assert_eq!(frequency(access, &moment(10 * MILLIS_PER_MINUTE)), count - 10);
        assert_eq!(frequency(access, &moment(1000 * MILLIS_PER_MINUTE)), 0);
        settings.set_lfu_decay_minutes(0);
        assert_eq!(
            Lfu::worth(access, None, &Moment { now: 1 << 40, settings: &settings, number: 0 }),
            u64::from(count)
        );
    }
}
