//! How a key's value is kept.

use forebay_store::{Encoding, EntryRef, ValueRef};

use super::super::call::{Call, Flow};
use super::super::error::CommandError;

/// The clock of last uses is told in 24 bits of seconds, as Redis tells it.
const LRU_CLOCK_MASK: i64 = (1 << 24) - 1;

pub(super) fn object(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let now = call.now;
    let told = with_entry(call, |entry| {
        let idle = entry.idle_seconds().unwrap_or(0);
        format!(
            "Value at:{:#x} refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{idle}",
            entry.address(),
            entry.encoding().as_str(),
            length(entry),
            (now / 1000 - idle as i64) & LRU_CLOCK_MASK,
        )
    })?;
    call.reply.simple(&told);
    Ok(Flow::Continue)
}

pub(super) fn string_lengths(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let key = call.arg(2).len();
    let told = with_entry(call, |entry| match entry.value() {
        ValueRef::String(string) if string.is_integer().is_none() => Some(format!(
            "key_sds_len:{key}, key_sds_avail:0, key_zmalloc: {key}, val_sds_len:{length}, val_sds_avail:0, val_zmalloc: {taken}",
            length = string.len(),
            taken = entry.memory_usage(None),
        )),
        ValueRef::String(_) | ValueRef::Hash(_) => None,
    })?;
    call.reply.simple(&told.ok_or(CommandError::text("ERR Not an sds encoded string."))?);
    Ok(Flow::Continue)
}

pub(super) fn listpack(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    match with_entry(call, |entry| entry.encoding() == Encoding::Compact)? {
        true => call.reply.simple("The value is compact"),
        false => return Err(CommandError::text("ERR Not a listpack encoded object.")),
    }
    Ok(Flow::Continue)
}

pub(super) fn table_statistics(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let db = u16::try_from(call.integer(2)?)
        .ok()
        .filter(|&db| db < call.node.identity.databases)
        .ok_or(CommandError::text("ERR Out of range database"))?;
    let (keys, volatile) = (call.node.store.len(db), call.node.store.volatile_len(db));
    let told = format!("[Dictionary HT]\n number of elements: {keys}\n[Expires HT]\n number of elements: {volatile}\n");
    call.reply.verbatim("txt", told.as_bytes());
    Ok(Flow::Continue)
}

pub(super) fn table_statistics_of_key(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let fields = with_entry(call, |entry| match entry.value() {
        ValueRef::Hash(hash) if hash.encoding() == Encoding::Table => Some(hash.len()),
        ValueRef::Hash(_) | ValueRef::String(_) => None,
    })?;
    let fields = fields.ok_or(CommandError::text(
        "ERR The value stored at the specified key is not represented using an hash table",
    ))?;
    call.reply.verbatim("txt", format!(" number of elements: {fields}\n").as_bytes());
    Ok(Flow::Continue)
}

/// Looks at the entry of the key at argument 2 without using it.
fn with_entry<R>(call: &Call<'_>, look: impl FnOnce(&EntryRef<'_>) -> R) -> Result<R, CommandError> {
    let bytes = call.arg(2);
    let key = call.node.store.key(call.session.db, forebay_cluster::slot_of(bytes), bytes);
    let mut keyspace = call.node.store.lock(key.slot(), call.now);
    keyspace.peek(&key).map(|entry| look(&entry)).ok_or(CommandError::NoSuchKey)
}

/// Bytes of the value itself.
fn length(entry: &EntryRef<'_>) -> usize {
    match entry.value() {
        ValueRef::String(string) => string.len(),
        ValueRef::Hash(hash) => hash.iter().map(|(field, value)| field.len() + value.len()).sum(),
    }
}
