//! Least recently or least frequently used, whichever pays: the default.
//!
//! Two rules stand ready, and each is right where the other fails: by *frequency*, what was used the least often in the
//! last few dozen turnovers goes first, and a newcomer stays only if it has been used more often than the least worthy of
//! the others; by *recency*, what was used the longest ago goes first. Which of them is in force is settled by trial, see
//! [`trial`](super::trial). Both read the same four bytes, so that a change of the rule needs no rebuilding.
//!
//! The rule by frequency takes its parts from TinyLFU (G. Einziger et al., "TinyLFU: A Highly Efficient Cache Admission
//! Policy", ACM Transactions on Storage 13(4), 2017): uses that are halved from time to time, a small window before the
//! admission; but the counts are in the entries and, for a while, in what is left of those that went
//! ([`ghosts`](super::ghosts)), instead of in a sketch. And from 2Q (T. Johnson and D. Shasha, VLDB 1994): uses within the
//! window are one use, or a short burst would look like lasting interest.
//!
//! ```text
//! bits 31…7  the time of the last use, in ticks of 32 ms, which come round after 12 days
//!      6…1   uses, as they were at that time
//!      0     on probation
//! ```

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering::Relaxed};

use super::ghosts::Ghosts;
use super::{Algorithm, Moment};
use crate::UnixMillis;

pub(super) struct Lrfu;

impl Algorithm for Lrfu {
    fn admitted(moment: &Moment<'_>) -> u32 {
        Past::new(ticks(moment.now), 1, false).0
    }

    #[inline]
    fn touched(access: u32, moment: &Moment<'_>) -> u32 {
        let (past, now) = (Past(access), ticks(moment.now));
        if past.is_newcomer() {
            return Past::new(now, past.uses(), true).0;
        }
        let uses = past.uses_by(now, moment.settings.learned().half_life_bits());
        Past::new(now, MOST_USES.min(uses + 1), false).0
    }

    #[inline]
    fn worth(access: u32, _deadline: Option<UnixMillis>, moment: &Moment<'_>) -> u64 {
        worth_by(moment.settings.learned().rule(), access, moment)
    }

    /// The least time that it can be: what lies 12 days back seems new.
    fn idle_seconds(access: u32, now: UnixMillis) -> Option<u64> {
        Some((u64::from(Past(access).age(ticks(now))) << TICK_BITS) / 1000)
    }

    fn legacy(access: u32, moment: &Moment<'_>) -> u8 {
        Past(access).uses_by(ticks(moment.now), moment.settings.learned().half_life_bits()) as u8
    }

    fn arrived(legacy: u8, moment: &Moment<'_>) -> u32 {
        Past::new(ticks(moment.now), MOST_USES.min(u32::from(legacy) + 1), true).0
    }

    #[inline]
    fn is_on_probation(access: u32, since: UnixMillis, moment: &Moment<'_>) -> bool {
        let (past, now) = (Past(access), ticks(moment.now));
        past.is_newcomer()
            && moment.settings.learned().rule() == Rule::Frequency
            && past.age(now) <= now.wrapping_sub(ticks(since)) & TIME_MASK
    }

    fn settled(access: u32) -> u32 {
        access & !NEWCOMER
    }

    fn outranks(newcomer: u32, least_worthy: u32, moment: &Moment<'_>) -> bool {
        outranks_by(moment.settings.learned().rule(), newcomer, least_worthy, moment)
    }
}

/// What decides which entry goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The one used the least often, and of several the one used the longest ago.
    Frequency,
    /// The one used the longest ago.
    Recency,
}

#[inline]
pub(super) fn worth_by(rule: Rule, access: u32, moment: &Moment<'_>) -> u64 {
    let (past, now) = (Past(access), ticks(moment.now));
    let recency = u64::from(TIME_MASK - past.age(now));
    match rule {
        Rule::Frequency => {
            u64::from(past.uses_by(now, moment.settings.learned().half_life_bits())) << TIME_BITS | recency
        }
        Rule::Recency => recency,
    }
}

/// See [`Algorithm::outranks`].
pub(super) fn outranks_by(rule: Rule, newcomer: u32, least_worthy: u32, moment: &Moment<'_>) -> bool {
    let now = ticks(moment.now);
    let uses = |access| Past(access).uses_by(now, moment.settings.learned().half_life_bits());
    rule == Rule::Recency || uses(newcomer) > uses(least_worthy)
}

/// The metadata's parts.
#[derive(Clone, Copy)]
struct Past(u32);

const TICK_BITS: u32 = 5;
const TIME_BITS: u32 = 25;
const TIME_MASK: u32 = (1 << TIME_BITS) - 1;
const TIME_AT: u32 = u32::BITS - TIME_BITS;
const USES_AT: u32 = 1;
const MOST_USES: u32 = super::ghosts::MOST as u32;
const NEWCOMER: u32 = 1;
/// Ticks by which the clock may have been set back: 35 minutes. An entry that seems to be of the future by no more was used now.
const SET_BACK: u32 = 1 << 16;

impl Past {
    #[inline]
    fn new(time: u32, uses: u32, is_newcomer: bool) -> Self {
        Past(time << TIME_AT | uses << USES_AT | u32::from(is_newcomer))
    }

    #[inline]
    fn is_newcomer(self) -> bool {
        self.0 & NEWCOMER != 0
    }

    #[inline]
    fn uses(self) -> u32 {
        self.0 >> USES_AT & MOST_USES
    }

    /// Ticks since the last use.
    #[inline]
    fn age(self, now: u32) -> u32 {
        let age = now.wrapping_sub(self.0 >> TIME_AT) & TIME_MASK;
        if age > TIME_MASK - SET_BACK { 0 } else { age }
    }

    /// Uses as they have been halved by now: at every multiple of the half-life, as all are at once in TinyLFU.
    #[inline]
    fn uses_by(self, now: u32, half_life_bits: u32) -> u32 {
        let into_half_life = now & ((1 << half_life_bits) - 1);
        let halvings = (self.age(now) + (1 << half_life_bits) - 1 - into_half_life) >> half_life_bits;
        self.uses().checked_shr(halvings).unwrap_or(0)
    }
}

#[inline]
fn ticks(now: UnixMillis) -> u32 {
    (now >> TICK_BITS) as u32 & TIME_MASK
}

/// What is known of the requests, which all shards learn together. It is read at every use and changes rarely.
#[derive(Debug)]
pub(crate) struct Learned {
    /// log2 of the ticks after which past uses count half.
    half_life_bits: AtomicU8,
    /// The mean of the half-lives that shards would have, as [`log2`] of their ticks, or [`UNKNOWN`].
    half_life_mean: AtomicI32,
    by_recency: AtomicU8,
    lead: AtomicI32,
}

impl Learned {
    const SHORTEST: u32 = 2;
    /// 18 hours.
    const LONGEST: u32 = 21;
    /// Half-lives in which as many requests come as there are entries. Long, because only what is counted for long shows how
    /// often the entries are used that hardly stay; what changes faster is left to the rule by recency.
    const TURNOVERS: u64 = 64;
    /// How many reports of turnovers make a mean, about.
    const REPORTS: i32 = 16;
    /// How much of the lead is forgotten with each report.
    const FORGETTING: i32 = 16;
    /// The lead from which the other rule takes over: with the batches that a [`Trial`](super::Trial) reports, an advantage of
    /// about one request in a hundred.
    const DECISIVE: i32 = 40;

    #[inline]
    fn half_life_bits(&self) -> u32 {
        u32::from(self.half_life_bits.load(Relaxed))
    }

    /// Halves what is remembered of those that went, as it is halved of those that are there.
    pub(super) fn age(&self, ghosts: &mut Ghosts, now: UnixMillis) {
        ghosts.age(ticks(now), self.half_life_bits());
    }

    #[inline]
    pub(super) fn rule(&self) -> Rule {
        if self.by_recency.load(Relaxed) == 0 { Rule::Frequency } else { Rule::Recency }
    }

    /// Told how long it took until as many requests had come to a shard as it has entries. Shards with popular keys are several
    /// times as fast as others; so the half-life follows the mean of what is told, and only once that has clearly left the
    /// range of the present one, or it would change all the time, and with it what past uses count. Two that tell at once
    /// may lose one report.
    pub(super) fn note_turnover(&self, millis: u64) {
        let reported = log2((millis.saturating_mul(Self::TURNOVERS) >> TICK_BITS).max(1));
        let mean = match self.half_life_mean.load(Relaxed) {
            UNKNOWN => reported,
            mean => mean + (reported - mean) / Self::REPORTS,
        };
        self.half_life_mean.store(mean, Relaxed);
        let middle = ((self.half_life_bits() << LOG_BITS) + LOG_ONE as u32 / 2) as i32;
        if (mean - middle).abs() > LOG_ONE / 2 + LOG_ONE / 4 {
            self.half_life_bits.store(((mean >> LOG_BITS) as u32).clamp(Self::SHORTEST, Self::LONGEST) as u8, Relaxed);
        }
    }

    /// Told how many hits more the rule by frequency had in a batch of requests. Two that tell at once may lose one report.
    pub(super) fn note_trial(&self, more_by_frequency: i32) {
        let lead = self.lead.load(Relaxed);
        let lead = lead - lead / Self::FORGETTING + more_by_frequency;
        self.lead.store(lead, Relaxed);
        if lead.abs() >= Self::DECISIVE {
            self.by_recency.store(u8::from(lead < 0), Relaxed);
        }
    }
}

impl Default for Learned {
    /// By frequency, over some ten minutes, until something is known.
    fn default() -> Self {
        Learned {
            half_life_bits: AtomicU8::new(14),
            half_life_mean: AtomicI32::new(UNKNOWN),
            by_recency: AtomicU8::new(0),
            lead: AtomicI32::new(0),
        }
    }
}

/// No logarithm.
const UNKNOWN: i32 = -1;
const LOG_BITS: u32 = 8;
const LOG_ONE: i32 = 1 << LOG_BITS;

/// The logarithm with [`LOG_BITS`] bits behind the point, near enough: a straight line between powers of two.
fn log2(number: u64) -> i32 {
    let whole = number.ilog2();
    let fraction = (u128::from(number) << LOG_BITS >> whole) as i32 - LOG_ONE;
    whole as i32 * LOG_ONE + fraction
}

#[cfg(test)]
mod tests;
