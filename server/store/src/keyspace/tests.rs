use bytes::Bytes;

use super::*;
use crate::{Encoding, EvictionPolicy, ExpiryShare, ObjectType, StoreConfig, StringView};

const NOW: UnixMillis = 1_000_000;
const SLOT: u16 = 5;

fn new_store() -> Store {
    Store::new(StoreConfig::default())
}

fn text(value: Option<ValueRef<'_>>) -> Option<Vec<u8>> {
    value.map(|value| match value {
        ValueRef::String(string) => string.to_vec(),
        ValueRef::Hash(_) => panic!("a hash where a string was set"),
    })
}

fn fill_until(deadline: UnixMillis, stale_for_ms: u32) -> Fill {
    Fill { deadline: Some(deadline), stale_for_ms, refresh_at: None, filled_at: NOW, group: 3 }
}

#[test]
fn a_value_is_read_until_its_deadline() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    store.lock(SLOT, NOW).set_string(&key, b"v", Expiry::At(NOW + 10));
    assert_eq!(text(store.lock(SLOT, NOW + 9).read(&key)), Some(b"v".to_vec()));
    let mut keyspace = store.lock(SLOT, NOW + 10);
    assert!(keyspace.read(&key).is_none() && keyspace.missed());
    assert!(keyspace.read(&key).is_none());
    drop(keyspace);
    let counters = store.counters();
    assert_eq!((counters.hits, counters.misses, counters.expired), (1, 2, 1));
    assert!(store.is_empty(0));
}

#[test]
fn replacing_a_value_keeps_takes_or_sets_the_deadline() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    keyspace.set_string(&key, b"v", Expiry::At(NOW + 10));
    keyspace.set_integer(&key, 7, Expiry::Keep);
    assert_eq!(keyspace.deadline(&key), Some(Some(NOW + 10)));
    keyspace.set_string(&key, b"v", Expiry::None);
    assert_eq!(keyspace.deadline(&key), Some(None));
    assert!(keyspace.set_deadline(&key, Some(NOW + 5)));
    assert_eq!(keyspace.deadline(&key), Some(Some(NOW + 5)));
    assert_eq!(keyspace.changes(), 4);
    drop(keyspace);
    store.reset_counters();
    assert_eq!(store.counters().changes, 4);
    assert_eq!((store.len(0), store.volatile_len(0), store.average_ttl(0, NOW)), (1, 1, 5));
}

#[test]
fn computed_strings_are_kept_as_text() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    keyspace.set_text(&key, b"15", Expiry::At(NOW + 10));
    assert_eq!(keyspace.peek(&key).map(|entry| entry.encoding()), Some(Encoding::EmbStr));
    keyspace.set_built(&key, b"15".to_vec(), Expiry::Keep);
    assert_eq!(keyspace.peek(&key).map(|entry| entry.encoding()), Some(Encoding::Raw));
    keyspace.set_built(&key, vec![b'x'; 5_000], Expiry::Keep);
    assert_eq!(text(keyspace.read(&key)), Some(vec![b'x'; 5_000]));
    assert_eq!(keyspace.deadline(&key), Some(Some(NOW + 10)));
}

#[test]
fn a_string_opened_for_a_change_that_does_not_come_is_kept_raw_and_counts_as_unchanged() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::String(b"7")), fill_until(NOW + 10, 0), &fence);
    assert_eq!(keyspace.update_string(&key, true, |string| string.len()), Ok(Some(1)));
    let entry = keyspace.peek(&key).expect("the key is there");
    assert_eq!((entry.encoding(), entry.deadline()), (Encoding::Raw, Some(NOW + 10)));
    assert!(entry.fill().is_some(), "it is still what the origin gave");
    assert_eq!(keyspace.changes(), 0);
}

#[test]
fn integers_are_added_to_where_they_are() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    assert_eq!(keyspace.add(&key, 5), Ok(5));
    assert_eq!(keyspace.fill(&key, None, Fill::default(), &fence), FillOutcome::Fenced);
    assert!(keyspace.set_deadline(&key, Some(NOW + 10)));
    let fence = keyspace.begin_load(&key);
    assert_eq!(keyspace.add(&key, -7), Ok(-2));
    assert_eq!(keyspace.fill(&key, None, Fill::default(), &fence), FillOutcome::Fenced);
    let entry = keyspace.peek(&key).expect("the key is there");
    assert_eq!((entry.encoding(), entry.deadline()), (Encoding::Int, Some(NOW + 10)));
    assert_eq!(keyspace.changes(), 3);
    assert_eq!(keyspace.add(&key, i64::MIN), Err(AddError::Overflow));
    keyspace.set_text(&key, b"41", Expiry::Keep);
    assert_eq!(keyspace.add(&key, 1), Ok(42));
    let entry = keyspace.peek(&key).expect("the key is there");
    assert_eq!((entry.encoding(), entry.deadline()), (Encoding::Int, Some(NOW + 10)));
    for text in ["4.1", "x", "", &"1".repeat(2_000)] {
        keyspace.set_string(&key, text.as_bytes(), Expiry::Keep);
        assert_eq!(keyspace.add(&key, 1), Err(AddError::NotAnInteger));
    }
    let changes = keyspace.changes();
    keyspace.remove(&key);
    keyspace.update_hash(&key, true, |hash| hash.insert(b"f", b"1")).expect("there is no key");
    assert_eq!(keyspace.add(&key, 1), Err(AddError::WrongType));
    assert_eq!(keyspace.changes(), changes + 2);
}

#[test]
fn a_stale_integer_is_not_added_to() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::String(b"100")), fill_until(NOW + 10, 50), &fence);
    drop(keyspace);
    let mut keyspace = store.lock(SLOT, NOW + 10);
    assert_eq!(keyspace.add(&key, 1), Ok(1));
    let entry = keyspace.peek(&key).expect("the key is there");
    assert_eq!((entry.deadline(), entry.fill()), (None, None));
}

#[test]
fn what_a_client_changed_in_place_dies_at_its_deadline() {
    let changes: [fn(&mut Keyspace<'_>, &Key<'_>); 3] = [
        |keyspace, key| assert_eq!(keyspace.add(key, 1), Ok(101)),
        |keyspace, key| {
            keyspace.update_string(key, false, |string| string.append(b"0")).unwrap();
        },
        |keyspace, key| {
            let entry = keyspace.peek(key).unwrap();
            assert_eq!(entry.deadline(), Some(NOW + 10));
            keyspace.set_string(key, b"w", Expiry::Keep);
        },
    ];
    for change in changes {
        let store = new_store();
        let key = store.key(0, SLOT, b"k");
        let mut keyspace = store.lock(SLOT, NOW);
        let fence = keyspace.begin_load(&key);
        keyspace.fill(&key, Some(FillValue::String(b"100")), fill_until(NOW + 10, 50), &fence);
        change(&mut keyspace, &key);
        drop(keyspace);
        let expired_at = |now| store.expire_step(&mut ExpiryShare::whole(), now, 10, &mut Garbage::default()).expired;
        assert_eq!((expired_at(NOW + 9), expired_at(NOW + 10)), (0, 1));
    }
}

#[test]
fn an_expired_value_does_not_hand_its_deadline_on() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    store.lock(SLOT, NOW).set_string(&key, b"v", Expiry::At(NOW + 10));
    let mut keyspace = store.lock(SLOT, NOW + 10);
    keyspace.set_string(&key, b"w", Expiry::Keep);
    assert_eq!(keyspace.deadline(&key), Some(None));
}

#[test]
fn strings_change_in_place() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    assert_eq!(keyspace.update_string(&key, false, |_| ()), Ok(None));
    assert_eq!(keyspace.update_string(&key, true, |_| ()), Ok(Some(())));
    assert_eq!(keyspace.presence(&key), Presence::Missing, "nothing was changed, so nothing comes into being");
    keyspace.set_integer(&key, 12, Expiry::At(NOW + 9));
    assert_eq!(keyspace.peek(&key).map(|entry| entry.encoding()), Some(Encoding::Int));
    keyspace.update_string(&key, true, |string| string.append(b"34")).unwrap();
    assert_eq!(keyspace.peek(&key).map(|entry| entry.encoding()), Some(Encoding::Raw));
    for _ in 0..3 {
        keyspace.update_string(&key, true, |string| string.append(&[b'x'; 1000])).unwrap();
    }
    assert_eq!(text(keyspace.read(&key)).map(|text| text.len()), Some(3004));
    assert_eq!(keyspace.deadline(&key), Some(Some(NOW + 9)));
    let fields = keyspace.update_hash(&key, true, |_| ());
    assert_eq!(fields, Err(UpdateError::WrongType));
}

fn shared(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> Bytes {
    match keyspace.read_string(key).unwrap().unwrap().view() {
        StringView::Shared(bytes) => bytes,
        other => panic!("{other:?} is not shared"),
    }
}

#[test]
fn long_values_are_shared_and_copied_when_changed() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let long = Bytes::from(vec![b'x'; 20_000]);
    let mut keyspace = store.lock(SLOT, NOW);
    keyspace.set_string_shared(&key, &long, Expiry::None);
    let held = shared(&mut keyspace, &key);
    assert_eq!(held.as_ptr(), long.as_ptr());
    keyspace.update_string(&key, false, |string| string.append(b"y")).unwrap();
    assert_eq!(held.len(), 20_000);
    let changed = shared(&mut keyspace, &key);
    assert_eq!(changed.len(), 20_001);
}

#[test]
fn an_empty_hash_is_removed() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    assert_eq!(keyspace.update_hash(&key, true, |hash| hash.insert(b"f", b"v")), Ok(Some(true)));
    assert_eq!(keyspace.peek(&key).map(|entry| entry.object_type()), Some(ObjectType::Hash));
    assert_eq!(keyspace.read_hash(&key).unwrap().unwrap().get(b"f"), Some(&b"v"[..]));
    assert_eq!(keyspace.read_string(&key).err(), Some(WrongType));
    assert_eq!(keyspace.update_hash(&key, true, |hash| hash.remove(b"g")), Ok(Some(false)));
    assert_eq!(keyspace.changes(), 1);
    assert_eq!(keyspace.update_hash(&key, false, |hash| hash.remove(b"f")), Ok(Some(true)));
    assert_eq!(keyspace.presence(&key), Presence::Missing);
    assert_eq!(keyspace.changes(), 2);
}

#[test]
fn an_entry_moves_with_its_deadline() {
    let store = new_store();
    let (from, to) = (store.key(0, SLOT, b"from"), store.key(3, 900, b"to, with a longer name"));
    let mut keyspace = store.lock_slots([900, SLOT, SLOT], NOW);
    keyspace.set_string(&from, &[b'x'; 2000], Expiry::At(NOW + 7));
    let copy = keyspace.copy_of(&from).unwrap();
    let taken = keyspace.take(&from).unwrap();
    assert!(keyspace.take(&from).is_none());
    assert_eq!((taken.object_type(), taken.deadline()), (ObjectType::String, Some(NOW + 7)));
    keyspace.set_string(&to, b"old", Expiry::None);
    keyspace.put(&to, taken);
    keyspace.put(&from, copy);
    for key in [from, to] {
        assert_eq!(text(keyspace.read(&key)), Some(vec![b'x'; 2000]));
        assert_eq!(keyspace.deadline(&key), Some(Some(NOW + 7)));
    }
    drop(keyspace);
    assert_eq!((store.len(0), store.len(3)), (1, 1));
}

#[test]
fn an_absent_key_is_known_but_not_seen() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    assert_eq!(keyspace.fill(&key, None, fill_until(NOW + 10, 0), &fence), FillOutcome::Stored);
    assert!(keyspace.read(&key).is_none() && keyspace.peek(&key).is_none());
    assert!(!keyspace.missed());
    assert_eq!(keyspace.presence(&key), Presence::Absent);
    assert!(!keyspace.touch(&key) && !keyspace.set_deadline(&key, None) && keyspace.take(&key).is_none());
    drop(keyspace);
    assert_eq!((store.len(0), store.volatile_len(0), store.count_in_slot(0, SLOT)), (0, 0, 0));
    assert_eq!(store.counters().absent_hits, 1);
    let mut keyspace = store.lock(SLOT, NOW + 10);
    assert!(keyspace.read(&key).is_none() && keyspace.missed());
    assert_eq!(keyspace.presence(&key), Presence::Missing);
    drop(keyspace);
    assert_eq!(store.counters().expired, 1);
}

#[test]
fn removing_an_absent_key_forgets_that_it_is() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, None, fill_until(NOW + 10, 0), &fence);
    assert!(!keyspace.remove(&key));
    assert_eq!(keyspace.presence(&key), Presence::Missing);
}

#[test]
fn a_stale_value_is_served_only_where_allowed() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::String(b"v")), fill_until(NOW + 10, 50), &fence);
    drop(keyspace);
    let allowing = Access { allow_stale: true, ..Access::default() };
    for (after, allow, served) in
        [(9, false, true), (10, false, false), (10, true, true), (59, true, true), (60, true, false)]
    {
        let mut keyspace = store.lock(SLOT, NOW + after);
        keyspace.set_access(if allow { allowing } else { Access::default() });
        assert_eq!(keyspace.peek(&key).is_some(), served, "after {after} ms, allowed: {allow}");
        assert_eq!(keyspace.read(&key).is_some(), served, "after {after} ms, allowed: {allow}");
        assert_eq!(keyspace.missed(), !served);
    }
    assert_eq!(store.counters().stale_served, 2);
    assert_eq!(store.counters().expired, 1);
}

#[test]
fn a_write_over_a_stale_value_starts_anew() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::String(b"old")), fill_until(NOW + 10, 50), &fence);
    drop(keyspace);
    let mut keyspace = store.lock(SLOT, NOW + 20);
    keyspace.update_string(&key, true, |string| string.append(b"new")).unwrap();
    assert_eq!(text(keyspace.read(&key)), Some(b"new".to_vec()));
    let entry = keyspace.peek(&key).unwrap();
    assert_eq!((entry.deadline(), entry.fill()), (None, None));
}

#[test]
fn a_clients_change_makes_a_filled_value_its_own() {
    let store = new_store();
    let changes: [fn(&mut Keyspace<'_>, &Key<'_>); 4] = [
        |keyspace, key| keyspace.set_string(key, b"w", Expiry::Keep),
        |keyspace, key| {
            keyspace.update_string(key, false, |string| string.append(b"w")).unwrap();
        },
        |keyspace, key| {
            let entry = keyspace.take(key).unwrap();
            keyspace.put(key, entry);
        },
        |keyspace, key| {
            let entry = keyspace.copy_of(key).unwrap();
            keyspace.put(key, entry);
        },
    ];
    for change in changes {
        let key = store.key(0, SLOT, b"k");
        let mut keyspace = store.lock(SLOT, NOW);
        let fence = keyspace.begin_load(&key);
        keyspace.fill(&key, Some(FillValue::String(&[b'v'; 5000])), fill_until(NOW + 10, 50), &fence);
        assert_eq!(keyspace.peek(&key).unwrap().fill().unwrap().group, 3);
        change(&mut keyspace, &key);
        let entry = keyspace.peek(&key).unwrap();
        assert_eq!((entry.fill(), entry.deadline()), (None, Some(NOW + 10)));
    }
}

#[test]
fn a_refresh_is_told_to_one_reader() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    let fill = Fill { refresh_at: Some(NOW + 5), ..fill_until(NOW + 10, 0) };
    keyspace.fill(&key, Some(FillValue::String(b"v")), fill, &fence);
    assert!(keyspace.read(&key).is_some() && !keyspace.refresh_due());
    drop(keyspace);
    let mut keyspace = store.lock(SLOT, NOW + 5);
    assert!(keyspace.read(&key).is_some() && keyspace.refresh_due() && !keyspace.refresh_due());
    drop(keyspace);
    let mut keyspace = store.lock(SLOT, NOW + 6);
    assert!(keyspace.read(&key).is_some() && !keyspace.refresh_due());
}

#[test]
fn a_loaded_hash_is_a_hash_and_one_without_fields_is_absent() {
    let store = new_store();
    let key = store.key(0, SLOT, b"k");
    let mut keyspace = store.lock(SLOT, NOW);
    let row = [("name", "x"), ("size", "4")];
    let mut pairs = row.iter().map(|(field, value)| (field.as_bytes(), value.as_bytes()));
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::Hash(&mut pairs)), fill_until(NOW + 10, 0), &fence);
    assert_eq!(keyspace.read_hash(&key).unwrap().unwrap().get(b"size"), Some(&b"4"[..]));
    let fence = keyspace.begin_load(&key);
    keyspace.fill(&key, Some(FillValue::Hash(&mut std::iter::empty())), fill_until(NOW + 10, 0), &fence);
    assert_eq!(keyspace.presence(&key), Presence::Absent);
}

#[test]
fn uses_are_recorded_unless_told_otherwise() {
    let store = new_store();
    store.settings().set_policy(EvictionPolicy::AllKeysLru);
    let key = store.key(0, SLOT, b"k");
    store.lock(SLOT, NOW).set_string(&key, b"v", Expiry::None);
    let later = NOW + 100_000;
    let mut keyspace = store.lock(SLOT, later);
    keyspace.set_access(Access { no_touch: true, count: false, allow_stale: false });
    assert!(keyspace.read(&key).is_some());
    assert_eq!(keyspace.peek(&key).unwrap().idle_seconds(), Some(100));
    assert_eq!(keyspace.peek(&key).unwrap().frequency(), None);
    assert!(keyspace.touch(&key));
    assert_eq!(keyspace.peek(&key).unwrap().idle_seconds(), Some(0));
    drop(keyspace);
    assert_eq!(store.counters().hits, 0);
    store.settings().set_policy(EvictionPolicy::AllKeysLfu);
    let mut keyspace = store.lock(SLOT, later);
    keyspace.remove(&key);
    keyspace.set_string(&key, b"v", Expiry::None);
    let entry = keyspace.peek(&key).unwrap();
    assert_eq!((entry.frequency(), entry.idle_seconds()), (Some(5), None));
}

#[test]
fn memory_usage_is_what_was_allocated() {
    let store = new_store();
    let mut keyspace = store.lock(SLOT, NOW);
    let small = store.key(0, SLOT, b"user:1234567890");
    keyspace.set_string(&small, b"12345678xy", Expiry::None);
    // One entry of 33 bytes, and the slot's only bucket.
    assert_eq!(keyspace.peek(&small).unwrap().memory_usage(None), 40 + 64);
    let big = store.key(0, SLOT, b"big");
    keyspace.set_string(&big, &[b'x'; 5000], Expiry::None);
    assert_eq!(keyspace.peek(&big).unwrap().memory_usage(None), 24 + 40 + 5120 + 32);
}

#[test]
#[should_panic(expected = "slot 6 has not been locked")]
fn a_slot_that_is_not_locked_is_a_mistake() {
    let store = new_store();
    store.lock(SLOT, NOW).presence(&store.key(0, SLOT + 1, b"k"));
}
