//! An owner, the nodes that hold copies, and all that may happen between them, in every order that chance brings about: no reader is ever
//! told what is older than what somebody has been told before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cluster::NodeNumber;
use forebay_resp::{Args, Protocol};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::grants::Due;
use super::{Asker, Copies, Found, Grant, Grants, LONGEST, TakeBack, Wanted};

const KEY: (u16, u16, &[u8]) = (7, 0, b"key");
const HOLDERS: usize = 3;
const LEASE: Duration = Duration::from_millis(700);

/// Steps of one history.
const STEPS: usize = 3000;

/// One key. Its value is a number that every write raises by one.
struct World {
    random: StdRng,
    base: Instant,
    /// Since `base`, by the owner's clock.
    now: Duration,
    owner: Owner,
    holders: Vec<Holder>,
    value: u64,
    /// The highest value that somebody has been told of: no call that begins now may be answered a lower one.
    known: u64,
    messages: Vec<Message>,
    /// What the owner keeps back.
    kept_back: Vec<(Arc<TakeBack>, KeptBack)>,
    seen: Seen,
    /// The rule that nobody keeps.
    without: Option<Rule>,
    /// What was told to whom had to be told something newer.
    violation: Option<String>,
}

/// A rule without which the rest is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The owner keeps replies back until copies are gone.
    Wait,
    /// A holder keeps nothing that it had asked for before it was asked back.
    Void,
    /// Clocks differ by no more than is allowed for.
    Drift,
    /// Grants end with the lease.
    Lease,
}

struct Owner {
    grants: Grants,
    /// Which of the owners there have been.
    number: u32,
    lease_until: Duration,
    phase: Phase,
}

enum Phase {
    Serves,
    /// Frozen until these are over.
    HandsOver(Vec<Arc<TakeBack>>),
    /// Its lease is not renewed any more.
    CutOff,
    Dead,
}

struct Holder {
    copies: Copies,
    /// Its clock, beside the owner's.
    rate: f64,
    ahead: Duration,
}

/// A read that a holder has forwarded; no lower value than `least` may be told.
#[derive(Clone, Copy)]
struct Read {
    holder: usize,
    sent: Instant,
    least: u64,
}

enum Message {
    Request(Read),
    Answer { read: Read, value: u64, lasts: Option<Duration> },
    TakeBack { due: Due, owner: u32 },
    GivenBack { due: Due, owner: u32 },
}

enum KeptBack {
    Acknowledgement { value: u64 },
    OwnRead { value: u64 },
    Answer(Message),
}

/// What has come about, so that a history in which nothing happens is not taken for a proof.
#[derive(Debug, Default)]
struct Seen {
    copied: u64,
    waits: u64,
    late_grants: u64,
    hand_overs: u64,
    deaths: u64,
}

impl World {
    fn new(seed: u64, without: Option<Rule>) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let holder = |random: &mut StdRng| Holder {
            copies: Copies::default(),
            // One part in twenty is what is allowed for.
            rate: if without == Some(Rule::Drift) { 0.8 } else { random.random_range(0.955..1.045) },
            ahead: Duration::from_millis(random.random_range(0..1000)),
        };
        let holders = (0..HOLDERS).map(|_| holder(&mut random)).collect();
        World {
            random,
            base: Instant::now(),
            now: Duration::ZERO,
            owner: Owner { grants: Grants::default(), number: 0, lease_until: LEASE, phase: Phase::Serves },
            holders,
            value: 0,
            known: 0,
            messages: Vec::new(),
            kept_back: Vec::new(),
            seen: Seen::default(),
            without,
            violation: None,
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => self.read_at_a_holder(),
            30..38 => self.read_at_the_owner(),
            38..42 => self.write(),
            42..80 => self.deliver(),
            80..98 => self.wait(),
            98 if self.random.random_bool(0.3) => self.freeze(),
            99 if self.random.random_bool(0.1) => self.owner.phase = Phase::Dead,
            99 if self.random.random_bool(0.2) && self.serves() => self.owner.phase = Phase::CutOff,
            _ => {}
        }
        self.let_go();
        self.succeed();
    }

    fn clock(&self) -> Instant {
        self.base + self.now
    }

    fn clock_of(&self, holder: usize) -> Instant {
        let Holder { rate, ahead, .. } = self.holders[holder];
        self.base + ahead + self.now.mul_f64(rate)
    }

    fn serves(&self) -> bool {
        matches!(self.owner.phase, Phase::Serves | Phase::CutOff) && self.now < self.owner.lease_until
    }

    fn read_at_a_holder(&mut self) {
        let holder = self.random.random_range(0..HOLDERS);
        let now = self.clock_of(holder);
        match self.holders[holder].copies.find_at(&wanted(), || now) {
            Found::Copy(reply) => {
                self.seen.copied += 1;
                self.told(number(&reply), self.known);
            }
            Found::Ended { .. } | Found::Nothing if self.messages.len() < 12 => {
                self.messages.push(Message::Request(Read { holder, sent: now, least: self.known }));
            }
            Found::Ended { .. } | Found::Nothing => {}
        }
    }

    fn read_at_the_owner(&mut self) {
        if self.serves() {
            self.reply(KeptBack::OwnRead { value: self.value });
        }
    }

    fn write(&mut self) {
        if self.serves() {
            self.value += 1;
            self.owner.grants.changed_at(KEY.1, KEY.2, self.clock());
            self.reply(KeptBack::Acknowledgement { value: self.value });
        }
    }

    /// Sends a reply of the owner's, or keeps it back.
    fn reply(&mut self, reply: KeptBack) {
        match self.owner.grants.under_way(KEY.0, KEY.1, KEY.2) {
            Some(take_back) if self.without != Some(Rule::Wait) => {
                self.seen.waits += 1;
                self.kept_back.push((take_back, reply));
            }
            Some(_) | None => self.send(reply),
        }
    }

    fn send(&mut self, reply: KeptBack) {
        match reply {
            KeptBack::Acknowledgement { value } | KeptBack::OwnRead { value } => self.known = self.known.max(value),
            KeptBack::Answer(answer) => self.messages.push(answer),
        }
    }

    fn let_go(&mut self) {
        let (over, rest) =
            std::mem::take(&mut self.kept_back).into_iter().partition(|(take_back, _)| take_back.is_over());
        self.kept_back = rest;
        let over: Vec<(Arc<TakeBack>, KeptBack)> = over;
        over.into_iter().for_each(|(_, reply)| self.send(reply));
        if !matches!(self.owner.phase, Phase::Dead) {
            let number = self.owner.number;
            let due = self.owner.grants.take_due().into_iter();
            self.messages.extend(due.map(|due| Message::TakeBack { due, owner: number }));
        }
    }

    /// Any message arrives, however late, or is lost.
    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.messages.len());
        let message = self.messages.swap_remove(at);
        let is_lost = self.random.random_bool(0.05);
        match message {
            _ if is_lost => {}
            Message::Request(read) if self.serves() => {
                let (now, asker) = (self.clock(), Asker { node: node(read.holder), served: 0 });
                let most = if self.without == Some(Rule::Lease) { LONGEST } else { self.owner.lease_until - self.now };
                let lasts = self.owner.grants.offer(KEY, asker, 1, || most, 0, || now);
                self.reply(KeptBack::Answer(Message::Answer { read, value: self.value, lasts }));
            }
            Message::Request(_) => {}
            Message::Answer { read, value, lasts } => {
                if let Some(lasts) = lasts {
                    let now = self.clock_of(read.holder);
                    let mut grant = Grant { sent: read.sent, lasts };
                    if self.without == Some(Rule::Void) {
                        // It ends when it did, and seems to have been asked for just now.
                        let left = grant.end().saturating_duration_since(now);
                        grant = Grant { sent: now, lasts: left.mul_f64(20.0 / 19.0) };
                    }
                    let copies = &self.holders[read.holder].copies;
                    let before = copies.keys();
                    copies.keep_at(&wanted(), value.to_string().as_bytes(), grant, now);
                    self.seen.late_grants += u64::from(before == 0 && copies.keys() == 0 && grant.end() > now);
                }
                self.told(value, read.least);
            }
            Message::TakeBack { due, owner } => {
                let holder = due.holder.0 as usize;
                let now = self.clock_of(holder);
                let _served = self.holders[holder].copies.give_back_at(due.db, &due.name, || now);
                self.messages.push(Message::GivenBack { due, owner });
            }
            Message::GivenBack { due, owner } if owner == self.owner.number => self.owner.grants.returned(&due, 1),
            Message::GivenBack { .. } => {}
        }
    }

    fn wait(&mut self) {
        let longest = if self.random.random_bool(0.05) { 300_000 } else { 5_000 };
        self.now += Duration::from_micros(self.random.random_range(1..longest));
        if !matches!(self.owner.phase, Phase::Dead) {
            if self.random.random_bool(0.7) && !matches!(self.owner.phase, Phase::CutOff) {
                self.owner.lease_until = self.now + LEASE;
            }
            let _next = self.owner.grants.look(self.clock());
        }
    }

    /// The owner begins to hand its slot over.
    fn freeze(&mut self) {
        if self.serves() {
            self.owner.grants.changed_slot_at(KEY.0, None, self.clock());
            self.owner.phase = Phase::HandsOver(self.owner.grants.all_under_way());
        }
    }

    /// Another one becomes owner as soon as it may.
    fn succeed(&mut self) {
        match &self.owner.phase {
            Phase::HandsOver(take_backs) if take_backs.iter().all(|take_back| take_back.is_over()) => {
                self.seen.hand_overs += 1;
            }
            Phase::Dead | Phase::CutOff if self.now >= self.owner.lease_until => self.seen.deaths += 1,
            Phase::Dead | Phase::CutOff | Phase::HandsOver(_) | Phase::Serves => return,
        }
        let number = self.owner.number + 1;
        self.owner = Owner { grants: Grants::default(), number, lease_until: self.now + LEASE, phase: Phase::Serves };
        // What a dead one kept back is told to nobody.
        self.kept_back.retain(|(take_back, _)| take_back.is_over());
    }

    fn told(&mut self, value: u64, least: u64) {
        if value < least {
            self.violation = Some(format!("a reader is told {value} when others have been told {least}"));
        }
        self.known = self.known.max(value);
    }
}

fn wanted() -> Wanted<'static> {
    const GET: &[&[u8]; 2] = &[b"GET", KEY.2];
    Wanted { db: KEY.1, key: KEY.2, args: Args::from(GET), protocol: Protocol::Resp2 }
}

fn node(holder: usize) -> NodeNumber {
    NodeNumber(u32::try_from(holder).expect("a small number"))
}

fn number(reply: &[u8]) -> u64 {
    std::str::from_utf8(reply).expect("digits").parse().expect("a number")
}

#[test]
fn no_reader_is_told_what_is_older_than_others_know() {
    let mut seen = Seen::default();
    let first: u64 = rand::rng().next_u64();
    for seed in first..first + 200 {
        println!("seed {seed}");
        let mut world = World::new(seed, None);
        (0..STEPS).for_each(|_| world.step());
        assert_eq!(world.violation, None);
        seen.copied += world.seen.copied;
        seen.waits += world.seen.waits;
        seen.late_grants += world.seen.late_grants;
        seen.hand_overs += world.seen.hand_overs;
        seen.deaths += world.seen.deaths;
    }
    println!("{seen:?}");
    let Seen { copied, waits, late_grants, hand_overs, deaths } = seen;
    assert!(copied > 10_000 && waits > 1_000 && late_grants > 50 && hand_overs > 100 && deaths > 50);
}

/// Each rule is needed, and the histories above would tell if one were not kept.
#[test]
fn without_any_of_the_rules_somebody_reads_what_is_old() {
    for rule in [Rule::Wait, Rule::Void, Rule::Drift, Rule::Lease] {
        let is_found = (0..400).any(|seed| {
            let mut world = World::new(seed, Some(rule));
            (0..STEPS).any(|_| {
                world.step();
                world.violation.is_some()
            })
        });
        assert!(is_found, "nobody notices that {rule:?} is missing");
    }
}

#[test]
fn a_key_is_granted_only_when_it_is_hot_and_for_long_enough() {
    let (grants, now) = (Grants::default(), Instant::now());
    let asker = Asker { node: NodeNumber(1), served: 0 };
    let offer = |asker, most| grants.offer(KEY, asker, 10, || most, 0, || now);
    assert!((0..9).all(|_| offer(asker, LONGEST).is_none()));
    assert_eq!(offer(asker, 2 * LONGEST), Some(LONGEST));
    assert_eq!(offer(asker, LONGEST / 2), Some(LONGEST / 2));
    assert_eq!(offer(asker, Duration::from_millis(1)), None);
    assert_eq!((grants.hot_keys(), grants.given()), (1, 2));
    // The longer one counts.
    assert_eq!(grants.look(now + LONGEST / 2), Some(now + LONGEST));
    assert_eq!(grants.look(now + LONGEST), None);
    assert_eq!(grants.hot_keys(), 0);
    // What copies have answered keeps a key hot.
    let other = (8, 0, &b"other"[..]);
    assert!(grants.offer(other, Asker { served: 9, ..asker }, 10, || LONGEST, 0, || now).is_some());
}

#[test]
fn a_key_that_is_written_often_is_left_alone() {
    let (grants, now) = (Grants::default(), Instant::now());
    let asker = Asker { node: NodeNumber(1), served: 1000 };
    assert!(grants.offer(KEY, asker, 10, || LONGEST, 0, || now).is_some());
    grants.changed_at(KEY.1, KEY.2, now);
    let due = grants.take_due();
    let take_back = grants.under_way(KEY.0, KEY.1, KEY.2).expect("it is taken back");
    assert!(grants.take_due().is_empty(), "each is asked once");
    assert!(grants.offer(KEY, asker, 10, || LONGEST, 0, || now).is_none() && !take_back.is_over());
    grants.returned(&due[0], 1);
    assert!(take_back.is_over() && grants.under_way(KEY.0, KEY.1, KEY.2).is_none());
    assert!(grants.offer(KEY, asker, 10, || LONGEST, 0, || now).is_none());
    assert!(grants.offer(KEY, asker, 10, || LONGEST, 0, || now + super::REST).is_some());
}

#[test]
fn flushing_takes_back_what_it_is_about() {
    let (grants, now) = (Grants::default(), Instant::now());
    let asker = Asker { node: NodeNumber(1), served: 1000 };
    let keys: [(u16, u16, &[u8]); 3] = [(7, 0, b"a"), (7, 1, b"a"), (8, 0, b"b")];
    for key in keys {
        assert!(grants.offer(key, asker, 10, || LONGEST, 0, || now).is_some());
    }
    let under_way = || keys.map(|(slot, db, name)| grants.under_way(slot, db, name).is_some());
    grants.changed_slot_at(7, Some(1), now);
    assert_eq!(under_way(), [false, true, false]);
    grants.changed_slot_at(7, None, now);
    assert_eq!(under_way(), [true, true, false]);
    assert_eq!(grants.all_under_way().len(), 2);
    assert_eq!(grants.look(now + LONGEST), None);
    assert!(under_way().iter().all(|is| !is) && grants.all_under_way().is_empty());
}
