//! DEBUG POPULATE.

use forebay_store::{Expiry, Presence};

use super::super::call::{Call, Flow};
use super::super::error::CommandError;

pub(super) fn populate(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let count = positive(call, 2)?;
    let prefix = if call.args.len() > 3 { call.text(3) } else { "key".to_owned() };
    let size = if call.args.len() > 4 { positive(call, 4)? } else { 0 };
    for number in 0..count {
        let mut value = format!("value:{number}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        add(call, format!("{prefix}:{number}").as_bytes(), &value);
    }
    call.reply.ok();
    Ok(Flow::Continue)
}

fn add(call: &Call<'_>, key: &[u8], value: &[u8]) {
    let key = call.node.store.key(call.session.db, forebay_cluster::slot_of(key), key);
    let mut keyspace = call.node.store.lock(key.slot(), call.now);
    if keyspace.presence(&key) != Presence::Present {
        keyspace.set_string(&key, value, Expiry::None);
    }
}

fn positive(call: &Call<'_>, at: usize) -> Result<usize, CommandError> {
    let number = call.integer(at)?;
    usize::try_from(number).map_err(|_| CommandError::text("ERR value is out of range, must be positive"))
}
