//! Up to where the server may forget.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::feed::change::Position;

/// The most positions whose age is remembered; of the others the age is that of one before them.
const MAX_AGES: usize = 1024;

/// Which positions were told of, and which of them everybody has dealt with.
///
/// **Invariant.** *No position is reported beyond a change that was told of and not confirmed.* What changes no key needs nobody's
/// confirmation: it is passed as soon as all before it is confirmed.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The last position that has to be confirmed.
    told: Position,
    /// The end of the last thing that changed no key.
    passed: Position,
    confirmed: Position,
    ages: VecDeque<(Position, Instant)>,
}

impl Progress {
    /// From where the slot was confirmed.
    pub(super) fn from(confirmed: Position) -> Self {
        Progress { told: confirmed, confirmed, ..Progress::default() }
    }

    pub(super) fn tell(&mut self, position: Position, now: Instant) {
        // What was passed so far stays passed: the server is never told less than before.
        self.confirmed = self.reported();
        self.told = self.told.max(position);
        if self.ages.len() < MAX_AGES {
            self.ages.push_back((position, now));
        }
    }

    pub(super) fn pass(&mut self, position: Position) {
        self.passed = self.passed.max(position);
    }

    pub(super) fn confirm(&mut self, position: Position) {
        // Nobody can have dealt with what was not told of.
        self.confirmed = self.confirmed.max(position.min(self.told));
        while self.ages.front().is_some_and(|(told, _)| *told <= self.confirmed) {
            self.ages.pop_front();
        }
    }

    /// What the server is told: it need not keep what lies before.
    pub(super) fn reported(&self) -> Position {
        if self.confirmed >= self.told { self.confirmed.max(self.passed) } else { self.confirmed }
    }

    /// Up to where was read.
    pub(super) fn read(&self) -> Position {
        self.told.max(self.passed)
    }

    /// For how long the oldest change that is not confirmed was told of.
    pub(super) fn unconfirmed_for(&self, now: Instant) -> Duration {
        self.ages.front().map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_changes_nothing_is_passed_once_all_before_it_is_confirmed() {
        let now = Instant::now();
        let mut progress = Progress::from(Position::new(10));
        progress.pass(Position::new(20));
        assert_eq!(progress.reported(), Position::new(20));
        progress.tell(Position::new(30), now);
        progress.pass(Position::new(40));
        assert_eq!((progress.reported(), progress.read()), (Position::new(20), Position::new(40)));
        assert_eq!(progress.unconfirmed_for(now + Duration::from_secs(3)), Duration::from_secs(3));
        progress.confirm(Position::new(30));
        assert_eq!(progress.reported(), Position::new(40));
        assert_eq!(progress.unconfirmed_for(now + Duration::from_secs(3)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn nothing_is_reported_beyond_what_is_not_confirmed(steps in prop::collection::vec((0_u8..3, 1_u64..5), 0..60)) {
            let mut progress = Progress::from(Position::new(1));
            let (mut at, mut open, mut reported) = (1, std::collections::BTreeSet::new(), Position::new(1));
            for (step, by) in steps {
                match step {
                    0 => {
                        at += by;
                        open.insert(at);
                        progress.tell(Position::new(at), Instant::now());
                    }
                    1 => {
                        at += by;
                        progress.pass(Position::new(at));
                    }
                    _ => {
                        // Confirmations may be of any place, even of one that was never told of.
                        let place = at / by;
                        open.retain(|told| *told > place);
                        progress.confirm(Position::new(place));
                    }
                }
                if let Some(first) = open.first() {
                    prop_assert!(progress.reported().at() < *first, "{:?} with {} open", progress, first);
                }
                prop_assert!(progress.reported() >= reported && progress.reported().at() <= at);
                reported = progress.reported();
                if open.is_empty() {
                    prop_assert_eq!(progress.reported(), progress.read());
                }
            }
        }
    }
}
