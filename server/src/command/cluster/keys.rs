//! The keys of a slot. Of a copy nothing is told: who asks all nodes would have every key several times.

use forebay_cluster::SLOT_COUNT;
use forebay_store::{Presence, SlotCursor};

use crate::command::call::{Call, Flow};
use crate::command::error::CommandError;

pub(super) fn count(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let slot = slot(call)?.ok_or(CommandError::text("ERR Invalid slot"))?;
    let keys = keys(call, slot, usize::MAX);
    call.reply.integer(keys.len() as i64);
    Ok(Flow::Continue)
}

pub(super) fn get(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    const INVALID: CommandError = CommandError::text("ERR Invalid slot or number of keys");
    let slot = slot(call)?;
    let limit = call.integer(3)?;
    let slot = slot.ok_or(INVALID)?;
    let keys = keys(call, slot, usize::try_from(limit).map_err(|_| INVALID)?);
    call.reply.array(keys.len());
    keys.iter().for_each(|key| call.reply.bulk(key));
    Ok(Flow::Continue)
}

/// Argument 2, if there is such a slot.
fn slot(call: &Call<'_>) -> Result<Option<u16>, CommandError> {
    let slot = call.integer(2)?;
    Ok(u16::try_from(slot).ok().filter(|slot| *slot < SLOT_COUNT))
}

/// Keys of database 0 in a slot of this node that have a value, at most so many.
fn keys(call: &Call<'_>, slot: u16, limit: usize) -> Vec<Vec<u8>> {
    if !call.node.topology.load().is_here(slot) {
        return Vec::new();
    }
    let mut keyspace = call.node.store.lock(slot, call.now);
    let mut names = Vec::new();
    keyspace.visit_slot(slot, SlotCursor::default(), &mut |stored| {
        if stored.db() == 0 {
            names.push(stored.key().to_vec());
        }
        // The databases come in their order.
        stored.db() == 0
    });
    // What is absent at the origin is remembered, too, but is no key.
    names.retain(|name| keyspace.presence(&call.node.store.key(0, slot, name)) == Presence::Present);
    names.truncate(limit);
    names
}
