//! A gap that is not over yet.
//!
//! What ran when a feed began may have written what the feed does not tell of, and is not visible before it ends. So the gap is told of once
//! more when all of it has ended.

use std::sync::Arc;

use super::change::{FeedMemory, Gap};
use crate::snapshot::{Snapshot, Xid};

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settling {
    running: Vec<Xid>,
    groups: Vec<Arc<str>>,
}

impl Settling {
    /// The first event of a gap, and what is to be waited for, if anything ran.
    pub(super) fn begin(
        groups: Vec<Arc<str>>,
        after: Snapshot,
        reason: String,
        memory: &FeedMemory,
    ) -> (Gap, Option<Settling>) {
        let running = after.in_progress().to_vec();
        let settling = (!running.is_empty()).then(|| Settling { running, groups: groups.clone() });
        let memory = settling.is_none().then(|| memory.clone());
        (Gap { groups, after: Some(after), reason, memory }, settling)
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
    pub(super) fn end(settling: &mut Option<Settling>, now: &Snapshot, memory: &FeedMemory) -> Option<Gap> {
        let is_over = |settling: &mut Settling| settling.running.iter().all(|xid| now.sees(*xid));
        let Settling { groups, .. } = settling.take_if(is_over)?;
        let reason = "transactions have ended that ran when the feed began".to_owned();
        Some(Gap { groups, after: Some(now.clone()), reason, memory: Some(memory.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(snapshot: &str, group: &str) -> (Gap, Option<Settling>) {
        Settling::begin(vec![group.into()], snapshot.parse().unwrap(), "x".into(), &FeedMemory::default())
    }

    fn end(settling: &mut Option<Settling>, snapshot: &str) -> Option<Gap> {
        Settling::end(settling, &snapshot.parse().unwrap(), &FeedMemory::default())
    }

    #[test]
    fn a_gap_is_remembered_only_when_all_that_ran_has_ended() {
        let (gap, settling) = begin("10:10:", "a");
        assert!(gap.memory.is_some() && settling.is_none());
        let (gap, earlier) = begin("10:20:10,15", "b");
        let (_, later) = begin("15:25:15,22", "a");
        assert!(gap.memory.is_none());
        let mut settling = Settling::joined(earlier, later);
        for early in ["10:30:10,22", "15:30:15", "22:30:22"] {
            assert_eq!(end(&mut settling, early), None, "{early}");
        }
        let gap = end(&mut settling, "23:30:24").unwrap();
        assert!(gap.memory.is_some() && gap.groups == ["a".into(), "b".into()]);
        assert_eq!(end(&mut settling, "40:40:"), None, "it is told of once");
    }
}
