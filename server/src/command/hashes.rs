//! Hashes: maps of fields to values under one key.
//!
//! Whatever builds on the rest of the hash needs all of it: so even HSET, which only adds, has the hash loaded first, or the key would
//! afterwards hold a part of the row and pass for the whole.

use forebay_store::{HashMut, HashRef, Keyspace};

use super::call::Call;
use super::error::CommandError;
use super::hash_random::hrandfield;
use super::long_double::LongDouble;
use super::scan::hscan;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};

const READ: Flags = Flags::READONLY;
const FAST_READ: Flags = Flags::READONLY.union(Flags::FAST);
const FAST_WRITE: Flags = Flags::WRITE.union(Flags::DENYOOM).union(Flags::FAST);

const LOOKED_AT: &[KeySpec] = &[KeySpec::one(KeyUse::RO)];
const READ_OUT: &[KeySpec] = &[KeySpec::one(KeyUse::RO.union(KeyUse::ACCESS))];
const UPDATED: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::UPDATE))];
const ADDED_TO: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::UPDATE))];
const INSERTED_INTO: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::INSERT))];
const DELETED_FROM: &[KeySpec] = &[KeySpec::one(KeyUse::RW.union(KeyUse::DELETE))];

const UNORDERED: &[&str] = &["nondeterministic_output_order"];
const RANDOM: &[&str] = &["nondeterministic_output"];

const PER_FIELD: &str = "O(N), N being the number of fields";
const WHOLE_HASH: &str = "O(N), N being the size of the hash";
const SCAN_COST: &str = "O(1) for a call, O(N) for a scan from beginning to end, N being the size of the hash";

pub(super) const TABLE: &[Spec] = &[
    Spec::new("hdel", -3, Flags::WRITE.union(Flags::FAST), Categories::HASH)
        .keys(DELETED_FROM)
        .load(Load::Before)
        .on_keys(hdel)
        .docs("hash", "2.0.0", PER_FIELD, "Removes fields; a hash without any is gone.", "key field [field ...]"),
    Spec::new("hexists", 3, FAST_READ, Categories::HASH).keys(LOOKED_AT).load(Load::OnMiss).on_keys(hexists).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Tells whether a hash has a field.",
        "key field",
    ),
    Spec::new("hget", 3, FAST_READ, Categories::HASH).keys(READ_OUT).load(Load::OnMiss).on_keys(hget).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Tells the value of a field.",
        "key field",
    ),
    Spec::new("hgetall", 2, READ, Categories::HASH)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(hgetall)
        .tips(UNORDERED)
        .docs("hash", "2.0.0", WHOLE_HASH, "Tells all fields with their values.", "key"),
    Spec::new("hincrby", 4, FAST_WRITE, Categories::HASH).keys(ADDED_TO).load(Load::Before).on_keys(hincrby).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Adds an integer to the value of a field.",
        "key field increment",
    ),
    Spec::new("hincrbyfloat", 4, FAST_WRITE, Categories::HASH)
        .keys(ADDED_TO)
        .load(Load::Before)
        .on_keys(hincrbyfloat)
        .docs("hash", "2.6.0", "O(1)", "Adds a floating point number to the value of a field.", "key field increment"),
    Spec::new("hkeys", 2, READ, Categories::HASH)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(hkeys)
        .tips(UNORDERED)
        .docs("hash", "2.0.0", WHOLE_HASH, "Tells all fields.", "key"),
    Spec::new("hlen", 2, FAST_READ, Categories::HASH).keys(LOOKED_AT).load(Load::OnMiss).on_keys(hlen).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Tells how many fields a hash has.",
        "key",
    ),
    Spec::new("hmget", -3, FAST_READ, Categories::HASH).keys(READ_OUT).load(Load::OnMiss).on_keys(hmget).docs(
        "hash",
        "2.0.0",
        PER_FIELD,
        "Tells the values of several fields.",
        "key field [field ...]",
    ),
    Spec::new("hmset", -4, FAST_WRITE, Categories::HASH)
        .keys(UPDATED)
        .load(Load::Before)
        .on_keys(hmset)
        .deprecated("4.0.0", "`HSET`, which takes several pairs")
        .docs("hash", "2.0.0", PER_FIELD, "Sets several fields.", "key field value [field value ...]"),
    Spec::new("hrandfield", -2, READ, Categories::HASH)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(hrandfield)
        .tips(RANDOM)
        .docs(
            "hash",
            "6.2.0",
            "O(N), N being the number of fields returned",
            "Picks fields at random.",
            "key [count [WITHVALUES]]",
        ),
    Spec::new("hscan", -3, READ, Categories::HASH).keys(READ_OUT).load(Load::OnMiss).on_keys(hscan).tips(RANDOM).docs(
        "hash",
        "2.8.0",
        SCAN_COST,
        "Goes through the fields and values of a hash, some at a time.",
        "key cursor [MATCH pattern] [COUNT count]",
    ),
    Spec::new("hset", -4, FAST_WRITE, Categories::HASH).keys(UPDATED).load(Load::Before).on_keys(hset).docs(
        "hash",
        "2.0.0",
        PER_FIELD,
        "Sets fields and tells how many of them are new.",
        "key field value [field value ...]",
    ),
    Spec::new("hsetnx", 4, FAST_WRITE, Categories::HASH).keys(INSERTED_INTO).load(Load::Before).on_keys(hsetnx).docs(
        "hash",
        "2.0.0",
        "O(1)",
        "Sets a field if the hash does not have it.",
        "key field value",
    ),
    Spec::new("hstrlen", 3, FAST_READ, Categories::HASH).keys(LOOKED_AT).load(Load::OnMiss).on_keys(hstrlen).docs(
        "hash",
        "3.2.0",
        "O(1)",
        "Tells the length of a field's value.",
        "key field",
    ),
    Spec::new("hvals", 2, READ, Categories::HASH)
        .keys(READ_OUT)
        .load(Load::OnMiss)
        .on_keys(hvals)
        .tips(UNORDERED)
        .docs("hash", "2.0.0", WHOLE_HASH, "Tells all values.", "key"),
];

fn hget(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let hash = keyspace.read_hash(&call.keys[0])?;
    answer_value(call, hash.and_then(|hash| hash.get(call.arg(2))));
    Ok(())
}

fn hmget(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let hash = keyspace.read_hash(&call.keys[0])?;
    let fields = call.args.skip(2);
    call.reply.array(fields.len());
    for field in fields {
        answer_value(call, hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

fn hexists(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let hash = keyspace.read_hash(&call.keys[0])?;
    let exists = hash.is_some_and(|hash| hash.contains(call.arg(2)));
    call.reply.integer(i64::from(exists));
    Ok(())
}

fn hlen(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let fields = keyspace.read_hash(&call.keys[0])?.map_or(0, |hash| hash.len());
    call.reply.integer(fields as i64);
    Ok(())
}

fn hstrlen(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let hash = keyspace.read_hash(&call.keys[0])?;
    let length = hash.and_then(|hash| hash.get(call.arg(2))).map_or(0, <[u8]>::len);
    call.reply.integer(length as i64);
    Ok(())
}

fn hgetall(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let Some(hash) = keyspace.read_hash(&call.keys[0])? else {
        call.reply.map(0);
        return Ok(());
    };
    call.reply.map(hash.len());
    for (field, value) in hash.iter() {
        call.reply.bulk(field);
        call.reply.bulk(value);
    }
    Ok(())
}

fn hkeys(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let hash = keyspace.read_hash(&call.keys[0])?;
    answer_each(call, hash, |(field, _)| field);
    Ok(())
}

fn hvals(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let hash = keyspace.read_hash(&call.keys[0])?;
    answer_each(call, hash, |(_, value)| value);
    Ok(())
}

fn hset(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let new = set_pairs(call, keyspace)?;
    call.reply.integer(new);
    Ok(())
}

fn hmset(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    set_pairs(call, keyspace)?;
    call.reply.ok();
    Ok(())
}

fn hsetnx(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let (field, value) = (call.arg(2), call.arg(3));
    let set = change(call, keyspace, |hash| !hash.contains(field) && hash.insert(field, value))?;
    call.reply.integer(i64::from(set));
    Ok(())
}

fn hdel(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let fields = call.args.skip(2);
    let removed =
        keyspace.update_hash(&call.keys[0], false, |hash| fields.iter().filter(|field| hash.remove(field)).count())?;
    call.reply.integer(removed.unwrap_or(0) as i64);
    Ok(())
}

fn hincrby(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let increment = call.integer(3)?;
    let field = call.arg(2);
    let sum = change(call, keyspace, |hash| {
        let sum = integer_of(hash.get(field))?
            .checked_add(increment)
            .ok_or(CommandError::text("ERR increment or decrement would overflow"))?;
        hash.insert(field, itoa::Buffer::new().format(sum).as_bytes());
        Ok::<_, CommandError>(sum)
    })??;
    call.reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let increment = LongDouble::parse(call.arg(3)).ok_or(CommandError::NotAFloat)?;
    if !increment.is_finite() {
        return Err(CommandError::text("ERR value is NaN or Infinity"));
    }
    let field = call.arg(2);
    let sum = change(call, keyspace, |hash| {
        let sum = float_of(hash.get(field))?
            .checked_add(increment)
            .ok_or(CommandError::text("ERR increment would produce NaN or Infinity"))?
            .to_string();
        hash.insert(field, sum.as_bytes());
        Ok::<_, CommandError>(sum)
    })??;
    call.reply.bulk(sum.as_bytes());
    Ok(())
}

/// Sets the pairs of fields and values that the arguments end with. Tells how many fields are new.
fn set_pairs(call: &Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<i64, CommandError> {
    let pairs = call.args.skip(2);
    if !pairs.len().is_multiple_of(2) {
        return Err(CommandError::Arity(call.command.full_name));
    }
    change(call, keyspace, |hash| {
        let firsts = (0..pairs.len()).step_by(2);
        firsts.filter(|&at| hash.insert(&pairs[at], &pairs[at + 1])).count() as i64
    })
}

/// Changes the hash under the key of the call; a missing one is created.
fn change<R>(
    call: &Call<'_>,
    keyspace: &mut Keyspace<'_>,
    change: impl FnOnce(&mut HashMut<'_>) -> R,
) -> Result<R, CommandError> {
    let changed = keyspace.update_hash(&call.keys[0], true, change)?;
    Ok(changed.expect("where there is no hash, one is created"))
}

/// The value of a field that is to be counted with; a missing one counts as 0.
fn integer_of(value: Option<&[u8]>) -> Result<i64, CommandError> {
    let integer = value.map_or(Some(0), forebay_store::parse_integer);
    integer.ok_or(CommandError::text("ERR hash value is not an integer"))
}

/// The same for a floating point number.
fn float_of(value: Option<&[u8]>) -> Result<LongDouble, CommandError> {
    let float = value.map_or(Some(LongDouble::ZERO), LongDouble::parse);
    float.ok_or(CommandError::text("ERR hash value is not a float"))
}

fn answer_value(call: &mut Call<'_>, value: Option<&[u8]>) {
    match value {
        Some(value) => call.reply.bulk(value),
        None => call.reply.null(),
    }
}

fn answer_each<'h>(call: &mut Call<'_>, hash: Option<HashRef<'h>>, part: impl Fn((&'h [u8], &'h [u8])) -> &'h [u8]) {
    call.reply.array(hash.map_or(0, |hash| hash.len()));
    for pair in hash.iter().flat_map(HashRef::iter) {
        call.reply.bulk(part(pair));
    }
}
