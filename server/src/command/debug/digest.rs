//! Signatures of what is stored: equal data gives equal signatures, whatever the order in which it came.

use forebay_store::{EntryRef, ValueRef};
use sha2::{Digest, Sha256};

use super::super::call::{Call, Flow};
use super::super::error::CommandError;

/// Bytes of a signature; Redis' are SHA-1's.
const LENGTH: usize = 20;

type Signature = [u8; LENGTH];

pub(super) fn digest(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let mut all = Signature::default();
    for db in 0..call.node.identity.databases {
        let mut keys = Vec::new();
        call.node.store.for_each_key(db, call.now, &mut |key, _| keys.push(key.to_vec()));
        for key in keys {
            merge(&mut all, signature(call, db, &key, true));
        }
    }
    call.reply.simple(&hexadecimal(&all));
    Ok(Flow::Continue)
}

pub(super) fn digest_value(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    call.reply.array(call.args.len() - 2);
    for key in call.args.iter().skip(2) {
        let signature = signature(call, call.session.db, key, false);
        call.reply.simple(&hexadecimal(&signature));
    }
    Ok(Flow::Continue)
}

/// The signature of one key, all zeros if there is none; with its name and place, or of the value alone.
fn signature(call: &Call<'_>, db: u16, key: &[u8], with_key: bool) -> Signature {
    let key = call.node.store.key(db, forebay_cluster::slot_of(key), key);
    let mut keyspace = call.node.store.lock(key.slot(), call.now);
    let Some(entry) = keyspace.peek(&key) else {
        return Signature::default();
    };
    let mut signature = of_value(&entry);
    if with_key {
        let place = Sha256::new().chain_update(db.to_be_bytes()).chain_update(key.bytes()).chain_update(signature);
        signature = shorten(place);
    }
    signature
}

fn of_value(entry: &EntryRef<'_>) -> Signature {
    let mut hasher = Sha256::new();
    hasher.update([u8::from(entry.deadline().is_some())]);
    match entry.value() {
        ValueRef::String(string) => hasher.update(string.to_vec()),
        ValueRef::Hash(hash) => {
            let mut fields = Signature::default();
            for (field, value) in hash.iter() {
                let pair = Sha256::new()
                    .chain_update((field.len() as u64).to_be_bytes())
                    .chain_update(field)
                    .chain_update(value);
                merge(&mut fields, shorten(pair));
            }
            hasher.update(fields);
        }
    }
    shorten(hasher)
}

fn shorten(hasher: Sha256) -> Signature {
    let mut signature = Signature::default();
    signature.copy_from_slice(&hasher.finalize()[..LENGTH]);
    signature
}

/// Exclusive or: in any order, and a thing twice is as if it were not there, which no set of keys or fields has.
fn merge(into: &mut Signature, other: Signature) {
    into.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}

fn hexadecimal(signature: &Signature) -> String {
    signature.iter().map(|byte| format!("{byte:02x}")).collect()
}
