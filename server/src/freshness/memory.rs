//! What a node remembers of changes and loads of the keys that it owns.
//!
//! All of it is looked at and changed under the lock of the key's shard; the locks here are taken under that one, and no other under them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use forebay_cluster::SLOT_COUNT;
use forebay_origin::{Loaded, Snapshot, TargetId, Xid};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{Guard, Guards};

/// Slots whose memory is one part, with one lock.
const SLOTS_OF_PART: u16 = 64;

/// Keys of a part whose changes are remembered, and as many whose loads are. The oldest are forgotten first.
const MAX_KEYS: usize = 1024;

/// How long a change or a load is remembered. Changes are told again within this time, and replicas are rarely further behind.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Transactions of one key; of more, the newest stand for all: whoever sees them all need not have seen the others, so there is a floor.
const MAX_CHANGES_OF_KEY: usize = 8;

/// Transactions of one key that this node has made and of which the feed is waited for. Of one more it is told as if it were somebody else's.
const MAX_AWAITED: usize = 64;

/// Transactions that an entry is known not to have seen. One with more is loaded again.
const MAX_UNSEEN: usize = 500;

/// What the replica of a database is; 0 is the primary.
const PRIMARY: TargetId = TargetId(0);

/// What is remembered of one key, for whoever asks why it is as it is.
#[derive(Debug, Default)]
pub struct Recollection {
    /// The snapshot by which it was loaded last.
    pub loaded: Option<Arc<Snapshot>>,
    /// The transactions that have changed it, the newest last, and how long ago the last of them was told of.
    pub changed: Option<(SmallVec<[Xid; 2]>, Duration)>,
    /// What is not remembered any more has to be below what is loaded.
    pub has_floor: bool,
}

/// What a load has brought, and when it began.
#[derive(Clone, Copy)]
pub struct Load<'l> {
    pub loaded: &'l Loaded,
    pub began: Instant,
}

/// Changes and loads of all slots.
pub struct Memory {
    parts: Box<[Mutex<Part>]>,
}

struct Part {
    floors: [Floor; SLOTS_OF_PART as usize],
    /// Since when it is this node alone that fills the slot; `None` for always.
    since: [Option<Instant>; SLOTS_OF_PART as usize],
    /// What replicas must have seen: the height of the newest load that is forgotten.
    loads: [Xid; SLOTS_OF_PART as usize],
    changed: Aged<SmallVec<[Xid; 2]>>,
    /// Transactions by which this node itself has written keys ([`Own`]).
    own: Aged<Own>,
    /// The snapshots by which keys were loaded.
    loaded: Aged<Loads>,
}

/// What loads of one key have seen.
#[derive(Clone)]
struct Loads {
    /// The last that was told to somebody, be it that the store kept it or not.
    last: Arc<Snapshot>,
    /// The one that has brought the entry that is there, and when. What was not kept says nothing of an entry.
    entry: Option<(Arc<Snapshot>, Instant)>,
}

/// Transactions of one key by which nodes have written it. They are committed one after the other, so that who sees the last sees all.
#[derive(Clone)]
struct Own {
    last: Xid,
    /// Those of which the feed has not told yet.
    awaited: SmallVec<[Xid; 4]>,
}

/// What is asked of a fill beside what is remembered of its key.
#[derive(Clone, Copy, Default)]
enum Floor {
    /// Nothing was forgotten.
    #[default]
    None,
    /// What had been changed before `since` is not known, but was seen by whoever asked the primary from then on, and by every snapshot below
    /// which all had ended up to `xid`. `None`: that is to be learnt from the next load at the primary.
    Forgotten { since: Instant, xid: Option<Xid> },
}

/// What is remembered of keys, for a while.
struct Aged<T> {
    by_key: HashMap<Bytes, (T, Instant), RandomState>,
    /// In the order in which they were remembered; a key that was remembered again stands there twice.
    order: VecDeque<(Bytes, Instant)>,
}

impl Memory {
    fn part(&self, slot: u16) -> &Mutex<Part> {
        &self.parts[usize::from(slot / SLOTS_OF_PART)]
    }

    /// A transaction has changed the key. Tells whether the entry that is there, if there is one, was loaded after that.
    pub fn changed(&self, slot: u16, key: &[u8], xid: Xid, now: Instant) -> bool {
        let mut part = self.part(slot).lock();
        if !part.is_own(key, xid) {
            part.remember(slot, key, xid, now);
        }
        part.load_of_entry(key).is_some_and(|(snapshot, at)| snapshot.sees(xid) && part.floor(slot).is_before(at))
    }

    /// The key was changed by nobody knows whom: replicas may not have seen it.
    pub fn changed_somehow(&self, slot: u16, now: Instant) {
        self.part(slot).lock().floors[place(slot)] = Floor::Forgotten { since: now, xid: None };
    }

    /// Whether what was loaded may be stored, by a load that began then. It is remembered what it has seen, but not yet that an entry has
    /// ([`Self::kept`]).
    pub fn admits(&self, slot: u16, key: &Bytes, load: Load<'_>, guards: &Guards, now: Instant) -> bool {
        // Nobody was asked, or who knows nothing of transactions.
        let (Some(target), Some(snapshot)) = (load.loaded.target, &load.loaded.snapshot) else { return true };
        let mut part = self.part(slot).lock();
        // The primary's loads see more and more, one after the other. A replica may be behind what was seen of the key before any change of it was
        // told of, and what was seen may have been evicted since.
        let sees_changes = part.changed.get(key).is_none_or(|(xids, _)| xids.iter().all(|xid| snapshot.sees(*xid)));
        let sees_loads = target == PRIMARY || part.is_newer_than_loads(slot, key, snapshot);
        let is_above = part.floors[place(slot)].admits(target, snapshot, load.began);
        let passes = |guard, passed| passed || !guards.has(guard);
        let admitted =
            passes(Guard::Changes, sees_changes) && passes(Guard::Loads, sees_loads) && passes(Guard::Floor, is_above);
        if admitted {
            let entry = part.loaded.get(key).and_then(|(loads, _)| loads.entry.clone());
            part.remember_load(key.clone(), Loads { last: Arc::clone(snapshot), entry }, now);
        }
        admitted
    }

    /// Whether a load has seen all changes of the key that are remembered.
    pub fn sees_changes(&self, slot: u16, key: &[u8], snapshot: &Snapshot) -> bool {
        let part = self.part(slot).lock();
        part.changed.get(key).is_none_or(|(xids, _)| xids.iter().all(|xid| snapshot.sees(*xid)))
    }

    /// What [`Self::admits`] has let pass is the entry that is there now.
    pub fn kept(&self, slot: u16, key: &[u8], loaded: &Loaded, now: Instant) {
        let Some(snapshot) = &loaded.snapshot else { return };
        if let Some(loads) = self.part(slot).lock().loaded.get_mut(key) {
            loads.entry = Some((Arc::clone(snapshot), now));
        }
    }

    /// What [`Self::admits`] has let pass is newer than the entry that was there, and in the store there is neither.
    pub fn let_go(&self, slot: u16, key: &[u8]) {
        if let Some(loads) = self.part(slot).lock().loaded.get_mut(key) {
            loads.entry = None;
        }
    }

    /// What is remembered of a key.
    pub fn recall(&self, slot: u16, key: &[u8], now: Instant) -> Recollection {
        let part = self.part(slot).lock();
        let loaded = part.loaded.get(key).map(|(loads, _)| Arc::clone(&loads.last));
        let changed = part.changed.get(key).map(|(xids, at)| (xids.clone(), now.saturating_duration_since(*at)));
        Recollection { loaded, changed, has_floor: matches!(part.floor(slot), Floor::Forgotten { .. }) }
    }

    /// The snapshot by which the entry that is there was loaded, if it is known.
    pub fn seen_by_entry(&self, slot: u16, key: &[u8]) -> Option<Arc<Snapshot>> {
        let part = self.part(slot).lock();
        let (snapshot, at) = part.load_of_entry(key)?;
        part.floor(slot).is_before(at).then(|| Arc::clone(snapshot))
    }

    /// The snapshot by which the entry that is there was loaded, and when; unlike [`Self::seen_by_entry`] whatever has been forgotten of changes.
    pub fn load_of_entry(&self, slot: u16, key: &[u8]) -> Option<(Arc<Snapshot>, Instant)> {
        let part = self.part(slot).lock();
        let (snapshot, at) = part.load_of_entry(key)?;
        let is_of_entry = part.since[place(slot)].is_none_or(|since| since <= at);
        is_of_entry.then(|| (Arc::clone(snapshot), at))
    }

    /// This node has written the key by that transaction: what did not see it is not stored from now on.
    pub fn wrote(&self, slot: u16, key: &[u8], xid: Xid, now: Instant) {
        self.part(slot).lock().remember_own(slot, key, xid, now);
    }

    /// Whether an entry may be stored that a write has left and that has seen what `snapshot` says. Nothing may have been forgotten since the
    /// write `began`.
    pub fn admits_written(
        &self,
        slot: u16,
        key: &[u8],
        snapshot: &Arc<Snapshot>,
        began: Instant,
        now: Instant,
    ) -> bool {
        let mut part = self.part(slot).lock();
        let sees_all = part.changed.get(key).is_none_or(|(xids, _)| xids.iter().all(|xid| snapshot.sees(*xid)));
        let admitted = sees_all && part.floor(slot).is_before(began) && snapshot.in_progress().len() <= MAX_UNSEEN;
        if admitted {
            let entry = Some((Arc::clone(snapshot), now));
            part.remember_load(Bytes::copy_from_slice(key), Loads { last: Arc::clone(snapshot), entry }, now);
        }
        admitted
    }

    /// Nothing is known of what was changed in the slot before: it has come to be this node's, or everything was called in.
    pub fn forget(&self, slot: u16, now: Instant) {
        let mut part = self.part(slot).lock();
        part.floors[place(slot)] = Floor::Forgotten { since: now, xid: None };
        part.since[place(slot)] = Some(now);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory { parts: (0..SLOT_COUNT / SLOTS_OF_PART).map(|_| Mutex::new(Part::new())).collect() }
    }
}

fn place(slot: u16) -> usize {
    usize::from(slot % SLOTS_OF_PART)
}

impl Part {
    fn new() -> Part {
        let floors = [Floor::None; SLOTS_OF_PART as usize];
        let loads = [Xid(0); SLOTS_OF_PART as usize];
        let since = [None; SLOTS_OF_PART as usize];
        Part { floors, since, loads, changed: Aged::default(), own: Aged::default(), loaded: Aged::default() }
    }

    fn floor(&self, slot: u16) -> Floor {
        self.floors[place(slot)]
    }

    fn load_of_entry(&self, key: &[u8]) -> Option<(&Arc<Snapshot>, Instant)> {
        let (loads, _) = self.loaded.get(key)?;
        loads.entry.as_ref().map(|(snapshot, at)| (snapshot, *at))
    }

    /// Whether the feed tells of a transaction of which it is known that this node has made it: then a later one may stand for it.
    fn is_own(&mut self, key: &[u8], xid: Xid) -> bool {
        let Some(own) = self.own.get_mut(key) else { return false };
        let place = own.awaited.iter().position(|awaited| *awaited == xid);
        place.map(|place| own.awaited.remove(place)).is_some()
    }

    fn remember_own(&mut self, slot: u16, key: &[u8], xid: Xid, now: Instant) {
        let mut own = match self.own.get(key) {
            Some((own, _)) => own.clone(),
            None => Own { last: xid, awaited: SmallVec::new() },
        };
        if let Some(xids) = self.changed.get_mut(key) {
            xids.retain(|known| *known != own.last && !own.awaited.contains(known));
        }
        own.last = xid;
        if own.awaited.len() >= MAX_AWAITED {
            own.awaited.remove(0);
        }
        // If the feed was faster, it is known as somebody's, which does no harm.
        own.awaited.push(xid);
        self.own.put(Bytes::copy_from_slice(key), own, now, drop);
        self.remember(slot, key, xid, now);
    }

    fn remember(&mut self, slot: u16, key: &[u8], xid: Xid, now: Instant) {
        let mut xids = self.changed.get(key).map(|(xids, _)| xids.clone()).unwrap_or_default();
        if !xids.contains(&xid) {
            xids.push(xid);
        }
        if xids.len() > MAX_CHANGES_OF_KEY {
            let oldest = xids.remove(0);
            self.floors[place(slot)].raise(oldest, now);
        }
        let Part { floors, changed, .. } = self;
        let forget = |(key, xids): (Bytes, SmallVec<[Xid; 2]>)| {
            let floor = &mut floors[place(forebay_cluster::slot_of(&key))];
            xids.into_iter().for_each(|xid| floor.raise(xid, now));
        };
        changed.put(Bytes::copy_from_slice(key), xids, now, forget);
    }

    fn is_newer_than_loads(&self, slot: u16, key: &[u8], snapshot: &Snapshot) -> bool {
        let sees_what_is_known = self.loaded.get(key).is_none_or(|(before, _)| snapshot.covers(&before.last));
        sees_what_is_known && snapshot.xmin() >= self.loads[place(slot)]
    }

    fn remember_load(&mut self, key: Bytes, what: Loads, now: Instant) {
        let Part { loads, loaded, .. } = self;
        loaded.put(key, what, now, |(key, forgotten)| {
            let height = &mut loads[place(forebay_cluster::slot_of(&key))];
            *height = (*height).max(forgotten.last.xmax());
        });
    }
}

impl Floor {
    /// A transaction is forgotten.
    fn raise(&mut self, xid: Xid, now: Instant) {
        *self = match *self {
            Floor::None => Floor::Forgotten { since: now, xid: Some(xid) },
            // Who does not know the height yet will learn one that is above this.
            Floor::Forgotten { xid: None, .. } => Floor::Forgotten { since: now, xid: None },
            Floor::Forgotten { xid: Some(known), .. } => Floor::Forgotten { since: now, xid: Some(known.max(xid)) },
        };
    }

    fn admits(&mut self, target: TargetId, snapshot: &Snapshot, began: Instant) -> bool {
        let Floor::Forgotten { since, xid } = self else { return true };
        if target == PRIMARY && began >= *since {
            // All that had been committed by then is below it.
            xid.get_or_insert(Xid(snapshot.xmax().0.saturating_sub(1)));
            return true;
        }
        xid.is_some_and(|xid| snapshot.xmin() > xid)
    }

    /// Whether what was remembered at that time is still known.
    fn is_before(self, at: Instant) -> bool {
        match self {
            Floor::None => true,
            Floor::Forgotten { since, .. } => since <= at,
        }
    }
}

impl<T> Default for Aged<T> {
    fn default() -> Self {
        Aged { by_key: HashMap::default(), order: VecDeque::new() }
    }
}

impl<T> Aged<T> {
    fn get(&self, key: &[u8]) -> Option<&(T, Instant)> {
        self.by_key.get(key)
    }

    fn get_mut(&mut self, key: &[u8]) -> Option<&mut T> {
        self.by_key.get_mut(key).map(|(what, _)| what)
    }

    /// Remembers something of a key in place of what was remembered, and forgets what is too old or too much.
    fn put(&mut self, key: Bytes, what: T, now: Instant, mut forget: impl FnMut((Bytes, T))) {
        self.by_key.insert(key.clone(), (what, now));
        self.order.push_back((key, now));
        // A key that is remembered again and again must not fill the order.
        while self.by_key.len() > MAX_KEYS
            || self.order.len() > 4 * MAX_KEYS
            || self.order.front().is_some_and(|(_, at)| now.duration_since(*at) > REMEMBERED)
        {
            let Some((key, at)) = self.order.pop_front() else { return };
            if self.by_key.get(&key).is_some_and(|(_, known)| *known == at) {
                if let Some((key, (what, _))) = self.by_key.remove_entry(&key) {
                    forget((key, what));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: u16 = 5;
    const KEY: &[u8] = b"k";

    fn snapshot(text: &str) -> Arc<Snapshot> {
        Arc::new(text.parse().unwrap())
    }

    /// However often a key is written here, nothing has to be forgotten for it, and the entry survives what the feed tells of that.
    #[test]
    fn own_transactions_stand_for_those_before_them() {
        let (memory, began) = (Memory::default(), Instant::now());
        for xid in 100..200 {
            let now = Instant::now();
            let seen = snapshot(&format!("{xid}:{}:", xid + 1));
            memory.wrote(SLOT, KEY, Xid(xid), now);
            assert!(
                !memory.admits_written(SLOT, KEY, &snapshot(&format!("{xid}:{xid}:")), began, now),
                "it has not seen itself"
            );
            assert!(memory.admits_written(SLOT, KEY, &seen, began, now));
            assert!(memory.changed(SLOT, KEY, Xid(xid), now), "the feed tells of our own transaction {xid}");
        }
        // What others do is told apart, also if it comes again.
        assert!(!memory.changed(SLOT, KEY, Xid(300), Instant::now()));
        assert!(!memory.admits_written(SLOT, KEY, &snapshot("250:250:"), began, Instant::now()));
    }

    /// A load that a fence kept out, or for which there was no room, says nothing of what is there.
    #[test]
    fn an_entry_has_seen_what_its_own_load_has_seen_and_no_other() {
        let (memory, guards, began) = (Memory::default(), Guards::default(), Instant::now());
        let key = Bytes::from_static(KEY);
        let load =
            |text| Loaded { value: None, took: Duration::ZERO, target: Some(PRIMARY), snapshot: Some(snapshot(text)) };
        let admits = |loaded: &Loaded| memory.admits(SLOT, &key, Load { loaded, began }, &guards, Instant::now());
        let changed = |xid| memory.changed(SLOT, KEY, Xid(xid), Instant::now());
        let (first, second, third) = (load("10:10:"), load("20:20:"), load("30:30:"));
        assert!(admits(&first) && !changed(5), "it was fenced: what is there is a client's");
        assert!(memory.seen_by_entry(SLOT, KEY).is_none() && memory.load_of_entry(SLOT, KEY).is_none());

        assert!(admits(&second));
        memory.kept(SLOT, KEY, &second, Instant::now());
        assert!(changed(15), "it was stored");
        assert!(admits(&third) && !changed(25) && changed(15), "the later load was fenced");
        let of_replica = Loaded { target: Some(TargetId(1)), ..load("28:28:") };
        assert!(!admits(&of_replica), "somebody may have been told what the later load has brought");
        memory.let_go(SLOT, KEY);
        assert!(!changed(15), "the entry was let go of");
    }

    #[test]
    fn what_is_forgotten_since_the_write_began_keeps_it_out() {
        let (memory, began) = (Memory::default(), Instant::now());
        assert!(memory.admits_written(SLOT, KEY, &snapshot("9:9:"), began, Instant::now()));
        assert!(memory.seen_by_entry(SLOT, KEY).is_some());
        memory.forget(SLOT, Instant::now());
        assert!(memory.seen_by_entry(SLOT, KEY).is_none(), "nobody knows what was changed before");
        assert!(memory.load_of_entry(SLOT, KEY).is_none(), "nor whether another has filled it since");
        assert!(!memory.admits_written(SLOT, KEY, &snapshot("9:9:"), began, Instant::now()));
    }
}
