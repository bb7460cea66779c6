//! Nodes that follow one another, beside the promise that they hold the same in the end.

mod repair;
mod stage;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use forebay_cluster::slot_of;
use forebay_store::{DigestLimits, Expiry, Fill, FillValue, Store, StoreConfig};
use proptest::prelude::*;

use super::*;
use stage::{APPEND, DEL, EXPIRE, HSET, Node, SET, START, Stage, turns};

/// Keys share a few slots, so that much happens in each.
const TAGS: [&str; 5] = ["{a}", "{b}", "{c}", "{d}", "{e}"];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64 (G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8, 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

fn slots() -> Vec<u16> {
    TAGS.iter().map(|tag| slot_of(tag.as_bytes())).collect()
}

fn run<F: Future<Output = ()>>(test: F) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // The test has its turn after each step of a task, and not after 61 of them.
    let runtime = builder.event_interval(1).enable_time().build().unwrap();
    runtime.block_on(test);
}

/// Something that a client, the origin or eviction does at a node that owns the slot.
fn change_something(node: &Arc<Node>, tag: &str, random: &mut Random) {
    let slot = slot_of(tag.as_bytes());
    let name = |number: usize| format!("{tag}{number}").into_bytes();
    let (key, other, db) = (name(random.below(60)), name(random.below(60)), random.below(2) as u16);
    let value = vec![random.below(256) as u8; random.below(40)];
    match random.below(20) {
        0..6 => drop(node.execute(&SET, db, &[b"set", &key, &value])),
        6 => drop(node.execute(&SET, db, &[b"set", &key, &vec![7; 500 + random.below(60_000)]])),
        7..10 => drop(node.execute(&APPEND, db, &[b"append", &key, &value])),
        10..13 => {
            for _ in 0..random.below(40) {
                let field = random.below(300).to_string();
                node.execute(&HSET, db, &[b"hset", &key, field.as_bytes(), &value]);
            }
        }
        13 => drop(node.execute(&DEL, db, &[b"del", &key, &other])),
        14 => drop(node.execute(&EXPIRE, db, &[b"pexpire", &key, b"500000"])),
        15..18 => {
            let key = node.store.key(0, slot, &key);
            let mut keyspace = node.store.lock(slot, node.now());
            let fence = keyspace.begin_load(&key);
            let given = (random.below(3) > 0).then_some(FillValue::String(&value));
            let fill = Fill { deadline: Some(START * 2), stale_for_ms: 5, filled_at: START, ..Fill::default() };
            keyspace.fill(&key, given, fill, &fence);
            node.replication.record_fill(&mut keyspace, &key);
        }
        18 => {
            let mut keyspace = node.store.lock(slot, node.now());
            let evicted = node.store.key(db, slot, &key);
            keyspace.discard(&evicted);
            node.replication.record_eviction(slot, db, &key);
        }
        _ => {
            if random.below(10) == 0 {
                drop(node.replication.flush(&node.store, Some(db), &mut |_| true));
            }
        }
    }
}

/// Some steps of a life of a cluster: clients, feeds that break, nodes that lag, die and come back.
async fn live(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut stage = Stage::new(3, 3);
    let mut away = None;
    for _ in 0..steps {
        match random.below(100) {
            0..60 => {
                let tag = TAGS[random.below(TAGS.len())];
                if let Some(owner) = stage.nodes.iter().find(|node| node.owns(slot_of(tag.as_bytes()))) {
                    change_something(owner, tag, &mut random);
                }
            }
            60..85 => turns(random.below(100)).await,
            85..90 => {
                let node = random.below(stage.nodes.len());
                stage.nodes[node].learn(&stage.state);
            }
            90..93 => stage.link(),
            93..95 => {
                let links = stage.linked();
                if !links.is_empty() {
                    stage.cut(links[random.below(links.len())]);
                }
            }
            95..97 => stage.settle_a_little().await,
            97 => {
                let slot = slots()[random.below(TAGS.len())];
                stage.nodes.iter().for_each(|node| node.replication.audit_slot(&**node, slot));
            }
            98 => drop(stage.now.fetch_add(1_000, Relaxed)),
            _ => match away.take() {
                None => {
                    let number = stage.nodes[random.below(stage.nodes.len())].number;
                    stage.kill(number);
                    away = Some(number);
                }
                Some(number) => stage.start(number.0 as u8 - 1),
            },
        }
    }
    stage.settle(&slots()).await;
    for slot in slots() {
        stage.nodes.iter().for_each(|node| node.replication.audit_slot(&**node, slot));
    }
    stage.settle(&slots()).await;
    let sum = |count: fn(&Counts) -> &AtomicU64| {
        stage.nodes.iter().map(|node| count(node.replication.counts()).load(Relaxed)).sum::<u64>()
    };
    assert!(sum(|counts| &counts.carried_out) > 0 && sum(|counts| &counts.compared) > 0);
    for node in &stage.nodes {
        assert_eq!(node.replication.counts().repaired.load(Relaxed), 0, "a copy at {:?} has gone astray", node.number);
    }
}

#[test]
fn holders_come_to_hold_the_same() {
    // More of them: FOREBAY_SEEDS=1000.
    let seeds = std::env::var("FOREBAY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(5);
    for seed in 1..=seeds {
        println!("seed {seed}");
        run(live(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed), 600));
    }
}

#[test]
fn a_slot_that_is_written_all_the_time_is_sent_once() {
    run(async {
        let (mut stage, mut random, tag) = (Stage::new(1, 2), Random(77), TAGS[0]);
        let owner = Arc::clone(&stage.nodes[0]);
        owner.learn(&stage.state);
        (0..500).for_each(|_| change_something(&owner, tag, &mut random));
        stage.start(1);
        stage.nodes.iter().for_each(|node| node.learn(&stage.state));
        stage.link();
        let sending = |owner: &Node| {
            let log = owner.replication.log(slot_of(tag.as_bytes())).lock();
            log.targets.iter().any(|target| matches!(target.stage, slot_log::Stage::Sending { .. }))
        };
        let mut written_meanwhile = 0;
        while owner.replication.complete().iter().all(|(_, slots)| slots.len() < usize::from(SLOT_COUNT)) {
            for _ in 0..500 {
                change_something(&owner, tag, &mut random);
                written_meanwhile += usize::from(sending(&owner));
                turns(1).await;
            }
        }
        assert!(written_meanwhile > 3, "{written_meanwhile}");
        assert_eq!(owner.replication.counts().slots_sent.load(Relaxed), u64::from(SLOT_COUNT));
        stage.settle(&slots()).await;
    });
}

#[test]
fn a_copy_that_differs_is_found_and_repaired() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let holder = stage.other(slot);
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"right"]);
        stage.settle(&slots()).await;
        let key = holder.store.key(0, slot, b"{a}1");
        holder.store.lock(slot, START).set_string(&key, b"wrong", Expiry::None);
        owner.replication.audit_slot(&*owner, slot);
        while holder.replication.counts().repaired.load(Relaxed) == 0 {
            turns(1).await;
        }
        stage.settle(&slots()).await;
        assert_eq!(holder.store.lock(slot, START).read_string(&key).unwrap().unwrap().to_vec(), b"right");
    });
}

#[test]
fn what_copies_hold_is_known() {
    run(async {
        let (mut stage, slot) = (Stage::new(3, 3), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let recorded = owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        assert_eq!(owner.replication.copies(&recorded), 0, "nobody has been asked yet");
        owner.replication.acknowledged(&recorded, 2).await;
        assert_eq!(owner.replication.copies(&recorded), 2);
        let one = stage.linked().into_iter().find(|(from, _)| *from == owner.number).unwrap();
        stage.cut(one);
        turns(3_000).await;
        let later = owner.execute(&SET, 0, &[b"set", b"{a}1", b"w"]);
        let mut both = recorded.clone();
        both.absorb(&later);
        owner.replication.acknowledged(&later, 1).await;
        assert_eq!((owner.replication.copies(&later), owner.replication.copies(&both)), (1, 1));
        stage.link();
        owner.replication.acknowledged(&both, 2).await;
        assert!(owner.execute(&DEL, 0, &[b"del", b"{a}none"]).is_empty(), "nothing was changed");
    });
}

#[test]
fn all_that_count_are_waited_for_and_no_others() {
    run(async {
        let (mut stage, slot) = (Stage::new(3, 3), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let ill = stage.other(slot);
        stage.cut((owner.number, ill.number));
        turns(3_000).await;
        let recorded = owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        let waits = tokio::select! {
            _ = owner.replication.held_by_all(&recorded) => false,
            () = turns(20_000) => true,
        };
        assert!(waits, "the one that was cut off is still counted");
        let down = |number: NodeNumber, incarnation| forebay_cluster::state::Change::Down { number, incarnation };
        stage.state.apply(down(ill.number, ill.incarnation));
        owner.learn(&stage.state);
        assert!(owner.replication.held_by_all(&recorded).await, "it cannot become owner any more");
        stage.state.apply(down(owner.number, owner.incarnation));
        owner.learn(&stage.state);
        assert!(!owner.replication.held_by_all(&recorded).await, "another is the owner now");
    });
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// That its copy is complete may be agreed on before its owner knows.
#[test]
fn a_copy_that_was_said_to_be_complete_is_waited_for_and_does_not_count() {
    run(async {
        let (mut stage, slot) = (Stage::new(1, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        stage.start(1);
        let holder = loop {
            stage.nodes.iter().for_each(|node| node.learn(&stage.state));
            stage.link();
            turns(1_000).await;
            if owner.replication.complete().iter().any(|(_, slots)| slots.contains(slot)) {
                break stage.other(slot);
            }
        };
        let written = owner.execute(&SET, 0, &[b"set", b"{a}1", b"w"]);
        turns(3_000).await;
        let woken = Arc::<Woken>::default();
        let mut acknowledged = std::pin::pin!(owner.replication.acknowledged(&written, 1));
        let waker = Arc::clone(&woken).into();
        assert!(acknowledged.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        assert!(!woken.0.load(Relaxed), "who waits for it goes round and round");
        stage.cut((owner.number, holder.number));
        turns(3_000).await;
        let removed = owner.execute(&DEL, 0, &[b"del", b"{a}1"]);
        let waits = tokio::select! {
            _ = owner.replication.held_by_all(&removed) => false,
            () = turns(20_000) => true,
        };
        assert!(waits, "it may be the owner's successor, and has what was removed");
        stage.link();
        assert!(owner.replication.held_by_all(&removed).await);
        assert_eq!(owner.replication.copies(&removed), 0, "it is not known to be counted");
    });
}

/// What databases are emptied of is held back like all that is written.
#[test]
fn copies_are_waited_for_with_what_was_emptied() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let (owner, holder) = (stage.owner(slot), stage.other(slot));
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        stage.settle(&slots()).await;
        stage.cut((owner.number, holder.number));
        turns(3_000).await;
        let (garbage, left_alone) = owner.replication.flush(&owner.store, None, &mut |other| other != slot);
        drop(garbage);
        assert_eq!(owner.digest(slot), holder.digest(slot), "the slot was not to be touched");
        let (_garbage, recorded) = owner.replication.flush(&owner.store, None, &mut |_| true);
        assert!(!left_alone.is_empty() && owner.replication.copies(&recorded) == 0);
        stage.link();
        owner.replication.acknowledged(&recorded, 1).await;
        assert_ne!(owner.replication.copies(&recorded), 0);
        assert_eq!(owner.digest(slot), holder.digest(slot));
    });
}

/// One that was started with fewer of them cannot hold all, and must not say that it did.
#[test]
fn what_is_of_a_database_that_a_holder_does_not_have_is_not_held() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let holder = stage.other(slot);
        let (outgoing, mut answers) = mpsc::channel(8);
        let (says, incoming) = mpsc::channel(8);
        let mut record = Vec::new();
        let effect = effect::Effect::Remove { db: 16, key: b"{a}1" };
        effect::Record::Effect { slot, sequence: 1, effect }.write(&mut record);
        says.send(record.into()).await.unwrap();
        drop(says);
        let before = holder.replication.standing(slot);
        holder.replication.follow(&*holder, owner.number, Feed { outgoing, incoming }).await;
        assert!(answers.recv().await.is_none(), "it says that it has dealt with it");
        assert_eq!(holder.replication.standing(slot), before);
    });
}

/// The slot was another's for a while, who may have had it without what was written here before.
#[test]
fn what_was_written_before_a_slot_was_lost_is_not_held_when_it_is_back() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let (other, link) = (stage.other(slot), stage.linked());
        link.into_iter().filter(|(from, _)| *from == owner.number).for_each(|pair| stage.cut(pair));
        turns(3_000).await;
        let lost = owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        stage.come_and_go(&owner);
        stage.settle(&slots()).await;
        let (from, to) = (other.number, owner.number);
        if !owner.owns(slot) {
            let (slots, epoch) = ([slot].into_iter().collect(), stage.state.epoch());
            stage.state.apply(forebay_cluster::state::Change::HandOver { from, to, slots, epoch });
            stage.nodes.iter().for_each(|node| node.learn(&stage.state));
        }
        assert!(owner.owns(slot), "it is not back");
        let mut both = lost.clone();
        // So much that the number of the lost record tells nothing.
        (0..50_000).for_each(|_| drop(owner.execute(&SET, 0, &[b"set", b"{a}2", b"v"])));
        both.absorb(&owner.execute(&SET, 0, &[b"set", b"{a}2", b"v"]));
        stage.settle(&slots()).await;
        assert_eq!((owner.replication.copies(&lost), owner.replication.copies(&both)), (0, 0));
        assert!(!owner.replication.held_by_all(&lost).await && !owner.replication.held_by_all(&both).await);
    });
}

/// A connection may live and write for weeks.
#[test]
fn what_a_session_has_written_takes_no_more_room_than_what_copies_lack() {
    run(async {
        let mut stage = Stage::new(3, 3);
        stage.settle(&slots()).await;
        let node = Arc::clone(&stage.nodes[0]);
        let (mut written, mut key) = (Recorded::default(), 0_u64);
        let mut write = |written: &mut Recorded, times| {
            for _ in 0..times {
                let name = loop {
                    key += 1;
                    let name = key.to_string().into_bytes();
                    if node.owns(slot_of(&name)) {
                        break name;
                    }
                };
                node.replication.remember(written, &node.execute(&SET, 0, &[b"set", &name, b"v"]));
            }
        };
        let mut most = 0;
        for _ in 0..500 {
            write(&mut written, 20);
            node.replication.acknowledged(&written, 2).await;
            most = most.max(written.marks.len());
        }
        assert!(most < 300, "{most} marks for 20 writes under way");
        assert_eq!(node.replication.copies(&written), 2);

        // Of those whose copies hold nothing there is one for each slot and holder.
        let holders: Vec<_> = stage.linked().into_iter().filter(|(from, _)| *from == node.number).collect();
        holders.iter().for_each(|pair| stage.cut(*pair));
        turns(3_000).await;
        write(&mut written, 60_000);
        let owned = (0..SLOT_COUNT).filter(|slot| node.owns(*slot)).count();
        assert!(written.marks.len() <= 4 * owned, "{} marks for {owned} slots", written.marks.len());
        assert_eq!(node.replication.copies(&written), 0);
        stage.settle(&slots()).await;
        node.replication.acknowledged(&written, 2).await;
    });
}

/// A peer may have dealt with all that it was told, and hold no copy of a slot.
#[test]
fn of_what_was_told_count_the_copies_of_each_slot() {
    run(async {
        let (mut stage, slot) = (Stage::new(6, 3), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let told = async || {
            let told = owner.replication.told();
            told.dealt_with().await;
            told.up_to_date()
        };
        assert_eq!(told().await, 2);
        let holders = stage.state.slot(slot).replicas.to_vec();
        for (number, left) in holders.into_iter().filter(|number| *number != owner.number).zip([1, 0]) {
            owner.replication.log(slot).lock().target(number).unwrap().refuse(u64::MAX);
            assert_eq!(told().await, left);
        }
    });
}

/// One slot that is not held there does not keep the others.
#[test]
fn slots_are_drained_one_without_the_other() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let to = stage.other(slot).number;
        let all: forebay_cluster::state::SlotSet = (0..SLOT_COUNT).filter(|slot| owner.owns(*slot)).collect();
        assert!(owner.replication.held_by(&all, to) == all && owner.replication.drained(&all, to).await == all);
        owner.replication.log(slot).lock().target(to).unwrap().refuse(u64::MAX);
        let mut rest = all.clone();
        rest.remove(slot);
        assert!(owner.replication.held_by(&all, to) == rest && owner.replication.drained(&all, to).await == rest);
        owner.replication.audit_slot(&*owner, slot);
        stage.settle(&slots()).await;
    });
}

/// What a peer holds of one slot tells nothing of another.
#[test]
fn every_slot_that_was_written_counts() {
    run(async {
        let (mut stage, slots) = (Stage::new(2, 2), [slot_of(b"{a}"), slot_of(b"{b}")]);
        stage.settle(&slots).await;
        let [first, second] = slots;
        let owner = stage.owner(first);
        let peer = stage.other(first).number;
        let tenure = |slot| stage.state.slot(slot).owned_since as u16;
        let mut recorded = Recorded::default();
        recorded.note((first, tenure(first)), (peer, true), None);
        recorded.note_copies(1);
        owner.replication.log(first).lock().target(peer).unwrap().refuse(u64::MAX);
        let mut later = Recorded::default();
        later.note((second, tenure(second)), (peer, true), Some(0));
        later.note_copies(1);
        recorded.absorb(&later);
        assert_eq!(owner.replication.copies(&recorded), 0, "slot {first} was refused");
    });
}

/// A connection is given up at one end, and what is on its way arrives at the other one behind what its successor has brought.
#[test]
fn what_a_former_feed_still_brings_changes_nothing() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let holder = stage.other(slot);
        let pair = (owner.number, holder.number);
        stage.cut(pair);
        turns(3_000).await;

        let late = stage.link_that_lags(pair).await;
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"one"]);
        turns(3_000).await;
        let held_up = late.give_up().await;
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"two"]);
        stage.settle(&slots()).await;
        held_up.arrive().await;
        turns(3_000).await;

        owner.execute(&SET, 0, &[b"set", b"{a}1", b"three"]);
        turns(3_000).await;
        stage.settle(&slots()).await;
        let key = holder.store.key(0, slot, b"{a}1");
        assert_eq!(holder.store.lock(slot, START).read_string(&key).unwrap().unwrap().to_vec(), b"three");
    });
}

/// Connects when it is allowed to.
struct SlowOpener {
    from: NodeNumber,
    holder: Mutex<Arc<Node>>,
    begun: AtomicU64,
    allowed: tokio::sync::Semaphore,
}

impl Opener for SlowOpener {
    async fn open(&self, _to: NodeNumber) -> Option<Feed> {
        self.begun.fetch_add(1, Relaxed);
        self.allowed.acquire().await.unwrap().forget();
        let (outgoing, received) = mpsc::channel(1);
        let (answers, incoming) = mpsc::channel(1);
        let (holder, from) = (Arc::clone(&self.holder.lock()), self.from);
        let feed = Feed { outgoing: answers, incoming: received };
        tokio::spawn(async move { holder.replication.follow(&*holder, from, feed).await });
        Some(Feed { outgoing, incoming })
    }
}

/// A connection to a node can take longer than the node's absence: what comes of it is of a peer that is no more, and must not empty
/// the outbox of the one that has its number now.
#[test]
fn a_connection_that_began_before_its_holder_was_away_takes_nothing() {
    run(async {
        let mut stage = Stage::new(1, 2);
        let owner = Arc::clone(&stage.nodes[0]);
        owner.learn(&stage.state);
        stage.start(1);
        let learn = |stage: &Stage| stage.nodes.iter().for_each(|node| node.learn(&stage.state));
        learn(&stage);
        let opener = Arc::new(SlowOpener {
            from: owner.number,
            holder: Mutex::new(stage.other(slot_of(b"{a}"))),
            begun: AtomicU64::new(0),
            allowed: tokio::sync::Semaphore::new(0),
        });
        let host = Arc::clone(&owner) as Arc<dyn Host>;
        tokio::spawn(Arc::clone(&owner.replication).keep_feeds(host, Arc::clone(&opener)));
        for begun in [1, 2] {
            while opener.begun.load(Relaxed) < begun {
                turns(1).await;
            }
            if begun == 1 {
                let number = opener.holder.lock().number;
                stage.kill(number);
                stage.start(1);
                learn(&stage);
                *opener.holder.lock() = stage.other(slot_of(b"{a}"));
            }
        }
        opener.allowed.add_permits(100);
        let whole = async {
            while owner.replication.complete().iter().all(|(_, slots)| slots.len() < usize::from(SLOT_COUNT)) {
                owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
                turns(1_000).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), whole)
            .await
            .expect("the slots do not come to be whole");
    });
}

/// Whoever does not own the slot, or does not any more, is told so, and the copy goes on to follow who does.
#[test]
fn what_a_stranger_says_changes_nothing() {
    run(async {
        let (mut stage, slot) = (Stage::new(3, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let listed = stage.state.slot(slot).clone();
        let find = |wanted: &dyn Fn(NodeNumber) -> bool| {
            Arc::clone(stage.nodes.iter().find(|node| wanted(node.number)).unwrap())
        };
        let holder = find(&|number| listed.replicas.contains(&number));
        let stranger = find(&|number| !listed.is_held_by(number));

        let (outgoing, mut answers) = mpsc::channel(8);
        let (says, incoming) = mpsc::channel(8);
        let mut record = Vec::new();
        let effect = effect::Effect::Remove { db: 0, key: b"{a}1" };
        effect::Record::Effect { slot, sequence: 1_000, effect }.write(&mut record);
        says.send(record.into()).await.unwrap();
        drop(says);
        holder.replication.follow(&*holder, stranger.number, Feed { outgoing, incoming }).await;
        assert!(answers.recv().await.is_some(), "it is told nothing");

        owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        stage.settle(&slots()).await;
    });
}

/// A holder that does not take a slot, for whatever reason, is told again in each round of digests.
#[test]
fn who_has_refused_a_slot_is_offered_it_again() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let holder = stage.other(slot);
        owner.replication.log(slot).lock().target(holder.number).unwrap().refuse(u64::MAX);
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        turns(3_000).await;
        assert_ne!(owner.digest(slot), holder.digest(slot), "it was sent all the same");
        owner.replication.audit_slot(&*owner, slot);
        stage.settle(&slots()).await;
    });
}

/// States are watched, not queued: an owner may never see the one in which a holder was down.
#[test]
fn a_holder_that_was_down_for_a_moment_is_sent_what_it_held() {
    run(async {
        let (mut stage, slot) = (Stage::new(3, 3), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        owner.execute(&SET, 0, &[b"set", b"{a}1", b"v"]);
        stage.settle(&slots()).await;
        let holder = stage.other(slot);
        stage.come_and_go(&holder);
        stage.settle(&slots()).await;
        let mut keyspace = holder.store.lock(slot, START);
        assert!(keyspace.read(&holder.store.key(0, slot, b"{a}1")).is_some());
    });
}

#[test]
fn a_deposed_owner_gets_no_acknowledgement() {
    run(async {
        let (mut stage, slot) = (Stage::new(3, 3), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let mut later = stage.state.clone();
        let (number, incarnation) = (owner.number, owner.incarnation);
        later.apply(forebay_cluster::state::Change::Down { number, incarnation });
        stage.nodes.iter().filter(|node| !Arc::ptr_eq(node, &owner)).for_each(|node| node.learn(&later));
        let before = stage.nodes.iter().map(|node| node.replication.standing(slot).1).max();
        let recorded = owner.execute(&SET, 0, &[b"set", b"{a}1", b"late"]);
        let asked = tokio::select! {
            () = owner.replication.acknowledged(&recorded, 1) => true,
            () = turns(20_000) => false,
        };
        assert!(!asked && owner.replication.copies(&recorded) == 0);
        for node in stage.nodes.iter().filter(|node| !Arc::ptr_eq(node, &owner)) {
            assert_eq!(Some(node.replication.standing(slot).1), before);
        }
    });
}

#[test]
fn a_large_hash_is_changed_by_commands_and_arrives() {
    run(async {
        let (mut stage, slot) = (Stage::new(2, 2), slot_of(b"{a}"));
        stage.settle(&slots()).await;
        let owner = stage.owner(slot);
        let peer = Arc::clone(owner.replication.peers.read().values().next().unwrap());
        for field in 0..1_000 {
            owner.execute(&HSET, 0, &[b"hset", b"{a}h", field.to_string().as_bytes(), &[b'v'; 50]]);
        }
        let queued = peer.outbox.queued();
        assert!(queued < 1_000 * 200, "{queued} bytes for a thousand fields");
        stage.settle(&slots()).await;
        let holder = stage.nodes.iter().find(|node| !node.owns(slot)).unwrap();
        let mut keyspace = holder.store.lock(slot, START);
        let hash = keyspace.read_hash(&holder.store.key(0, slot, b"{a}h")).unwrap().unwrap();
        assert_eq!(hash.len(), 1_000);
    });
}

proptest! {
    /// What no number would show: an order of changes that is not the owner's, or one that is missing.
    #[test]
    fn a_digest_shows_every_difference_in_what_is_left(
        puts in prop::collection::vec((0..6u8, 0..4u8), 2..30),
        pick: prop::sample::Index,
        omit: bool,
    ) {
        let mut others = puts.clone();
        let at = pick.index(puts.len() - 1);
        match omit {
            true => drop(others.drain(at..=at)),
            false => others.swap(at, at + 1),
        }
        let left = |puts: &[(u8, u8)]| {
            let store = Store::new(StoreConfig { shards: 1, ..StoreConfig::default() });
            let mut keyspace = store.lock(1, START);
            for (key, value) in puts {
                keyspace.set_string(&store.key(0, 1, &[*key]), &[*value], Expiry::None);
            }
            let last: std::collections::BTreeMap<_, _> = puts.iter().copied().collect();
            (keyspace.digest_slot(1, START, DigestLimits::NONE), last)
        };
        let ((digest, last), (other, other_last)) = (left(&puts), left(&others));
        prop_assert_eq!(digest == other, last == other_last);
    }
}
