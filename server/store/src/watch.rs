//! Who is told of every change, by whatever it came about.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Is told what has changed. Called under the lock of the key's shard, so it must neither lock the store nor take long.
pub trait Watcher: Send + Sync {
    /// What a read of the key finds may differ from what it has found before: a client has changed or removed it, its time has passed, it was
    /// evicted, or what the origin gave has been replaced or taken out.
    ///
    /// A value that is filled in where nothing was remembered is no change: who has read it before was told when that went.
    fn changed(&self, slot: u16, key: &[u8]);

    /// The same of all keys of a slot.
    fn cleared(&self, slot: u16);
}

/// Whether somebody watches. One for all shards.
#[derive(Default)]
pub(crate) struct Watch {
    is_on: AtomicBool,
    watcher: OnceLock<Box<dyn Watcher>>,
}

impl Watch {
    /// Whether somebody wants to be told. Who has set it and then locked a shard is told by all who lock that shard afterwards.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    pub(crate) fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Relaxed);
    }

    pub(crate) fn by(&self, watcher: Box<dyn Watcher>) {
        assert!(self.watcher.set(watcher).is_ok(), "a store has one watcher");
    }

    #[inline]
    pub(crate) fn changed(&self, slot: u16, key: &[u8]) {
        if self.is_on() {
            self.tell(|watcher| watcher.changed(slot, key));
        }
    }

    #[inline]
    pub(crate) fn cleared(&self, slot: u16) {
        if self.is_on() {
            self.tell(|watcher| watcher.cleared(slot));
        }
    }

    #[cold]
    fn tell(&self, what: impl FnOnce(&dyn Watcher)) {
        if let Some(watcher) = self.watcher.get() {
            what(&**watcher);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::{EvictionPolicy, Expiry, ExpiryShare, Fill, FillValue, Garbage, Store, StoreConfig};

    #[derive(Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Watcher for Notes {
        fn changed(&self, _: u16, key: &[u8]) {
            self.0.lock().push(String::from_utf8_lossy(key).into_owned());
        }

        fn cleared(&self, slot: u16) {
            self.0.lock().push(format!("slot {slot}"));
        }
    }

    /// A store of one shard in which `a` holds something, and what its watcher is told from then on.
    fn watched(fill: Option<Fill>) -> (Store, impl Fn() -> String) {
        let store = Store::new(StoreConfig { shards: 1, ..StoreConfig::default() });
        let notes = Notes::default();
        let told = Arc::clone(&notes.0);
        store.watch_by(Box::new(notes));
        let mut keyspace = store.lock(7, 0);
        let key = store.key(0, 7, b"a");
        match fill {
            None => keyspace.set_string(&key, b"1", Expiry::At(100)),
            Some(fill) => {
                let fence = keyspace.begin_load(&key);
                keyspace.fill(&key, Some(FillValue::String(b"1")), fill, &fence);
            }
        }
        drop(keyspace);
        assert!(told.lock().is_empty(), "nobody has asked to be told");
        store.set_watched(true);
        (store, move || std::mem::take(&mut *told.lock()).join(" "))
    }

    #[test]
    fn what_clients_do_is_told() {
        let (store, told) = watched(None);
        let mut keyspace = store.lock(7, 0);
        let (key, other) = (store.key(0, 7, b"a"), store.key(0, 7, b"b"));
        keyspace.set_string(&key, b"2", Expiry::Keep);
        assert_eq!(told(), "a");
        keyspace.set_deadline(&key, None);
        assert_eq!(told(), "a");
        keyspace.read(&key).expect("it is there");
        assert!(!keyspace.remove(&other));
        assert_eq!(told(), "", "nothing has changed");
        let taken = keyspace.take(&key).expect("it is there");
        keyspace.put(&other, taken);
        assert_eq!(told(), "a b");
        assert!(keyspace.remove(&other));
        assert_eq!(told(), "b");
        keyspace.clear_slot(7, None);
        assert_eq!(told(), "slot 7");
    }

    #[test]
    fn what_nobody_does_is_told() {
        let (store, told) = watched(None);
        let mut garbage = Garbage::default();
        store.expire_step(&mut ExpiryShare::whole(), 100, 10, &mut garbage);
        assert_eq!(told(), "a", "active expiry");
        store.lock(7, 0).set_string(&store.key(0, 7, b"a"), b"1", Expiry::At(100));
        told();
        assert!(store.lock(7, 100).read(&store.key(0, 7, b"a")).is_none());
        assert_eq!(told(), "a", "found to be late");
        store.lock(7, 0).set_string(&store.key(0, 7, b"a"), b"1", Expiry::None);
        told();
        store.settings().set_policy(EvictionPolicy::AllKeysRandom);
        assert_eq!(store.evict_step(0, 1, &mut || 0).evicted, 1);
        assert_eq!(told(), "a", "eviction");
    }

    #[test]
    fn a_fill_in_place_of_something_is_told_and_one_of_nothing_is_not() {
        let (store, told) = watched(Some(Fill { deadline: Some(100), stale_for_ms: 100, ..Fill::default() }));
        let key = store.key(0, 7, b"a");
        for (now, expected) in [(0, "a"), (150, "a")] {
            let mut keyspace = store.lock(7, now);
            let fence = keyspace.begin_load(&key);
            let fill = Fill { deadline: Some(100), stale_for_ms: 100, ..Fill::default() };
            keyspace.fill(&key, Some(FillValue::String(b"2")), fill, &fence);
            assert_eq!(told(), expected, "at {now}");
        }
        let mut keyspace = store.lock(7, 0);
        keyspace.discard(&key);
        assert_eq!(told(), "a");
        keyspace.discard(&key);
        let fence = keyspace.begin_load(&key);
        keyspace.fill(&key, None, Fill::default(), &fence);
        assert_eq!(told(), "", "nobody can know anything of it");
        let fence = keyspace.begin_load(&key);
        keyspace.fill(&key, Some(FillValue::String(b"2")), Fill::default(), &fence);
        assert_eq!(told(), "a", "it was known to be absent");
    }
}
