use std::collections::BTreeSet;

use super::*;
use crate::random::Random;
use crate::{Expiry, SLOTS, StoreConfig};

const NOW: UnixMillis = 1_000_000;

/// A slot for each name, spread over all of them.
fn slot_of(number: u64) -> u16 {
    (number.wrapping_mul(7919) % u64::from(SLOTS)) as u16
}

fn set(store: &Store, number: u64, slot: u16, expiry: Expiry) {
    let name = number.to_string();
    store.lock(slot, NOW).set_string(&store.key(0, slot, name.as_bytes()), b"v", expiry);
}

fn remove(store: &Store, number: u64, slot: u16) {
    let name = number.to_string();
    store.lock(slot, NOW).remove(&store.key(0, slot, name.as_bytes()));
}

fn number(name: &[u8]) -> u64 {
    std::str::from_utf8(name).unwrap().parse().unwrap()
}

fn scan_all(store: &Store, count: usize, mut between: impl FnMut(usize)) -> BTreeSet<u64> {
    let (mut cursor, mut seen, mut calls) = (0, BTreeSet::new(), 0);
    loop {
        cursor = store.scan(0, cursor, count, NOW, &mut |name, object_type| {
            assert_eq!(object_type, ObjectType::String);
            seen.insert(number(name));
        });
        assert!(cursor < 1 << 53, "a cursor must fit in a double");
        if cursor == 0 {
            return seen;
        }
        calls += 1;
        between(calls);
    }
}

#[test]
fn a_scan_finds_every_key_while_others_come_and_go() {
    for slot in [slot_of as fn(u64) -> u16, |_| 77, |_| SLOTS - 1] {
        let store = Store::new(StoreConfig::default());
        (0..2_000).for_each(|n| set(&store, n, slot(n), Expiry::None));
        let seen = scan_all(&store, 10, |call| {
            for n in 10_000..10_100 + 20 * call as u64 % 2_000 {
                if call % 2 == 0 { set(&store, n, slot(n), Expiry::None) } else { remove(&store, n, slot(n)) }
            }
        });
        assert!((0..2_000).all(|n| seen.contains(&n)));
    }
}

#[test]
fn an_empty_database_is_scanned_in_one_step() {
    let store = Store::new(StoreConfig::default());
    assert_eq!(store.scan(0, 0, 10, NOW, &mut |_, _| panic!("there is no key")), 0);
    assert_eq!(store.scan(99, 0, 10, NOW, &mut |_, _| panic!("there is no database")), 0);
    assert_eq!(store.scan(0, u64::MAX, 10, NOW, &mut |_, _| panic!("there is no key")), 0);
}

#[test]
fn a_step_of_a_scan_is_about_as_long_as_asked() {
    let store = Store::new(StoreConfig::default());
    (0..5_000).for_each(|n| set(&store, n, slot_of(n), Expiry::None));
    let (mut cursor, mut steps) = (0, 0);
    loop {
        let mut visited = 0;
        cursor = store.scan(0, cursor, 100, NOW, &mut |_, _| visited += 1);
        assert!(visited <= 150, "{visited} keys in a step of 100");
        steps += 1;
        if cursor == 0 {
            break;
        }
    }
    assert!((34..=60).contains(&steps), "{steps} steps");
}

#[test]
fn what_has_expired_is_not_visited() {
    let store = Store::new(StoreConfig::default());
    (0..100).for_each(|n| set(&store, n, slot_of(n), if n % 2 == 0 { Expiry::At(NOW) } else { Expiry::At(NOW + 1) }));
    let odd: BTreeSet<u64> = (0..100).filter(|n| n % 2 == 1).collect();
    assert_eq!(scan_all(&store, 1_000, |_| {}), odd);
    let mut all = BTreeSet::new();
    store.for_each_key(0, NOW, &mut |name, _| {
        all.insert(number(name));
    });
    assert_eq!(all, odd);
    let mut random = Random::new(1);
    for _ in 0..100 {
        assert!(odd.contains(&number(&store.random_key(0, NOW, &mut || random.next()).unwrap())));
    }
    assert_eq!(store.random_key(0, NOW + 1, &mut || random.next()), None);
}

#[test]
fn a_random_key_is_any_key() {
    let store = Store::new(StoreConfig::default());
    // One slot holds as many keys as all the others.
    (0..100).for_each(|n| set(&store, n, if n < 50 { 5 } else { slot_of(n) }, Expiry::None));
    let mut random = Random::new(2);
    let mut picked = [0; 100];
    for _ in 0..20_000 {
        picked[number(&store.random_key(0, NOW, &mut || random.next()).unwrap()) as usize] += 1;
    }
    assert!(picked.iter().all(|times| (50..800).contains(times)), "{picked:?}");
}

#[test]
fn a_slot_can_be_listed_and_counted() {
    let store = Store::new(StoreConfig::default());
    (0..30).for_each(|n| set(&store, n, 9, Expiry::None));
    (30..60).for_each(|n| set(&store, n, 9 + 64, Expiry::None));
    assert_eq!(store.count_in_slot(0, 9), 30);
    assert_eq!(store.count_in_slot(1, 9), 0);
    let mut names = BTreeSet::new();
    store.keys_in_slot(0, 9, 20, NOW, &mut |name| {
        assert!(number(name) < 30 && names.insert(name.to_vec()));
    });
    assert_eq!(names.len(), 20);
}
