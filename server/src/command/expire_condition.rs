//! The options of EXPIRE and its relatives: when a new deadline may take the place of the current one.

use forebay_store::UnixMillis;

use super::call::Call;
use super::error::CommandError;

bitflags::bitflags! {
    /// What has to hold; several may be asked for, with some restrictions.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct ExpireCondition: u8 {
        /// There is no deadline yet.
        const NX = 1 << 0;
        /// There is one.
        const XX = 1 << 1;
        /// The new one is later.
        const GT = 1 << 2;
        /// The new one is earlier.
        const LT = 1 << 3;
    }
}

impl ExpireCondition {
    /// Reads the arguments from `first` on.
    pub(super) fn parse(call: &Call<'_>, first: usize) -> Result<ExpireCondition, CommandError> {
        let mut conditions = ExpireCondition::empty();
        for at in first..call.args.len() {
            conditions |= ExpireCondition::named(call, at)?;
        }
        conditions.check()?;
        Ok(conditions)
    }

    /// Whether `deadline` may take the place of `current`, no deadline being later than any.
    pub(super) fn admits(self, deadline: UnixMillis, current: Option<UnixMillis>) -> bool {
        let holds = |condition| match condition {
            ExpireCondition::NX => current.is_none(),
            ExpireCondition::XX => current.is_some(),
            ExpireCondition::GT => current.is_some_and(|current| deadline > current),
            _ => current.is_none_or(|current| deadline < current),
        };
        self.iter().all(holds)
    }

    fn named(call: &Call<'_>, at: usize) -> Result<ExpireCondition, CommandError> {
        let mut conditions = ExpireCondition::all().iter_names();
        let named = conditions.find(|(name, _)| call.is(at, name)).map(|(_, condition)| condition);
        named.ok_or_else(|| CommandError::from(format!("ERR Unsupported option {}", call.text(at))))
    }

    fn check(self) -> Result<(), CommandError> {
        let (nx, others) = (ExpireCondition::NX, ExpireCondition::all() - ExpireCondition::NX);
        if self.contains(nx) && self.intersects(others) {
            return Err(CommandError::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if self.contains(ExpireCondition::GT | ExpireCondition::LT) {
            return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_deadline_is_later_than_any() {
        for (condition, without, later, earlier) in [
            (ExpireCondition::empty(), true, true, true),
            (ExpireCondition::NX, true, false, false),
            (ExpireCondition::XX, false, true, true),
            (ExpireCondition::GT, false, true, false),
            (ExpireCondition::LT, true, false, true),
            (ExpireCondition::XX | ExpireCondition::LT, false, false, true),
            (ExpireCondition::XX | ExpireCondition::GT, false, true, false),
        ] {
            assert_eq!(condition.admits(100, None), without, "{condition:?}");
            assert_eq!(condition.admits(101, Some(100)), later, "{condition:?}");
            assert_eq!(condition.admits(99, Some(100)), earlier, "{condition:?}");
        }
        assert!(!ExpireCondition::GT.admits(100, Some(100)) && !ExpireCondition::LT.admits(100, Some(100)));
    }

    #[test]
    fn what_goes_together() {
        for (conditions, together) in [
            (ExpireCondition::XX | ExpireCondition::GT, true),
            (ExpireCondition::XX | ExpireCondition::LT, true),
            (ExpireCondition::NX | ExpireCondition::XX, false),
            (ExpireCondition::NX | ExpireCondition::GT, false),
            (ExpireCondition::NX | ExpireCondition::LT, false),
            (ExpireCondition::GT | ExpireCondition::LT, false),
            (ExpireCondition::all(), false),
        ] {
            assert_eq!(conditions.check().is_ok(), together, "{conditions:?}");
        }
    }
}
