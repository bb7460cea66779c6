//! Commands about copies of what is stored here.

use std::time::Duration;

use super::call::{Call, Copies, Flow};
use super::error::CommandError;
use super::spec::{Categories, Flags, Spec};

/// What WAIT takes for "for ever": long enough, and still an end.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) static TABLE: &[Spec] = &[
    Spec::new("forebay.digest", 1, Flags::READONLY.union(Flags::LOADING).union(Flags::STALE), Categories::empty())
        .on_node(digest)
        .docs(
            "cluster",
            "7.2.0",
            "O(N), N being the number of keys",
            "Tells a digest of each slot that is held here and not empty: equal ones hold the same.",
            "",
        ),
    Spec::new("wait", 3, Flags::NOSCRIPT, Categories::CONNECTION.union(Categories::BLOCKING))
        .on_node(wait)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .docs(
            "generic",
            "3.0.0",
            "O(1)",
            "Waits until copies hold what this connection has written, and tells how many do.",
            "numreplicas timeout",
        ),
];

fn wait(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let wanted = usize::try_from(call.integer(1)?).unwrap_or_default();
    let limit = match call.arg(2).first() {
        Some(b'-') => return Err(CommandError::text("ERR timeout is negative")),
        _ => forebay_store::parse_integer(call.arg(2)),
    };
    let limit = limit.ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    let limit = match u64::try_from(limit) {
        Ok(0) | Err(_) => LONGEST_WAIT,
        Ok(millis) => Duration::from_millis(millis).min(LONGEST_WAIT),
    };
    Ok(Flow::Copies(Copies { wanted, limit }))
}

/// For each slot an array of its number, its digest and how many entries it has.
fn digest(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let mut slots = Vec::new();
    for slot in 0..forebay_cluster::SLOT_COUNT {
        let role = call.node.roles.get(slot);
        if role == crate::roles::Role::Away {
            continue;
        }
        let keyspace = call.node.store.lock(slot, call.now);
        let keys = keyspace.count_slot(slot);
        if keys > 0 {
            let digest = keyspace.digest_slot(slot, call.now, forebay_store::DigestLimits::NONE);
            slots.push((slot, digest.unwrap_or_default(), keys));
        }
    }
    call.reply.array(slots.len());
    for (slot, digest, keys) in slots {
        call.reply.array(3);
        call.reply.integer(i64::from(slot));
        call.reply.bulk(format!("{digest:016x}").as_bytes());
        call.reply.integer(keys as i64);
    }
    Ok(Flow::Continue)
}
