//! Deadlines: setting, taking away and telling the time at which a key expires.

use forebay_store::{Key, Keyspace, UnixMillis, Unknown};

use super::call::Call;
use super::error::CommandError;
use super::expire_condition::ExpireCondition;
use super::expire_options::TimeForm;
use super::keys::look;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};

const FAST_READ: Flags = Flags::READONLY.union(Flags::FAST);
/// A deadline is the cache's: what is late is taken out of it, and stays where it is at the origin.
const FAST_WRITE: Flags = Flags::WRITE.union(Flags::FAST).union(Flags::CACHE_ONLY);
const READ_OUT: &[KeySpec] = &[KeySpec::one(KeyUse::RO.union(KeyUse::ACCESS))];
const UPDATED: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::UPDATE))];
/// What is left of a time changes by itself; the time of a deadline does not.
const CHANGING: &[&str] = &["nondeterministic_output"];

pub(super) const TABLE: &[Spec] = &[
    Spec::new("expire", -3, FAST_WRITE, Categories::KEYSPACE)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(|call, keyspace| expire(call, keyspace, TimeForm::SECONDS))
        .docs("generic", "1.0.0", "O(1)", "Lets a key expire after some seconds.", "key seconds [NX | XX | GT | LT]"),
    Spec::new("expireat", -3, FAST_WRITE, Categories::KEYSPACE)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(|call, keyspace| expire(call, keyspace, TimeForm::UNIX_SECONDS))
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
        .on_keys(|call, keyspace| tell(call, keyspace, TimeForm::UNIX_SECONDS))
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
        .on_keys(|call, keyspace| expire(call, keyspace, TimeForm::MILLISECONDS))
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
        .on_keys(|call, keyspace| expire(call, keyspace, TimeForm::UNIX_MILLISECONDS))
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
        .on_keys(|call, keyspace| tell(call, keyspace, TimeForm::UNIX_MILLISECONDS))
        .docs("generic", "7.0.0", "O(1)", "Tells the Unix time in milliseconds at which a key expires.", "key"),
    Spec::new("pttl", 2, FAST_READ, Categories::KEYSPACE)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(|call, keyspace| tell(call, keyspace, TimeForm::MILLISECONDS))
        .tips(CHANGING)
        .docs("generic", "2.6.0", "O(1)", "Tells how many milliseconds a key has left.", "key"),
    Spec::new("ttl", 2, FAST_READ, Categories::KEYSPACE)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(|call, keyspace| tell(call, keyspace, TimeForm::SECONDS))
        .tips(CHANGING)
        .docs("generic", "1.0.0", "O(1)", "Tells how many seconds a key has left.", "key"),
];

/// What stands for a key that never expires, and for one that does not exist.
const NEVER: i64 = -1;
const NO_KEY: i64 = -2;

fn expire(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, form: TimeForm) -> Result<(), CommandError> {
    let condition = ExpireCondition::parse(call, 3)?;
    let deadline =
        form.deadline(call.integer(2)?, call.now).ok_or(CommandError::InvalidExpire(call.command.full_name))?;
    let key = &call.keys[0];
    let admitted = known_deadline(keyspace, key)?.is_some_and(|current| condition.admits(deadline, current));
    let changed = match admitted {
        true if deadline <= call.now => keyspace.remove(key),
        true => keyspace.set_deadline(key, Some(deadline)),
        false => false,
    };
    call.reply.integer(i64::from(changed));
    Ok(())
}

/// The deadline that a command is about to change: `None` if there is no such key, `Some(None)` if it has none.
fn known_deadline(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Result<Option<Option<UnixMillis>>, Unknown> {
    let deadline = keyspace.deadline(key);
    if deadline.is_none() {
        keyspace.expect_known(key)?;
    }
    Ok(deadline)
}

fn tell(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, form: TimeForm) -> Result<(), CommandError> {
    let key = &call.keys[0];
    let deadline = look(keyspace, key).and_then(|_| keyspace.deadline(key));
    call.reply.integer(match deadline {
        None => NO_KEY,
        Some(None) => NEVER,
        Some(Some(deadline)) => form.amount(deadline, call.now),
    });
    Ok(())
}

fn persist(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    let had_one = known_deadline(keyspace, key)?.flatten().is_some();
    let taken_away = had_one && keyspace.set_deadline(key, None);
    call.reply.integer(i64::from(taken_away));
    Ok(())
}
