//! Strings.

use forebay_store::{Keyspace, StringRef};

use super::call::Call;
use super::error::CommandError;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};

pub(super) const TABLE: &[Spec] = &[
    Spec::new("get", 2, Flags::READONLY.union(Flags::FAST), Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::RO.union(KeyUse::ACCESS))])
        .load(Load::OnMiss)
        .on_keys(get)
        .docs("string", "1.0.0", "O(1)", "Tells the string value of a key.", "key"),
    Spec::new("mget", -2, Flags::READONLY.union(Flags::FAST), Categories::STRING)
        .keys(&[KeySpec::range(KeyUse::RO.union(KeyUse::ACCESS), 1, -1, 1)])
        .load(Load::OnMiss)
        .on_keys(mget)
        .tips(&["request_policy:multi_shard"])
        .docs(
            "string",
            "1.0.0",
            "O(N), N being the number of keys",
            "Tells the string values of several keys.",
            "key [key ...]",
        ),
];

fn get(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    match keyspace.read_string(&call.keys[0])? {
        Some(value) => answer(call, value),
        None => call.reply.null(),
    }
    Ok(())
}

fn mget(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    call.reply.array(call.keys.len());
    for key in call.keys {
        match keyspace.read_string(key) {
            Ok(Some(value)) => answer(call, value),
            Ok(None) | Err(_) => call.reply.null(),
        }
    }
    Ok(())
}

/// A value as a bulk string; a large one is linked into the reply without being copied.
fn answer(call: &mut Call<'_>, value: StringRef<'_>) {
    match value.shared() {
        Some(shared) => call.reply.bulk_shared(shared),
        None => call.reply.bulk(value.as_bytes(&mut Default::default())),
    }
}
