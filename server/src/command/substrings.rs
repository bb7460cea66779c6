//! Parts of strings: lengths, ranges, appending and overwriting.

use std::sync::atomic::Ordering::Relaxed;

use forebay_store::{Expiry, Keyspace, StringRef, StringView};

use super::call::Call;
use super::error::CommandError;
use super::index_range::IndexRange;
use super::spec::{Categories, Flags, KeySpec, KeyUse, Load, Spec};
use super::strings::current;
use crate::node::Node;

const READ: KeyUse = KeyUse::RO.union(KeyUse::ACCESS);
const GROW: Flags = Flags::WRITE.union(Flags::DENYOOM);

/// Of GETRANGE and of its old name.
const COPY_COMPLEXITY: &str = "O(N), N being the length of the answer";

pub(super) static TABLE: &[Spec] = &[
    Spec::new("append", 3, GROW.union(Flags::FAST), Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::INSERT))])
        .load(Load::Before)
        .on_keys(append)
        .docs(
            "string",
            "2.0.0",
            "O(1), amortized, for an appended value of constant length",
            "Appends to the string value of a key, which is created if it does not exist.",
            "key value",
        ),
    Spec::new("getrange", 4, Flags::READONLY, Categories::STRING)
        .keys(&[KeySpec::one(READ)])
        .load(Load::OnMiss)
        .on_keys(getrange)
        .docs("string", "2.4.0", COPY_COMPLEXITY, "Tells a part of the string value of a key.", "key start end"),
    Spec::new("setrange", 4, GROW, Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::RW.union(KeyUse::UPDATE))])
        .load(Load::Before)
        .on_keys(setrange)
        .docs(
            "string",
            "2.2.0",
            "O(N), N being the length of the value, and that of the string where it has to grow",
            "Overwrites a part of the string value of a key, which grows as needed.",
            "key offset value",
        ),
    Spec::new("strlen", 2, Flags::READONLY.union(Flags::FAST), Categories::STRING)
        .keys(&[KeySpec::one(KeyUse::RO)])
        .load(Load::OnMiss)
        .on_keys(strlen)
        .docs("string", "2.2.0", "O(1)", "Tells the length of the string value of a key.", "key"),
    Spec::new("substr", 4, Flags::READONLY, Categories::STRING)
        .keys(&[KeySpec::one(READ)])
        .load(Load::OnMiss)
        .on_keys(getrange)
        .deprecated("2.0.0", "`GETRANGE`")
        .docs("string", "1.0.0", COPY_COMPLEXITY, "The old name of GETRANGE.", "key start end"),
];

fn strlen(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let length = keyspace.read_string(&call.keys[0])?.map_or(0, |value| value.len());
    call.reply.integer(length as i64);
    Ok(())
}

fn append(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let (key, value) = (&call.keys[0], call.arg(2));
    let appended = keyspace.update_string(key, false, |string| {
        check_length(call.node, string.len(), value)?;
        string.append(value);
        Ok::<_, CommandError>(string.len())
    })?;
    let length = match appended {
        Some(length) => length?,
        None => {
            keyspace.set_string(key, value, Expiry::None);
            value.len()
        }
    };
    call.reply.integer(length as i64);
    Ok(())
}

fn setrange(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let (key, value) = (&call.keys[0], call.arg(3));
    let offset = usize::try_from(call.integer(2)?).map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let present = match current(keyspace, key)? {
        Some(string) => string.len(),
        None => keyspace.expect_known(key).map(|()| 0)?,
    };
    let length = if value.is_empty() {
        present
    } else {
        check_length(call.node, offset, value)?;
        keyspace.update_string(key, true, |string| string.write_at(offset, value))?;
        present.max(offset + value.len())
    };
    call.reply.integer(length as i64);
    Ok(())
}

/// Refuses a string that would be longer than what one request could set.
fn check_length(node: &Node, before: usize, value: &[u8]) -> Result<(), CommandError> {
    let most = node.settings.proto_max_bulk_len.load(Relaxed);
    match before.checked_add(value.len()) {
        Some(length) if length <= most => Ok(()),
        _ => Err(CommandError::text("ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
    }
}

fn getrange(call: &mut Call<'_>, keyspace: &mut Keyspace<'_>) -> Result<(), CommandError> {
    let range = IndexRange::parse(call, 2)?;
    match keyspace.read_string(&call.keys[0])? {
        Some(value) if !range.is_reversed_from_the_end() => answer_part(call, value, range),
        _ => call.reply.bulk(b""),
    }
    Ok(())
}

fn answer_part(call: &mut Call<'_>, value: StringRef<'_>, range: IndexRange) {
    let positions = range.within(value.len()).unwrap_or_default();
    match value.view() {
        StringView::Integer(number) => call.reply.bulk(&number.to_string().as_bytes()[positions]),
        StringView::Bytes(bytes) => call.reply.bulk(&bytes[positions]),
        StringView::Shared(bytes) => call.reply.bulk_shared(bytes.slice(positions)),
        // Linking a part would hold all of it until the part is sent.
        StringView::Unpacked(bytes) => call.reply.bulk(&bytes[positions]),
    }
}
