//! How a change gets to the leader, wherever it is, and how an answer comes of it.

use std::fmt;
use std::time::{Duration, Instant};

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::membership::Request as Wire;
use forebay_proto::membership::membership_client::MembershipClient;
use openraft::errors::{ClientWriteError, RaftError};
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::grants::{Alive, has_ended};
use super::node::{Node, Seated};
use super::raft::Command;
use super::wire;
use crate::slots::NodeNumber;
use crate::state::{Applied, Change, ClusterId, Description, Incarnation, Member};

/// A change on its way to the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Proposal {
    /// Drawn for it: however often it comes, it is made once.
    pub(super) id: u64,
    pub(super) change: Change,
    /// With `Join`: the node still has the log of this number.
    pub(super) log_of: Option<NodeNumber>,
    /// It was handed on already.
    pub(super) is_forwarded: bool,
}

/// What came of one attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    Applied(Applied),
    /// It was not made, and may be tried again.
    NotNow(String),
    /// It was not made: a process with the same identity runs.
    Running(String),
    /// It was not made, and never will be.
    Never(String),
    /// It may have been made.
    Unknown(String),
}

/// Why a change was not made, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not made.
    #[error("the cluster has no leader that could be reached: {0}")]
    NoLeader(String),
    /// It was not made: another process has this node's identity.
    #[error("{0}")]
    Running(String),
    /// It was not made.
    #[error("{0}")]
    Refused(String),
    /// It may have been made, or be made still.
    #[error("it is not known whether the change was made: {0}")]
    Unknown(String),
}

/// Pauses between attempts: short ones first, since a new leader is found within half a second.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(200);
/// A leader that was asked answers within this time, or is taken for gone.
const ATTEMPT: Duration = Duration::from_secs(3);

impl Proposal {
    pub(super) fn new(change: Change) -> Proposal {
        Proposal { id: rand::random(), change, log_of: None, is_forwarded: false }
    }
}

impl Node {
    /// Has a change made by whoever leads, until `deadline`. `ways` are peer ports to ask when the leader is not known.
    ///
    /// Where a member was may be a node of another cluster by now: what is said there in refusal of the call is no answer, and others are
    /// asked. Only of a seed, which somebody has named for this node's cluster, it is.
    pub(super) async fn propose(
        &self,
        proposal: &Proposal,
        ways: &[(ClusterId, String)],
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let mut pause = FIRST_PAUSE;
        let mut unknown = None;
        let mut attempt = 0;
        loop {
            let outcome = self.attempt(proposal, ways, attempt, deadline).await;
            attempt += 1;
            let why = match outcome {
                Outcome::Applied(applied) => return Ok(applied),
                Outcome::Running(why) => return Err(ProposeError::Running(why)),
                Outcome::Never(why) => return Err(ProposeError::Refused(why)),
                Outcome::NotNow(why) => why,
                Outcome::Unknown(why) => unknown.insert(why).clone(),
            };
            if Instant::now() + pause >= deadline {
                return Err(unknown.map_or(ProposeError::NoLeader(why), ProposeError::Unknown));
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.closing.cancelled() => return Err(unknown.map_or(ProposeError::NoLeader(why), ProposeError::Unknown)),
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// One attempt: at this node if it leads, else at the leader, else at one of those that may know it, in turn.
    async fn attempt(
        &self,
        proposal: &Proposal,
        ways: &[(ClusterId, String)],
        attempt: usize,
        deadline: Instant,
    ) -> Outcome {
        let timeout = deadline.saturating_duration_since(Instant::now()).min(ATTEMPT);
        let leader = self.seated.get().and_then(Seated::leader);
        if let Some(seated) = self.seated.get().filter(|seated| leader == Some(seated.seat.number)) {
            return self.lead(seated, proposal, timeout).await;
        }
        if let (Some(cluster), Some(address)) = (self.cluster(), leader.and_then(|leader| self.book.peer(leader))) {
            return self.ask(&address, cluster, proposal, timeout, Outcome::NotNow).await;
        }
        // Without a cluster of one's own the way to it was found a moment ago, and is looked for anew.
        let of_way = if self.cluster().is_some() { Outcome::Never } else { Outcome::NotNow };
        let ways = ways.iter().cloned().map(|(cluster, address)| (cluster, address, of_way));
        let own = self.cluster().into_iter().flat_map(|cluster| {
            self.book
                .peers()
                .into_iter()
                .map(move |address| (cluster, address, Outcome::NotNow as fn(String) -> Outcome))
        });
        let ways: Vec<_> = ways.chain(own).collect();
        match ways.get(attempt % ways.len().max(1)) {
            Some((cluster, address, refused)) => self.ask(address, *cluster, proposal, timeout, *refused).await,
            None => Outcome::NotNow("no node of it is known".to_owned()),
        }
    }

    /// Asks another node. `refused` is what it means if it does not take the call, as of another cluster or version.
    pub(super) async fn ask(
        &self,
        address: &str,
        cluster: ClusterId,
        proposal: &Proposal,
        timeout: Duration,
        refused: fn(String) -> Outcome,
    ) -> Outcome {
        let channel = match self.channels.to(address) {
            Ok(channel) => channel,
            Err(status) => return Outcome::NotNow(format!("{address}: {}", status.message())),
        };
        let request = Wire {
            protocol: PEER_PROTOCOL,
            cluster: cluster.0.to_vec().into(),
            content: wire::encode(proposal).into(),
        };
        let answer = tokio::time::timeout(timeout, super::service::client(channel).propose(request)).await;
        match answer {
            Err(_) => Outcome::Unknown(format!("{address} has not answered within {timeout:?}")),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                refused(format!("{address}: {}", status.message()))
            }
            // It has not come so far as to be proposed.
            Ok(Err(status)) if super::channels::was_not_sent(&status) => {
                Outcome::NotNow(format!("{address}: {}", status.message()))
            }
            Ok(Err(status)) => Outcome::Unknown(format!("{address}: {}", status.message())),
            Ok(Ok(reply)) => wire::decode(&reply.into_inner().content)
                .unwrap_or_else(|status: tonic::Status| Outcome::Unknown(format!("{address}: {}", status.message()))),
        }
    }

    /// Makes a change as the leader.
    pub(super) async fn lead(&self, seated: &Seated, proposal: &Proposal, timeout: Duration) -> Outcome {
        let state = self.state();
        if state.cluster() != seated.seat.cluster {
            return Outcome::NotNow("the cluster is being formed".to_owned());
        }
        let outcome = match &proposal.change {
            // The one that forms the cluster has the first number.
            Change::Join { description, .. } if description.id != self.me.id && state.members().next().is_none() => {
                Some(Outcome::NotNow("the cluster is being formed".to_owned()))
            }
            Change::Down { .. } | Change::Lose { .. } => {
                return Outcome::Never("only the leader declares a node down".to_owned());
            }
            Change::Join { description, incarnation } => {
                let admitted = self.admit(seated, description, *incarnation, proposal.log_of, timeout).await;
                admitted.err()
            }
            _ => None,
        };
        match outcome {
            Some(outcome) => outcome,
            None => {
                self.write(seated, Command::Change { id: proposal.id, change: proposal.change.clone() }, timeout).await
            }
        }
    }

    /// Writes into the log, as the leader.
    pub(super) async fn write(&self, seated: &Seated, command: Command, timeout: Duration) -> Outcome {
        match tokio::time::timeout(timeout, seated.raft.client_write(command)).await {
            Ok(Ok(written)) => Outcome::Applied(written.data),
            Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                Outcome::Unknown("the leader changed".to_owned())
            }
            // These were refused before anything was appended.
            Ok(Err(RaftError::APIError(error))) => Outcome::NotNow(error.to_string()),
            Ok(Err(RaftError::Fatal(error))) => Outcome::Unknown(error.to_string()),
            Err(_) => Outcome::Unknown(format!("no majority of the voters has confirmed it within {timeout:?}")),
        }
    }

    /// Whether a process may join: nobody else may live with its identity, and its number must be that of the log that it has. A number
    /// whose log is lost is removed, since Raft must not have a voter that has forgotten what it voted for.
    async fn admit(
        &self,
        seated: &Seated,
        description: &Description,
        incarnation: Incarnation,
        log_of: Option<NodeNumber>,
        timeout: Duration,
    ) -> Result<(), Outcome> {
        let now = Instant::now();
        let leadership = seated.leadership(&self.timing);
        if !leadership.is_sure {
            return Err(Outcome::NotNow("the leader waits for a majority of the voters".to_owned()));
        }
        let state = self.state();
        let Some(member) = state.member_by_id(&description.id) else {
            if let Some(number) = log_of {
                return Err(Outcome::Never(removed(number)));
            }
            self.bound_own_lease(seated, description);
            return Ok(());
        };
        if log_of.is_some_and(|number| number != member.number) {
            return Err(Outcome::Never(removed(log_of.unwrap_or(member.number))));
        }
        if member.incarnation == incarnation {
            return Ok(());
        }
        let life = (member.number, member.incarnation);
        // The earlier life was in this process, or has ended: this process has its file, which is locked while a process lives.
        let is_own = member.number == seated.seat.number && incarnation == self.incarnation();
        if !is_own && member.number == seated.seat.number {
            return Err(Outcome::Running(running(member)));
        }
        if !is_own && !has_ended(member) {
            let mut grants = seated.grants.lock();
            grants.look(leadership, &state, now);
            grants.condemn(life, now).map_err(|alive| match alive {
                Alive::Heard => Outcome::Running(running(member)),
                Alive::Unknown => {
                    Outcome::NotNow("the leader waits until the lease of its earlier life has surely ended".to_owned())
                }
            })?;
        }
        // This process has the log of its own number, whatever it said before it knew of its earlier life.
        if log_of.is_none() && !is_own {
            self.remove_lost_log(seated, member, timeout).await?;
        }
        Ok(())
    }

    async fn remove_lost_log(&self, seated: &Seated, member: &Member, timeout: Duration) -> Result<(), Outcome> {
        let (number, incarnation) = (member.number, member.incarnation);
        tracing::info!("cluster: node {number} has come back without its log: it gets another number");
        let down = (!has_ended(member)).then_some(Change::Down { number, incarnation });
        for change in down.into_iter().chain([Change::Remove { number }]) {
            match self.write(seated, Command::Change { id: rand::random(), change }, timeout).await {
                Outcome::Applied(Applied::Refused(refusal)) => return Err(Outcome::NotNow(refusal.to_string())),
                Outcome::Applied(_) => {}
                // The rest is done when the node asks again.
                other => return Err(other),
            }
        }
        Ok(())
    }

    /// A lone member's lease has no end. It gets one before anybody else can be a member.
    fn bound_own_lease(&self, seated: &Seated, newcomer: &Description) {
        if newcomer.id == self.me.id {
            return;
        }
        let mut grants = seated.grants.lock();
        grants.expect_others();
        if self.lease.remaining(Instant::now()).is_none() {
            self.lease.set_until(Instant::now() + self.timing.lease);
        }
    }
}

fn running(member: &Member) -> String {
    let (id, address) = (&member.description.id, member.description.peer_address());
    format!(
        "node {id} is already running at {address}\n  hint: every process needs an identity of its own: another --data-dir, or \
         --node-id"
    )
}

fn removed(number: NodeNumber) -> String {
    format!(
        "this node was removed from the cluster, where its number was {number}\n  hint: to let it join anew, move {} out of its data directory",
        super::disk::FILE
    )
}

/// Kept apart, since the client's type is long.
pub(super) type Client = MembershipClient<tonic::transport::Channel>;

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Applied(applied) => write!(f, "{applied:?}"),
            Outcome::NotNow(why) | Outcome::Running(why) | Outcome::Never(why) | Outcome::Unknown(why) => {
                f.write_str(why)
            }
        }
    }
}
