use super::*;
use crate::{Expiry, Fill, FillValue, StoreConfig};

const START: UnixMillis = 1_000_000;

fn set(store: &Store, number: u64, slot: u16, deadline: UnixMillis) {
    let name = number.to_string();
    store.lock(slot, START).set_string(&store.key(0, slot, name.as_bytes()), b"v", Expiry::At(deadline));
}

fn step(store: &Store, now: UnixMillis, budget: usize) -> ExpireStep {
    store.expire_step(&mut ExpiryShare::whole(), now, budget, &mut Garbage::default())
}

/// Runs steps until there is no more to do. Returns what they did in all.
fn expire_all(store: &Store, now: UnixMillis, budget: usize) -> ExpireStep {
    let (mut share, mut garbage) = (ExpiryShare::whole(), Garbage::default());
    let mut sum = ExpireStep::default();
    loop {
        let step = store.expire_step(&mut share, now, budget, &mut garbage);
        sum.looked_at += step.looked_at;
        sum.expired += step.expired;
        if !step.more {
            return sum;
        }
        assert!(step.looked_at >= budget, "a step stopped early: {step:?}");
        assert!(step.looked_at <= budget + 64, "a step went too far: {step:?}");
    }
}

#[test]
fn removes_exactly_what_is_dead() {
    let store = Store::new(StoreConfig::default());
    (0..1_000).for_each(|n| set(&store, n, (n % 300) as u16, START + n as i64));
    for passed in [0i64, 1, 10, 400, 401, 999, 1_000] {
        expire_all(&store, START + passed, 50);
        let dead = (passed + 1).clamp(0, 1_000) as usize;
        assert_eq!(store.len(0), 1_000 - dead, "after {passed} ms");
        assert_eq!(store.counters().expired, dead as u64);
    }
    assert_eq!(store.volatile_len(0), 0);
}

#[test]
fn a_step_that_has_nothing_to_do_looks_at_nothing() {
    let store = Store::new(StoreConfig::default());
    (0..1_000).for_each(|n| set(&store, n, n as u16, START + 1_000));
    assert_eq!(step(&store, START + 999, 100), ExpireStep::default());
    assert_eq!(expire_all(&store, START + 1_000, 100).expired, 1_000);
    assert_eq!(step(&store, START + 5_000, 100), ExpireStep::default());
}

#[test]
fn a_large_slot_is_gone_through_in_steps() {
    let store = Store::new(StoreConfig::default());
    (0..10_000).for_each(|n| set(&store, n, 3, if n % 2 == 0 { START + 10 } else { START + 1_000_000 }));
    let first = step(&store, START + 10, 100);
    assert!(first.more && first.looked_at < 200, "{first:?}");
    // What is set in the part that has been gone through is not forgotten.
    (20_000..21_000).for_each(|n| set(&store, n, 3, START + 20));
    let rest = expire_all(&store, START + 10, 100);
    assert_eq!(first.expired + rest.expired, 5_000);
    assert_eq!(expire_all(&store, START + 20, 100).expired, 1_000);
    assert_eq!(store.len(0), 5_000);
}

#[test]
fn a_large_slot_is_not_gone_through_for_every_single_death() {
    let store = Store::new(StoreConfig::default());
    let keys = 10_000;
    (0..keys).for_each(|n| set(&store, n, 3, START + n as i64));
    let (mut looked_at, mut most_left) = (0, 0);
    for passed in 0..keys as i64 {
        looked_at += expire_all(&store, START + passed, 1_000).looked_at;
        let dead_left = store.len(0) as i64 - (keys as i64 - passed - 1);
        most_left = most_left.max(dead_left);
    }
    assert!(looked_at < 20 * keys as usize, "{looked_at} looks for {keys} entries");
    assert!(most_left <= keys as i64 / 5, "{most_left} dead entries were left lying");
    expire_all(&store, START + 2 * keys as i64, 1_000);
    assert!(store.is_empty(0));
}

#[test]
fn steps_go_on_through_all_databases_and_shards() {
    let store = Store::new(StoreConfig::default());
    for db in 0..16 {
        for slot in (0..16384).step_by(61) {
            store.lock(slot, START).set_string(&store.key(db, slot, b"k"), b"v", Expiry::At(START + 1));
        }
    }
    store.swap(3, 4);
    let keys = 16 * (0..16384).step_by(61).count();
    assert_eq!(expire_all(&store, START + 1, 7).expired, keys);
}

#[test]
fn stale_entries_are_removed_when_their_time_is_over() {
    let store = Store::new(StoreConfig::default());
    let key = store.key(0, 1, b"k");
    let fill = Fill { deadline: Some(START + 10), stale_for_ms: 100, refresh_at: None, filled_at: START, group: 0 };
    let mut keyspace = store.lock(1, START);
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::String(b"v")), fill, &fence);
    drop(keyspace);
    assert_eq!(expire_all(&store, START + 109, 10).expired, 0);
    assert_eq!(store.len(0), 1);
    assert_eq!(expire_all(&store, START + 110, 10).expired, 1);
    assert_eq!(store.len(0), 0);
}

#[test]
fn flushing_in_the_middle_of_a_slot_is_fine() {
    let store = Store::new(StoreConfig::default());
    (0..1_000).for_each(|n| set(&store, n, 3, START));
    assert!(step(&store, START, 10).more);
    drop(store.flush(Some(0)));
    (0..500).for_each(|n| set(&store, n, 3, START));
    assert_eq!(expire_all(&store, START, 100).expired, 500);
}

/// Slots of some sixty entries, whose deadlines lie apart.
#[test]
fn small_slots_are_not_gone_through_for_every_single_death_either() {
    let store = Store::new(StoreConfig::default());
    let keys = 6_000;
    // Six for each millisecond of a second.
    (0..keys).for_each(|n| set(&store, n, (n % 100) as u16, START + (n * 7) as i64 % 1_000));
    let mut looked_at = 0;
    for passed in 0..1_000 {
        looked_at += expire_all(&store, START + passed, 1_000).looked_at;
        let alive_of_late = 999 - (passed - PATIENCE_WITH_SMALL.delay);
        assert!(store.len(0) <= 6 * alive_of_late as usize, "after {passed} ms {} are left", store.len(0));
    }
    assert!(looked_at < 6 * keys as usize, "{looked_at} looks for {keys} entries");
    expire_all(&store, START + 1_000 + PATIENCE_WITH_SMALL.delay, 1_000);
    assert!(store.is_empty(0));
}

#[test]
fn shares_together_are_the_whole_and_none_does_the_work_of_another() {
    let store = Store::new(StoreConfig::default());
    (0..10_000).for_each(|n| set(&store, n, n as u16, START));
    let mut expired = 0;
    for number in 0..3 {
        let mut share = ExpiryShare::new(number, 3);
        assert_eq!(store.next_death(&share), START);
        let mut garbage = Garbage::default();
        loop {
            let step = store.expire_step(&mut share, START, 100, &mut garbage);
            expired += step.expired;
            assert_eq!(store.len(0), 10_000 - expired);
            if !step.more {
                break;
            }
        }
        assert_eq!(store.next_death(&share), NEVER);
        assert_eq!(store.is_empty(0), number == 2, "share {number}");
    }
}

#[test]
fn large_values_are_left_to_the_caller() {
    let store = Store::new(StoreConfig::default());
    store.lock(1, START).set_string(&store.key(0, 1, b"large"), &[b'x'; 100_000], Expiry::At(START));
    let mut garbage = Garbage::default();
    assert_eq!(store.expire_step(&mut ExpiryShare::whole(), START, 10, &mut garbage).expired, 1);
    assert_eq!(garbage.len(), 1);
}
