//! Ranges of positions as clients give them: both ends included, negative ones counted from the end.

use std::ops::Range;

use super::call::Call;
use super::error::CommandError;

/// A range as it was given; [`IndexRange::within`] a length it becomes one of positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexRange {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl IndexRange {
    /// Reads the argument `at` and the next one.
    ///
    /// # Errors
    /// When one of them is no integer.
    pub(super) fn parse(call: &Call<'_>, at: usize) -> Result<IndexRange, CommandError> {
        Ok(IndexRange { start: call.integer(at)?, end: call.integer(at + 1)? })
    }

    /// Both ends are counted from the end, the later one first. Strings call that empty whatever their length, while
    /// clamping could make it the first position.
    pub(super) fn is_reversed_from_the_end(self) -> bool {
        self.start < 0 && self.end < 0 && self.start > self.end
    }

    /// The positions that the range covers of `len`; `None` if there are none.
    pub(super) fn within(self, len: usize) -> Option<Range<usize>> {
        let start = from_the_front(self.start, len);
        let past_end = from_the_front(self.end, len).saturating_add(1).min(len);
        (start < past_end).then_some(start..past_end)
    }
}

/// A position counted from the front. What lies before the front is moved there.
fn from_the_front(position: i64, len: usize) -> usize {
    match usize::try_from(position) {
        Ok(position) => position,
        Err(_) => len.saturating_sub(usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(start: i64, end: i64, len: usize) -> Option<Range<usize>> {
        IndexRange { start, end }.within(len)
    }

    #[test]
    fn ends_are_included_and_clamped() {
        assert_eq!(within(0, -1, 5), Some(0..5));
        assert_eq!(within(1, 3, 5), Some(1..4));
        assert_eq!(within(-3, -2, 5), Some(2..4));
        assert_eq!(within(-100, 100, 5), Some(0..5));
        assert_eq!(within(i64::MIN, i64::MAX, 5), Some(0..5));
        assert_eq!(within(-20, -10, 5), Some(0..1));
    }

    #[test]
    fn empty_ranges_are_told() {
        assert_eq!(within(0, -1, 0), None);
        assert_eq!(within(3, 2, 5), None);
        assert_eq!(within(5, 9, 5), None);
        assert_eq!(within(-1, -3, 5), None);
    }

    #[test]
    fn only_two_ends_from_the_end_can_be_reversed_there() {
        let reversed = |start, end| IndexRange { start, end }.is_reversed_from_the_end();
        assert!(reversed(-1, -2));
        assert!(!reversed(-2, -1) && !reversed(-1, -1) && !reversed(1, -1) && !reversed(-1, 0));
    }
}
