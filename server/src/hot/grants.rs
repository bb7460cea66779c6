//! The owner's side: which keys are hot, who holds copies of them until when, and taking them back.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant};

use forebay_cluster::{NodeNumber, SLOT_COUNT};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::sketch::Sketch;
use super::{LONGEST, MAX_KEYS, REST, SHORTEST};

/// Who asks for a key of this node, and would keep a copy of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    pub node: NodeNumber,
    /// How often it has answered the same by a copy that has ended, since it last told.
    pub served: u32,
}

/// Grants that this node has given for its own keys.
pub struct Grants {
    hasher: foldhash::fast::RandomState,
    sketch: Sketch,
    /// How many keys are in the table: nobody looks further while there are none.
    keys: AtomicUsize,
    /// The same by slot. Raised only under the lock of the slot's shard, and so right for whoever holds that.
    by_slot: Box<[AtomicU16]>,
    table: Mutex<Table>,
    /// There is something to be taken back.
    due: Notify,
    given: AtomicU64,
    taken_back: AtomicU64,
}

#[derive(Default)]
struct Table {
    /// By the keys' hashes.
    keys: HashMap<u64, Granted>,
    last_number: u64,
    /// Changes take nothing back; only in tests, which must notice.
    is_deaf: bool,
}

/// A key of which there are, or were, copies.
struct Granted {
    slot: u16,
    db: u16,
    name: Box<[u8]>,
    holders: SmallVec<[Holder; 4]>,
    /// There is no grant before that.
    rests_until: Instant,
    /// Under way while there are holders.
    taking: Option<Taking>,
}

#[derive(Clone, Copy)]
struct Holder {
    node: NodeNumber,
    /// By this node's clock it has surely thrown its copy away by then.
    until: Instant,
}

struct Taking {
    number: u64,
    is_sent: bool,
    shared: Arc<TakeBack>,
}

/// A key is being taken back. Until that is over nobody may be told of its change.
#[derive(Debug, Default)]
pub struct TakeBack {
    is_over: AtomicBool,
    over: Notify,
}

/// A key that a holder is to be asked for.
#[derive(Clone, Debug)]
pub(super) struct Due {
    pub(super) holder: NodeNumber,
    pub(super) number: u64,
    pub(super) hash: u64,
    pub(super) db: u16,
    pub(super) name: Box<[u8]>,
}

impl TakeBack {
    /// Waits until all copies are gone.
    pub async fn over(&self) {
        loop {
            let over = self.over.notified();
            if self.is_over() {
                return;
            }
            over.await;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Acquire)
    }

    fn end(&self) {
        self.is_over.store(true, Release);
        self.over.notify_waiters();
    }
}

impl Default for Grants {
    fn default() -> Self {
        Grants {
            hasher: foldhash::fast::RandomState::default(),
            sketch: Sketch::default(),
            keys: AtomicUsize::new(0),
            by_slot: (0..SLOT_COUNT).map(|_| AtomicU16::new(0)).collect(),
            table: Mutex::default(),
            due: Notify::new(),
            given: AtomicU64::new(0),
            taken_back: AtomicU64::new(0),
        }
    }
}

impl Grants {
    /// Counts a read of a key that another node has asked for, and perhaps gives it leave to keep the answer: for how long. It is
    /// `threshold` reads a second that make a key hot, and `most` tells of a hot one how long the answer is surely true if nothing is
    /// done to the key.
    ///
    /// To be called under the lock of the key's shard under which the answer was made.
    pub fn offer(
        &self,
        (slot, db, name): (u16, u16, &[u8]),
        asker: Asker,
        threshold: u64,
        most: impl FnOnce() -> Duration,
        second: u64,
        now: impl FnOnce() -> Instant,
    ) -> Option<Duration> {
        let hash = self.hash(db, name);
        let heat = self.sketch.add(hash, asker.served.saturating_add(1), second);
        if u64::from(heat) < threshold {
            return None;
        }
        let lasts = most().min(LONGEST);
        if lasts < SHORTEST {
            return None;
        }
        let now = now();
        let mut table = self.table.lock();
        if !table.keys.contains_key(&hash) && table.keys.len() < MAX_KEYS {
            let (name, holders) = (name.into(), SmallVec::new());
            table.keys.insert(hash, Granted { slot, db, name, holders, rests_until: now, taking: None });
            self.by_slot[usize::from(slot)].fetch_add(1, Relaxed);
            self.keys.store(table.keys.len(), Relaxed);
        }
        let granted = table.keys.get_mut(&hash).filter(|granted| (granted.db, &*granted.name) == (db, name))?;
        if granted.taking.is_some() || now < granted.rests_until {
            return None;
        }
        let until = now + lasts;
        match granted.holders.iter_mut().find(|holder| holder.node == asker.node) {
            Some(holder) => holder.until = holder.until.max(until),
            None => granted.holders.push(Holder { node: asker.node, until }),
        }
        self.given.fetch_add(1, Relaxed);
        Some(lasts)
    }

    /// A key has been changed, in whatever way. To be called under the lock under which that was done.
    #[inline]
    pub fn changed(&self, slot: u16, db: u16, name: &[u8]) {
        if self.has_keys_of(slot) {
            self.changed_at(db, name, Instant::now());
        }
    }

    pub(super) fn changed_at(&self, db: u16, name: &[u8], now: Instant) {
        let mut table = self.table.lock();
        let Table { keys, last_number, is_deaf } = &mut *table;
        if let Some(granted) = keys.get_mut(&self.hash(db, name)).filter(|_| !*is_deaf) {
            self.begin(granted, last_number, now);
        }
    }

    /// Whether changes of single keys take copies back: always, but in tests.
    pub fn listen(&self, listens: bool) {
        self.table.lock().is_deaf = !listens;
    }

    /// All keys of the slot have been changed, or those of one database; or are not to be copied any more.
    pub fn changed_slot(&self, slot: u16, db: Option<u16>) {
        if self.has_keys_of(slot) {
            self.changed_slot_at(slot, db, Instant::now());
        }
    }

    pub(super) fn changed_slot_at(&self, slot: u16, db: Option<u16>, now: Instant) {
        let mut table = self.table.lock();
        let Table { keys, last_number, .. } = &mut *table;
        for granted in keys.values_mut().filter(|granted| granted.slot == slot) {
            if db.is_none_or(|db| db == granted.db) {
                self.begin(granted, last_number, now);
            }
        }
    }

    /// Begins to take a key back, unless that is under way.
    fn begin(&self, granted: &mut Granted, last_number: &mut u64, now: Instant) {
        granted.rests_until = now + REST;
        granted.holders.retain(|holder| holder.until > now);
        if granted.taking.is_some() || granted.holders.is_empty() {
            return;
        }
        *last_number += 1;
        granted.taking = Some(Taking { number: *last_number, is_sent: false, shared: Arc::default() });
        self.taken_back.fetch_add(1, Relaxed);
        self.due.notify_one();
    }

    /// What whoever has seen the key has to wait for. To be called under the lock under which it was seen.
    #[inline]
    pub fn under_way(&self, slot: u16, db: u16, name: &[u8]) -> Option<Arc<TakeBack>> {
        if !self.has_keys_of(slot) {
            return None;
        }
        let table = self.table.lock();
        table.keys.get(&self.hash(db, name))?.taking.as_ref().map(|taking| Arc::clone(&taking.shared))
    }

    /// What is being taken back of a slot; see [`Self::under_way`].
    #[inline]
    pub fn under_way_in(&self, slot: u16) -> Vec<Arc<TakeBack>> {
        if self.has_keys_of(slot) { self.find_under_way(|granted| granted.slot == slot) } else { Vec::new() }
    }

    /// All that is being taken back.
    pub fn all_under_way(&self) -> Vec<Arc<TakeBack>> {
        self.find_under_way(|_| true)
    }

    fn find_under_way(&self, is_meant: impl Fn(&Granted) -> bool) -> Vec<Arc<TakeBack>> {
        let table = self.table.lock();
        let meant = table.keys.values().filter(|granted| is_meant(granted));
        meant.filter_map(|granted| Some(Arc::clone(&granted.taking.as_ref()?.shared))).collect()
    }

    /// Whether any key of the slot is in the table. Right for whoever holds the lock of its shard.
    #[inline]
    fn has_keys_of(&self, slot: u16) -> bool {
        self.keys.load(Relaxed) != 0 && self.by_slot[usize::from(slot)].load(Relaxed) != 0
    }

    fn hash(&self, db: u16, name: &[u8]) -> u64 {
        self.hasher.hash_one((db, name))
    }

    // ---- taking back, which `taking_back.rs` does ----

    /// Waits until there is something to be taken back.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Whom to ask for what; each is told once.
    pub(super) fn take_due(&self) -> Vec<Due> {
        let mut due = Vec::new();
        for (hash, granted) in &mut self.table.lock().keys {
            let Some(taking) = granted.taking.as_mut().filter(|taking| !taking.is_sent) else { continue };
            taking.is_sent = true;
            for holder in &granted.holders {
                let (number, db, name) = (taking.number, granted.db, granted.name.clone());
                due.push(Due { holder: holder.node, number, hash: *hash, db, name });
            }
        }
        due
    }

    /// A holder has said that it has thrown its copies away, which had answered so often. The number keeps an answer that is late from
    /// counting for a later take-back.
    pub(super) fn returned(&self, due: &Due, served: u32) {
        self.sketch.count(due.hash, served);
        let mut table = self.table.lock();
        let Some(granted) = table.keys.get_mut(&due.hash) else { return };
        if granted.taking.as_ref().is_some_and(|taking| taking.number == due.number) {
            granted.holders.retain(|holder| holder.node != due.holder);
            granted.end_if_over();
        }
    }

    /// Looks for copies whose time is over. Answers when to look again, if there are more.
    pub(super) fn look(&self, now: Instant) -> Option<Instant> {
        let mut table = self.table.lock();
        let mut next: Option<Instant> = None;
        table.keys.retain(|_, granted| {
            granted.holders.retain(|holder| holder.until > now);
            granted.end_if_over();
            let end = granted.holders.iter().map(|holder| holder.until).min();
            let end = end.or((granted.rests_until > now).then_some(granted.rests_until));
            next = next.into_iter().chain(end).min();
            if end.is_none() {
                self.by_slot[usize::from(granted.slot)].fetch_sub(1, Relaxed);
            }
            end.is_some()
        });
        self.keys.store(table.keys.len(), Relaxed);
        next
    }

    // ---- figures ----

    /// Keys of which there are copies.
    pub fn hot_keys(&self) -> u64 {
        self.keys.load(Relaxed) as u64
    }

    /// Grants since the start.
    pub fn given(&self) -> u64 {
        self.given.load(Relaxed)
    }

    /// Keys taken back since the start.
    pub fn taken_back(&self) -> u64 {
        self.taken_back.load(Relaxed)
    }
}

impl Granted {
    fn end_if_over(&mut self) {
        if self.holders.is_empty() {
            if let Some(taking) = self.taking.take() {
                taking.shared.end();
            }
        }
    }
}
