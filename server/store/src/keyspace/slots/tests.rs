use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Expiry, Store, StoreConfig};

const NOW: UnixMillis = 1_000_000;
const SLOT: u16 = 5;
/// Of the same shard.
const OTHER: u16 = 5 + 64;

fn set(store: &Store, slot: u16, db: u16, number: u32, value: &[u8], expiry: Expiry) {
    let name = number.to_string();
    store.lock(slot, NOW).set_string(&store.key(db, slot, name.as_bytes()), value, expiry);
}

fn remove(store: &Store, db: u16, number: u32) {
    store.lock(SLOT, NOW).remove(&store.key(db, SLOT, number.to_string().as_bytes()));
}

fn digest(store: &Store, now: UnixMillis) -> u64 {
    store.lock(SLOT, now).digest_slot(SLOT, now, DigestLimits::NONE).unwrap()
}

proptest! {
    #[test]
    fn a_walk_visits_what_stays(
        count in 0..300u32, at_once in 1..40usize, changes in prop::collection::vec((any::<bool>(), 0..900u32), 0..300),
    ) {
        let store = Store::new(StoreConfig::default());
        let name = |db: u16, number: u32| (db, number.to_string().into_bytes());
        (0..count).for_each(|number| set(&store, SLOT, (number % 3) as u16, number, b"v", Expiry::None));
        set(&store, OTHER, 0, 9_999, b"v", Expiry::None);
        let mut stayed: BTreeSet<_> = (0..count).map(|number| name((number % 3) as u16, number)).collect();
        let (mut seen, mut cursor, mut changes) = (BTreeSet::new(), SlotCursor::default(), changes.into_iter());
        loop {
            let mut visited = 0;
            let next = store.lock(SLOT, NOW).visit_slot(SLOT, cursor, &mut |stored| {
                visited += 1;
                seen.insert((stored.db(), stored.key().to_vec()));
                visited < at_once
            });
            let Some(next) = next else { break };
            cursor = next;
            for (is_new, number) in changes.by_ref().take(5) {
                let db = (number % 3) as u16;
                if is_new {
                    set(&store, SLOT, db, number + 1_000, b"v", Expiry::None);
                } else {
                    stayed.remove(&name(db, number));
                    remove(&store, db, number);
                }
            }
        }
        prop_assert!(stayed.is_subset(&seen));
        prop_assert!(!seen.contains(&name(0, 9_999)));
    }

    #[test]
    fn a_digest_knows_no_order_but_every_difference(numbers in prop::collection::vec(0..200u32, 1..100), pick: prop::sample::Index) {
        let stores = [(); 2].map(|()| Store::new(StoreConfig::default()));
        numbers.iter().for_each(|number| set(&stores[0], SLOT, 1, *number, &number.to_le_bytes(), Expiry::None));
        numbers.iter().rev().for_each(|number| set(&stores[1], SLOT, 1, *number, &number.to_le_bytes(), Expiry::None));
        let before = digest(&stores[0], NOW);
        prop_assert_eq!(before, digest(&stores[1], NOW));
        let number = numbers[pick.index(numbers.len())];
        let differently = |change: &mut dyn FnMut()| {
            change();
            let changed = digest(&stores[1], NOW);
            set(&stores[1], SLOT, 1, number, &number.to_le_bytes(), Expiry::None);
            (changed != before, digest(&stores[1], NOW) == before)
        };
        prop_assert_eq!(differently(&mut || remove(&stores[1], 1, number)), (true, true));
        prop_assert_eq!(differently(&mut || set(&stores[1], SLOT, 1, number, b"other", Expiry::None)), (true, true));
        let expiry = Expiry::At(NOW + 5);
        prop_assert_eq!(differently(&mut || set(&stores[1], SLOT, 1, number, &number.to_le_bytes(), expiry)), (true, true));
        set(&stores[1], SLOT, 0, number, &number.to_le_bytes(), Expiry::None);
        prop_assert_ne!(digest(&stores[1], NOW), before, "another database");
    }
}

#[test]
fn a_digest_leaves_out_what_is_late_and_the_order_of_fields() {
    let [one, other] = [(); 2].map(|()| Store::new(StoreConfig::default()));
    set(&one, SLOT, 0, 1, b"v", Expiry::At(NOW + 5));
    assert_ne!(digest(&one, NOW), digest(&other, NOW));
    assert_eq!(digest(&one, NOW + 5), digest(&other, NOW));
    for (store, fields) in [(&one, [b"f", b"g"]), (&other, [b"g", b"f"])] {
        let key = store.key(0, SLOT, b"h");
        let fill = |hash: &mut crate::HashMut<'_>| {
            fields.iter().for_each(|field| {
                hash.insert(*field, *field);
            })
        };
        store.lock(SLOT, NOW).update_hash(&key, true, fill).unwrap();
    }
    assert_eq!(digest(&one, NOW + 5), digest(&other, NOW));
    assert_ne!(digest(&other, NOW), 0);
}

#[test]
fn a_digest_has_limits() {
    let store = Store::new(StoreConfig::default());
    (0..20).for_each(|number| set(&store, SLOT, 0, number, b"value", Expiry::None));
    let within = |items, bytes| store.lock(SLOT, NOW).digest_slot(SLOT, NOW, DigestLimits { items, bytes });
    assert_eq!(within(20, 100), Some(digest(&store, NOW)));
    assert_eq!((within(19, 100), within(20, 99)), (None, None));
}

#[test]
fn a_cleared_slot_is_gone_and_others_stay() {
    let store = Store::new(StoreConfig::default());
    for slot in [SLOT, OTHER] {
        (0..50).for_each(|number| set(&store, slot, 0, number, b"v", Expiry::None));
        (0..50).for_each(|number| set(&store, slot, 2, number, b"v", Expiry::At(NOW + 10)));
    }
    let mut keyspace = store.lock(SLOT, NOW);
    keyspace.clear_slot(SLOT, Some(0));
    assert_eq!((keyspace.count_slot(SLOT), keyspace.count_slot(OTHER)), (50, 100));
    keyspace.clear_slot(SLOT, None);
    assert_eq!((keyspace.count_slot(SLOT), keyspace.count_slot(OTHER)), (0, 100));
    assert_eq!(keyspace.garbage().len(), 100);
    drop(keyspace);
    assert_eq!((store.len(0), store.len(2), store.volatile_len(2)), (50, 50, 50));
    let figures = store.cells()[usize::from(SLOT)].lock().tell_figures();
    assert_eq!((figures.entries, figures.mortal), (100, 50));
    set(&store, SLOT, 2, 1, b"v", Expiry::At(NOW + 1));
    let mut garbage = crate::Garbage::default();
    let step = store.expire_step(&mut crate::ExpiryShare::whole(), NOW + 20, 10_000, &mut garbage);
    assert_eq!(step.expired, 51, "what is written afterwards expires");
}

#[test]
fn flushing_slots_voids_their_loads_and_spares_the_others() {
    let store = Store::new(StoreConfig::default());
    let fences = [SLOT, OTHER].map(|slot| {
        set(&store, slot, 0, 1, b"v", Expiry::None);
        store.lock(slot, NOW).begin_load(&store.key(0, slot, b"loaded"))
    });
    let mut asked = 0;
    let garbage = store.flush_slots(None, &mut |slot| {
        asked += 1;
        slot == SLOT
    });
    assert_eq!((garbage.len(), asked, store.len(0)), (1, crate::SLOTS, 1));
    let outcome = store.lock(SLOT, NOW).end_load(&store.key(0, SLOT, b"loaded"), &fences[0]);
    assert_eq!(outcome, crate::FillOutcome::Fenced);
}
