//! Nodes in one thread, with feeds in memory and a state of the cluster that the test changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use bytes::Bytes;
use forebay_cluster::state::{Change, ClusterId, ClusterState, Description, Incarnation};
use forebay_cluster::{NodeId, NodeNumber, slot_of};
use forebay_resp::Args;
use forebay_store::{Expiry, Garbage, Key, Keyspace, Store, StoreConfig, UnixMillis};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::command::spec::{Categories, Flags, KeySpec, KeyUse, Spec};
use crate::replication::{Duty, Feed, Host, Recorded, Replication, Write};

/// All clocks of a stage show this at first.
pub(super) const START: UnixMillis = 1_000_000_000_000;

const ONE: &[KeySpec] = &[KeySpec::one(KeyUse::RW)];
const ALL: &[KeySpec] = &[KeySpec::range(KeyUse::RW, 1, -1, 1)];
pub(super) static SET: Spec = Spec::new("set", 3, Flags::WRITE, Categories::STRING).keys(ONE);
pub(super) static APPEND: Spec = Spec::new("append", 3, Flags::WRITE, Categories::STRING).keys(ONE);
pub(super) static HSET: Spec = Spec::new("hset", 4, Flags::WRITE, Categories::HASH).keys(ONE);
pub(super) static EXPIRE: Spec = Spec::new("pexpire", 3, Flags::WRITE, Categories::KEYSPACE).keys(ONE);
pub(super) static DEL: Spec = Spec::new("del", -2, Flags::WRITE, Categories::KEYSPACE).keys(ALL);

pub(super) struct Node {
    pub(super) number: NodeNumber,
    pub(super) incarnation: Incarnation,
    pub(super) store: Store,
    pub(super) replication: Arc<Replication>,
    now: Arc<AtomicI64>,
    state: Mutex<Option<ClusterState>>,
}

impl Host for Node {
    fn store(&self) -> &Store {
        &self.store
    }

    fn now(&self) -> UnixMillis {
        self.now.load(Relaxed)
    }

    fn run(&self, keyspace: &mut Keyspace<'_>, db: u16, args: Args<'_>) {
        carry_out(&self.store, keyspace, db, args);
    }

    fn reclaim(&self, garbage: Garbage) {
        drop(garbage);
    }
}

/// What the few commands of these tests do.
fn carry_out(store: &Store, keyspace: &mut Keyspace<'_>, db: u16, args: Args<'_>) {
    let name = args[1].to_vec();
    let key = store.key(db, slot_of(&name), &name);
    match &args[0] {
        b"set" => keyspace.set_string(&key, &args[2], Expiry::None),
        b"append" => {
            let _wrong_type = keyspace.update_string(&key, true, |string| string.append(&args[2]));
        }
        b"hset" => {
            let _wrong_type = keyspace.update_hash(&key, true, |hash| hash.insert(&args[2], &args[3]));
        }
        b"pexpire" => {
            let ttl = forebay_store::parse_integer(&args[2]).unwrap();
            keyspace.set_deadline(&key, Some(keyspace.now() + ttl));
        }
        b"del" => args.iter().skip(1).for_each(|name| {
            keyspace.remove(&store.key(db, slot_of(name), name));
        }),
        other => panic!("no such command: {other:?}"),
    }
}

impl Node {
    fn new(number: NodeNumber, incarnation: Incarnation, now: &Arc<AtomicI64>) -> Arc<Node> {
        Arc::new(Node {
            number,
            incarnation,
            store: Store::new(StoreConfig { shards: 4, databases: 2, seed: incarnation.0 }),
            replication: Arc::new(Replication::new(Arc::default())),
            now: Arc::clone(now),
            state: Mutex::new(None),
        })
    }

    /// Runs a command as the engine does.
    pub(super) fn execute(&self, spec: &'static Spec, db: u16, args: &[&[u8]]) -> Recorded {
        let args = Args::from(args);
        let positions = spec.key_positions(args).unwrap();
        let names = positions.iter().map(|at| &args[*at as usize]);
        let keys: Vec<Key<'_>> = names.map(|name| self.store.key(db, slot_of(name), name)).collect();
        let mut keyspace = self.store.lock_slots(keys.iter().map(Key::slot), self.now());
        carry_out(&self.store, &mut keyspace, db, args);
        match keyspace.has_changed() {
            true => self.replication.record(&mut keyspace, &Write { spec, args, keys: &keys }),
            false => Recorded::default(),
        }
    }

    pub(super) fn owns(&self, slot: u16) -> bool {
        matches!(self.replication.standing(slot).0, Duty::Owner { .. })
    }

    /// Learns of a state.
    pub(super) fn learn(&self, new: &ClusterState) {
        let mut known = self.state.lock();
        if known.as_ref().is_none_or(|known| known.epoch() < new.epoch()) {
            self.replication.reconcile(self, self.number, known.as_ref(), new, &mut |_, _, _| ());
            *known = Some(new.clone());
        }
    }

    pub(super) fn known_epoch(&self) -> u64 {
        self.state.lock().as_ref().map_or(0, ClusterState::epoch)
    }

    pub(super) fn digest(&self, slot: u16) -> u64 {
        self.replication.digest(self, slot, self.now()).0
    }
}

/// A feed between two nodes, both ends of it.
struct Link {
    sends: JoinHandle<()>,
    follows: JoinHandle<()>,
}

pub(super) struct Stage {
    pub(super) state: ClusterState,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) now: Arc<AtomicI64>,
    links: HashMap<(NodeNumber, NodeNumber), Link>,
    lives: u64,
}

impl Stage {
    pub(super) fn new(nodes: u8, copies: u8) -> Stage {
        let state = ClusterState::new(ClusterId([7; 16]), copies);
        let now = Arc::new(AtomicI64::new(START));
        let mut stage = Stage { state, nodes: Vec::new(), now, links: HashMap::new(), lives: 0 };
        (0..nodes).for_each(|node| stage.start(node));
        stage
    }

    /// Starts a node, or starts it again with nothing in memory.
    pub(super) fn start(&mut self, node: u8) {
        self.lives += 1;
        let (incarnation, id) = (Incarnation(self.lives), NodeId::from_bytes([node; 20]));
        let description = Description {
            id: id.clone(),
            host: format!("node-{node}"),
            open_port: 6379,
            direct_port: 0,
            http_port: 0,
            peer_port: 7000,
            raft_port: 7001,
            zone: None,
            weight: 1000,
            version: String::new(),
        };
        self.state.apply(Change::Join { description, incarnation });
        let number = self.state.member_by_id(&id).expect("it has just joined").number;
        self.nodes.retain(|other| other.number != number);
        self.nodes.push(Node::new(number, incarnation, &self.now));
    }

    /// Ends a node at once; what it owned goes to whoever has come furthest.
    pub(super) fn kill(&mut self, number: NodeNumber) {
        let Some(at) = self.nodes.iter().position(|node| node.number == number) else { return };
        let dead = self.nodes.remove(at);
        let of_it: Vec<_> = self.links.keys().filter(|(a, b)| *a == number || *b == number).copied().collect();
        of_it.into_iter().for_each(|link| self.cut(link));
        self.state.apply(Change::Down { number, incarnation: dead.incarnation });
        for node in &self.nodes {
            node.learn(&self.state);
        }
        self.report();
    }

    /// A node is declared down and is a member again, which it alone sees one after the other.
    pub(super) fn come_and_go(&mut self, node: &Arc<Node>) {
        let member = self.state.member(node.number).expect("a member").clone();
        self.state.apply(Change::Down { number: node.number, incarnation: member.incarnation });
        node.learn(&self.state);
        self.report();
        self.lives += 1;
        self.state.apply(Change::Join { description: member.description, incarnation: Incarnation(self.lives) });
    }

    /// All who hold copies of slots without an owner tell how far these are.
    fn report(&mut self) {
        for node in &self.nodes {
            let held = |slot: &u16| self.state.slot(*slot).replicas.contains(&node.number);
            let orphaned: Vec<_> = self.state.orphaned().filter(held).collect();
            let positions = node.replication.positions(orphaned);
            let Some(incarnation) = self.state.member(node.number).map(|member| member.incarnation) else { continue };
            let (number, epoch) = (node.number, self.state.epoch());
            self.state.apply(Change::Report { number, incarnation, positions, epoch });
        }
    }

    /// Begins feeds where they are wanted and there are none.
    pub(super) fn link(&mut self) {
        self.links.retain(|_, link| !(link.sends.is_finished() && link.follows.is_finished()));
        for from in &self.nodes {
            let wanted: Vec<_> = from.replication.peers.read().keys().copied().collect();
            for to in self.nodes.iter().filter(|to| wanted.contains(&to.number)) {
                let pair = (from.number, to.number);
                self.links.entry(pair).or_insert_with(|| link(from, to));
            }
        }
    }

    pub(super) fn owner(&self, slot: u16) -> Arc<Node> {
        Arc::clone(self.nodes.iter().find(|node| node.owns(slot)).expect("an owner"))
    }

    /// A node that does not own the slot.
    pub(super) fn other(&self, slot: u16) -> Arc<Node> {
        Arc::clone(self.nodes.iter().find(|node| !node.owns(slot)).expect("another node"))
    }

    /// Begins a feed of which nothing arrives until it is given up.
    pub(super) async fn link_that_lags(&mut self, (from, to): (NodeNumber, NodeNumber)) -> Lagging {
        self.links.remove(&(from, to));
        let node = |number| Arc::clone(self.nodes.iter().find(|node| node.number == number).expect("a node"));
        let (owner, holder) = (node(from), node(to));
        let (outgoing, sent) = mpsc::channel(1_000);
        let (arriving, received) = mpsc::channel(1_000);
        // Nobody hears the answers, and nobody notices.
        let (answers, unheard) = mpsc::channel(1_000);
        let (silence, incoming) = mpsc::channel(1);
        let feed = Feed { outgoing: answers, incoming: received };
        let follows = tokio::spawn(async move { holder.replication.follow(&*holder, from, feed).await });
        // It begins before its successor does.
        turns(100).await;
        let sends = send(owner, to, Feed { outgoing, incoming });
        Lagging { sends: tokio::spawn(sends), follows, sent, arriving, _ends: (silence, unheard) }
    }

    /// Ends a feed as a broken connection does.
    pub(super) fn cut(&mut self, pair: (NodeNumber, NodeNumber)) {
        if let Some(link) = self.links.get(&pair) {
            link.follows.abort();
        }
    }

    pub(super) fn linked(&self) -> Vec<(NodeNumber, NodeNumber)> {
        let mut pairs: Vec<_> = self.links.keys().copied().collect();
        pairs.sort();
        pairs
    }

    /// Does once what each owner is to do for the cluster to settle.
    pub(super) async fn settle_a_little(&mut self) {
        for node in self.nodes.clone() {
            self.propose_synced(&node);
            self.hand_over(&node).await;
        }
    }

    fn propose_synced(&mut self, node: &Arc<Node>) {
        for (number, slots) in node.replication.complete() {
            let Some(incarnation) = self.state.member(number).map(|member| member.incarnation) else { continue };
            self.state.apply(Change::Synced { number, incarnation, slots, epoch: node.known_epoch() });
        }
    }

    async fn hand_over(&mut self, node: &Arc<Node>) {
        node.learn(&self.state);
        let epoch = node.known_epoch();
        for (to, slots) in self.state.handovers(node.number) {
            // Nobody writes meanwhile: this test is the only client.
            let drained = tokio::select! {
                drained = node.replication.drained(&slots, to) => drained == slots,
                () = turns(50_000) => false,
            };
            if drained {
                self.state.apply(Change::HandOver { from: node.number, to, slots, epoch });
                node.learn(&self.state);
            }
        }
    }

    /// Goes on until everything is where it is to be, and the same everywhere.
    pub(super) async fn settle(&mut self, slots: &[u16]) {
        for _ in 0..300 {
            self.nodes.iter().for_each(|node| node.learn(&self.state));
            self.link();
            turns(5_000).await;
            self.settle_a_little().await;
            let is_settled = self.state.is_settled() && slots.iter().all(|slot| self.difference(*slot).is_none());
            if is_settled && self.nodes.iter().all(|node| node.known_epoch() == self.state.epoch()) {
                return;
            }
        }
        let differences: Vec<_> = slots.iter().filter_map(|slot| self.difference(*slot)).collect();
        panic!("it does not settle ({}): {differences:#?}", self.state.is_settled());
    }

    /// In what the holders of a slot differ.
    fn difference(&self, slot: u16) -> Option<String> {
        let listed = self.state.slot(slot);
        let holders = self.nodes.iter().filter(|node| listed.holders().any(|number| number == node.number));
        let seen: Vec<_> =
            holders.map(|node| (node.number, node.replication.standing(slot), node.digest(slot))).collect();
        let is_same = |(_, (_, position), digest): &(_, (_, _), _)| (*position, *digest) == (seen[0].1.1, seen[0].2);
        (!seen.iter().all(is_same)).then(|| format!("slot {slot}: {seen:?}"))
    }
}

/// A feed whose frames are on their way.
pub(super) struct Lagging {
    sends: JoinHandle<()>,
    follows: JoinHandle<()>,
    sent: mpsc::Receiver<Bytes>,
    arriving: mpsc::Sender<Bytes>,
    _ends: (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>),
}

impl Lagging {
    /// The sender takes the connection for broken.
    pub(super) async fn give_up(mut self) -> Self {
        self.sent.close();
        (&mut self.sends).await.expect("no panic");
        self
    }

    /// What is on its way arrives.
    pub(super) async fn arrive(mut self) {
        let mut frames = 0;
        while let Some(frame) = self.sent.recv().await {
            frames += 1;
            if self.arriving.send(frame).await.is_err() {
                break;
            }
        }
        drop(self.arriving);
        self.follows.await.expect("no panic");
        assert!(frames > 0, "nothing was on its way");
    }
}

fn link(from: &Arc<Node>, to: &Arc<Node>) -> Link {
    let (outgoing, received) = mpsc::channel(1);
    let (answers, incoming) = mpsc::channel(1);
    let (owner, holder) = (Arc::clone(from), Arc::clone(to));
    let (from, to) = (from.number, to.number);
    let sends = send(owner, to, Feed { outgoing, incoming });
    let feed = Feed { outgoing: answers, incoming: received };
    let follows = async move { holder.replication.follow(&*holder, from, feed).await };
    Link { sends: tokio::spawn(sends), follows: tokio::spawn(follows) }
}

async fn send(owner: Arc<Node>, to: NodeNumber, feed: Feed) {
    if let Some(peer) = owner.replication.peer(to) {
        owner.replication.send(&*owner, &peer, feed).await;
    }
}

/// Lets the other tasks run.
pub(super) async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
