//! Strings as numbers: counting up and down.

use forebay_store::{Expiry, Key, Keyspace};

use super::call::Call;
use super::error::CommandError;
use super::long_double::LongDouble;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};
use super::strings::current;

const COUNT: Flags = Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST);
const KEYS: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::UPDATE))];

pub(super) static TABLE: &[Spec] = &[
    row("decr", 2).on_keys(decr).docs("string", "1.0.0", "O(1)", "Subtracts one from the integer of a key.", "key"),
    row("decrby", 3).on_keys(decrby).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Subtracts a number from the integer of a key.",
        "key decrement",
    ),
    row("incr", 2).on_keys(incr).docs("string", "1.0.0", "O(1)", "Adds one to the integer of a key.", "key"),
    row("incrby", 3).on_keys(incrby).docs(
        "string",
        "1.0.0",
        "O(1)",
        "Adds a number to the integer of a key.",
        "key increment",
    ),
    row("incrbyfloat", 3).on_keys(incrbyfloat).docs(
        "string",
        "2.6.0",
        "O(1)",
        "Adds a floating point number to that of a key.",
        "key increment",
    ),
];

const fn row(name: &'static str, arity: i16) -> Spec {
    Spec::new(name, arity, COUNT, Categories::STRING).keys(KEYS).load(Load::Before)
}

fn incr(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    add(call, keyspace, 1)
}

fn decr(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    add(call, keyspace, -1)
}

fn incrby(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    add(call, keyspace, call.integer(2)?)
}

fn decrby(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let increment = call.integer(2)?.checked_neg().ok_or(CommandError::text("ERR decrement would overflow"))?;
    add(call, keyspace, increment)
}

fn add(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>, increment: i64) -> Result<(), CommandError> {
    let sum = keyspace.add(&call.keys[0], increment)?;
    call.reply.integer(sum);
    Ok(())
}

fn incrbyfloat(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let key = &call.keys[0];
    let before = float_at(keyspace, key)?;
    let increment = LongDouble::parse(call.arg(2)).ok_or(CommandError::NotAFloat)?;
    let sum = before
        .checked_add(increment)
        .ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?
        .to_string();
    keyspace.set_text(key, sum.as_bytes(), Expiry::Keep);
    call.reply.bulk(sum.as_bytes());
    Ok(())
}

fn float_at(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Result<LongDouble, CommandError> {
    let Some(value) = current(keyspace, key)? else {
        keyspace.expect_known(key)?;
        return Ok(LongDouble::ZERO);
    };
    match value.is_integer() {
        Some(number) => Ok(LongDouble::from(number)),
        None => LongDouble::parse(value.as_bytes(&mut Vec::new())).ok_or(CommandError::NotAFloat),
    }
}
