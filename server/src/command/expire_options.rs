//! How commands say when a key expires: `EX 10`, `PXAT 1700000000000`, `KEEPTTL`, `PERSIST`.

use forebay_store::{UnixMillis, parse_integer};

use super::error::CommandError;

/// How a number tells a time: in which unit, and from when it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeForm {
    unit: Unit,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Now,
    Epoch,
}

impl TimeForm {
    pub(super) const SECONDS: TimeForm = TimeForm { unit: Unit::Seconds, origin: Origin::Now };
    pub(super) const MILLISECONDS: TimeForm = TimeForm { unit: Unit::Milliseconds, origin: Origin::Now };
    pub(super) const UNIX_SECONDS: TimeForm = TimeForm { unit: Unit::Seconds, origin: Origin::Epoch };
    pub(super) const UNIX_MILLISECONDS: TimeForm = TimeForm { unit: Unit::Milliseconds, origin: Origin::Epoch };

    const WORDS: [(&'static str, TimeForm); 4] = [
        ("EX", TimeForm::SECONDS),
        ("PX", TimeForm::MILLISECONDS),
        ("EXAT", TimeForm::UNIX_SECONDS),
        ("PXAT", TimeForm::UNIX_MILLISECONDS),
    ];

    /// The form that an option names, in any case.
    fn named(word: &[u8]) -> Option<TimeForm> {
        let named = |(name, _): &&(&str, TimeForm)| word.eq_ignore_ascii_case(name.as_bytes());
        TimeForm::WORDS.iter().find(named).map(|(_, form)| *form)
    }

    /// The deadline that `amount` tells at the time `now`; `None` if no 64-bit number of milliseconds does.
    pub(super) fn deadline(self, amount: i64, now: UnixMillis) -> Option<UnixMillis> {
        let millis = match self.unit {
            Unit::Seconds => amount.checked_mul(1000)?,
            Unit::Milliseconds => amount,
        };
        match self.origin {
            Origin::Now => now.checked_add(millis),
            Origin::Epoch => Some(millis),
        }
    }

    /// The number that tells a deadline at the time `now`. Of time that is left there is no less than none; seconds are
    /// rounded, half of one upwards.
    pub(super) fn amount(self, deadline: UnixMillis, now: UnixMillis) -> i64 {
        let millis = match self.origin {
            Origin::Now => deadline.saturating_sub(now).max(0),
            Origin::Epoch => deadline,
        };
        match self.unit {
            Unit::Seconds => millis.saturating_add(500) / 1000,
            Unit::Milliseconds => millis,
        }
    }
}

/// A time as a request gives it, read only when its turn in the order of faults comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpireTime<'c> {
    pub(super) form: TimeForm,
    pub(super) amount: &'c [u8],
}

impl ExpireTime<'_> {
    /// The deadline, for a command that takes positive times alone; it may have passed already.
    ///
    /// # Errors
    /// When the amount is no integer, not positive, or too large; the latter two name the command.
    pub(super) fn deadline(self, now: UnixMillis, command: &'static str) -> Result<UnixMillis, CommandError> {
        let amount = parse_integer(self.amount).ok_or(CommandError::NotAnInteger)?;
        Some(amount)
            .filter(|amount| *amount > 0)
            .and_then(|amount| self.form.deadline(amount, now))
            .ok_or(CommandError::InvalidExpire(command))
    }

    /// Whether it counts from now on, so that it cannot have passed.
    pub(super) fn is_relative(self) -> bool {
        self.form.origin == Origin::Now
    }
}

/// What the options say about a key's deadline. Each form excludes the others; repeating one is allowed, and its last
/// amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lifetime<'c> {
    /// Nothing.
    Unsaid,
    /// `KEEPTTL`.
    Keep,
    /// `PERSIST`.
    Persist,
    Until(ExpireTime<'c>),
}

impl<'c> Lifetime<'c> {
    /// What `word`, with the argument behind it, says after the options before it have said `self`; and how many
    /// arguments that takes. `None` if it is none of these words or contradicts the earlier ones.
    pub(super) fn then(self, word: &[u8], next: Option<&'c [u8]>) -> Option<(Lifetime<'c>, usize)> {
        let (said, taken) = match (TimeForm::named(word), next) {
            (Some(form), Some(amount)) => (Lifetime::Until(ExpireTime { form, amount }), 2),
            (Some(_), None) => return None,
            (None, _) if word.eq_ignore_ascii_case(b"KEEPTTL") => (Lifetime::Keep, 1),
            (None, _) if word.eq_ignore_ascii_case(b"PERSIST") => (Lifetime::Persist, 1),
            (None, _) => return None,
        };
        self.admits(said).then_some((said, taken))
    }

    fn admits(self, next: Lifetime<'_>) -> bool {
        match (self, next) {
            (Lifetime::Unsaid, _) => true,
            (Lifetime::Until(before), Lifetime::Until(next)) => before.form == next.form,
            (before, next) => before == next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_700_000_000_000;

    fn read<'c>(words: &[&'c [u8]]) -> Option<Lifetime<'c>> {
        let mut lifetime = Lifetime::Unsaid;
        let mut at = 0;
        while at < words.len() {
            let (said, taken) = lifetime.then(words[at], words.get(at + 1).copied())?;
            lifetime = said;
            at += taken;
        }
        Some(lifetime)
    }

    #[test]
    fn forms_exclude_one_another_but_may_repeat() {
        let until = |form, amount| Some(Lifetime::Until(ExpireTime { form, amount }));
        assert_eq!(read(&[]), Some(Lifetime::Unsaid));
        assert_eq!(read(&[b"ex", b"1", b"EX", b"2"]), until(TimeForm::SECONDS, b"2"));
        assert_eq!(read(&[b"PxAt", b"7"]), until(TimeForm::UNIX_MILLISECONDS, b"7"));
        assert_eq!(read(&[b"keepttl", b"KEEPTTL"]), Some(Lifetime::Keep));
        assert_eq!(read(&[b"PERSIST"]), Some(Lifetime::Persist));
        let faults: [&[&[u8]]; 5] = [
            &[b"EX"],
            &[b"EX", b"1", b"PX", b"1"],
            &[b"KEEPTTL", b"EX", b"1"],
            &[b"EXAT", b"1", b"PERSIST"],
            &[b"EXX"],
        ];
        for fault in faults {
            assert_eq!(read(fault), None);
        }
    }

    #[test]
    fn deadlines_are_positive_and_fit() {
        let deadline = |form, amount: &[u8]| ExpireTime { form, amount }.deadline(NOW, "set").ok();
        assert_eq!(deadline(TimeForm::SECONDS, b"10"), Some(NOW + 10_000));
        assert_eq!(deadline(TimeForm::MILLISECONDS, b"10"), Some(NOW + 10));
        assert_eq!(deadline(TimeForm::UNIX_SECONDS, b"10"), Some(10_000));
        assert_eq!(deadline(TimeForm::UNIX_MILLISECONDS, b"9223372036854775807"), Some(i64::MAX));
        for (form, amount) in [
            (TimeForm::SECONDS, "0"),
            (TimeForm::SECONDS, "-1"),
            (TimeForm::SECONDS, "9223372036854775807"),
            (TimeForm::MILLISECONDS, "9223372036854775807"),
            (TimeForm::UNIX_SECONDS, "9223372036854776"),
        ] {
            let fault = ExpireTime { form, amount: amount.as_bytes() }.deadline(NOW, "set");
            assert_eq!(fault, Err(CommandError::InvalidExpire("set")), "{amount}");
        }
        let fault = ExpireTime { form: TimeForm::SECONDS, amount: b"1.5" }.deadline(NOW, "set");
        assert_eq!(fault, Err(CommandError::NotAnInteger));
    }

    #[test]
    fn a_past_time_is_a_time() {
        assert_eq!(TimeForm::SECONDS.deadline(-10, NOW), Some(NOW - 10_000));
        assert_eq!(TimeForm::UNIX_MILLISECONDS.deadline(-10, NOW), Some(-10));
        assert_eq!(TimeForm::MILLISECONDS.deadline(i64::MIN, NOW), Some(i64::MIN + NOW));
    }

    #[test]
    fn times_that_64_bits_do_not_hold_are_refused() {
        assert_eq!(TimeForm::UNIX_SECONDS.deadline(i64::MAX / 1000, NOW), Some(i64::MAX / 1000 * 1000));
        assert_eq!(TimeForm::UNIX_SECONDS.deadline(i64::MAX / 1000 + 1, NOW), None);
        assert_eq!(TimeForm::SECONDS.deadline(i64::MIN / 1000 - 1, NOW), None);
        assert_eq!(TimeForm::MILLISECONDS.deadline(i64::MAX - NOW + 1, NOW), None);
    }

    #[test]
    fn half_a_second_counts_as_one() {
        assert_eq!(TimeForm::SECONDS.amount(NOW + 1_499, NOW), 1);
        assert_eq!(TimeForm::SECONDS.amount(NOW + 1_500, NOW), 2);
        assert_eq!(TimeForm::MILLISECONDS.amount(NOW + 1_499, NOW), 1_499);
        assert_eq!(TimeForm::MILLISECONDS.amount(NOW - 1, NOW), 0);
        assert_eq!(TimeForm::UNIX_SECONDS.amount(i64::MAX, NOW), i64::MAX / 1000);
    }
}
