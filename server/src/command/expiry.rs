//! Deadlines: setting, taking away and telling the time at which a key expires.

use forebay_store::{Keyspace, UnixMillis};

use super::call::Call;
use super::error::CommandError;
use super::expire_condition::ExpireCondition;
use super::keys::look;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};

const FAST_READ: Flags = Flags::READONLY.union(Flags::FAST);
const FAST_WRITE: Flags = Flags::WRITE.union(Flags::FAST);
const READ_OUT: &[KeySpec] = &[KeySpec::one(KeyUse::RO.union(KeyUse::ACCESS))];
const UPDATED: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::UPDATE))];
/// What is left of a time changes by itself; the time of a deadline does not.
const CHANGING: &[&str] = &["nondeterministic_output"];

pub(super) const TABLE: &[Spec] = &[
    Spec::new("expire", -3, FAST_WRITE, Categories::KEYSPACE)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(|call, keyspace| expire(call, keyspace, Unit::Seconds, Since::Now))
        .docs("generic", "1.0.0", "O(1)", "Lets a key expire after some seconds.", "key seconds [NX | XX | GT | LT]"),
    Spec::new("expireat", -3, FAST_WRITE, Categories::KEYSPACE)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(|call, keyspace| expire(call, keyspace, Unit::Seconds, Since::Epoch))
        .docs(
            "generic",
            "1.2.0",
            "O(1)",
            "Lets a key expire at a Unix time in seconds.",
            "key unix-time-seconds [NX | XX | GT | LT]",
        ),
    Spec::new("expiretime", 2, FAST_READ, Categories::KEYSPACE)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(|call, keyspace| tell(call, keyspace, Unit::Seconds, Since::Epoch))
        .docs("generic", "7.0.0", "O(1)", "Tells the Unix time in seconds at which a key expires.", "key"),
    Spec::new("persist", 2, FAST_WRITE, Categories::KEYSPACE).keys(UPDATED).load(Load::Before).on_keys(persist).docs(
        "generic",
        "2.2.0",
        "O(1)",
        "Takes the deadline of a key away.",
        "key",
    ),
    Spec::new("pexpire", -3, FAST_WRITE, Categories::KEYSPACE)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(|call, keyspace| expire(call, keyspace, Unit::Milliseconds, Since::Now))
        .docs(
            "generic",
            "2.6.0",
            "O(1)",
            "Lets a key expire after some milliseconds.",
            "key milliseconds [NX | XX | GT | LT]",
        ),
    Spec::new("pexpireat", -3, FAST_WRITE, Categories::KEYSPACE)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(|call, keyspace| expire(call, keyspace, Unit::Milliseconds, Since::Epoch))
        .docs(
            "generic",
            "2.6.0",
            "O(1)",
            "Lets a key expire at a Unix time in milliseconds.",
            "key unix-time-milliseconds [NX | XX | GT | LT]",
        ),
    Spec::new("pexpiretime", 2, FAST_READ, Categories::KEYSPACE)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(|call, keyspace| tell(call, keyspace, Unit::Milliseconds, Since::Epoch))
        .docs("generic", "7.0.0", "O(1)", "Tells the Unix time in milliseconds at which a key expires.", "key"),
    Spec::new("pttl", 2, FAST_READ, Categories::KEYSPACE)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(|call, keyspace| tell(call, keyspace, Unit::Milliseconds, Since::Now))
        .tips(CHANGING)
        .docs("generic", "2.6.0", "O(1)", "Tells how many milliseconds a key has left.", "key"),
    Spec::new("ttl", 2, FAST_READ, Categories::KEYSPACE)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(|call, keyspace| tell(call, keyspace, Unit::Seconds, Since::Now))
        .tips(CHANGING)
        .docs("generic", "1.0.0", "O(1)", "Tells how many seconds a key has left.", "key"),
];

/// What a number of the client's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// From where it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Now,
    Epoch,
}

/// What stands for a key that never expires, and for one that does not exist.
const NEVER: i64 = -1;
const NO_KEY: i64 = -2;

fn expire(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, unit: Unit, since: Since) -> Result<(), CommandError> {
    let condition = ExpireCondition::parse(call, 3)?;
    let base = if since == Since::Now { call.now } else { 0 };
    let deadline =
        deadline_of(call.integer(2)?, unit, base).ok_or(CommandError::InvalidExpire(call.command.full_name))?;
    let key = &call.keys[0];
    let admitted = keyspace.deadline(key).is_some_and(|current| condition.admits(deadline, current));
    let changed = match admitted {
        true if deadline <= call.now => keyspace.remove(key),
        true => keyspace.set_deadline(key, Some(deadline)),
        false => false,
    };
    call.reply.integer(i64::from(changed));
    Ok(())
}

fn tell(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, unit: Unit, since: Since) -> Result<(), CommandError> {
    let key = &call.keys[0];
    let deadline = look(keyspace, key).and_then(|_| keyspace.deadline(key));
    call.reply.integer(match (deadline, since) {
        (None, _) => NO_KEY,
        (Some(None), _) => NEVER,
        (Some(Some(deadline)), Since::Now) => shown(deadline.saturating_sub(call.now).max(0), unit),
        (Some(Some(deadline)), Since::Epoch) => shown(deadline, unit),
    });
    Ok(())
}

fn persist(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    let had_one = keyspace.deadline(key).flatten().is_some();
    let taken_away = had_one && keyspace.set_deadline(key, None);
    call.reply.integer(i64::from(taken_away));
    Ok(())
}

/// The deadline that `number` of `unit` after `base` is, if 64 bits hold it.
fn deadline_of(number: i64, unit: Unit, base: UnixMillis) -> Option<UnixMillis> {
    let millis = match unit {
        Unit::Milliseconds => number,
        Unit::Seconds => number.checked_mul(1000)?,
    };
    millis.checked_add(base)
}

/// Seconds are rounded, half of one upwards.
fn shown(millis: i64, unit: Unit) -> i64 {
    match unit {
        Unit::Milliseconds => millis,
        Unit::Seconds => millis.saturating_add(500) / 1000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = 1_700_000_000_000;

    #[test]
    fn deadlines_that_64_bits_do_not_hold_are_refused() {
        assert_eq!(deadline_of(10, Unit::Seconds, NOW), Some(NOW + 10_000));
        assert_eq!(deadline_of(-10, Unit::Milliseconds, NOW), Some(NOW - 10));
        assert_eq!(deadline_of(i64::MAX / 1000, Unit::Seconds, 0), Some(i64::MAX / 1000 * 1000));
        assert_eq!(deadline_of(i64::MAX / 1000 + 1, Unit::Seconds, 0), None);
        assert_eq!(deadline_of(i64::MIN / 1000 - 1, Unit::Seconds, NOW), None);
        assert_eq!(deadline_of(i64::MAX, Unit::Milliseconds, 0), Some(i64::MAX));
        assert_eq!(deadline_of(i64::MAX - NOW + 1, Unit::Milliseconds, NOW), None);
        assert_eq!(deadline_of(i64::MIN, Unit::Milliseconds, NOW), Some(i64::MIN + NOW));
    }

    #[test]
    fn half_a_second_counts_as_one() {
        assert_eq!(shown(1_499, Unit::Seconds), 1);
        assert_eq!(shown(1_500, Unit::Seconds), 2);
        assert_eq!(shown(1_499, Unit::Milliseconds), 1_499);
        assert_eq!(shown(i64::MAX, Unit::Seconds), i64::MAX / 1000);
    }
}
