use super::*;
use crate::random::Random;
use crate::{Expiry, StoreConfig};

const START: UnixMillis = 1_000_000_000;
const KEYS: u64 = 2_000;

fn store_with(policy: EvictionPolicy) -> Store {
    let store = Store::new(StoreConfig::default());
    store.settings().set_policy(policy);
    store
}

fn slot_of(number: u64) -> u16 {
    (number.wrapping_mul(7919) % 16384) as u16
}

fn with_key<R>(
    store: &Store,
    number: u64,
    now: UnixMillis,
    act: impl FnOnce(&mut crate::Keyspace<'_>, &crate::Key<'_>) -> R,
) -> R {
    let (slot, name) = (slot_of(number), number.to_string());
    act(&mut store.lock(slot, now), &store.key(0, slot, name.as_bytes()))
}

fn set(store: &Store, number: u64, now: UnixMillis, expiry: Expiry) {
    with_key(store, number, now, |keyspace, key| keyspace.set_string(key, b"v", expiry));
}

fn is_there(store: &Store, number: u64, now: UnixMillis) -> bool {
    with_key(store, number, now, |keyspace, key| keyspace.peek(key).is_some())
}

fn evict_some(store: &Store, now: UnixMillis, entries: usize) {
    let mut random = Random::new(9);
    let mut left = entries;
    while left > 0 {
        let step = store.evict_step(now, left.min(10), &mut || random.next());
        assert!(!step.exhausted);
        left -= step.evicted;
    }
}

/// How many of the numbers are left, in per cent.
fn percent_left(store: &Store, numbers: std::ops::Range<u64>, now: UnixMillis) -> u64 {
    let all = numbers.end - numbers.start;
    numbers.filter(|number| is_there(store, *number, now)).count() as u64 * 100 / all
}

#[test]
fn policies_by_recency_keep_what_was_used_last() {
    for policy in [EvictionPolicy::AllKeysLru, EvictionPolicy::AllKeysLrfu] {
        let store = store_with(policy);
        (0..KEYS).for_each(|n| set(&store, n, START, Expiry::None));
        let later = START + 3_600_000;
        (0..KEYS / 2).for_each(|n| with_key(&store, n, later, |keyspace, key| assert!(keyspace.read(key).is_some())));
        evict_some(&store, later + 1_000, KEYS as usize / 4);
        assert!(percent_left(&store, 0..KEYS / 2, later) >= 97, "{policy}");
    }
}

#[test]
fn policies_by_frequency_keep_what_is_used_often() {
    for policy in [EvictionPolicy::AllKeysLfu, EvictionPolicy::AllKeysLrfu] {
        let store = store_with(policy);
        (0..KEYS).for_each(|n| set(&store, n, START, Expiry::None));
        for _ in 0..50 {
            (0..KEYS / 2)
                .for_each(|n| with_key(&store, n, START, |keyspace, key| assert!(keyspace.read(key).is_some())));
        }
        // Used once, but last.
        (KEYS / 2..KEYS)
            .for_each(|n| with_key(&store, n, START + 30_000, |keyspace, key| assert!(keyspace.read(key).is_some())));
        evict_some(&store, START + 30_000, KEYS as usize / 4);
        assert!(percent_left(&store, 0..KEYS / 2, START + 30_000) >= 97, "{policy}");
    }
}

#[test]
fn fifo_takes_the_oldest_whatever_was_used() {
    let store = store_with(EvictionPolicy::AllKeysFifo);
    (0..KEYS).for_each(|n| set(&store, n, START + 1_000 * n as i64, Expiry::None));
    let later = START + 1_000 * KEYS as i64;
    (0..KEYS / 2).for_each(|n| with_key(&store, n, later, |keyspace, key| assert!(keyspace.read(key).is_some())));
    evict_some(&store, later, KEYS as usize / 4);
    assert!(percent_left(&store, KEYS / 2..KEYS, later) >= 97);
}

#[test]
fn ttl_takes_the_nearest_deadline() {
    let store = store_with(EvictionPolicy::VolatileTtl);
    (0..KEYS).for_each(|n| set(&store, n, START, Expiry::At(START + 1_000_000 + n as i64 * 1_000)));
    evict_some(&store, START, KEYS as usize / 4);
    assert!(percent_left(&store, KEYS / 2..KEYS, START) >= 97);
}

#[test]
fn volatile_policies_take_only_what_has_a_deadline() {
    for policy in EvictionPolicy::ALL.into_iter().filter(|policy| policy.is_volatile_only()) {
        let store = store_with(policy);
        (0..KEYS)
            .for_each(|n| set(&store, n, START, if n % 10 == 0 { Expiry::At(START + 10_000) } else { Expiry::None }));
        evict_some(&store, START, KEYS as usize / 10);
        assert_eq!(store.len(0), (KEYS - KEYS / 10) as usize, "{policy}");
        assert_eq!(store.volatile_len(0), 0, "{policy}");
        assert_eq!(store.evict_step(START, 5, &mut || 1), EvictStep { evicted: 0, exhausted: true }, "{policy}");
    }
}

#[test]
fn policies_for_all_keys_empty_the_store_in_the_end() {
    for policy in EvictionPolicy::ALL {
        if policy.is_volatile_only() || policy == EvictionPolicy::NoEviction {
            continue;
        }
        let store = store_with(policy);
        (0..300).for_each(|n| set(&store, n, START, Expiry::None));
        evict_some(&store, START, 300);
        assert!(store.is_empty(0));
        assert_eq!(store.counters().evicted, 300);
        assert!(store.evict_step(START, 5, &mut || 1).exhausted);
    }
}

#[test]
fn nothing_is_evicted_without_a_policy() {
    let store = store_with(EvictionPolicy::NoEviction);
    set(&store, 1, START, Expiry::None);
    assert_eq!(store.evict_step(START, 5, &mut || 1), EvictStep { evicted: 0, exhausted: true });
}
