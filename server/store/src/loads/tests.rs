use crate::{Expiry, ExpiryShare, Fill, FillOutcome, FillValue, Garbage, Key, Keyspace, Presence, Store, StoreConfig};

const NOW: i64 = 1_000_000;
const SLOT: u16 = 5;
const FILL: Fill = Fill { deadline: None, stale_for_ms: 0, refresh_at: None, filled_at: NOW, group: 0 };

/// Begins a load of a key that is there or not, does something, and tells what becomes of the fill.
fn fill_after(present: bool, between: impl FnOnce(&Store, &Key<'_>)) -> FillOutcome {
    let store = Store::new(StoreConfig::default());
    let key = store.key(0, SLOT, b"k");
    if present {
        store.lock(SLOT, NOW).set_string(&key, b"before", Expiry::At(NOW + 10));
    }
    let fence = store.lock(SLOT, NOW).begin_load(&key);
    between(&store, &key);
    store.reset_counters();
    let outcome = store.lock(SLOT, NOW + 100).fill(&key, Some(FillValue::String(b"loaded")), FILL, &fence);
    assert_eq!(store.loads_under_way(), 0, "a load is left over");
    let counters = store.counters();
    assert_eq!((counters.fills, counters.fenced_fills), if outcome == FillOutcome::Stored { (1, 0) } else { (0, 1) });
    outcome
}

type Act = fn(&mut Keyspace<'_>, &Key<'_>);
type ActOnStore = fn(&Store, &Key<'_>);

/// Every way in which a client can change a key, each of which must void the loads under way.
const CHANGES: [(&str, Act); 9] = [
    ("set", |keyspace, key| keyspace.set_string(key, b"v", Expiry::None)),
    ("set shared", |keyspace, key| keyspace.set_string_shared(key, &bytes::Bytes::from_static(b"v"), Expiry::None)),
    ("set integer", |keyspace, key| keyspace.set_integer(key, 1, Expiry::None)),
    ("append", |keyspace, key| {
        keyspace.update_string(key, true, |string| string.append(b"v")).unwrap();
    }),
    ("append to a long string", |keyspace, key| {
        keyspace.set_string(key, &[b'x'; 5_000], Expiry::None);
        let fence = keyspace.begin_load(key);
        keyspace.update_string(key, true, |string| string.append(b"v")).unwrap();
        assert_eq!(keyspace.fill(key, None, FILL, &fence), FillOutcome::Fenced);
    }),
    ("set a field", |keyspace, key| {
        keyspace.remove(key);
        for field in [b"f", b"g"] {
            let fence = keyspace.begin_load(key);
            keyspace.update_hash(key, true, |hash| hash.insert(field, b"v")).unwrap();
            assert_eq!(keyspace.fill(key, None, FILL, &fence), FillOutcome::Fenced);
        }
    }),
    ("remove", |keyspace, key| {
        keyspace.remove(key);
    }),
    ("put", |keyspace, key| {
        keyspace.set_integer(key, 1, Expiry::None);
        let copy = keyspace.copy_of(key).unwrap();
        let fence = keyspace.begin_load(key);
        keyspace.put(key, copy);
        assert_eq!(keyspace.fill(key, None, FILL, &fence), FillOutcome::Fenced);
    }),
    ("fence of a load that was voided and begun again", |keyspace, key| {
        keyspace.remove(key);
        let again = keyspace.begin_load(key);
        keyspace.end_load(key, &again);
    }),
];

#[test]
fn a_clients_change_voids_the_loads_of_its_key() {
    for (name, change) in CHANGES {
        for present in [false, true] {
            let outcome = fill_after(present, |store, key| change(&mut store.lock(SLOT, NOW), key));
            assert_eq!(outcome, FillOutcome::Fenced, "{name}, present: {present}");
        }
    }
}

#[test]
fn so_do_changes_of_what_is_there() {
    let changes: [(&str, Act); 2] = [
        ("deadline", |keyspace, key| assert!(keyspace.set_deadline(key, None))),
        ("take", |keyspace, key| drop(keyspace.take(key).unwrap())),
    ];
    for (name, change) in changes {
        let outcome = fill_after(true, |store, key| change(&mut store.lock(SLOT, NOW), key));
        assert_eq!(outcome, FillOutcome::Fenced, "{name}");
    }
}

#[test]
fn so_do_changes_of_the_database() {
    let changes: [(&str, ActOnStore); 4] = [
        ("flush one", |store, _| drop(store.flush(Some(0)))),
        ("flush all", |store, _| drop(store.flush(None))),
        ("swap", |store, _| store.swap(0, 1)),
        ("swap back", |store, _| store.swap(1, 0)),
    ];
    for (name, change) in changes {
        assert_eq!(fill_after(false, change), FillOutcome::Fenced, "{name}");
    }
}

#[test]
fn what_is_no_clients_change_of_the_key_does_not() {
    let others: [(&str, ActOnStore); 6] = [
        ("nothing", |_, _| {}),
        ("a read", |store, key| assert!(store.lock(SLOT, NOW).read(key).is_some())),
        ("expiry by a read", |store, key| assert!(store.lock(SLOT, NOW + 50).read(key).is_none())),
        ("expiry by a step", |store, _| {
            let step = store.expire_step(&mut ExpiryShare::whole(), NOW + 50, 10, &mut Garbage::default());
            assert_eq!(step.expired, 1);
        }),
        ("eviction", |store, _| assert_eq!(store.evict_step(NOW, 1, &mut || 0).evicted, 1)),
        ("a change of another key or database", |store, _| {
            let mut keyspace = store.lock(SLOT, NOW);
            keyspace.set_string(&store.key(0, SLOT, b"other"), b"v", Expiry::None);
            keyspace.set_string(&store.key(1, SLOT, b"k"), b"v", Expiry::None);
            drop(keyspace);
            drop(store.flush(Some(1)));
        }),
    ];
    for (name, act) in others {
        assert_eq!(fill_after(true, act), FillOutcome::Stored, "{name}");
    }
}

#[test]
fn loads_of_one_key_end_one_by_one() {
    let store = Store::new(StoreConfig::default());
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let (first, second, third) = (keyspace.begin_load(&key), keyspace.begin_load(&key), keyspace.begin_load(&key));
    keyspace.end_load(&key, &second);
    assert_eq!(keyspace.fill(&key, None, FILL, &second), FillOutcome::Fenced, "an ended load does not come back");
    assert_eq!(keyspace.fill(&key, None, FILL, &first), FillOutcome::Stored);
    assert_eq!(keyspace.presence(&key), Presence::Absent);
    assert_eq!(keyspace.fill(&key, Some(FillValue::String(b"v")), FILL, &third), FillOutcome::Stored);
    assert_eq!(keyspace.presence(&key), Presence::Present);
}

#[test]
fn an_end_after_a_void_leaves_later_loads_alone() {
    let store = Store::new(StoreConfig::default());
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let voided = keyspace.begin_load(&key);
    keyspace.remove(&key);
    let later = keyspace.begin_load(&key);
    keyspace.end_load(&key, &voided);
    assert_eq!(keyspace.fill(&key, None, FILL, &later), FillOutcome::Stored);
}
