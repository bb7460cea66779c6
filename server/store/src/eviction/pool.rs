//! The least worthy entries that a hand has passed lately.

use smallvec::SmallVec;

/// How many are remembered.
pub(super) const POOL: usize = 8;

/// The least worthy last.
#[derive(Default)]
pub(super) struct Pool(SmallVec<[Candidate; POOL]>);

/// An entry, to be found again by the hash of its key, and what it was worth when it was passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) hash: u64,
    pub(super) worth: u64,
    pub(super) slot: u16,
    pub(super) db: u16,
}

impl Pool {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the least worthy out.
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        self.0.pop()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Remembers an entry if it is among the least worthy. The hash of its key is worked out only then.
    #[inline]
    pub(super) fn consider(&mut self, worth: u64, db: u16, slot: usize, hash: impl FnOnce() -> u64) {
        if self.0.len() < POOL || self.0.first().is_some_and(|worthiest| worth < worthiest.worth) {
            self.offer(Candidate { hash: hash(), worth, slot: slot as u16, db });
        }
    }

    pub(super) fn offer(&mut self, candidate: Candidate) {
        let is_known = |other: &Candidate| other.hash == candidate.hash && other.db == candidate.db;
        if self.0.iter().any(is_known) {
            return;
        }
        if self.0.len() == POOL {
            self.0.remove(0);
        }
        let at = self.0.partition_point(|other| other.worth > candidate.worth);
        self.0.insert(at, candidate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn the_least_worthy_are_kept_with_the_very_least_first() {
        let mut pool = Pool::default();
        let mut random = Random::new(4);
        let mut worths: Vec<u64> = (0..200).map(|_| random.next() % 100_000).collect();
        for (hash, worth) in (0..).zip(&worths) {
            pool.consider(*worth, 0, 0, || hash);
            pool.consider(*worth, 0, 0, || hash);
        }
        worths.sort_unstable();
        worths.truncate(POOL);
        assert_eq!(std::iter::from_fn(|| pool.pop()).map(|candidate| candidate.worth).collect::<Vec<_>>(), worths);
    }
}
