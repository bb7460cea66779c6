//! Running a command over a copy of one key's entry, where nobody else sees what comes of it.

use bytes::Bytes;
use forebay_origin::Value;
use forebay_resp::{Args, Reply};
use forebay_store::{Expiry, Key, Keyspace, Store, StoreConfig, UnixMillis, ValueRef};

use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::spec::Run;
use crate::command::table::Command;
use crate::node::Node;
use crate::session::Session;

/// What a run has left.
pub struct Ran {
    /// Whether it has changed anything, be it to the same value.
    pub changed: bool,
    pub before: Option<Value>,
    pub after: Option<Value>,
    /// When what it has left expires.
    pub deadline: Option<UnixMillis>,
}

/// The slot of a scratch store in which all its keys are, whatever they are called.
const SLOT: u16 = 0;

thread_local! {
    /// Empty between two runs.
    static STORE: Store = Store::new(StoreConfig { shards: 256, databases: 1, seed: rand::random() });
}

/// Runs a command whose one key has this entry, or is known to have none. The reply is written as if it had run in the keyspace.
///
/// # Errors
/// What the command itself says.
pub fn run(
    node: &Node,
    session: &mut Session,
    (command, args): (&'static Command, Args<'_>),
    key: &Key<'_>,
    entry: Option<&[u8]>,
    reply: &mut Reply,
) -> Result<Ran, CommandError> {
    let Run::Keys(handler) = command.spec.run else { unreachable!("only what runs over keys writes some") };
    STORE.with(|store| {
        let now = session.now;
        let mut keyspace = store.lock(SLOT, now);
        let own = store.key(0, SLOT, key.bytes());
        if let Some(entry) = entry {
            let put = keyspace.install(&own, entry);
            debug_assert!(put.is_ok(), "the store reads what it has written");
        }
        let before = value(&mut keyspace, &own);
        let keys = [own];
        let mut call = Call { command, args, keys: &keys, session, reply, node, now };
        let result = handler(&mut call, &mut keyspace);
        let changed = keyspace.has_changed();
        let deadline = keyspace.deadline(&own).flatten();
        let after = value(&mut keyspace, &own);
        keyspace.uninstall(&own);
        result.map(|()| Ran { changed, before, after, deadline })
    })
}

fn value(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Option<Value> {
    Some(match keyspace.peek(key)?.value() {
        ValueRef::String(string) => Value::String(string.to_vec().into()),
        ValueRef::Hash(hash) => {
            let pairs = hash.iter().map(|(field, value)| (field.to_vec().into(), value.to_vec().into()));
            Value::Hash(pairs.collect())
        }
    })
}

/// A value as an entry that a client has written.
pub fn encode(value: &Value, deadline: Option<UnixMillis>) -> Bytes {
    STORE.with(|store| {
        // Before any deadline.
        let mut keyspace = store.lock(SLOT, 0);
        let key = store.key(0, SLOT, b"");
        match value {
            Value::String(value) => keyspace.set_string_shared(&key, value, Expiry::None),
            Value::Hash(pairs) => {
                let set = keyspace.update_hash(&key, true, |hash| {
                    for (field, value) in pairs {
                        hash.insert(field, value);
                    }
                });
                debug_assert!(set.is_ok(), "there was nothing");
            }
        }
        keyspace.set_deadline(&key, deadline);
        let mut entry = Vec::new();
        keyspace.encode(&key, &mut entry);
        keyspace.uninstall(&key);
        entry.into()
    })
}

/// The same entry, but that it expires then.
pub fn until(entry: &[u8], deadline: UnixMillis) -> Bytes {
    STORE.with(|store| {
        // Before any deadline.
        let mut keyspace = store.lock(SLOT, 0);
        let key = store.key(0, SLOT, b"");
        let put = keyspace.install(&key, entry);
        debug_assert!(put.is_ok(), "the store reads what it has written");
        keyspace.set_deadline(&key, Some(deadline));
        let mut changed = Vec::new();
        keyspace.encode(&key, &mut changed);
        keyspace.uninstall(&key);
        changed.into()
    })
}
