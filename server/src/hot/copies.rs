//! The holder's side: answers to requests for others' keys that may be given again for a while.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_resp::{Args, Protocol};
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::{Grant, LONGEST, MAX_BYTES, MAX_COPIES_OF_KEY, MAX_KEYS, MAX_REPLY};

/// Times of take-backs that are remembered: the last one of all keys that share a place.
const VOIDS: usize = 1024;

/// A request that a copy may answer.
#[derive(Clone, Copy)]
pub struct Wanted<'w> {
    pub db: u16,
    pub key: &'w [u8],
    pub args: Args<'w>,
    pub protocol: Protocol,
}

/// What there is for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Copy(Bytes),
    /// A copy whose time is over, which has answered so often.
    Ended {
        served: u32,
    },
    Nothing,
}

/// The oldest of the answers that are kept for a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopiesAge {
    /// How long ago it was asked for …
    pub asked: Duration,
    /// … and had come: the owner has made it between the two.
    pub came: Duration,
}

/// The copies here.
pub struct Copies {
    hasher: foldhash::fast::RandomState,
    /// How many keys have copies here: nobody looks further while there are none.
    keys: AtomicUsize,
    /// Looked into, added to and taken back under this one lock: what is found is not taken back yet.
    held: RwLock<Held>,
    /// How often copies have answered that are no more.
    served: AtomicU64,
}

struct Held {
    by_key: HashMap<u64, SmallVec<[Copy; 1]>>,
    bytes: usize,
    /// When a key of each place was last asked back. A grant whose request was sent before that is void: it may be of a state before the
    /// change for which the key was asked back. Keys that share a place only lose a grant now and then.
    voided: Box<[Option<Instant>]>,
}

struct Copy {
    db: u16,
    protocol: Protocol,
    args: Box<[Box<[u8]>]>,
    reply: Bytes,
    /// When it was asked for, and had come.
    asked: Instant,
    came: Instant,
    end: Instant,
    /// Since it was last told.
    served: AtomicU32,
}

impl Default for Copies {
    fn default() -> Self {
        let held = Held { by_key: HashMap::new(), bytes: 0, voided: vec![None; VOIDS].into() };
        Copies {
            hasher: foldhash::fast::RandomState::default(),
            keys: AtomicUsize::new(0),
            held: RwLock::new(held),
            served: AtomicU64::new(0),
        }
    }
}

impl Copies {
    /// Looks for a copy, whose answer is as good as the owner's at this moment.
    #[inline]
    pub fn find(&self, wanted: &Wanted<'_>) -> Found {
        match self.keys.load(Relaxed) {
            0 => Found::Nothing,
            _ => self.find_at(wanted, Instant::now),
        }
    }

    pub(super) fn find_at(&self, wanted: &Wanted<'_>, now: impl Fn() -> Instant) -> Found {
        let held = self.held.read();
        let copies = held.by_key.get(&self.hash(wanted.db, wanted.key)).map_or(&[][..], |copies| copies);
        let Some(copy) = copies.iter().find(|copy| copy.answers(wanted)) else { return Found::Nothing };
        // The clock is read under the lock: at that moment the copy is neither taken back nor over.
        if now() >= copy.end {
            let served = copy.served.swap(0, Relaxed);
            self.served.fetch_add(u64::from(served), Relaxed);
            return Found::Ended { served };
        }
        copy.served.fetch_add(1, Relaxed);
        Found::Copy(copy.reply.clone())
    }

    /// How old the answers are that would be given for a key now, if there are any.
    pub fn age_of(&self, db: u16, key: &[u8]) -> Option<CopiesAge> {
        self.age_at(db, key, Instant::now)
    }

    fn age_at(&self, db: u16, key: &[u8], now: impl Fn() -> Instant) -> Option<CopiesAge> {
        if self.keys.load(Relaxed) == 0 {
            return None;
        }
        let held = self.held.read();
        let now = now();
        let copies = held.by_key.get(&self.hash(db, key))?.iter().filter(|copy| copy.end > now);
        let ages = copies.map(|copy| CopiesAge { asked: now - copy.asked, came: now - copy.came });
        ages.reduce(|one, other| CopiesAge { asked: one.asked.max(other.asked), came: one.came.max(other.came) })
    }

    /// Keeps an answer, unless its grant is void.
    pub fn keep(&self, wanted: &Wanted<'_>, reply: &[u8], grant: Grant) {
        self.keep_at(wanted, reply, grant, Instant::now());
    }

    pub(super) fn keep_at(&self, wanted: &Wanted<'_>, reply: &[u8], grant: Grant, now: Instant) {
        let (hash, end) = (self.hash(wanted.db, wanted.key), grant.end());
        if end <= now || reply.len() > MAX_REPLY {
            return;
        }
        let mut held = self.held.write();
        if held.is_void(hash, &grant) {
            return;
        }
        let _served = self.drop_from(&mut held, hash, |copy| copy.answers(wanted) || copy.end <= now);
        if held.by_key.len() >= MAX_KEYS || held.bytes >= MAX_BYTES {
            self.drop_ended(&mut held, now);
        }
        let has_room = held.by_key.len() < MAX_KEYS && held.bytes < MAX_BYTES;
        if has_room && held.by_key.get(&hash).is_none_or(|copies| copies.len() < MAX_COPIES_OF_KEY) {
            let copy = Copy::new(wanted, reply, (grant.sent, now, end));
            held.bytes += copy.bytes();
            held.by_key.entry(hash).or_default().push(copy);
        }
        self.keys.store(held.by_key.len(), Relaxed);
    }

    /// The owner takes a key back. How often its copies have answered since that was last told.
    pub fn give_back(&self, db: u16, key: &[u8]) -> u32 {
        self.give_back_at(db, key, Instant::now)
    }

    pub(super) fn give_back_at(&self, db: u16, key: &[u8], now: impl Fn() -> Instant) -> u32 {
        let hash = self.hash(db, key);
        let mut held = self.held.write();
        held.voided[place(hash)] = Some(now());
        let served = self.drop_from(&mut held, hash, |_| true);
        self.keys.store(held.by_key.len(), Relaxed);
        served
    }

    /// Throws away what has ended and was not renewed. Not at once: who asks for it next tells the owner how often it has answered.
    pub(super) fn clear_up(&self, now: Instant) {
        if self.keys.load(Relaxed) != 0 {
            let mut held = self.held.write();
            if let Some(before) = now.checked_sub(LONGEST) {
                self.drop_ended(&mut held, before);
            }
            self.keys.store(held.by_key.len(), Relaxed);
        }
    }

    fn drop_ended(&self, held: &mut Held, now: Instant) {
        let hashes: Vec<u64> = held.by_key.keys().copied().collect();
        for hash in hashes {
            let _served = self.drop_from(held, hash, |copy| copy.end <= now);
        }
    }

    /// How often those had answered that were dropped.
    fn drop_from(&self, held: &mut Held, hash: u64, is_dropped: impl Fn(&Copy) -> bool) -> u32 {
        let Some(copies) = held.by_key.get_mut(&hash) else { return 0 };
        let (mut freed, mut served) = (0, 0u32);
        copies.retain(|copy| {
            let goes = is_dropped(copy);
            if goes {
                freed += copy.bytes();
                served = served.saturating_add(*copy.served.get_mut());
            }
            !goes
        });
        if copies.is_empty() {
            held.by_key.remove(&hash);
        }
        held.bytes -= freed;
        self.served.fetch_add(u64::from(served), Relaxed);
        served
    }

    fn hash(&self, db: u16, key: &[u8]) -> u64 {
        self.hasher.hash_one((db, key))
    }

    /// Keys of which there are copies here.
    pub fn keys(&self) -> u64 {
        self.keys.load(Relaxed) as u64
    }

    /// Requests that copies have answered since the start.
    pub fn served(&self) -> u64 {
        let held = self.held.read();
        let now = held.by_key.values().flatten().map(|copy| u64::from(copy.served.load(Relaxed))).sum::<u64>();
        self.served.load(Relaxed) + now
    }
}

impl Held {
    fn is_void(&self, hash: u64, grant: &Grant) -> bool {
        self.voided[place(hash)].is_some_and(|asked_back| grant.sent <= asked_back)
    }
}

fn place(hash: u64) -> usize {
    hash as usize % VOIDS
}

impl Copy {
    fn new(wanted: &Wanted<'_>, reply: &[u8], (asked, came, end): (Instant, Instant, Instant)) -> Copy {
        Copy {
            db: wanted.db,
            protocol: wanted.protocol,
            args: wanted.args.iter().map(Box::from).collect(),
            // Not a part of the batch that it has come in, which would stay as long as it does.
            reply: Bytes::copy_from_slice(reply),
            asked,
            came,
            end,
            served: AtomicU32::new(0),
        }
    }

    fn answers(&self, wanted: &Wanted<'_>) -> bool {
        self.db == wanted.db
            && self.protocol == wanted.protocol
            && self.args.len() == wanted.args.len()
            && self.args.iter().zip(wanted.args.iter()).all(|(known, wanted)| **known == *wanted)
    }

    fn bytes(&self) -> usize {
        self.reply.len() + self.args.iter().map(|arg| arg.len()).sum::<usize>() + size_of::<Copy>()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wanted<'w>(args: &'w [&'w [u8]]) -> Wanted<'w> {
        Wanted { db: 0, key: args[1], args: Args::from(args), protocol: Protocol::Resp2 }
    }

    fn grant(sent: Instant) -> Grant {
        Grant { sent, lasts: Duration::from_millis(400) }
    }

    #[test]
    fn a_copy_answers_the_same_request_until_its_end() {
        let (copies, sent) = (Copies::default(), Instant::now());
        let get: [&[u8]; 2] = [b"GET", b"a"];
        copies.keep_at(&wanted(&get), b"$1\r\n1\r\n", grant(sent), sent);
        let found = |wanted: &Wanted<'_>, after| copies.find_at(wanted, || sent + Duration::from_millis(after));
        assert_eq!(found(&wanted(&get), 379), Found::Copy(Bytes::from_static(b"$1\r\n1\r\n")));
        assert_eq!(found(&Wanted { db: 1, ..wanted(&get) }, 0), Found::Nothing);
        assert_eq!(found(&Wanted { protocol: Protocol::Resp3, ..wanted(&get) }, 0), Found::Nothing);
        assert_eq!(found(&wanted(&[b"GET", b"b"]), 0), Found::Nothing);
        assert_eq!(found(&wanted(&[b"STRLEN", b"a"]), 0), Found::Nothing);
        assert_eq!(found(&wanted(&get), 380), Found::Ended { served: 1 });
        assert_eq!(found(&wanted(&get), 380), Found::Ended { served: 0 });
        assert_eq!(copies.served(), 1);
        copies.clear_up(sent + Duration::from_millis(380) + LONGEST);
        assert_eq!((copies.keys(), copies.held.read().bytes), (0, 0));
    }

    #[test]
    fn the_age_of_copies_is_that_of_the_oldest_that_answers() {
        let (copies, sent) = (Copies::default(), Instant::now());
        let millis = Duration::from_millis;
        let requests: [[&[u8]; 2]; 2] = [[b"GET", b"a"], [b"STRLEN", b"a"]];
        for (args, at) in requests.iter().zip([0, 100]) {
            copies.keep_at(&wanted(args), b"", grant(sent + millis(at)), sent + millis(at + 5));
        }
        let age = |after| copies.age_at(0, b"a", || sent + millis(after));
        assert_eq!(age(200), Some(CopiesAge { asked: millis(200), came: millis(195) }));
        assert_eq!(age(400), Some(CopiesAge { asked: millis(300), came: millis(295) }));
        assert_eq!((age(480), copies.age_at(1, b"a", || sent)), (None, None));
    }

    #[test]
    fn what_was_asked_for_before_a_take_back_is_not_kept_after_it() {
        let (copies, sent) = (Copies::default(), Instant::now());
        let get: [&[u8]; 2] = [b"GET", b"a"];
        let asked_back = sent + Duration::from_millis(1);
        copies.keep_at(&wanted(&get), b"old", grant(sent), sent);
        copies.give_back_at(0, b"a", || asked_back);
        assert_eq!(copies.find_at(&wanted(&get), || asked_back), Found::Nothing);
        copies.keep_at(&wanted(&get), b"old", grant(asked_back), asked_back);
        assert_eq!(copies.find_at(&wanted(&get), || asked_back), Found::Nothing);
        let later = asked_back + Duration::from_nanos(1);
        copies.keep_at(&wanted(&get), b"new", grant(later), later);
        assert_eq!(copies.find_at(&wanted(&get), || later), Found::Copy(Bytes::from_static(b"new")));
    }

    #[test]
    fn there_are_never_too_many() {
        let (copies, now) = (Copies::default(), Instant::now());
        let names: Vec<String> = (0..2 * MAX_KEYS).map(|number| number.to_string()).collect();
        for name in &names {
            copies.keep_at(&wanted(&[b"GET", name.as_bytes()]), &[b'x'; 100], grant(now), now);
        }
        assert_eq!(copies.keys(), MAX_KEYS as u64);
        let later = now + Duration::from_secs(1);
        for number in names.iter().take(2 * MAX_COPIES_OF_KEY) {
            copies.keep_at(&wanted(&[b"GETRANGE", b"a", b"0", number.as_bytes()]), b"", grant(later), later);
        }
        assert_eq!(
            (copies.keys(), copies.held.read().by_key.values().map(SmallVec::len).sum()),
            (1, MAX_COPIES_OF_KEY)
        );
        for name in &names {
            copies.keep_at(&wanted(&[b"GET", name.as_bytes()]), &[b'x'; MAX_REPLY], grant(later), later);
        }
        assert!(copies.held.read().bytes < MAX_BYTES + 2 * MAX_REPLY, "{}", copies.held.read().bytes);
        let before = copies.keys();
        copies.keep_at(&wanted(&[b"GET", b"large"]), &[b'x'; MAX_REPLY + 1], grant(later), later);
        assert_eq!(copies.keys(), before);
    }
}
