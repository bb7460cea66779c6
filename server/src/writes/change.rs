//! What the database is to be told of what a command has done.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use forebay_origin::{Group, NewValue, Shape, Value, WriteChange};
use forebay_resp::Args;

use super::scratch::Ran;
use crate::command::error::CommandError;
use crate::command::spec::Spec;

/// What is to be written for a command that has run, if anything.
///
/// # Errors
/// When the group cannot have what the command has left.
pub fn of(spec: &Spec, args: Args<'_>, group: &Group, ran: &Ran) -> Result<Option<WriteChange>, CommandError> {
    let removes = is_removal(spec);
    if !ran.changed && !removes {
        return Ok(None);
    }
    match (&ran.before, &ran.after) {
        // A hash without fields is a row without values, and still a row.
        (Some(Value::Hash(before)), None) if !removes => {
            let gone = before.iter().map(|(field, _)| (field.clone(), None));
            Ok(Some(WriteChange::Save(NewValue::Fields(gone.collect()))))
        }
        (_, None) if group.remove.is_none() => Err(CommandError::from(format!(
            "ERR the group \"{}\" has no `remove`, so that its keys cannot be removed at the origin",
            group.name
        ))),
        (_, None) => Ok(Some(WriteChange::Remove)),
        (_, Some(Value::String(value))) if group.as_ != Shape::Hash => {
            Ok(Some(WriteChange::Save(NewValue::Whole(value.clone()))))
        }
        (before, Some(Value::Hash(after))) if group.as_ == Shape::Hash => {
            let before = match before {
                Some(Value::Hash(before)) => before.as_slice(),
                Some(Value::String(_)) | None => &[],
            };
            Ok(Some(WriteChange::Save(NewValue::Fields(changed_fields(spec, args, before, after)))))
        }
        (_, Some(_)) => Err(CommandError::from(format!(
            "WRONGTYPE the group \"{}\" has values of another type (`as = \"{}\"`)",
            group.name,
            group.as_.as_str()
        ))),
    }
}

/// Whether the command removes its key at the origin even if the cache does not know that there is one.
pub fn is_removal(spec: &Spec) -> bool {
    matches!(spec.name, "del" | "unlink")
}

/// The fields that the database is to be told of: what differs, and what the client has named, since what is cached may be out of date there.
fn changed_fields(
    spec: &Spec,
    args: Args<'_>,
    before: &[(Bytes, Bytes)],
    after: &[(Bytes, Bytes)],
) -> Vec<(Bytes, Option<Bytes>)> {
    let old: HashMap<&Bytes, &Bytes> = before.iter().map(|(field, value)| (field, value)).collect();
    let new: HashMap<&Bytes, &Bytes> = after.iter().map(|(field, value)| (field, value)).collect();
    let named: HashSet<&[u8]> = match spec.name {
        "hset" | "hmset" => args.iter().skip(2).step_by(2).collect(),
        _ => HashSet::new(),
    };
    let set = after.iter().filter(|(field, value)| old.get(field) != Some(&value) || named.contains(&field[..]));
    let gone = before.iter().filter(|(field, _)| !new.contains_key(field));
    let set = set.map(|(field, value)| (field.clone(), Some(value.clone())));
    set.chain(gone.map(|(field, _)| (field.clone(), None))).collect()
}
