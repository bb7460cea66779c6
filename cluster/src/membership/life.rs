//! A node's life as a member: it finds its seat, runs Raft, joins, renews its lease, and joins anew if it was declared down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::raft::raft_client::RaftClient;
use forebay_proto::raft::{Renewal, Verdict};
use futures_util::FutureExt;
use openraft::BasicNode;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::disk::{Contents, Edit, Item, Seat};
use super::forming::{FIRST, Next};
use super::grants::Grants;
use super::greeting::Rounds;
use super::log::Log;
use super::machine::Machine;
use super::network::Network;
use super::node::{Node, Seated};
use super::proposing::{Outcome, Proposal, ProposeError};
use super::raft::{self, Command, Raft, raft_id};
use crate::slots::NodeNumber;
use crate::state::{Applied, Change, ClusterId, Incarnation};

/// Why a life ended.
type Ended = String;

impl Node {
    /// Lives until the node ends, or cannot be a member.
    pub(super) async fn live(self: Arc<Node>, contents: Contents) {
        let closing = self.closing.clone();
        tokio::select! {
            () = closing.cancelled() => {}
            ended = self.live_on(contents) => {
                let Err(why) = ended;
                self.fail(why);
            }
        }
        self.lease.end();
    }

    async fn live_on(self: &Arc<Node>, mut contents: Contents) -> Result<std::convert::Infallible, Ended> {
        let known = contents.seat.take();
        let seat = match known {
            Some(seat) => {
                tokio::spawn(Arc::clone(self).question_seeds(seat.cluster));
                seat
            }
            None => self.find_seat().await?,
        };
        let seated = self.sit_down(seat, contents).await?;
        tokio::spawn(Arc::clone(self).look_after());
        tokio::spawn(Arc::clone(self).look_for_leader());
        tokio::spawn(Arc::clone(self).keep_book());
        if let Some(copies) = seated.seat.founder {
            self.form(seated, copies).await?;
        }
        loop {
            self.join_again(seated).await?;
            self.number.send_replace(Some(seated.seat.number));
            self.set_phase(format!("member {} of cluster {}", seated.seat.number, seated.seat.cluster));
            self.renew(seated).await?;
            // It was declared down. What it holds is not what the others think of it any more, so this is another life.
            self.lease.end();
            self.number.send_replace(None);
            *self.incarnation.lock() = Incarnation(rand::random());
            self.set_phase("it was declared down, since the leader did not hear of it in time: it joins anew");
        }
    }

    /// Forms a cluster, or joins one, and returns what is to be remembered of that.
    async fn find_seat(self: &Arc<Node>) -> Result<Seat, Ended> {
        let mut rounds = Rounds::default();
        let mut patience = Patience::new(self.timing.patience);
        loop {
            self.greet_all(&mut rounds).await;
            let next = self.candidates.lock().next();
            match next {
                Next::Form(cluster) => {
                    let seat = self.seat(cluster, FIRST, Some(self.copies));
                    self.set_phase(format!("forming cluster {}", seat.cluster));
                    self.keep_seat(&seat).await?;
                    return Ok(seat);
                }
                Next::Join(cluster, address) => {
                    self.set_phase(format!("joining cluster {cluster} through {address}"));
                    if let Some(number) = self.ask_to_join(None, &[(cluster, address)], &mut patience).await? {
                        let seat = self.seat(cluster, number, None);
                        self.keep_seat(&seat).await?;
                        return Ok(seat);
                    }
                    // Somebody else may know better by now.
                    self.candidates.lock().forget_cluster();
                }
                Next::Wait { missing, known } => self.set_phase(self.waiting(missing, &known)),
            }
            tokio::time::sleep(self.timing.greeting).await;
        }
    }

    fn waiting(&self, missing: usize, known: &[String]) -> String {
        let what = match missing {
            0 if self.candidates.lock().may_form() => "one of the nodes to form the cluster".to_owned(),
            0 => "a cluster (without one to join, --bootstrap-expect says how many nodes form it)".to_owned(),
            1 => "1 more node".to_owned(),
            _ => format!("{missing} more nodes"),
        };
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let problem = self.seeds.problem().map(|problem| format!("; {problem}")).unwrap_or_default();
        format!("waiting for {what}: knows {known}{problem}")
    }

    fn seat(&self, cluster: ClusterId, number: NodeNumber, founder: Option<u8>) -> Seat {
        Seat { cluster, number, id: self.me.id.clone(), founder }
    }

    /// On the disk, before Raft runs under that number.
    async fn keep_seat(&self, seat: &Seat) -> Result<(), Ended> {
        self.writer.write(vec![Edit::put(Item::Seat, seat)]).await.map_err(|error| error.to_string())
    }

    /// Starts Raft.
    async fn sit_down(self: &Arc<Node>, seat: Seat, mut contents: Contents) -> Result<&Seated, Ended> {
        let config = raft::config(&self.timing)?;
        let network =
            Network { cluster: seat.cluster, channels: Arc::clone(&self.channels), book: Arc::clone(&self.book) };
        let machine = Machine::new(contents.snapshot.take(), self.writer.clone(), self.state.clone());
        let log = Log::new(&mut contents, self.writer.clone());
        let raft = Raft::new(raft_id(seat.number), config, network, log, machine).await;
        let raft = raft.map_err(|error| format!("the Raft log cannot be used: {error}"))?;
        let grants = Mutex::new(Grants::new(seat.number, self.timing.clone(), Instant::now()));
        Ok(self.seated.get_or_init(|| Seated { seat, raft, grants }))
    }

    /// Finishes what a founder has to do, wherever it was interrupted.
    async fn form(&self, seated: &Seated, copies: u8) -> Result<(), Ended> {
        let me = [(raft_id(seated.seat.number), BasicNode::new(self.me.raft_address()))];
        match seated.raft.initialize(std::collections::BTreeMap::from(me)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(error) => return Err(error.to_string()),
        }
        let cluster = seated.seat.cluster;
        // If others were let in since, it may be somebody else who leads: the state then comes from there.
        while self.state().cluster() != cluster {
            let outcome = self.write(seated, Command::Form { cluster, copies }, self.timing.proposal).await;
            tracing::debug!("cluster: {outcome}");
            if !matches!(outcome, Outcome::Applied(_)) {
                tokio::time::sleep(self.timing.heartbeat).await;
            }
        }
        Ok(())
    }

    /// Joins under the number of the log, until the state that is applied here says so.
    async fn join_again(&self, seated: &Seated) -> Result<(), Ended> {
        let mut states = self.state.subscribe();
        let mut patience = Patience::new(self.timing.patience);
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            if self.is_member_by(&state) {
                return Ok(());
            }
            // A founder that was interrupted before it was a member has a log, but was no member before.
            let is_newly_formed = seated.seat.founder.is_some() && state.members().next().is_none();
            let log_of = (!is_newly_formed).then_some(seated.seat.number);
            let joined = self.ask_to_join(log_of, &self.ways(seated).await, &mut patience).await?;
            if joined.is_some_and(|number| number != seated.seat.number) {
                return Err(format!(
                    "this node's number is {}, but the cluster gave it {joined:?}",
                    seated.seat.number
                ));
            }
            if joined.is_some() {
                // It comes by Raft.
                let comes = states.wait_for(|state| self.is_member_by(state)).map(drop);
                if tokio::time::timeout(self.timing.proposal, comes).await.is_err() {
                    self.is_not_called();
                }
            }
        }
    }

    /// The others have let this node in by its peer port, and do not get through to where Raft calls it.
    fn is_not_called(&self) {
        let why = format!(
            "it was let in, but learns nothing: the leader must be able to call it at {}, its raft port (see --advertise and --raft-port, and \
             what is open between the nodes)",
            self.me.raft_address()
        );
        tracing::warn!("cluster: {why}");
        self.phase.send_replace(why);
    }

    /// Seeds, as ways to the cluster.
    async fn ways(&self, seated: &Seated) -> Vec<(ClusterId, String)> {
        self.seeds.addresses().await.into_iter().map(|seed| (seated.seat.cluster, seed)).collect()
    }

    /// Proposes that this incarnation joins. `None`: there is nobody to decide on it at present.
    async fn ask_to_join(
        &self,
        log_of: Option<NodeNumber>,
        ways: &[(ClusterId, String)],
        patience: &mut Patience,
    ) -> Result<Option<NodeNumber>, Ended> {
        let change = Change::Join { description: self.me.clone(), incarnation: self.incarnation() };
        let proposal = Proposal { log_of, ..Proposal::new(change) };
        let deadline = Instant::now() + self.timing.proposal;
        match self.propose(&proposal, ways, deadline).await {
            Ok(Applied::Joined { number, .. }) => Ok(Some(number)),
            Ok(Applied::Refused(refusal)) => Err(format!("this node may not join: {refusal}")),
            Ok(other) => Err(format!("joining was answered by {other:?}")),
            Err(ProposeError::Refused(why)) => Err(why),
            Err(ProposeError::Running(why)) if patience.is_over() => Err(why),
            Err(error) => {
                self.set_phase(format!("waiting to join: {error}"));
                tokio::time::sleep(self.timing.greeting).await;
                Ok(None)
            }
        }
    }

    /// Renews the lease until this incarnation is declared down.
    async fn renew(&self, seated: &Seated) -> Result<(), Ended> {
        let mut metrics = seated.raft.metrics();
        loop {
            let leader = {
                let metrics = metrics.borrow_and_update();
                // A node whose Raft has stopped does not learn any more what is taken from it.
                metrics
                    .running_state
                    .as_ref()
                    .map_err(|error| format!("this node takes no part in the cluster: {error}"))?;
                metrics.current_leader
            };
            let sent = Instant::now();
            let verdict = match leader {
                Some(leader) if leader == raft_id(seated.seat.number) => self.renew_own(seated, sent),
                Some(leader) => {
                    // A leader that is gone is not waited for when there is another.
                    let changed = metrics.wait_until(|metrics| metrics.current_leader != Some(leader));
                    tokio::select! {
                        verdict = self.renew_at(seated, raft::number_of(leader)) => verdict,
                        _ = changed => continue,
                    }
                }
                None => Verdict::NotNow,
            };
            match verdict {
                Verdict::Granted if leader != Some(raft_id(seated.seat.number)) => {
                    self.lease.set_until(sent + self.timing.lease)
                }
                Verdict::Granted | Verdict::NotNow => {}
                Verdict::Down => return Ok(()),
                Verdict::Replaced => return Err(self.replaced(seated)),
                Verdict::Removed => return Err("this node was removed from the cluster".to_owned()),
            }
            tokio::time::sleep(self.timing.renewal.saturating_sub(sent.elapsed())).await;
        }
    }

    /// The leader's own lease, under the lock by which it lets others in.
    fn renew_own(&self, seated: &Seated, sent: Instant) -> Verdict {
        let mut grants = seated.grants.lock();
        let now = Instant::now();
        let (leadership, state) = (seated.leadership(&self.timing), self.state());
        let verdict =
            grants.renew(leadership, &state, (seated.seat.number, self.incarnation()), self.served_epoch(), now);
        if verdict == Verdict::Granted {
            match grants.is_alone(leadership, &state) {
                true => self.lease.set_forever(),
                false => self.lease.set_until(sent + self.timing.lease),
            }
        }
        verdict
    }

    async fn renew_at(&self, seated: &Seated, leader: NodeNumber) -> Verdict {
        let renewal = Renewal {
            cluster: seated.seat.cluster.0.to_vec().into(),
            protocol: PEER_PROTOCOL,
            number: seated.seat.number.0,
            incarnation: self.incarnation().0,
            epoch: self.served_epoch(),
        };
        let Some(address) = self.book.raft(leader) else { return Verdict::NotNow };
        let Ok(channel) = self.channels.to(&address) else { return Verdict::NotNow };
        let timeout = self.timing.renewal_timeout();
        match tokio::time::timeout(timeout, RaftClient::new(channel).renew(renewal)).await {
            Ok(Ok(grant)) => grant.into_inner().verdict(),
            // The next attempt comes at once, or finds another leader.
            Ok(Err(_)) | Err(_) => Verdict::NotNow,
        }
    }

    fn replaced(&self, seated: &Seated) -> Ended {
        let state = self.state();
        let place = state.member(seated.seat.number).map(|member| member.description.peer_address());
        let place = place.map_or(String::new(), |address| format!(", which was last seen at {address}"));
        format!(
            "another process has taken this node's place{place}\n  hint: every process needs an identity of its own"
        )
    }

    /// Keeps the addresses of the members up to date.
    async fn keep_book(self: Arc<Node>) {
        let mut states: watch::Receiver<_> = self.state.subscribe();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            self.book.follow(&state);
            self.channels.keep(&self.book.addresses());
            tokio::select! {
                changed = states.changed() => if changed.is_err() { return },
                () = self.closing.cancelled() => return,
            }
        }
    }
}

/// How long a node goes on asking when it is told that it runs already.
struct Patience {
    limit: Duration,
    since: Option<Instant>,
}

impl Patience {
    fn new(limit: Duration) -> Patience {
        Patience { limit, since: None }
    }

    fn is_over(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= self.limit
    }
}
