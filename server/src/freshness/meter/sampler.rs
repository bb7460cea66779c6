//! Which changes are looked at: of those of each short period some, each as likely as any other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_origin::Xid;

/// Changes of so long are drawn from together. Not longer than the first look is away.
pub(super) const PERIOD: Duration = Duration::from_millis(100);

/// A key that a transaction has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    pub(super) key: Bytes,
    pub(super) xid: Xid,
    /// When the keeper learnt of it.
    pub(super) known: Instant,
}

/// Draws from one period after the other.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    drawn: Vec<Drawn>,
    /// How many there are to be drawn from, in this period so far.
    offered: u64,
    /// How many may be drawn in this period, parts of one included.
    allowance: f64,
}

impl Sampler {
    /// A change of the present period. Of as many as there is room for all are drawn, and then any one has the same chance (Vitter's
    /// algorithm R, "Random Sampling with a Reservoir", 1985).
    pub(super) fn offer(&mut self, key: &Bytes, xid: Xid, known: Instant, random: &mut dyn FnMut() -> u64) {
        let room = self.allowance as usize;
        if room == 0 {
            return;
        }
        self.offered += 1;
        // What came with its key may be part of much more.
        let drawn = || Drawn { key: Bytes::copy_from_slice(key), xid, known };
        if self.drawn.len() < room {
            self.drawn.push(drawn());
            return;
        }
        let place = random() % self.offered;
        if let Some(place) = usize::try_from(place).ok().and_then(|place| self.drawn.get_mut(place)) {
            *place = drawn();
        }
    }

    /// Ends a period. In those that follow as many may be drawn as make `rate` a second; of what is not used at most one is saved up.
    pub(super) fn end_period(&mut self, rate: u64) -> Vec<Drawn> {
        let share = rate as f64 * PERIOD.as_secs_f64();
        self.allowance = (self.allowance - self.drawn.len() as f64 + share).clamp(0.0, share + 1.0);
        if rate == 0 {
            self.allowance = 0.0;
        }
        self.offered = 0;
        std::mem::take(&mut self.drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers so many in each of so many periods, and counts what was drawn.
    fn draw(rate: u64, periods: usize, offers: u64) -> Vec<usize> {
        let (mut sampler, now, mut number) = (Sampler::default(), Instant::now(), 0u64);
        let mut random = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            number >> 33
        };
        sampler.end_period(rate);
        (0..periods)
            .map(|_| {
                (0..offers).for_each(|xid| sampler.offer(&Bytes::from_static(b"k"), Xid(xid), now, &mut random));
                sampler.end_period(rate).len()
            })
            .collect()
    }

    #[test]
    fn there_are_as_many_as_are_asked_for_and_no_more() {
        for rate in [1, 3, 7, 20, 1000] {
            let drawn: usize = draw(rate, 100, 5000).iter().sum();
            assert!(drawn as u64 <= 10 * rate + 1 && drawn as u64 + 1 >= 10 * rate, "{drawn} in ten seconds of {rate}");
        }
        assert_eq!(draw(0, 10, 100).iter().sum::<usize>(), 0);
        assert_eq!(draw(1000, 10, 3), [3; 10], "all, if there are few");
        assert!(draw(20, 50, 1000).iter().all(|drawn| *drawn <= 2), "no period has more than its share");
    }

    #[test]
    fn each_change_of_a_period_is_as_likely_as_any_other() {
        let (mut sampler, now, mut number) = (Sampler::default(), Instant::now(), 7u64);
        let mut random = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            number >> 33
        };
        let mut counts = [0u32; 10];
        sampler.end_period(20);
        for _ in 0..10_000 {
            (0..10).for_each(|xid| sampler.offer(&Bytes::from_static(b"k"), Xid(xid), now, &mut random));
            for drawn in sampler.end_period(20) {
                counts[drawn.xid.0 as usize] += 1;
            }
        }
        // Of 20,000 draws 2,000 each; the standard deviation is some 40.
        assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
    }
}
