use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::entry::Meta;

#[derive(Clone, Debug)]
enum Change {
    Insert(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let field = || (0..60u8).prop_map(|number| format!("field:{number}").into_bytes());
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(any::<u8>(), 0..200),
        Just(Vec::new())
    ];
    let change = prop_oneof![3 => (field(), value).prop_map(|(f, v)| Change::Insert(f, v)), 1 => field().prop_map(Change::Remove)];
    prop::collection::vec(change, 0..200)
}

fn check(hash: HashRef<'_>, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    assert_eq!(hash.len(), model.len());
    let pairs: BTreeMap<Vec<u8>, Vec<u8>> =
        hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
    assert_eq!(&pairs, model);
    assert!(model.iter().all(|(field, value)| hash.get(field) == Some(value)));
    assert!(!hash.contains(b"nothing"));
    let mut scanned = BTreeMap::new();
    let mut cursor = 0;
    loop {
        cursor = hash.scan(cursor, 5, &mut |field, value| {
            scanned.insert(field.to_vec(), value.to_vec());
        });
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(&scanned, model);
}

/// Changes a hash before it has an entry, and then in one.
fn agrees_with_a_map(limits: CompactLimits, first: Vec<Change>, then: Vec<Change>) {
    let (mut new, mut model) = (NewHash::new(b"left over".to_vec()), BTreeMap::new());
    for change in first {
        act(HashMut::of_new(&mut new, limits, seed()), change, &mut model);
        check(new.view(), &model);
    }
    let (mut entry, _) = new.with_value(|value| Entry::new(b"key", &Meta::default(), value));
    for change in then {
        act(HashMut::of_entry(&mut entry, limits, seed()).expect("a hash"), change, &mut model);
        check(HashRef::of(entry.value()).expect("a hash"), &model);
    }
    let copy = entry.duplicate(&Meta::default());
    let hash = HashRef::of(copy.value()).expect("a hash");
    check(hash, &model);
    let picked = hash.random(12345);
    assert_eq!(picked.is_none(), model.is_empty());
    assert!(picked.is_none_or(|(field, value)| model[field] == value));
}

fn act(mut hash: HashMut<'_>, change: Change, model: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    match change {
        Change::Insert(field, value) => {
            assert_eq!(hash.insert(&field, &value), model.insert(field, value).is_none());
            assert!(hash.is_changed());
        }
        Change::Remove(field) => {
            let removed = hash.remove(&field);
            assert_eq!(removed, model.remove(&field).is_some());
            assert_eq!(removed, hash.is_changed());
        }
    }
}

fn seed() -> HashSeed {
    HashSeed::new(5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn compact_hashes_agree_with_a_map(first in changes(), then in changes()) {
        agrees_with_a_map(CompactLimits { entries: 1000, value: 1000 }, first, then);
    }

    #[test]
    fn tables_agree_with_a_map(first in changes(), then in changes()) {
        agrees_with_a_map(CompactLimits { entries: 0, value: 0 }, first, then);
    }

    #[test]
    fn hashes_that_outgrow_the_buffer_agree_with_a_map(first in changes(), then in changes()) {
        agrees_with_a_map(CompactLimits { entries: 20, value: 150 }, first, then);
    }
}

fn encoding_after(limits: CompactLimits, fields: &[(&[u8], &[u8])]) -> &'static str {
    let hash = hash_of(fields.iter().copied(), limits, seed());
    hash.view().encoding().as_str()
}

#[test]
fn becomes_a_table_where_redis_does() {
    let limits = CompactLimits { entries: 2, value: 3 };
    assert_eq!(encoding_after(limits, &[(b"a", b"1"), (b"b", b"123")]), "listpack");
    assert_eq!(encoding_after(limits, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]), "hashtable");
    assert_eq!(encoding_after(limits, &[(b"a", b"1234")]), "hashtable");
    assert_eq!(encoding_after(limits, &[(b"abcd", b"1")]), "hashtable");
}

#[test]
fn a_table_stays_one() {
    let mut hash = hash_of([(&b"a"[..], &b"1"[..])].into_iter(), CompactLimits { entries: 0, value: 9 }, seed());
    let mut writer = HashMut::of_new(&mut hash, CompactLimits { entries: 9, value: 9 }, seed());
    writer.remove(b"a");
    writer.insert(b"b", b"2");
    assert_eq!(writer.as_ref().encoding(), Encoding::Table);
}

#[test]
fn a_compact_hash_keeps_the_order_of_setting() {
    let fields: [(&[u8], &[u8]); 4] = [(b"z", b"1"), (b"a", b"2"), (b"m", b"3"), (b"z", b"longer")];
    let limits = CompactLimits { entries: 9, value: 9 };
    let hash = hash_of(fields.into_iter(), limits, seed());
    let order: Vec<&[u8]> = hash.view().iter().map(|(field, _)| field).collect();
    assert_eq!(order, [b"z", b"a", b"m"]);
}
