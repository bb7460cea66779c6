use super::*;
use crate::UnixMillis;
use crate::keyspace::Expiry;
use crate::store::StoreConfig;

const NOW: UnixMillis = 1_000_000;
const STRINGS: u32 = 5_000;
/// Their numbers, and how many fields they have.
const HASHES: [(u32, u32); 3] = [(STRINGS, 3), (STRINGS + 1, 300), (STRINGS + 2, 600)];

fn key_of(number: u32) -> (u16, Vec<u8>) {
    // A crowded slot, whose table has segments, and others with few.
    let slot = if number.is_multiple_of(2) { 7 } else { (number % 97) as u16 * 150 };
    (slot, format!("key {number}").into_bytes())
}

/// Numbers, strings short and long, and some that readers share.
fn value_of(number: u32) -> Vec<u8> {
    match number % 10 {
        0 => number.to_string().into_bytes(),
        1 => vec![b'l'; 2_000 + number as usize],
        2 => vec![b's'; 40_000],
        _ => format!("value {number}").into_bytes(),
    }
}

fn filled_store() -> Store {
    let store = Store::new(StoreConfig { shards: 4, databases: 3, seed: 7 });
    store.settings().set_compress_over(Some(4_000));
    for db in [0, 2] {
        for number in 0..STRINGS {
            let (slot, name) = key_of(number);
            let mut keyspace = store.lock(slot, NOW);
            keyspace.set_string(&store.key(db, slot, &name), &value_of(number), Expiry::At(NOW + 9_000));
        }
        for (number, fields) in HASHES {
            let (slot, name) = key_of(number);
            let mut keyspace = store.lock(slot, NOW);
            let filled = keyspace.update_hash(&store.key(db, slot, &name), true, |hash| {
                for field in 0..fields {
                    hash.insert(format!("f{field}").as_bytes(), format!("v{field}").repeat(9).as_bytes());
                }
            });
            assert!(filled.is_ok());
        }
    }
    store
}

/// Leaves one string in so many.
fn thin_out(store: &Store, one_in: u32) {
    for number in (0..STRINGS).filter(|number| number % one_in != 0) {
        for db in [0, 2] {
            let (slot, name) = key_of(number);
            store.lock(slot, NOW).remove(&store.key(db, slot, &name));
        }
    }
}

fn check(store: &Store, one_in: u32) {
    let mut scratch = Vec::new();
    for db in [0, 2] {
        for number in (0..STRINGS).filter(|number| number % one_in == 0) {
            let (slot, name) = key_of(number);
            let mut keyspace = store.lock(slot, NOW);
            let found = keyspace.read_string(&store.key(db, slot, &name)).unwrap().expect("the key is there");
            assert_eq!(found.as_bytes(&mut scratch), value_of(number), "key {number} of database {db}");
        }
        for (number, fields) in HASHES {
            let (slot, name) = key_of(number);
            let mut keyspace = store.lock(slot, NOW);
            let hash = keyspace.read_hash(&store.key(db, slot, &name)).unwrap().expect("the hash is there");
            for field in 0..fields {
                let value = hash.get(format!("f{field}").as_bytes());
                assert_eq!(value, Some(format!("v{field}").repeat(9).as_bytes()));
            }
        }
        let strings = STRINGS.div_ceil(one_in) as usize;
        assert_eq!((store.len(db), store.volatile_len(db)), (strings + HASHES.len(), strings));
    }
}

/// Runs it to its end. Returns how many entries were looked at and blocks moved.
fn run(store: &Store, mut compaction: Compaction, budget: usize) -> (usize, usize) {
    let (mut looked_at, mut moved) = (0, 0);
    loop {
        let step = store.compact_step(&mut compaction, budget);
        // A bucket is gone through as a whole.
        assert!(step.looked_at <= budget + 32, "{step:?}");
        looked_at += step.looked_at;
        moved += step.moved;
        if !step.more {
            return (looked_at, moved);
        }
    }
}

#[test]
fn what_has_been_moved_is_what_it_was() {
    for budget in [1, 100, 100_000] {
        let store = filled_store();
        thin_out(&store, 7);
        let entries = store.len(0) + store.len(2);
        let (looked_at, moved) = run(&store, Compaction::new(usize::MAX), budget);
        assert_eq!(looked_at, 2 * entries, "once to survey and once to move");
        assert!(moved > entries, "{moved} blocks of {entries} entries");
        check(&store, 7);
    }
}

#[test]
fn without_a_goal_nothing_is_moved() {
    let store = filled_store();
    let (_, moved) = run(&store, Compaction::new(0), 1_000);
    assert_eq!(moved, 0);
    check(&store, 1);
}

#[test]
fn requests_may_come_in_between() {
    let store = filled_store();
    let mut compaction = Compaction::new(usize::MAX);
    let mut removed = 0;
    while store.compact_step(&mut compaction, 50).more {
        if removed < STRINGS {
            let (slot, name) = key_of(removed);
            for db in [0, 2] {
                store.lock(slot, NOW).remove(&store.key(db, slot, &name));
            }
            removed += 1;
        }
        let (slot, name) = key_of(STRINGS - 1);
        store.lock(slot, NOW).set_string(&store.key(0, slot, &name), &vec![b'x'; removed as usize], Expiry::None);
    }
    assert!(removed > 200, "{removed}");
    let left = (removed..STRINGS - 1).find(|number| {
        let (slot, name) = key_of(*number);
        let mut scratch = Vec::new();
        let mut keyspace = store.lock(slot, NOW);
        keyspace.read_string(&store.key(2, slot, &name)).unwrap().unwrap().as_bytes(&mut scratch) != value_of(*number)
    });
    assert_eq!(left, None);
}
