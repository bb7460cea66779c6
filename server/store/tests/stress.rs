//! Many threads on few keys and fewer shards, doing everything at once: what only a lock can keep true stays true.
//!
//! `FOREBAY_STRESS_SEED` chooses what the threads do (1 by default), though not how they meet.

use std::env;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::thread;

use forebay_store::{
    EvictionPolicy, Expiry, ExpiryShare, Garbage, Key, Keyspace, MAX_PREFETCHED, Presence, Store, StoreConfig,
    StringView, UnixMillis,
};

const THREADS: u64 = 8;
/// What each thread does, one thing after the other.
const TURNS: usize = 8_000;

/// As few as may be, so that threads meet; two, so that there is an order to lock them in.
const SHARDS: usize = 2;
const SLOTS: u16 = 6;

/// Keys without a deadline, which neither expire nor are evicted.
const COUNTERS: usize = 8;
const HASHES: usize = 6;
/// Keys that come and go.
const MORTALS: usize = 60;

/// Before any time that a thread sees.
const START: UnixMillis = 1_000_000;
/// What a mortal key has left at most. A thread's turn takes one.
const LONGEST_LIFE: u64 = 400;

/// Fields of a hash, which are always written together: few that lie in the entry, or more than do.
const FIELDS: [usize; HASHES] = [2, 3, 4, 5, 150, 160];

/// What the threads share.
struct Stage {
    store: Store,
    clock: AtomicI64,
    names: Names,
    /// What was added to each counter.
    added: [AtomicI64; COUNTERS],
    changes: AtomicU64,
    /// Mortal keys that came where none was.
    arrived: AtomicU64,
}

struct Names {
    counters: Vec<String>,
    hashes: Vec<String>,
    mortals: Vec<String>,
}

#[test]
fn what_the_locks_guard_stays_whole() {
    let seed = env::var("FOREBAY_STRESS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}");
    let stage = Stage::new();
    thread::scope(|threads| {
        for number in 0..THREADS {
            let stage = &stage;
            threads.spawn(move || Actor::new(stage, seed * THREADS + number).act());
        }
    });
    stage.check();
}

impl Stage {
    fn new() -> Stage {
        let store = Store::new(StoreConfig { shards: SHARDS, databases: 1, seed: 7 });
        store.settings().set_policy(EvictionPolicy::VolatileLrfu);
        let names = |kind: &str, count| (0..count).map(|number| format!("{kind}:{number}")).collect();
        let names = Names {
            counters: names("counter", COUNTERS),
            hashes: names("hash", HASHES),
            mortals: names("mortal", MORTALS),
        };
        Stage {
            store,
            clock: AtomicI64::new(START),
            names,
            added: Default::default(),
            changes: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
        }
    }

    fn key<'n>(&self, names: &'n [String], number: usize) -> Key<'n> {
        self.store.key(0, number as u16 % SLOTS, names[number].as_bytes())
    }

    fn counter(&self, number: usize) -> Key<'_> {
        self.key(&self.names.counters, number)
    }

    fn hash(&self, number: usize) -> Key<'_> {
        self.key(&self.names.hashes, number)
    }

    fn mortal(&self, number: usize) -> Key<'_> {
        self.key(&self.names.mortals, number)
    }

    fn tick(&self) -> UnixMillis {
        self.clock.fetch_add(1, Relaxed)
    }

    /// When all threads are done: nothing was lost, and the store's figures are what a walk finds.
    fn check(&self) {
        let store = &self.store;
        for (number, added) in self.added.iter().enumerate() {
            let key = self.counter(number);
            assert_eq!(value_of(&mut store.lock(key.slot(), START), &key), added.load(Relaxed), "counter {number}");
        }
        (0..HASHES).for_each(|number| self.check_hash(number));
        let (mut walked, mut mortal) = (0, 0);
        store.for_each_key(0, START, &mut |name, _| {
            walked += 1;
            mortal += usize::from(name.starts_with(b"mortal"));
        });
        assert_eq!((store.len(0), store.volatile_len(0)), (walked, mortal));
        assert_eq!((0..SLOTS).map(|slot| store.count_in_slot(0, slot)).sum::<usize>(), walked);
        let counters = store.counters();
        assert_eq!(counters.changes, self.changes.load(Relaxed));
        assert_eq!(counters.expired + counters.evicted + mortal as u64, self.arrived.load(Relaxed));
        assert!(counters.expired > 0 && counters.evicted > 0 && counters.lock_conflicts > 0, "{counters:?}");
    }

    fn check_hash(&self, number: usize) {
        let key = self.hash(number);
        let mut keyspace = self.store.lock(key.slot(), START);
        let hash = keyspace.read_hash(&key).expect("a hash");
        let hash: Option<Vec<_>> = hash.as_ref().map(|hash| hash.iter().collect());
        let Some(pairs) = hash else { return };
        assert_eq!(pairs.len(), FIELDS[number], "hash {number}");
        assert!(pairs.iter().all(|(_, value)| *value == pairs[0].1), "hash {number} holds parts of two writes");
    }
}

/// The value of a counter, which is missing until somebody adds to it.
fn value_of(keyspace: &mut Keyspace<'_>, key: &Key<'_>) -> i64 {
    match keyspace.read_string(key).expect("a counter").map(|value| value.view().clone()) {
        None => 0,
        Some(StringView::Integer(value)) => value,
        Some(_) => panic!("a counter is no longer a number"),
    }
}

/// One thread.
struct Actor<'s> {
    stage: &'s Stage,
    random: Random,
    share: ExpiryShare,
}

impl<'s> Actor<'s> {
    fn new(stage: &'s Stage, seed: u64) -> Actor<'s> {
        Actor { stage, random: Random(seed), share: ExpiryShare::whole() }
    }

    fn act(mut self) {
        for _ in 0..TURNS {
            // As a connection does before a batch; above all, while others hold the locks.
            self.prefetch();
            match self.random.below(100) {
                0..30 => self.count(),
                30..45 => self.transfer(),
                45..60 => self.write_hash(),
                60..70 => self.stage.check_hash(self.random.below(HASHES)),
                70..95 => self.write_mortal(),
                95..98 => self.expire(),
                _ => self.evict(),
            }
        }
    }

    fn prefetch(&mut self) {
        let stage = self.stage;
        let count = 2 + self.random.below(MAX_PREFETCHED);
        let keys: Vec<Key<'_>> = (0..count)
            .map(|_| match self.random.below(4) {
                0 => stage.counter(self.random.below(COUNTERS)),
                1 => stage.hash(self.random.below(HASHES)),
                _ => stage.mortal(self.random.below(MORTALS)),
            })
            .collect();
        stage.store.prefetch(&keys);
    }

    fn count(&mut self) {
        let number = self.random.below(COUNTERS);
        let key = self.stage.counter(number);
        let mut keyspace = self.stage.store.lock(key.slot(), self.stage.tick());
        self.add(&mut keyspace, number, 1);
        self.end(&keyspace);
    }

    /// From one counter to another, which may be of the other shard.
    fn transfer(&mut self) {
        let [from, to] = [(); 2].map(|()| self.random.below(COUNTERS));
        let slots = [from, to].map(|number| self.stage.counter(number).slot());
        let mut keyspace = self.stage.store.lock_slots(slots, self.stage.tick());
        let before = [from, to].map(|number| value_of(&mut keyspace, &self.stage.counter(number)));
        self.add(&mut keyspace, from, -1);
        self.add(&mut keyspace, to, 1);
        let after = [from, to].map(|number| value_of(&mut keyspace, &self.stage.counter(number)));
        assert_eq!(before.iter().sum::<i64>(), after.iter().sum(), "somebody else has changed a locked key");
        self.end(&keyspace);
    }

    fn add(&self, keyspace: &mut Keyspace<'_>, number: usize, increment: i64) {
        keyspace.add(&self.stage.counter(number), increment).expect("a number that is far from its limits");
        self.stage.added[number].fetch_add(increment, Relaxed);
    }

    fn write_hash(&mut self) {
        let number = self.random.below(HASHES);
        let key = self.stage.hash(number);
        let value = self.random.next().to_string();
        let mut keyspace = self.stage.store.lock(key.slot(), self.stage.tick());
        let written = keyspace.update_hash(&key, true, |hash| {
            for field in 0..FIELDS[number] {
                hash.insert(field.to_string().as_bytes(), value.as_bytes());
            }
        });
        assert_eq!(written, Ok(Some(())));
        self.end(&keyspace);
    }

    /// Mostly short, sometimes one that has memory of its own.
    fn write_mortal(&mut self) {
        let key = self.stage.mortal(self.random.below(MORTALS));
        let length = if self.random.below(10) == 0 { 6_000 } else { self.random.below(100) };
        let now = self.stage.tick();
        let deadline = now + 1 + self.random.below(LONGEST_LIFE as usize) as i64;
        let mut keyspace = self.stage.store.lock(key.slot(), now);
        let is_new = keyspace.presence(&key) != Presence::Present;
        keyspace.set_string(&key, &vec![b'v'; length], Expiry::At(deadline));
        self.stage.arrived.fetch_add(u64::from(is_new), Relaxed);
        self.end(&keyspace);
    }

    fn expire(&mut self) {
        let mut garbage = Garbage::default();
        self.stage.store.expire_step(&mut self.share, self.stage.tick(), 20, &mut garbage);
    }

    fn evict(&mut self) {
        let Actor { stage, random, .. } = self;
        stage.store.evict_step(stage.tick(), 2, &mut || random.next());
    }

    /// Counts the changes of a view.
    fn end(&self, keyspace: &Keyspace<'_>) {
        self.stage.changes.fetch_add(keyspace.changes(), Relaxed);
    }
}

/// SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
