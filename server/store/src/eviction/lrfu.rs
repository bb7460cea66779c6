//! Least recently and frequently used: every use adds to an entry's worth, and what it added halves with time.
//!
//! Source: D. Lee et al., "LRFU: A Spectrum of Policies that Subsumes the Least Recently Used and Least Frequently Used
//! Policies", IEEE Transactions on Computers 50(12), 2001. The sum over all uses of 2^(−age / half-life) orders
//! entries as its logarithm does, which written as a point in time, *half-life · log2(sum of 2^(use / half-life))*, does
//! not change while time passes. So the metadata is one such virtual time of use: an entry used once has the time of
//! that use, and one used often lies ahead of its last use by as much as its earlier uses are worth.

use super::{Algorithm, Moment, TICK_BITS, seconds_since, ticks};
use crate::UnixMillis;

pub(super) struct Lrfu;

/// In ticks. Uses much closer together than this count nearly in full, so the policy tells frequency; of those much
/// further apart only the last counts, so it tells recency.
const HALF_LIFE: u32 = 600_000 >> TICK_BITS;

impl Algorithm for Lrfu {
    fn admitted(moment: &Moment<'_>) -> u32 {
        ticks(moment.now)
    }

    #[inline]
    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        let now = ticks(moment.now);
        let ahead = access.wrapping_sub(now) as i32;
        let latest = if ahead > 0 { access } else { now };
        latest.wrapping_add(gain(ahead.unsigned_abs()))
    }

    fn worth(access: u32, _deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        let ahead = access.wrapping_sub(ticks(moment.now)) as i32;
        (i64::from(ahead) - i64::from(i32::MIN)) as u64
    }

    /// The least time that it can be: none for as long as the entry's past is worth more than its last use.
    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Some(seconds_since(access, now))
    }
}

/// What the lesser of two virtual times `apart` adds to the greater: half-life · log2(1 + 2^(−apart / half-life)).
#[inline]
fn gain(apart: u32) -> u32 {
    let halvings = f64::from(apart) / f64::from(HALF_LIFE);
    (f64::from(HALF_LIFE) * (-halvings).exp2().ln_1p() * std::f64::consts::LOG2_E) as u32
}
