//! The whole store beside a model that is too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};

use forebay_store::{
    Access, AddError, Expiry, ExpiryShare, Fence, Fill, FillOutcome, FillValue, Garbage, Key, Presence, Store,
    StoreConfig, StringView, UnixMillis, UpdateError, ValueRef,
};
use proptest::prelude::*;

const DATABASES: u16 = 2;
const START: UnixMillis = 1_000_000;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Absent,
    String(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
}

#[derive(Clone, Debug)]
struct Entry {
    value: Value,
    deadline: Option<UnixMillis>,
    stale_for: i64,
}

/// What the store should hold, and which loads should be allowed to fill.
#[derive(Default)]
struct Model {
    entries: BTreeMap<(u16, u8), Entry>,
    /// By their number; `true` while nothing has voided them.
    loads: BTreeMap<u8, ((u16, u8), bool)>,
    fences: BTreeMap<u8, Fence>,
}

impl Model {
    /// What a reader sees.
    fn live(&self, place: (u16, u8), now: UnixMillis) -> Option<&Entry> {
        self.entries.get(&place).filter(|entry| entry.deadline.is_none_or(|deadline| deadline > now))
    }

    fn stale(&self, place: (u16, u8), now: UnixMillis) -> Option<&Entry> {
        let entry = self.entries.get(&place).filter(|entry| entry.value != Value::Absent)?;
        entry.deadline.is_some_and(|deadline| deadline <= now && now < deadline + entry.stale_for).then_some(entry)
    }

    /// What a client may change.
    fn present(&self, place: (u16, u8), now: UnixMillis) -> Option<&Entry> {
        self.live(place, now).filter(|entry| entry.value != Value::Absent)
    }

    fn set(&mut self, place: (u16, u8), value: Value, deadline: Option<UnixMillis>) {
        self.entries.insert(place, Entry { value, deadline, stale_for: 0 });
        self.void(|loaded| loaded == place);
    }

    fn void(&mut self, voided: impl Fn((u16, u8)) -> bool) {
        self.loads.values_mut().filter(|(place, _)| voided(*place)).for_each(|(_, good)| *good = false);
    }

    fn change_string(
        &mut self,
        place: (u16, u8),
        present: Option<Entry>,
        answer: Result<usize, UpdateError>,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        let (mut string, deadline) = match present {
            Some(Entry { value: Value::String(string), deadline, .. }) => (string, deadline),
            Some(_) => return assert!(answer.is_err()),
            None => (Vec::new(), None),
        };
        change(&mut string);
        assert_eq!(answer, Ok(string.len()));
        self.set(place, Value::String(string), deadline);
    }

    fn end(&mut self, load: u8) -> Option<(Fence, (u16, u8), bool)> {
        let fence = self.fences.remove(&load)?;
        let (place, good) = self.loads.remove(&load).expect("both know the same loads");
        Some((fence, place, good))
    }

    fn filled(&mut self, place: (u16, u8), good: bool, outcome: FillOutcome, entry: Entry) {
        assert_eq!(outcome == FillOutcome::Stored, good);
        if good {
            self.entries.insert(place, entry);
        }
    }

    fn visible(&self, db: u16, now: UnixMillis) -> BTreeSet<Vec<u8>> {
        let places = self.entries.keys().filter(|place| place.0 == db);
        places.filter(|place| self.present(**place, now).is_some()).map(|place| name(place.1)).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    SetString { text: Vec<u8>, ttl: Ttl },
    SetInteger(i64),
    Add(i64),
    Append(Vec<u8>),
    WriteAt(usize, Vec<u8>),
    SetField(u8, Vec<u8>),
    RemoveField(u8),
    Remove,
    Deadline(Option<i64>),
    Rename { to: u8 },
    Copy { to_db: u16 },
    BeginLoad(u8),
    EndLoad(u8),
    Fill { load: u8, value: Option<Vec<u8>>, ttl: Option<i64>, stale_for: u32 },
    FillHash { load: u8, fields: u8 },
    Flush(Option<u16>),
    Swap,
    Expire(usize),
    Check,
}

#[derive(Clone, Copy, Debug)]
enum Ttl {
    Keep,
    None,
    In(i64),
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..60),
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        1 => (500..3_000usize).prop_map(|len| vec![b'x'; len]),
        1 => (16_000..40_000usize).prop_map(|len| vec![b'y'; len]),
    ]
}

fn steps() -> impl Strategy<Value = Vec<(u16, u8, Step)>> {
    let ttl = || prop_oneof![Just(Ttl::Keep), Just(Ttl::None), (0..50i64).prop_map(Ttl::In)];
    let some_ttl = || prop::option::of(0..50i64);
    let field = || 0..8u8;
    let load = || 0..4u8;
    let step = prop_oneof![
        3 => (0..20i64).prop_map(Step::Wait),
        6 => (texts(), ttl()).prop_map(|(text, ttl)| Step::SetString { text, ttl }),
        1 => any::<i64>().prop_map(Step::SetInteger),
        3 => prop_oneof![-100..100i64, any::<i64>()].prop_map(Step::Add),
        4 => texts().prop_map(Step::Append),
        2 => (0..2_000usize, prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(at, text)| Step::WriteAt(at, text)),
        6 => (field(), texts()).prop_map(|(field, text)| Step::SetField(field, text)),
        4 => field().prop_map(Step::RemoveField),
        3 => Just(Step::Remove),
        3 => some_ttl().prop_map(Step::Deadline),
        2 => (0..12u8).prop_map(|to| Step::Rename { to }),
        2 => (0..DATABASES).prop_map(|to_db| Step::Copy { to_db }),
        4 => load().prop_map(Step::BeginLoad),
        1 => load().prop_map(Step::EndLoad),
        4 => (load(), prop::option::of(texts()), some_ttl(), 0..60u32)
            .prop_map(|(load, value, ttl, stale_for)| Step::Fill { load, value, ttl, stale_for }),
        2 => (load(), field()).prop_map(|(load, fields)| Step::FillHash { load, fields }),
        1 => prop::option::of(0..DATABASES).prop_map(Step::Flush),
        1 => Just(Step::Swap),
        2 => (1..20usize).prop_map(Step::Expire),
        2 => Just(Step::Check),
    ];
    prop::collection::vec((0..DATABASES, 0..12u8, step), 0..150)
}

fn name(key: u8) -> Vec<u8> {
    format!("key:{key}").into_bytes()
}

/// A few keys share a slot, a few a shard, and others neither.
fn slot(key: u8) -> u16 {
    [1, 1, 1, 65, 129, 2][usize::from(key) % 6]
}

struct World {
    store: Store,
    model: Model,
    now: UnixMillis,
}

impl World {
    fn new() -> Self {
        let store = Store::new(StoreConfig { databases: DATABASES, ..StoreConfig::default() });
        // Both encodings of hashes, and compressed strings, are to be met often.
        store.settings().set_hash_max_compact_entries(4);
        store.settings().set_compress_over(Some(2_000));
        World { store, model: Model::default(), now: START }
    }

    fn act(&mut self, db: u16, key: u8, step: Step) {
        let now = self.now;
        let place = (db, key);
        let bytes = name(key);
        let key_ref = self.store.key(db, slot(key), &bytes);
        let mut keyspace = self.store.lock_slots((0..12).map(slot), now);
        let present = self.model.present(place, now).cloned();
        match step {
            Step::Wait(millis) => self.now += millis,
            Step::SetString { text, ttl } => {
                let (expiry, deadline) = match ttl {
                    Ttl::Keep => (Expiry::Keep, present.and_then(|entry| entry.deadline)),
                    Ttl::None => (Expiry::None, None),
                    Ttl::In(millis) => (Expiry::At(now + millis), Some(now + millis)),
                };
                keyspace.set_string(&key_ref, &text, expiry);
                self.model.set(place, Value::String(text), deadline);
            }
            Step::SetInteger(number) => {
                keyspace.set_integer(&key_ref, number, Expiry::None);
                self.model.set(place, Value::String(number.to_string().into_bytes()), None);
            }
            Step::Add(increment) => {
                let answer = keyspace.add(&key_ref, increment);
                let (before, deadline) = match present {
                    Some(Entry { value: Value::String(text), deadline, .. }) => (integer(&text), deadline),
                    Some(_) => return assert_eq!(answer, Err(AddError::WrongType)),
                    None => (Some(0), None),
                };
                let sum = before.ok_or(AddError::NotAnInteger);
                let sum = sum.and_then(|before| before.checked_add(increment).ok_or(AddError::Overflow));
                assert_eq!(answer, sum);
                if let Ok(sum) = sum {
                    self.model.set(place, Value::String(sum.to_string().into_bytes()), deadline);
                }
            }
            Step::Append(text) => {
                let answer = keyspace.update_string(&key_ref, true, |string| {
                    string.append(&text);
                    string.len()
                });
                self.model.change_string(place, present, answer.map(Option::unwrap), |string| {
                    string.extend_from_slice(&text)
                });
            }
            Step::WriteAt(at, text) => {
                let answer = keyspace.update_string(&key_ref, true, |string| {
                    string.write_at(at, &text);
                    string.len()
                });
                if text.is_empty() && answer.is_ok() {
                    return;
                }
                self.model.change_string(place, present, answer.map(Option::unwrap), |string| {
                    string.resize(string.len().max(at + text.len()), 0);
                    string[at..at + text.len()].copy_from_slice(&text);
                });
            }
            Step::SetField(field, text) => {
                let answer = keyspace.update_hash(&key_ref, true, |hash| hash.insert(&[field], &text));
                let (mut fields, deadline) = match present {
                    Some(Entry { value: Value::Hash(fields), deadline, .. }) => (fields, deadline),
                    Some(_) => return assert!(answer.is_err()),
                    None => (BTreeMap::new(), None),
                };
                assert_eq!(answer, Ok(Some(fields.insert(vec![field], text).is_none())));
                self.model.set(place, Value::Hash(fields), deadline);
            }
            Step::RemoveField(field) => {
                let answer = keyspace.update_hash(&key_ref, false, |hash| hash.remove(&[field]));
                match present {
                    None => assert_eq!(answer, Ok(None)),
                    Some(Entry { value: Value::Hash(mut fields), deadline, .. }) => {
                        let removed = fields.remove(&vec![field]).is_some();
                        assert_eq!(answer, Ok(Some(removed)));
                        let emptied = fields.is_empty();
                        if removed {
                            self.model.set(place, Value::Hash(fields), deadline);
                        }
                        if emptied {
                            self.model.entries.remove(&place);
                        }
                    }
                    Some(_) => assert!(answer.is_err()),
                }
            }
            Step::Remove => {
                assert_eq!(keyspace.remove(&key_ref), present.is_some());
                self.model.entries.remove(&place);
                self.model.void(|loaded| loaded == place);
            }
            Step::Deadline(millis) => {
                let deadline = millis.map(|millis| now + millis);
                assert_eq!(keyspace.set_deadline(&key_ref, deadline), present.is_some());
                if present.is_some() {
                    self.model.entries.get_mut(&place).unwrap().deadline = deadline;
                    self.model.void(|loaded| loaded == place);
                }
            }
            Step::Rename { to } => {
                let to_name = name(to);
                let to_ref = self.store.key(db, slot(to), &to_name);
                let taken = keyspace.take(&key_ref);
                assert_eq!(taken.is_some(), present.is_some());
                if let (Some(taken), Some(entry)) = (taken, present) {
                    keyspace.put(&to_ref, taken);
                    self.model.entries.remove(&place);
                    self.model.void(|loaded| loaded == place);
                    self.model.set((db, to), entry.value, entry.deadline);
                }
            }
            Step::Copy { to_db } => {
                let to_ref = self.store.key(to_db, slot(key), &bytes);
                let copy = keyspace.copy_of(&key_ref);
                assert_eq!(copy.is_some(), present.is_some());
                if let (Some(copy), Some(entry)) = (copy, present) {
                    keyspace.put(&to_ref, copy);
                    self.model.set((to_db, key), entry.value, entry.deadline);
                }
            }
            Step::BeginLoad(load) => {
                if let std::collections::btree_map::Entry::Vacant(vacant) = self.model.fences.entry(load) {
                    vacant.insert(keyspace.begin_load(&key_ref));
                    self.model.loads.insert(load, (place, true));
                }
            }
            Step::EndLoad(load) => {
                if let Some((fence, place, _)) = self.model.end(load) {
                    let loaded = name(place.1);
                    keyspace.end_load(&self.store.key(place.0, slot(place.1), &loaded), &fence);
                }
            }
            Step::Fill { load, value, ttl, stale_for } => {
                let Some((fence, place, good)) = self.model.end(load) else { return };
                let (loaded, deadline) = (name(place.1), ttl.map(|millis| now + millis));
                let key = self.store.key(place.0, slot(place.1), &loaded);
                let fill = Fill { deadline, stale_for_ms: stale_for, refresh_at: None, filled_at: now, group: 1 };
                let outcome = keyspace.fill(&key, value.as_deref().map(FillValue::String), fill, &fence);
                let value = value.map_or(Value::Absent, Value::String);
                self.model.filled(place, good, outcome, Entry { value, deadline, stale_for: i64::from(stale_for) });
            }
            Step::FillHash { load, fields } => {
                let Some((fence, place, good)) = self.model.end(load) else { return };
                let loaded = name(place.1);
                let key = self.store.key(place.0, slot(place.1), &loaded);
                let fields: BTreeMap<Vec<u8>, Vec<u8>> =
                    (0..fields).map(|field| (vec![field], vec![field; 9])).collect();
                let fill = Fill { deadline: None, stale_for_ms: 0, refresh_at: None, filled_at: now, group: 1 };
                let mut pairs = fields.iter().map(|(field, value)| (&field[..], &value[..]));
                let outcome = keyspace.fill(&key, Some(FillValue::Hash(&mut pairs)), fill, &fence);
                let value = if fields.is_empty() { Value::Absent } else { Value::Hash(fields) };
                self.model.filled(place, good, outcome, Entry { value, deadline: None, stale_for: 0 });
            }
            Step::Flush(db) => {
                drop(keyspace);
                drop(self.store.flush(db));
                let flushed = |place: (u16, u8)| db.is_none_or(|db| db == place.0);
                self.model.entries.retain(|place, _| !flushed(*place));
                self.model.void(flushed);
            }
            Step::Swap => {
                drop(keyspace);
                self.store.swap(0, 1);
                let entries = std::mem::take(&mut self.model.entries);
                self.model.entries = entries.into_iter().map(|((db, key), entry)| ((1 - db, key), entry)).collect();
                self.model.void(|_| true);
            }
            Step::Expire(budget) => {
                drop(keyspace);
                let mut share = ExpiryShare::whole();
                while self.store.expire_step(&mut share, now, budget, &mut Garbage::default()).more {}
                let dead = |entry: &Entry| entry.deadline.is_some_and(|deadline| deadline + entry.stale_for <= now);
                self.model.entries.retain(|_, entry| !dead(entry));
                for db in 0..DATABASES {
                    let keys = self
                        .model
                        .entries
                        .iter()
                        .filter(|(place, entry)| place.0 == db && entry.value != Value::Absent);
                    let deadlines: Vec<_> = keys.map(|(_, entry)| entry.deadline).collect();
                    assert_eq!(self.store.len(db), deadlines.len());
                    assert_eq!(self.store.volatile_len(db), deadlines.iter().flatten().count());
                }
            }
            Step::Check => {
                drop(keyspace);
                self.check();
            }
        }
    }

    /// Compares everything that can be seen.
    fn check(&self) {
        for db in 0..DATABASES {
            for key in 0..12 {
                let bytes = name(key);
                self.check_key((db, key), &self.store.key(db, slot(key), &bytes));
            }
            let visible = self.model.visible(db, self.now);
            let (mut scanned, mut listed, mut cursor) = (BTreeSet::new(), BTreeSet::new(), 0);
            loop {
                cursor = self.store.scan(db, cursor, 3, self.now, &mut |key, _| {
                    scanned.insert(key.to_vec());
                });
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(scanned, visible);
            self.store.for_each_key(db, self.now, &mut |key, _| assert!(listed.insert(key.to_vec())));
            assert_eq!(listed, visible);
            let random = self.store.random_key(db, self.now, &mut || 0x1234_5678_9abc_def0);
            assert!(random.map_or(visible.is_empty(), |key| visible.contains(&key)));
        }
        let good: BTreeSet<_> = self.model.loads.values().filter(|(_, good)| *good).map(|(place, _)| *place).collect();
        assert_eq!(self.store.loads_under_way(), good.len());
    }

    fn check_key(&self, place: (u16, u8), key: &Key<'_>) {
        let mut keyspace = self.store.lock(key.slot(), self.now);
        let live = self.model.live(place, self.now);
        let present = self.model.present(place, self.now);
        let presence = match (live, present) {
            (_, Some(_)) => Presence::Present,
            (Some(_), None) => Presence::Absent,
            (None, None) => Presence::Missing,
        };
        assert_eq!(keyspace.presence(key), presence, "{place:?}");
        assert_eq!(keyspace.deadline(key), present.map(|entry| entry.deadline), "{place:?}");
        assert_eq!(keyspace.read(key).map(seen), present.map(|entry| entry.value.clone()), "{place:?}");
        assert_eq!(keyspace.missed(), presence == Presence::Missing);
        let served = present.or(self.model.stale(place, self.now)).map(|entry| entry.value.clone());
        keyspace.set_access(Access { allow_stale: true, ..Access::default() });
        assert_eq!(keyspace.read(key).map(seen), served, "{place:?}, stale");
        assert!(keyspace.peek(key).is_none_or(|entry| entry.memory_usage(None) > 0));
    }
}

/// The number that a text is the canonical form of.
fn integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

fn seen(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::String(string) => {
            let bytes = string.to_vec();
            assert_eq!(string.len(), bytes.len());
            match string.view() {
                StringView::Integer(number) => assert_eq!(integer(&bytes), Some(number)),
                StringView::Bytes(seen) => assert_eq!(seen, bytes),
                StringView::Shared(seen) => assert_eq!(seen, bytes),
                StringView::Unpacked(seen) => assert_eq!(seen, bytes),
            }
            Value::String(bytes)
        }
        ValueRef::Hash(hash) => {
            Value::Hash(hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect())
        }
    }
}

proptest! {
    #[test]
    fn the_store_agrees_with_the_model(steps in steps()) {
        let mut world = World::new();
        for (db, key, step) in steps {
            world.act(db, key, step);
        }
        world.check();
    }
}
