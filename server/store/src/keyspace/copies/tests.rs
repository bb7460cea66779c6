use proptest::prelude::*;

use crate::{
    Expiry, Fill, FillOutcome, FillValue, Key, Keyspace, Malformed, ObjectType, Store, StoreConfig, UnixMillis,
    ValueRef,
};

const NOW: UnixMillis = 1_000_000;
const SLOT: u16 = 5;

#[derive(Clone, Debug)]
enum Content {
    Nothing,
    Absent,
    String(Vec<u8>),
    Text(Vec<u8>),
    Changed(Vec<u8>),
    Hash(Vec<(Vec<u8>, Vec<u8>)>),
}

#[derive(Clone, Debug)]
struct Given {
    content: Content,
    ttl: Option<i64>,
    /// From the origin, with these times.
    fill: Option<(u32, Option<i64>)>,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        1 => (900..3_000usize).prop_map(|len| vec![b'x'; len]),
        1 => (any::<u64>(), 15_000..40_000usize).prop_map(|(seed, len)| noise(seed, len)),
    ]
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = crate::random::Random::new(seed);
    (0..len).map(|_| random.next() as u8).collect()
}

fn given() -> impl Strategy<Value = Given> {
    let pair = || (prop::collection::vec(any::<u8>(), 0..8), bytes());
    let content = prop_oneof![
        1 => Just(Content::Nothing),
        1 => Just(Content::Absent),
        3 => bytes().prop_map(Content::String),
        1 => bytes().prop_map(Content::Text),
        1 => bytes().prop_map(Content::Changed),
        2 => prop::collection::vec(pair(), 1..12).prop_map(Content::Hash),
        1 => (500..700u32).prop_map(|fields| Content::Hash((0..fields).map(|n| (n.to_string().into(), vec![1])).collect())),
    ];
    let fill = prop::option::of((0..100u32, prop::option::of(0..1_000i64)));
    (content, prop::option::of(1..100i64), fill).prop_map(|(content, ttl, fill)| Given { content, ttl, fill })
}

fn store(compress_over: Option<usize>) -> Store {
    let store = Store::new(StoreConfig { shards: 1, ..StoreConfig::default() });
    store.settings().set_compress_over(compress_over);
    store
}

/// Makes the key hold what is given.
fn put(keyspace: &mut Keyspace<'_>, key: &Key<'_>, given: &Given) {
    keyspace.remove(key);
    let deadline = given.ttl.map(|ttl| NOW + ttl);
    let expiry = deadline.map_or(Expiry::None, Expiry::At);
    let fill = match (&given.content, given.fill) {
        (Content::Absent, None) => Some((0, None)),
        (_, fill) => fill,
    };
    if let Some((stale_for_ms, refresh)) = fill {
        let fence = keyspace.begin_load(key);
        let refresh_at = refresh.map(|after| NOW - 1 + after);
        let rules = Fill { deadline, stale_for_ms, refresh_at, filled_at: NOW - 1, group: 3 };
        let value = match &given.content {
            Content::Nothing => {
                keyspace.end_load(key, &fence);
                return;
            }
            Content::Absent => None,
            Content::String(text) | Content::Text(text) | Content::Changed(text) => Some(FillValue::String(text)),
            Content::Hash(pairs) => {
                let mut pairs = pairs.iter().map(|(field, value)| (&field[..], &value[..]));
                keyspace.fill(key, Some(FillValue::Hash(&mut pairs)), rules, &fence);
                return;
            }
        };
        keyspace.fill(key, value, rules, &fence);
        return;
    }
    match &given.content {
        Content::Nothing => return,
        Content::Absent => unreachable!("what is absent has come from the origin"),
        Content::String(text) => keyspace.set_string(key, text, expiry),
        Content::Text(text) => keyspace.set_text(key, text, expiry),
        Content::Changed(text) => keyspace.set_built(key, text.clone(), expiry),
        Content::Hash(pairs) => {
            let fill = |hash: &mut crate::HashMut<'_>| {
                pairs.iter().for_each(|(field, value)| {
                    hash.insert(field, value);
                })
            };
            keyspace.update_hash(key, true, fill).unwrap();
        }
    }
    if !matches!(given.content, Content::Nothing) {
        keyspace.set_deadline(key, deadline);
    }
}

/// All that can be seen of a key, but for the form of a hash: one that has once been large stays a table where it is.
fn seen(store: &Store, key: &Key<'_>) -> String {
    let mut keyspace = store.lock(SLOT, NOW);
    let presence = keyspace.presence(key);
    let Some(entry) = keyspace.peek(key) else {
        return format!("{presence:?}");
    };
    let value = match entry.value() {
        ValueRef::String(string) => format!("{:?} {:?}", string.encoding(), string.to_vec()),
        ValueRef::Hash(hash) => {
            let mut pairs: Vec<_> = hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
            pairs.sort();
            format!("{pairs:?}")
        }
    };
    format!("{:?} {:?} {:?} {value}", entry.object_type(), entry.deadline(), entry.fill())
}

fn encoded(store: &Store, key: &Key<'_>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    store.lock(SLOT, NOW).encode(key, &mut bytes).then_some(bytes)
}

proptest! {
    #[test]
    fn an_entry_is_the_same_wherever_it_is_installed(given in given(), before in given(), compressed: bool) {
        let (from, to) = (store(compressed.then_some(500)), store((!compressed).then_some(500)));
        let (here, there) = (from.key(0, SLOT, b"key"), to.key(0, SLOT, b"key"));
        put(&mut from.lock(SLOT, NOW), &here, &given);
        put(&mut to.lock(SLOT, NOW), &there, &before);
        let entry = encoded(&from, &here);
        match &entry {
            Some(entry) => prop_assert_eq!(to.lock(SLOT, NOW).install(&there, entry), Ok(())),
            None => to.lock(SLOT, NOW).uninstall(&there),
        }
        prop_assert_eq!(seen(&from, &here), seen(&to, &there));
        prop_assert_eq!(entry.is_none(), matches!(given.content, Content::Nothing));
        let figures = |store: &Store| (store.len(0), store.volatile_len(0), store.average_ttl(0, NOW));
        prop_assert_eq!(figures(&from), figures(&to));
        let [here, there] = [&from, &to].map(|store| store.cells()[0].lock().tell_figures());
        prop_assert_eq!((here.entries, here.mortal), (there.entries, there.mortal));
        let digests = [&from, &to].map(|store| store.lock(SLOT, NOW).digest_slot(SLOT, NOW, crate::DigestLimits::NONE));
        prop_assert_eq!(digests[0], digests[1]);
        let mut garbage = crate::Garbage::default();
        to.expire_step(&mut crate::ExpiryShare::whole(), NOW + 1_000, 10, &mut garbage);
        prop_assert_eq!(to.volatile_len(0), 0, "it expires");
    }

    #[test]
    fn no_bytes_do_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..80), kind in 0..6u8, fields in 0..10u8) {
        let store = store(None);
        let key = store.key(0, SLOT, b"key");
        // Nearly right ones get further.
        for (at, byte) in [1, kind, fields].into_iter().enumerate().take(bytes.len()) {
            bytes[at] = byte;
        }
        let installed = store.lock(SLOT, NOW).install(&key, &bytes);
        let reencoded = encoded(&store, &key);
        prop_assert!(installed.is_ok() || reencoded.is_none());
    }

    #[test]
    fn what_is_cut_off_or_too_long_is_refused(given in given(), cut: prop::sample::Index) {
        let store = store(None);
        let key = store.key(0, SLOT, b"key");
        put(&mut store.lock(SLOT, NOW), &key, &given);
        let Some(entry) = encoded(&store, &key) else { return Ok(()) };
        let is_string = matches!(given.content, Content::String(_) | Content::Text(_) | Content::Changed(_));
        // A string's bytes reach to the end of what encloses the entry, which knows its length.
        let cut = cut.index(if is_string { 7 } else { entry.len() });
        prop_assert_eq!(store.lock(SLOT, NOW).install(&key, &entry[..cut]), Err(Malformed));
        if !is_string {
            let longer = [&entry[..], &[0]].concat();
            prop_assert_eq!(store.lock(SLOT, NOW).install(&key, &longer), Err(Malformed));
        }
    }
}

#[test]
fn installing_is_no_clients_change() {
    let store = store(None);
    let key = store.key(0, SLOT, b"key");
    let mut keyspace = store.lock(SLOT, NOW);
    keyspace.set_string(&key, b"v", Expiry::None);
    let mut entry = Vec::new();
    assert!(keyspace.encode(&key, &mut entry));
    drop(keyspace);
    let mut keyspace = store.lock(SLOT, NOW);
    let fence = keyspace.begin_load(&key);
    keyspace.install(&key, &entry).unwrap();
    keyspace.uninstall(&key);
    assert!(!keyspace.has_changed());
    assert_eq!(keyspace.fill(&key, Some(FillValue::String(b"w")), Fill::default(), &fence), FillOutcome::Stored);
    drop(keyspace);
    assert_eq!(store.counters().changes, 1);
}

#[test]
fn a_stale_entry_goes_with_its_deadline() {
    let (from, to) = (store(None), store(None));
    let (here, there) = (from.key(0, SLOT, b"key"), to.key(0, SLOT, b"key"));
    let given = Given { content: Content::String(b"v".into()), ttl: Some(10), fill: Some((50, None)) };
    put(&mut from.lock(SLOT, NOW), &here, &given);
    let mut entry = Vec::new();
    assert!(from.lock(SLOT, NOW + 20).encode(&here, &mut entry));
    to.lock(SLOT, NOW + 20).install(&there, &entry).unwrap();
    let mut keyspace = to.lock(SLOT, NOW + 20);
    assert!(keyspace.peek(&there).is_none());
    keyspace.set_access(crate::Access { allow_stale: true, ..keyspace.access() });
    assert_eq!(keyspace.peek(&there).map(|entry| entry.object_type()), Some(ObjectType::String));
    drop(keyspace);
    assert!(!from.lock(SLOT, NOW + 60).encode(&here, &mut entry), "it is of no more use");
}

#[test]
fn removing_what_is_only_remembered_is_told() {
    let store = store(None);
    let key = store.key(0, SLOT, b"key");
    put(&mut store.lock(SLOT, NOW), &key, &Given { content: Content::Absent, ttl: None, fill: None });
    let mut keyspace = store.lock(SLOT, NOW);
    assert!(!keyspace.remove(&key));
    assert_eq!((keyspace.changes(), keyspace.has_changed()), (0, true));
    drop(keyspace);
    let mut keyspace = store.lock(SLOT, NOW);
    assert!(!keyspace.remove(&key));
    assert!(!keyspace.has_changed(), "there was nothing");
}
