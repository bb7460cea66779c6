//! A gap that is not over yet.
//!
//! What ran when a feed began may have written what the feed does not tell of, and is not visible before it ends. So the gap is told of once
//! more when all of it has ended.

use std::sync::Arc;

use super::change::Gap;
use crate::snapshot::{Snapshot, Xid};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settling {
    running: Vec<Xid>,
    groups: Vec<Arc<str>>,
}

impl Settling {
    /// What is to be waited for behind the first event of a gap, if anything ran.
    pub(super) fn begin(after: &Snapshot, groups: &[Arc<str>]) -> Option<Settling> {
        let running = after.in_progress().to_vec();
        (!running.is_empty()).then(|| Settling { running, groups: groups.to_vec() })
    }

    /// Waits for both.
    pub(super) fn joined(earlier: Option<Settling>, later: Option<Settling>) -> Option<Settling> {
        let (Some(mut earlier), Some(later)) = (earlier.clone(), later.clone()) else {
            return earlier.or(later);
        };
        earlier.running.extend(later.running);
        earlier.groups.extend(later.groups);
        earlier.groups.sort();
        earlier.groups.dedup();
        Some(earlier)
    }

    /// The last event of the gap, once `now` sees all that is waited for.
    pub(super) fn end(settling: &mut Option<Settling>, now: Snapshot) -> Option<Gap> {
        let is_over = |settling: &mut Settling| settling.running.iter().all(|xid| now.sees(*xid));
        let Settling { groups, .. } = settling.take_if(is_over)?;
        let reason = "transactions have ended that ran when the feed began".to_owned();
        Some(Gap { groups, after: Some(now), reason, memory: None, position: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(snapshot: &str, group: &str) -> Option<Settling> {
        Settling::begin(&snapshot.parse().unwrap(), &[group.into()])
    }

    fn end(settling: &mut Option<Settling>, snapshot: &str) -> Option<Gap> {
        Settling::end(settling, snapshot.parse().unwrap())
    }

    #[test]
    fn a_gap_is_over_only_when_all_that_ran_has_ended() {
        assert_eq!(begin("10:10:", "a"), None);
        let mut settling = Settling::joined(begin("10:20:10,15", "b"), begin("15:25:15,22", "a"));
        for early in ["10:30:10,22", "15:30:15", "22:30:22"] {
            assert_eq!(end(&mut settling, early), None, "{early}");
        }
        let gap = end(&mut settling, "23:30:24").unwrap();
        assert_eq!(gap.groups, ["a".into(), "b".into()]);
        assert_eq!(end(&mut settling, "40:40:"), None, "it is told of once");
    }
}
