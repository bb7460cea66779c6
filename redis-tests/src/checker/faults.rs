//! What happens to a cluster and to its database while it is read and written.

use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use super::guard::Mutation;
use super::readers::{self, Answer, WARM};
use super::replica::Replica;
use crate::cluster::node::{Node, PATIENCE};
use crate::cluster::nodes::Cluster;
use crate::cluster::weather::Conditions;
use crate::database::Database;
use crate::process::eventually;

/// The node that comes and goes; the others are there from the start.
pub const GUEST: usize = 3;

/// How long nodes do not hear each other; shorter than a lease.
const CUT: Duration = Duration::from_millis(300);

/// How long the node that follows the database does not hear the others before it is killed: nearly as long as its lease may last.
const LAST_CUT: Duration = Duration::from_millis(600);

/// How long the database goes on to hold a node that has been killed for its follower, when its slots have other owners.
const UNNOTICED: Duration = Duration::from_millis(1_500);

/// Within this time nodes ask a database again that has come back ([`Detour`](Fault::Detour)): they look every few hundred milliseconds at first.
const TAKEN_BACK: Duration = Duration::from_secs(4);

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node is killed, and comes back.
    Kill,
    /// A node stands still for a while, perhaps longer than its lease.
    Pause,
    /// A node ends in order, so that its slots are handed over, and comes back.
    Restart,
    /// The same while the replica of the database stands still: the new owners knew nothing of what was changed before.
    LateMove,
    /// The nodes do not hear each other for a moment, and what they say is lost.
    Cut,
    /// The node that follows the database is cut off from the others for a moment, which it outlives by its lease, and is killed then. The
    /// database does not notice for a while, so that nobody else can follow it.
    CutAndKill,
    /// A fourth node joins, or is drained and leaves.
    JoinOrLeave,
    /// One node joins while another one is drained.
    Exchange,
    /// The replica of the database stands still.
    LateReplica,
    /// The connection of the feed is cut.
    CutFeed,
    /// The feed says nothing for a while.
    SlowFeed,
    /// The slot of the feed is dropped: nobody knows what was committed until there is another.
    DropSlot,
    /// Who listens for notifications is cut off.
    CutListener,
    /// The database crashes and starts again.
    RestartDatabase,
    /// There is no memory for all keys.
    Pressure,
    /// The feed says nothing, the replica stands still, and there is no memory for all keys.
    Blindness,
    /// The same, and the replica is out of reach: what the primary has answered for a while has then to be had from a replica that has not seen it.
    Detour,
    /// Nothing.
    Calm,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 18] = [
        Fault::Kill,
        Fault::Pause,
        Fault::Restart,
        Fault::LateMove,
        Fault::Cut,
        Fault::CutAndKill,
        Fault::JoinOrLeave,
        Fault::Exchange,
        Fault::LateReplica,
        Fault::CutFeed,
        Fault::SlowFeed,
        Fault::DropSlot,
        Fault::CutListener,
        Fault::RestartDatabase,
        Fault::Pressure,
        Fault::Blindness,
        Fault::Detour,
        Fault::Calm,
    ];

    /// Whether no node notices it as a member of its cluster: what is checked every day.
    pub fn is_of_the_database(self) -> bool {
        use Fault::{Cut, CutAndKill, Exchange, JoinOrLeave, Kill, LateMove, Pause, Restart};
        !matches!(self, Kill | Pause | Restart | LateMove | Cut | CutAndKill | JoinOrLeave | Exchange)
    }
}

/// Who makes faults.
pub struct Troublemaker<'t> {
    pub cluster: &'t mut Cluster,
    pub database: &'t mut Database,
    pub replica: &'t mut Replica,
    pub mutation: Option<Mutation>,
    pub random: StdRng,
}

impl<'t> Troublemaker<'t> {
    pub fn new(
        cluster: &'t mut Cluster,
        database: &'t mut Database,
        replica: &'t mut Replica,
        mutation: Option<Mutation>,
        seed: u64,
    ) -> Self {
        Self { cluster, database, replica, mutation, random: StdRng::seed_from_u64(seed) }
    }

    /// Makes one happen, and has it end.
    ///
    /// # Panics
    /// When the cluster does not get over it.
    pub fn make(&mut self, fault: Fault) {
        let node = self.random.random_range(0..GUEST);
        let while_ = Duration::from_millis(self.random.random_range(300..3_000));
        match fault {
            Fault::Calm => thread::sleep(while_),
            Fault::Kill => {
                self.cluster.nodes[node].kill();
                thread::sleep(while_);
                self.come_back(node);
            }
            Fault::Pause => {
                self.cluster.nodes[node].pause();
                thread::sleep(while_ * 2);
                self.cluster.nodes[node].resume();
                self.settle();
            }
            Fault::Restart => self.restart(node),
            Fault::LateMove => {
                self.replica.stand_still();
                thread::sleep(while_);
                self.restart(node);
                self.replica.go_on();
            }
            Fault::Cut => {
                self.cluster.weather(Conditions { is_cut: true, ..Conditions::default() });
                thread::sleep(CUT);
                self.cluster.weather(Conditions::default());
                thread::sleep(while_);
                self.settle();
            }
            Fault::CutAndKill => {
                let node = self.keeper().unwrap_or(node);
                self.cluster.weather(Conditions { is_cut: true, ..Conditions::default() });
                thread::sleep(LAST_CUT);
                let senders = self.stop_feed();
                self.cluster.nodes[node].kill();
                self.cluster.weather(Conditions::default());
                self.await_answers();
                thread::sleep(UNNOTICED);
                signal(&senders, "CONT");
                thread::sleep(while_);
                self.come_back(node);
            }
            Fault::JoinOrLeave => self.join_or_leave(),
            Fault::Exchange => self.exchange(node),
            Fault::LateReplica => self.late_replica(|| thread::sleep(while_)),
            Fault::CutFeed => self.cut("backend_type = 'walsender' AND application_name LIKE 'forebay%'"),
            Fault::SlowFeed => self.slow_feed(|| thread::sleep(while_)),
            Fault::DropSlot => self.drop_slot(),
            Fault::CutListener => self.cut("query ILIKE '%listen%' AND pid <> pg_backend_pid()"),
            Fault::RestartDatabase => {
                self.database.stop();
                thread::sleep(while_ / 3);
                self.database.start_again();
            }
            Fault::Pressure => self.press(|| thread::sleep(while_)),
            Fault::Blindness => self.late_replica(|| self.slow_feed(|| self.press(|| thread::sleep(while_)))),
            Fault::Detour => self.detour(while_),
        }
    }

    /// Waits until the nodes that are left answer for keys of all.
    fn await_answers(&self) {
        let ids: Vec<u32> = (1..=WARM).collect();
        for node in self.cluster.running() {
            let answers = || match node.connectable().then(|| readers::read(&mut node.connect(), 0, &ids)) {
                Some(Ok(answer)) => matches!(answer, Answer::Versions(_)),
                Some(Err(_)) | None => false,
            };
            assert!(eventually(PATIENCE, answers), "{node} does not answer for the keys of a dead node");
        }
    }

    /// The node that follows the database.
    fn keeper(&self) -> Option<usize> {
        let follows =
            |node: &usize| self.cluster.nodes[*node].info("forebay", "feed_wal").as_deref() == Some("following");
        (0..GUEST).find(follows)
    }

    fn restart(&mut self, node: usize) {
        self.cluster.nodes[node].terminate();
        self.cluster.nodes[node].await_end();
        self.come_back(node);
    }

    fn come_back(&mut self, node: usize) {
        self.cluster.nodes[node].restart();
        self.settle();
    }

    /// Waits until the cluster has settled, and takes away again what a test does without, from nodes that are new.
    fn settle(&mut self) {
        if let Some(mutation) = self.mutation {
            mutation.take_away(self.cluster);
        }
        self.cluster.await_settled();
    }

    fn join_or_leave(&mut self) {
        match self.has_guest() {
            true => self.go(GUEST),
            false => {
                self.come(GUEST);
                self.settle();
            }
        }
    }

    /// The guest comes while a node goes, and then the node while the guest goes.
    fn exchange(&mut self, node: usize) {
        if self.has_guest() {
            self.go(GUEST);
        }
        for (comes, goes) in [(GUEST, node), (node, GUEST)] {
            self.come(comes);
            self.go(goes);
        }
    }

    fn has_guest(&self) -> bool {
        self.cluster.nodes.get(GUEST).is_some_and(Node::is_started)
    }

    /// Has a node join; its slots may still be on their way to it then.
    fn come(&mut self, node: usize) {
        match node < self.cluster.nodes.len() {
            true => self.cluster.nodes[node].restart(),
            false => drop(self.cluster.add()),
        }
        if let Some(mutation) = self.mutation {
            mutation.take_away(self.cluster);
        }
    }

    /// Drains a node and ends it when it holds nothing any more.
    fn go(&mut self, node: usize) {
        let id = self.cluster.nodes[node].connect().command("CLUSTER MYID").words();
        let teller = (node + 1) % GUEST;
        self.cluster.command(teller, &["drain", &id]).unwrap_or_else(|words| panic!("drain: {words}"));
        self.cluster.await_settled_with(GUEST);
        self.cluster.nodes[node].terminate();
        self.cluster.nodes[node].await_end();
        self.cluster.nodes[node].wipe();
    }

    fn cut(&self, which: &str) {
        self.database.sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}"));
    }

    fn late_replica(&self, meanwhile: impl FnOnce()) {
        self.replica.stand_still();
        meanwhile();
        self.replica.go_on();
    }

    fn slow_feed(&self, meanwhile: impl FnOnce()) {
        let senders = self.stop_feed();
        meanwhile();
        signal(&senders, "CONT");
    }

    /// Stops the processes of the database that send the feed. Their ids.
    fn stop_feed(&self) -> String {
        let senders =
            self.database.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_type = 'logical' AND active");
        signal(&senders, "STOP");
        senders
    }

    fn detour(&mut self, while_: Duration) {
        self.replica.stand_still();
        let senders = self.stop_feed();
        self.replica.close();
        thread::sleep(while_);
        self.replica.open();
        self.press(|| thread::sleep(TAKEN_BACK));
        signal(&senders, "CONT");
        self.replica.go_on();
    }

    fn drop_slot(&self) {
        let statement = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
                         WHERE slot_type = 'logical' AND active_pid IS NOT NULL; \
                         SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_type = 'logical'";
        assert!(eventually(PATIENCE, || self.database.try_sql(statement).is_ok()), "the slot is in use all the time");
    }

    /// Takes memory away and gives it back.
    fn press(&self, meanwhile: impl FnOnce()) {
        let all = |words: &str| {
            for node in self.cluster.running() {
                node.connect().command(words);
            }
        };
        all("CONFIG SET maxmemory 1");
        meanwhile();
        all("CONFIG SET maxmemory 0");
    }
}

/// Sends a signal to processes, whose ids are in lines.
pub fn signal(processes: &str, name: &str) {
    for process in processes.lines() {
        let _ = std::process::Command::new("kill").args(["-s", name, process]).status();
    }
}
