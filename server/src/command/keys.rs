//! Keys, whatever they hold: removing, renaming, copying, moving, and asking whether they are there.
//!
//! Groups apply to database 0 alone. So MOVE and COPY load what is missing there, and never their target in another database: whether
//! that one exists is what the cache says.

use forebay_store::{Access, Key, Keyspace, ObjectType, Presence};

use super::call::Call;
use super::error::CommandError;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Merge, Spec};

const FAST_READ: Flags = Flags::READONLY.union(Flags::FAST);

const ALL_LOOKED_AT: &[KeySpec] = &[KeySpec::range(KeyUse::RO, 1, -1, 1)];
const ALL_REMOVED: &[KeySpec] = &[KeySpec::range(KeyUse::RM.union(KeyUse::DELETE), 1, -1, 1)];
const TAKEN: KeyUse = KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::DELETE);

const SUM_OF_SHARDS: &[&str] = &["request_policy:multi_shard", "response_policy:agg_sum"];
const PER_KEY: &str = "O(N), N being the number of keys";

pub(super) const TABLE: &[Spec] = &[
    Spec::new("copy", -3, Flags::WRITE.union(Flags::DENYOOM), Categories::KEYSPACE)
        .keys(&[KeySpec::at(KeyUse::RO.union(KeyUse::ACCESS), 1), KeySpec::at(KeyUse::OW.union(KeyUse::UPDATE), 2)])
        .load(Load::AllBefore)
        .on_keys(copy)
        .docs(
            "generic",
            "6.2.0",
            "O(N), N being the number of elements of the value",
            "Copies the value of a key to another.",
            "source destination [DB destination-db] [REPLACE]",
        ),
    Spec::new("del", -2, Flags::WRITE, Categories::KEYSPACE)
        .keys(ALL_REMOVED)
        .on_keys(del)
        .split(Merge::Sum)
        .tips(SUM_OF_SHARDS)
        .docs(
            "generic",
            "1.0.0",
            "O(N), N being the number of keys and of the elements in their values",
            "Removes keys.",
            "key [key ...]",
        ),
    Spec::new("exists", -2, FAST_READ, Categories::KEYSPACE)
        .keys(ALL_LOOKED_AT)
        .load(Load::OnMiss)
        .on_keys(exists)
        .split(Merge::Sum)
        .tips(SUM_OF_SHARDS)
        .docs("generic", "1.0.0", PER_KEY, "Tells how many of the keys exist.", "key [key ...]"),
    Spec::new("move", 3, Flags::WRITE.union(Flags::FAST), Categories::KEYSPACE)
        .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::ACCESS).union(KeyUse::UPDATE))])
        .load(Load::OnMiss)
        .on_keys(move_to_database)
        .docs("generic", "1.0.0", "O(1)", "Moves a key to another database.", "key db"),
    Spec::new("rename", 3, Flags::WRITE, Categories::KEYSPACE)
        .keys(&[KeySpec::at(TAKEN, 1), KeySpec::at(KeyUse::OW.union(KeyUse::UPDATE), 2)])
        .load(Load::OnMiss)
        .on_keys(rename)
        .docs("generic", "1.0.0", "O(1)", "Gives a key another name; a key of that name is replaced.", "key newkey"),
    Spec::new("renamenx", 3, Flags::WRITE.union(Flags::FAST), Categories::KEYSPACE)
        .keys(&[KeySpec::at(TAKEN, 1), KeySpec::at(KeyUse::OW.union(KeyUse::INSERT), 2)])
        .load(Load::AllBefore)
        .on_keys(renamenx)
        .docs("generic", "1.0.0", "O(1)", "Gives a key another name unless a key has that name.", "key newkey"),
    Spec::new("touch", -2, FAST_READ, Categories::KEYSPACE)
        .keys(ALL_LOOKED_AT)
        .load(Load::OnMiss)
        .on_keys(touch)
        .split(Merge::Sum)
        .tips(SUM_OF_SHARDS)
        .docs("generic", "3.2.1", PER_KEY, "Counts as a use of the keys and tells how many exist.", "key [key ...]"),
    Spec::new("type", 2, FAST_READ, Categories::KEYSPACE)
        .keys(&[KeySpec::one(KeyUse::RO)])
        .load(Load::OnMiss)
        .on_keys(type_of)
        .docs("generic", "1.0.0", "O(1)", "Tells the type of the value under a key.", "key"),
    Spec::new("unlink", -2, Flags::WRITE.union(Flags::FAST), Categories::KEYSPACE)
        .keys(ALL_REMOVED)
        .on_keys(unlink)
        .split(Merge::Sum)
        .tips(SUM_OF_SHARDS)
        .docs(
            "generic",
            "4.0.0",
            "O(1) per key, and the memory is given back on another thread",
            "Removes keys without waiting for their memory to be given back.",
            "key [key ...]",
        ),
];

const SAME_OBJECT: CommandError = CommandError::text("ERR source and destination objects are the same");

/// Looks at a key for a command that reads: counted as a hit or a miss, but not as a use of the value.
pub(super) fn look(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Option<ObjectType> {
    look_with(keyspace, key, Access { no_touch: true, ..keyspace.access() })
}

/// Looks at a key for a command that writes: not counted either, and what is only served because the origin is ill does not count as
/// there, since nothing can be made of it.
fn look_to_write(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Option<ObjectType> {
    look_with(keyspace, key, Access { no_touch: true, count: false, allow_stale: false })
}

fn look_with(keyspace: &mut Keyspace<'_>, key: &Key<'_>, access: Access) -> Option<ObjectType> {
    let usual = keyspace.access();
    keyspace.set_access(access);
    let found = keyspace.read(key).map(|value| value.object_type());
    keyspace.set_access(usual);
    found
}

fn del(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let removed = call.keys.iter().filter(|key| keyspace.remove(key)).count();
    call.reply.integer(removed as i64);
    Ok(())
}

fn unlink(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    del(call, keyspace)?;
    call.node.reclaimer.take_over(keyspace.garbage());
    Ok(())
}

fn exists(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let found = call.keys.iter().filter(|key| look(keyspace, key).is_some()).count();
    call.reply.integer(found as i64);
    Ok(())
}

fn touch(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let touched = call.keys.iter().filter(|key| look(keyspace, key).is_some() && keyspace.touch(key)).count();
    call.reply.integer(touched as i64);
    Ok(())
}

fn type_of(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let found = look(keyspace, &call.keys[0]);
    call.reply.simple(found.map_or("none", ObjectType::as_str));
    Ok(())
}

fn rename(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let [from, to] = source_and_target(call);
    look_to_write(keyspace, from).ok_or(CommandError::NoSuchKey)?;
    if from.bytes() != to.bytes() {
        put_under(keyspace, from, to);
    }
    call.reply.ok();
    Ok(())
}

fn renamenx(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let [from, to] = source_and_target(call);
    look_to_write(keyspace, from).ok_or(CommandError::NoSuchKey)?;
    let free = is_free(keyspace, to);
    if free {
        put_under(keyspace, from, to);
    }
    call.reply.integer(i64::from(free));
    Ok(())
}

fn move_to_database(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let db = call.database(2)?;
    if db == call.session.db {
        return Err(SAME_OBJECT);
    }
    let from = &call.keys[0];
    let to = &call.node.store.key(db, from.slot(), from.bytes());
    let moves = look_to_write(keyspace, from).is_some() && is_free(keyspace, to);
    if moves {
        put_under(keyspace, from, to);
    }
    call.reply.integer(i64::from(moves));
    Ok(())
}

/// Where COPY copies to.
struct CopyOptions {
    db: u16,
    replace: bool,
}

fn copy(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let options = CopyOptions::parse(call)?;
    let [from, declared] = source_and_target(call);
    let to = &call.node.store.key(options.db, declared.slot(), declared.bytes());
    if from.db() == to.db() && from.bytes() == to.bytes() {
        return Err(SAME_OBJECT);
    }
    let copies = look(keyspace, from).is_some() && (options.replace || is_free(keyspace, to));
    if copies {
        keyspace.copy_of(from).into_iter().for_each(|copied| keyspace.put(to, copied));
    }
    call.reply.integer(i64::from(copies));
    Ok(())
}

impl CopyOptions {
    fn parse(call: &Call<'_>) -> Result<CopyOptions, CommandError> {
        let mut options = CopyOptions { db: call.session.db, replace: false };
        let mut at = 3;
        while at < call.args.len() {
            if call.is(at, "REPLACE") {
                options.replace = true;
            } else if call.is(at, "DB") && at + 1 < call.args.len() {
                at += 1;
                options.db = call.database(at)?;
            } else {
                return Err(CommandError::Syntax);
            }
            at += 1;
        }
        Ok(options)
    }
}

/// Whether nothing is under the target, as far as the cache knows: a target that a group could have has been loaded before.
fn is_free(keyspace: &mut Keyspace<'_>, to: &Key<'_>) -> bool {
    keyspace.presence(to) != Presence::Present
}

fn put_under(keyspace: &mut Keyspace<'_>, from: &Key<'_>, to: &Key<'_>) {
    if let Some(entry) = keyspace.take(from) {
        keyspace.put(to, entry);
    }
}

fn source_and_target<'c>(call: &Call<'c>) -> [&'c Key<'c>; 2] {
    [&call.keys[0], &call.keys[1]]
}
