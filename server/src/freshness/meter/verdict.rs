//! From what nodes have said to whether it is fresh.

use std::time::{Duration, Instant};

use super::Verdict;
use super::sight::{Held, Sight, Standing};

/// A copy that differs from its owner's entry is stale only if it was loaded so long before the change, in milliseconds.
const MARGIN: i64 = 10;

/// What a node has said, between these two moments by the clock of who asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    pub(super) sight: Sight,
}

/// An owner's entry must have been loaded by a snapshot that sees the change, or be the one that was known to be fresh before.
pub(super) fn of_owner(sight: Option<&Sight>, known_fresh: Option<u64>) -> Verdict {
    let Some(Sight { entry, .. }) = said_as(sight, Standing::Owner) else { return Verdict::Unknown };
    match entry {
        None | Some(Held { sees: Some(true), .. }) => Verdict::Fresh,
        Some(Held { sees: Some(false), .. }) => Verdict::Stale,
        Some(held) if is_known(held, known_fresh) => Verdict::Fresh,
        Some(_) => Verdict::Unknown,
    }
}

/// A copy is as good as the owner's entry if it is the same. `None` if it is another: what the owner tells its copies may be on its way.
pub(super) fn of_replica(
    sight: Option<&Sight>,
    owner: (Option<&Sight>, Verdict),
    known_fresh: Option<u64>,
) -> Option<Verdict> {
    let Some(Sight { entry, .. }) = said_as(sight, Standing::Replica) else { return Some(Verdict::Unknown) };
    let (Some(Sight { entry: of_owner, .. }), verdict) = (said_as(owner.0, Standing::Owner), owner.1) else {
        return Some(if entry.is_none() { Verdict::Fresh } else { Verdict::Unknown });
    };
    match (entry, of_owner) {
        (None, _) => Some(Verdict::Fresh),
        (Some(Held { identity: None, .. }), _) => Some(Verdict::Unknown),
        (Some(held), Some(of_owner)) if held.identity == of_owner.identity => Some(verdict),
        (Some(held), _) if is_known(held, known_fresh) => Some(Verdict::Fresh),
        (Some(_), Some(Held { identity: None, .. })) => Some(Verdict::Unknown),
        (Some(_), _) => None,
    }
}

/// A copy that was found to be another one than the owner's again and again.
pub(super) fn of_differing(sight: Option<&Sight>, owner: Option<&Sight>) -> Verdict {
    let filled_at = sight.and_then(|sight| sight.entry?.filled_at);
    match (filled_at, owner.and_then(|owner| owner.changed)) {
        (Some(filled_at), Some(changed)) if filled_at + MARGIN < changed.at => Verdict::Stale,
        _ => Verdict::Unknown,
    }
}

/// An answer that is kept for a hot key must have been made after its owner took the change in. `None` if there is none.
pub(super) fn of_copies(holder: &Answered, owner: Option<&Answered>, of_owner: Verdict) -> Option<Verdict> {
    let copies = holder.sight.copies?;
    let Some(owner) = owner.filter(|owner| owner.sight.standing == Standing::Owner) else {
        return Some(Verdict::Unknown);
    };
    // Microseconds before and after the owner was asked. What happened so long ago happened between two moments.
    let moment = |at: Instant| match at.checked_duration_since(owner.asked) {
        Some(after) => micros(after),
        None => -micros(owner.asked.duration_since(at)),
    };
    let earliest = |said: &Answered, ago: Duration| moment(said.asked) - micros(ago);
    let latest = |said: &Answered, ago: Duration| moment(said.answered) - micros(ago);
    let asked_after = |ago| earliest(holder, copies.asked) > latest(owner, ago);
    let shows_entry =
        owner.sight.entry.is_some_and(|entry| entry.sees == Some(true) && entry.loaded_ago.is_some_and(asked_after));
    Some(match owner.sight.changed {
        _ if shows_entry => Verdict::Fresh,
        Some(changed) if latest(holder, copies.came) < earliest(owner, changed.ago) => Verdict::Stale,
        Some(changed) if asked_after(changed.ago) => of_owner,
        _ => Verdict::Unknown,
    })
}

fn is_known(held: &Held, known_fresh: Option<u64>) -> bool {
    held.identity.is_some() && held.identity == known_fresh
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX / 4)
}

/// What a node has said, if it is what it was taken for.
fn said_as(sight: Option<&Sight>, standing: Standing) -> Option<&Sight> {
    sight.filter(|sight| sight.standing == standing)
}

#[cfg(test)]
mod tests {
    use super::super::sight::Taken;
    use super::*;
    use crate::hot::CopiesAge;

    const ID: Option<u64> = Some(7);

    fn held(sees: Option<bool>, identity: u64) -> Held {
        Held { sees, identity: Some(identity), ..Held::default() }
    }

    fn at_owner(entry: Option<Held>) -> Sight {
        Sight { standing: Standing::Owner, entry, ..Sight::default() }
    }

    fn at_replica(entry: Option<Held>) -> Sight {
        Sight { standing: Standing::Replica, entry, ..Sight::default() }
    }

    #[test]
    fn an_owner_is_judged_by_the_snapshot_of_what_it_has() {
        for (sight, expected) in [
            (Some(at_owner(None)), Verdict::Fresh),
            (Some(at_owner(Some(held(Some(true), 1)))), Verdict::Fresh),
            (Some(at_owner(Some(held(Some(false), 7)))), Verdict::Stale),
            (Some(at_owner(Some(held(None, 7)))), Verdict::Fresh),
            (Some(at_owner(Some(held(None, 8)))), Verdict::Unknown),
            (Some(at_owner(Some(Held::default()))), Verdict::Unknown),
            (Some(at_replica(None)), Verdict::Unknown),
            (None, Verdict::Unknown),
        ] {
            assert_eq!(of_owner(sight.as_ref(), ID), expected, "{sight:?}");
        }
        assert_eq!(of_owner(Some(&at_owner(Some(Held::default()))), None), Verdict::Unknown);
    }

    #[test]
    fn a_replica_is_judged_by_whether_it_has_what_the_owner_has() {
        let owner = at_owner(Some(held(Some(false), 1)));
        let stale = (Some(&owner), Verdict::Stale);
        let nothing = at_owner(None);
        let fresh = (Some(&nothing), Verdict::Fresh);
        for (entry, owner, expected) in [
            (None, stale, Some(Verdict::Fresh)),
            (None, (None, Verdict::Unknown), Some(Verdict::Fresh)),
            (Some(held(None, 1)), stale, Some(Verdict::Stale)),
            (Some(held(None, 1)), (None, Verdict::Unknown), Some(Verdict::Unknown)),
            (Some(held(None, 7)), fresh, Some(Verdict::Fresh)),
            (Some(Held::default()), fresh, Some(Verdict::Unknown)),
            (Some(held(None, 2)), fresh, None),
            (Some(held(None, 2)), stale, None),
        ] {
            assert_eq!(of_replica(Some(&at_replica(entry)), owner, ID), expected, "{entry:?} {owner:?}");
        }
        assert_eq!(of_replica(None, fresh, ID), Some(Verdict::Unknown));
        assert_eq!(of_replica(Some(&nothing), fresh, ID), Some(Verdict::Unknown));
    }

    #[test]
    fn a_copy_that_differs_is_stale_only_if_it_is_older_than_the_change() {
        let changed = Some(Taken { ago: Duration::from_millis(100), at: 1_000 });
        let owner = Sight { changed, ..at_owner(None) };
        let of = |filled_at| {
            let entry = Some(Held { filled_at, ..held(None, 2) });
            of_differing(Some(&at_replica(entry)), Some(&owner))
        };
        assert_eq!([of(Some(900)), of(Some(995)), of(Some(1_001)), of(None)], {
            use Verdict::{Stale, Unknown};
            [Stale, Unknown, Unknown, Unknown]
        });
        let old = at_replica(Some(Held { filled_at: Some(0), ..held(None, 2) }));
        assert_eq!(of_differing(Some(&old), Some(&at_owner(None))), Verdict::Unknown);
    }

    /// The owner was asked at 0 and has answered at 2 ms, the holder at 1 and 4 ms; the change was 100 ms before the owner's answer.
    #[test]
    fn a_kept_answer_is_judged_by_when_it_was_made() {
        let start = Instant::now();
        let millis = Duration::from_millis;
        let changed = Some(Taken { ago: millis(100), at: 0 });
        let of = |entry: Option<Held>, asked, came| {
            let owner =
                Answered { asked: start, answered: start + millis(2), sight: Sight { changed, ..at_owner(entry) } };
            let copies = Some(CopiesAge { asked: millis(asked), came: millis(came) });
            let sight = Sight { copies, ..Sight::default() };
            let holder = Answered { asked: start + millis(1), answered: start + millis(4), sight };
            of_copies(&holder, Some(&owner), Verdict::Fresh)
        };
        assert_eq!(of(None, 120, 105), Some(Verdict::Stale), "surely before");
        assert_eq!(of(None, 120, 103), Some(Verdict::Unknown), "perhaps after");
        assert_eq!(of(None, 100, 90), Some(Verdict::Unknown), "perhaps before");
        assert_eq!(of(None, 98, 90), Some(Verdict::Fresh), "surely after");
        let survived = Held { loaded_ago: Some(millis(500)), ..held(Some(true), 1) };
        assert_eq!(of(Some(survived), 200, 190), Some(Verdict::Fresh), "it shows what the change did not replace");
        assert_eq!(of(Some(Held { sees: Some(false), ..survived }), 200, 190), Some(Verdict::Stale));
        let none = Answered { asked: start, answered: start, sight: Sight::default() };
        assert_eq!(of_copies(&none, None, Verdict::Fresh), None);
    }
}
