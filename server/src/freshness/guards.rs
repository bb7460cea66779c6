//! What keeps old values out, as switches: a test takes one away, and must then find old values.
//!
//! `DEBUG GUARD` is the only way to them, and there is no way to them without `--enable-debug-command`.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One of the things that keep old values out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Guard {
    /// A change takes the entry out at its owner.
    Drop,
    /// A fill must have seen the changes that are remembered for its key.
    Changes,
    /// What is not remembered any more asks for a newer load.
    Floor,
    /// A replica must have seen what was loaded before.
    Loads,
    /// All copies have let go of a key before the change is answered for, and before a newer value is seen.
    Copies,
    /// Copies of hot keys are gone before the change is answered for, and before a newer value is seen.
    TakeBacks,
    /// A change that somebody could not be told is told again.
    Retell,
    /// After a gap everything is called in.
    Gaps,
    /// Who has lost its lease answers nothing.
    Lease,
}

impl Guard {
    /// All of them.
    pub const ALL: [Guard; 9] = [
        Guard::Drop,
        Guard::Changes,
        Guard::Floor,
        Guard::Loads,
        Guard::Copies,
        Guard::TakeBacks,
        Guard::Retell,
        Guard::Gaps,
        Guard::Lease,
    ];

    /// What `DEBUG GUARD` calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Guard::Drop => "drop",
            Guard::Changes => "changes",
            Guard::Floor => "floor",
            Guard::Loads => "loads",
            Guard::Copies => "copies",
            Guard::TakeBacks => "take-backs",
            Guard::Retell => "retell",
            Guard::Gaps => "gaps",
            Guard::Lease => "lease",
        }
    }
}

/// Which guards are off; none, unless a test has asked for it.
#[derive(Debug, Default)]
pub struct Guards(AtomicU32);

impl Guards {
    /// Whether it is there.
    #[inline]
    pub fn has(&self, guard: Guard) -> bool {
        self.0.load(Relaxed) & (1 << guard as u32) == 0
    }

    /// Takes it away, or gives it back.
    pub fn set(&self, guard: Guard, is_there: bool) {
        match is_there {
            true => self.0.fetch_and(!(1 << guard as u32), Relaxed),
            false => self.0.fetch_or(1 << guard as u32, Relaxed),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_away_alone() {
        let guards = Guards::default();
        for guard in Guard::ALL {
            guards.set(guard, false);
            assert!(Guard::ALL.iter().all(|other| guards.has(*other) == (*other != guard)), "{guard:?}");
            guards.set(guard, true);
        }
        assert!(Guard::ALL.iter().all(|guard| guards.has(*guard)));
    }
}
