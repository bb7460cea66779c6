//! OBJECT: how the cache keeps a value. It speaks of the cache alone, so it loads nothing.

use forebay_store::{EntryRef, Keyspace, ValueRef};

use super::call::Call;
use super::error::CommandError;
use super::help;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Spec};

const KEY: &[KeySpec] = &[KeySpec::at(KeyUse::RO, 2)];
const CHANGING: &[&str] = &["nondeterministic_output"];

/// Redis keeps the numbers below this one once for all keys, and tells this count of references for them.
const SHARED_INTEGERS: i64 = 10_000;
const SHARED_REFERENCES: i64 = i32::MAX as i64;

pub(super) const TABLE: &[Spec] = &[Spec::new("object", -2, Flags::empty(), Categories::empty())
    .subcommands(&[
        about_a_key("encoding").on_keys(encoding).docs("generic", "2.2.3", "O(1)", "Tells how a value is kept.", "key"),
        about_a_key("freq").on_keys(freq).docs(
            "generic",
            "4.0.0",
            "O(1)",
            "Tells how often a value has been used, on the logarithmic scale of the LFU policies.",
            "key",
        ),
        help::row(Categories::KEYSPACE, "generic", "6.2.0"),
        about_a_key("idletime").on_keys(idletime).docs(
            "generic",
            "2.2.3",
            "O(1)",
            "Tells the seconds since a value was last used.",
            "key",
        ),
        about_a_key("refcount").on_keys(refcount).docs(
            "generic",
            "2.2.3",
            "O(1)",
            "Tells how many references a value has.",
            "key",
        ),
    ])
    .docs("generic", "2.2.3", "Depends on subcommand.", "How the cache keeps a value.", "")];

const fn about_a_key(name: &'static str) -> Spec {
    Spec::new(name, 3, Flags::READONLY, Categories::KEYSPACE).keys(KEY).tips(CHANGING)
}

fn encoding(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    match keyspace.peek(&call.keys[0]) {
        Some(entry) => call.reply.bulk(entry.encoding().as_str().as_bytes()),
        None => call.reply.null(),
    }
    Ok(())
}

fn freq(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let Some(entry) = keyspace.peek(&call.keys[0]) else {
        call.reply.null();
        return Ok(());
    };
    let frequency = entry.frequency().ok_or(CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between \
         policies at runtime LRU and LFU data will take some time to adjust.",
    ))?;
    call.reply.integer(i64::from(frequency));
    Ok(())
}

fn idletime(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let Some(entry) = keyspace.peek(&call.keys[0]) else {
        call.reply.null();
        return Ok(());
    };
    let seconds = entry.idle_seconds().ok_or(CommandError::text(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at \
         runtime LRU and LFU data will take some time to adjust.",
    ))?;
    call.reply.integer(seconds as i64);
    Ok(())
}

fn refcount(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    match keyspace.peek(&call.keys[0]) {
        Some(entry) => call.reply.integer(references(&entry)),
        None => call.reply.null(),
    }
    Ok(())
}

fn references(entry: &EntryRef<'_>) -> i64 {
    match entry.value() {
        ValueRef::String(string) if string.is_integer().is_some_and(|n| (0..SHARED_INTEGERS).contains(&n)) => {
            SHARED_REFERENCES
        }
        _ => 1,
    }
}
