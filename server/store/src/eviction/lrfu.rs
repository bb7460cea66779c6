//! Least recently and frequently used: every use adds to an entry's worth, and what it added halves with time.
//!
//! Source: D. Lee et al., "LRFU: A Spectrum of Policies that Subsumes the Least Recently Used and Least Frequently Used
//! Policies", IEEE Transactions on Computers 50(12), 2001. The sum over all uses of 2^(−age / half-life) orders
//! entries as its logarithm does, which written as a point in time, *half-life · log2(sum of 2^(use / half-life))*, does
//! not change while time passes. So the metadata is one such virtual time of use: an entry used once has the time of
//! that use, and one used often lies ahead of its last use by as much as its earlier uses are worth.
//!
//! The half-life is what sets it between LRU (very short) and LFU (very long). It is learned: a small multiple of how
//! long entries last that are not used again, so frequency counts over a few turnovers of the cache, whatever its
//! size and load.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::{Algorithm, Moment, TICK_BITS, seconds_since, ticks, ticks_since};
use crate::UnixMillis;

pub(super) struct Lrfu;

impl Algorithm for Lrfu {
    fn admitted(moment: &Moment<'_>) -> u32 {
        ticks(moment.now)
    }

    #[inline]
    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        let now = ticks(moment.now);
        let ahead = access.wrapping_sub(now) as i32;
        let latest = if ahead > 0 { access } else { now };
        latest.wrapping_add(gain(ahead.unsigned_abs(), moment.settings.lrfu_half_life().ticks()))
    }

    fn worth(access: u32, _deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        let ahead = access.wrapping_sub(ticks(moment.now)) as i32;
        (i64::from(ahead) - i64::from(i32::MIN)) as u64
    }

    fn evicted(access: u32, moment: &Moment<'_>) {
        moment.settings.lrfu_half_life().learn(ticks_since(access, moment.now));
    }

    /// The least time that it can be: none for as long as the entry's past is worth more than its last use.
    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Some(seconds_since(access, now))
    }
}

/// What the lesser of two virtual times `apart` adds to the greater: half-life · log2(1 + 2^(−apart / half-life)).
#[inline]
fn gain(apart: u32, half_life: u32) -> u32 {
    let half_life = f64::from(half_life);
    let halvings = f64::from(apart) / half_life;
    (half_life * (-halvings).exp2().ln_1p() * std::f64::consts::LOG2_E) as u32
}

/// The half-life, in ticks.
#[derive(Debug)]
pub(crate) struct HalfLife(AtomicU32);

impl HalfLife {
    const SHORTEST: u32 = 1_000 >> TICK_BITS;
    const LONGEST: u32 = 86_400_000 >> TICK_BITS;
    /// Half-lives for each time that an entry lasts which is not used again. Measured with 100,000 keys, room for a tenth
    /// of them and Zipf's law (exponent 0.9); hit ratios in per cent, `shift` with other keys popular every 100,000 reads:
    ///
    /// |       | LRU  | LFU  | 1    | 3    | 6    |
    /// |-------|------|------|------|------|------|
    /// | fixed | 60.4 | 66.2 | 62.8 | 65.0 | 66.4 |
    /// | shift | 58.7 | 53.1 | 59.3 | 58.2 | 56.7 |
    const PER_LIFETIME: u32 = 6;
    /// log2 of the number of evictions that it takes to learn most of a change.
    const INERTIA_BITS: u32 = 8;

    #[inline]
    fn ticks(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Moves towards what an evicted entry's lifetime suggests. Two that learn at once may lose one lesson.
    fn learn(&self, lifetime: u32) {
        let suggested = lifetime.saturating_mul(Self::PER_LIFETIME).clamp(Self::SHORTEST, Self::LONGEST);
        let known = self.ticks();
        let step = (i64::from(suggested) - i64::from(known)) >> Self::INERTIA_BITS;
        self.0.store((i64::from(known) + step) as u32, Relaxed);
    }
}

impl Default for HalfLife {
    /// Ten minutes, until something is known.
    fn default() -> Self {
        HalfLife(AtomicU32::new(600_000 >> TICK_BITS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    const START: UnixMillis = 1_000_000_000;

    #[test]
    fn the_virtual_time_is_the_logarithm_of_the_sum() {
        let settings = Settings::default();
        let half_life = 600_000.0;
        let uses = [0, 0, 100_000, 600_000, 2_400_000, 2_400_016];
        let mut access = Lrfu::admitted(&Moment { now: START, settings: &settings, draw: 0 });
        for used_at in &uses[1..] {
            access = Lrfu::touched(access, &Moment { now: START + used_at, settings: &settings, draw: 0 });
        }
        let sum: f64 = uses.iter().map(|used_at| (*used_at as f64 / half_life).exp2()).sum();
        let expected = half_life * sum.log2() / 16.0;
        let found = f64::from(access.wrapping_sub(ticks(START)));
        assert!((found - expected).abs() < uses.len() as f64 + 1.0, "{found} ticks, not {expected}");
    }

    #[test]
    fn the_half_life_follows_how_long_entries_last() {
        let half_life = HalfLife::default();
        for lifetime in [100u32, 500_000] {
            (0..5_000).for_each(|_| half_life.learn(lifetime));
            let (learned, aim) = (half_life.ticks(), lifetime * HalfLife::PER_LIFETIME);
            assert!(learned.abs_diff(aim) <= 256, "{learned}, not {aim}");
        }
        (0..10_000).for_each(|_| half_life.learn(0));
        assert!(half_life.ticks() <= HalfLife::SHORTEST + 256);
    }
}
