//! The cap on loads that wait, and how many do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts the loads of all groups that wait for an answer, and refuses more than the cap.
#[derive(Debug)]
pub(crate) struct WaitingLoads {
    cap: usize,
    waiting: AtomicUsize,
    refused: AtomicU64,
}

/// One load that waits, counted until it is dropped, in its group as well.
#[derive(Debug)]
pub(crate) struct Waiting {
    all: Arc<WaitingLoads>,
    of_group: Arc<AtomicUsize>,
}

impl WaitingLoads {
    pub(crate) fn new(cap: usize) -> Self {
        WaitingLoads { cap, waiting: AtomicUsize::new(0), refused: AtomicU64::new(0) }
    }

    /// Counts one more, or refuses it.
    pub(crate) fn enter(self: &Arc<Self>, of_group: &Arc<AtomicUsize>) -> Option<Waiting> {
        let below_cap = |waiting: usize| (waiting < self.cap).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, below_cap).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        of_group.fetch_add(1, Ordering::Relaxed);
        Some(Waiting { all: Arc::clone(self), of_group: Arc::clone(of_group) })
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }

    pub(crate) fn now(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.waiting.fetch_sub(1, Ordering::Relaxed);
        self.of_group.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_cap_are_refused_until_one_leaves() {
        let (all, of_group) = (Arc::new(WaitingLoads::new(2)), Arc::new(AtomicUsize::new(0)));
        let first = all.enter(&of_group).unwrap();
        let _second = all.enter(&of_group).unwrap();
        assert!(all.enter(&of_group).is_none());
        drop(first);
        assert_eq!((all.now(), of_group.load(Ordering::Relaxed), all.refused()), (1, 1, 1));
        assert!(all.enter(&of_group).is_some());
    }
}
