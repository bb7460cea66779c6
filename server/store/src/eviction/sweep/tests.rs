use super::*;
use crate::random::Random;
use crate::{Expiry, Store, StoreConfig};

const NOW: UnixMillis = 1_000_000_000;
const SLOT: u16 = 7;

fn one_shard() -> Store {
    Store::new(StoreConfig { shards: 1, ..StoreConfig::default() })
}

fn set(store: &Store, db: u16, number: u64, now: UnixMillis) {
    let name = number.to_string();
    store.lock(SLOT, now).set_string(&store.key(db, SLOT, name.as_bytes()), b"v", Expiry::None);
}

fn is_there(store: &Store, db: u16, number: u64) -> bool {
    let name = number.to_string();
    store.lock(SLOT, NOW).peek(&store.key(db, SLOT, name.as_bytes())).is_some()
}

fn evict(store: &Store, entries: usize, now: UnixMillis) -> usize {
    let mut random = Random::new(3);
    (0..entries).map(|_| store.evict_step(now, 1, &mut || random.next()).evicted).sum()
}

#[test]
fn a_newcomer_is_there_for_a_while_and_goes_when_it_was_not_used() {
    let store = one_shard();
    (0..1_000).for_each(|number| set(&store, 0, number, NOW));
    evict(&store, 1, NOW);
    let passing = 1_000..3_000;
    for number in passing.clone() {
        set(&store, 0, number, NOW);
        assert_eq!(evict(&store, 1, NOW), 1);
        assert!(is_there(&store, 0, number));
    }
    let passing_left = passing.filter(|number| is_there(&store, 0, *number)).count();
    let places = 1_000 / 64 + 1;
    // Of two thousand, some twenty are taken for one that went and came back.
    assert!(passing_left <= places + 45, "{passing_left}");
}

#[test]
fn what_comes_again_and_again_stays() {
    let store = one_shard();
    (0..1_000).for_each(|number| set(&store, 0, number, NOW));
    evict(&store, 1, NOW);
    for round in 0..4 {
        for number in 1_000..1_100 {
            if !is_there(&store, 0, number) {
                set(&store, 0, number, NOW);
                evict(&store, 1, NOW);
            }
        }
        (0..100).for_each(|number| {
            set(&store, 0, 10_000 * (round + 1) + number, NOW);
            evict(&store, 1, NOW);
        });
    }
    let left = (1_000..1_100).filter(|number| is_there(&store, 0, *number)).count();
    assert!(left >= 95, "{left}");
}

#[test]
fn what_is_kept_for_evictions_is_within_two_bytes_an_entry() {
    let store = one_shard();
    const ENTRIES: u64 = 10_000;
    (0..ENTRIES).for_each(|number| set(&store, 0, number, NOW));
    for number in ENTRIES..2 * ENTRIES {
        evict(&store, 1, NOW);
        set(&store, 0, number, NOW);
    }
    let shard = store.cells()[0].lock();
    let sweep = shard.sweep.as_ref().expect("entries were evicted");
    let size = sweep.ghosts.size() + sweep.newcomers.size() + size_of::<Sweep>();
    assert!(size <= 2 * ENTRIES as usize, "{size}");
}

#[test]
fn where_all_are_newcomers_the_first_goes() {
    let store = one_shard();
    set(&store, 0, 0, NOW);
    assert_eq!(evict(&store, 1, NOW), 1);
    (1..4).for_each(|number| set(&store, 0, number, NOW));
    for gone in 1..4 {
        assert_eq!(evict(&store, 1, NOW), 1);
        assert!(!is_there(&store, 0, gone));
    }
    assert!(store.evict_step(NOW, 1, &mut || 1).exhausted);
}

#[test]
fn databases_may_be_exchanged_and_flushed_in_between() {
    let store = one_shard();
    (0..500).for_each(|number| set(&store, 0, number, NOW));
    evict(&store, 10, NOW);
    (500..600).for_each(|number| set(&store, 0, number, NOW));
    store.swap(0, 1);
    assert_eq!(evict(&store, 90, NOW), 90);
    assert_eq!(store.len(1), 500);
    drop(store.flush(Some(1)));
    assert_eq!(evict(&store, 1, NOW), 0);
    set(&store, 0, 1, NOW);
    assert_eq!(evict(&store, 1, NOW), 1);
}

/// Yields some slots alone, and notes what goes.
struct Watch {
    yields: fn(u16) -> bool,
    evicted: Vec<(u16, u16, Vec<u8>)>,
}

impl Onlooker for Watch {
    fn yields(&self, slot: u16) -> bool {
        (self.yields)(slot)
    }

    fn evicted(&mut self, slot: u16, db: u16, key: &[u8]) {
        self.evicted.push((slot, db, key.to_vec()));
    }
}

/// A thousand entries, in slots whose numbers tell them apart, of which so many are evicted.
fn evict_watched(yields: fn(u16) -> bool, evictions: usize) -> (Store, Vec<(u16, u16, Vec<u8>)>) {
    let store = Store::new(StoreConfig { shards: 2, ..StoreConfig::default() });
    for number in 0..1_000u16 {
        let name = number.to_string();
        store.lock(number, NOW).set_string(&store.key(number % 3, number, name.as_bytes()), b"v", Expiry::None);
    }
    let (mut random, mut watch) = (Random::new(3), Watch { yields, evicted: Vec::new() });
    let mut left = evictions;
    while left > 0 {
        let step = store.evict_step_with(NOW, left, &mut || random.next(), &mut watch);
        assert!(step.evicted > 0);
        left -= step.evicted;
    }
    (store, watch.evicted)
}

#[test]
fn an_onlooker_is_told_of_each_entry_that_goes() {
    let (store, evicted) = evict_watched(|_| true, 300);
    assert_eq!(evicted.len(), 300);
    for (slot, db, key) in &evicted {
        assert_eq!((slot.to_string().as_bytes(), *db), (&key[..], slot % 3));
        assert!(store.lock(*slot, NOW).peek(&store.key(*db, *slot, key)).is_none());
    }
    assert_eq!((0..3).map(|db| store.len(db)).sum::<usize>(), 700);
}

#[test]
fn what_is_to_be_spared_is_spared_while_there_is_other() {
    let (_, evicted) = evict_watched(|slot| slot % 3 == 0, 200);
    assert!(evicted.iter().all(|(slot, ..)| slot % 3 == 0));
    let (store, evicted) = evict_watched(|slot| slot == 8, 3);
    assert_eq!(evicted.len(), 3);
    assert!(store.lock(8, NOW).peek(&store.key(2, 8, b"8")).is_none(), "where it has gone, others go");
}

#[test]
fn where_all_is_to_be_spared_memory_is_made_all_the_same() {
    let (_, evicted) = evict_watched(|_| false, 1_000);
    assert_eq!(evicted.len(), 1_000);
}
