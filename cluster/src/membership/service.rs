//! What nodes, frontends and the command line ask of a node's membership: on the peer port.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_proto::membership::membership_client::MembershipClient;
use forebay_proto::membership::membership_server::{Membership as MembershipService, MembershipServer};
use forebay_proto::membership::{Reply, Request as Question};
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use tonic::{Request, Response};

use super::forming::Greeting;
use super::groups::{ApplyGroups, GroupsHandler};
use super::node::{Node, Seated};
use super::proposing::{Client, Outcome, Proposal, ProposeError};
use super::raft::number_of;
use super::wire::{self, MAX_MESSAGE};
use crate::slots::NodeNumber;
use crate::state::ClusterState;

/// The service of the peer port.
#[derive(Clone)]
pub struct Desk {
    node: Arc<Node>,
    groups: Option<Arc<dyn GroupsHandler>>,
}

/// The service, to be added to a server.
pub(super) fn service(node: &Arc<Node>, groups: Option<Arc<dyn GroupsHandler>>) -> MembershipServer<Desk> {
    MembershipServer::new(Desk { node: Arc::clone(node), groups })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

pub(super) fn client(channel: Channel) -> Client {
    MembershipClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
}

/// What a node knows of the cluster and of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The node's number, if it has one.
    pub number: Option<NodeNumber>,
    /// What it is about, in words.
    pub phase: String,
    pub leader: Option<NodeNumber>,
    pub term: u64,
    /// The last entry of its log, and how far it has applied it.
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    /// The last entry that is in its snapshot.
    pub snapshot: Option<u64>,
    pub voters: Vec<NodeNumber>,
    pub learners: Vec<NodeNumber>,
    /// How long ago each member renewed its lease; known to the leader only.
    pub silence: Vec<(NodeNumber, Duration)>,
    /// How much is left of its own lease; `None` if it has no end.
    pub lease: Option<Duration>,
    pub state: ClusterState,
}

impl Node {
    pub(super) fn status(&self) -> Status {
        let now = Instant::now();
        let metrics = self.seated.get().map(Seated::metrics);
        let membership = metrics.as_ref().map(|metrics| metrics.membership_config.membership());
        Status {
            number: self.seated.get().map(|seated| seated.seat.number),
            phase: self.phase.borrow().clone(),
            leader: self.seated.get().and_then(Seated::leader),
            term: metrics.as_ref().map_or(0, |metrics| metrics.current_term),
            last_log: metrics.as_ref().and_then(|metrics| metrics.last_log_index),
            applied: metrics.as_ref().and_then(|metrics| metrics.last_applied).map(|id| id.index),
            snapshot: metrics.as_ref().and_then(|metrics| metrics.snapshot).map(|id| id.index),
            voters: membership.map(|membership| membership.voter_ids().map(number_of).collect()).unwrap_or_default(),
            learners: membership
                .map(|membership| membership.learner_ids().map(number_of).collect())
                .unwrap_or_default(),
            silence: self.seated.get().map(|seated| seated.grants.lock().silence(now)).unwrap_or_default(),
            lease: self.lease.remaining(now),
            state: ClusterState::clone(&self.state()),
        }
    }
}

impl Node {
    /// Waits until this node does not learn any more of what the others agree on. Whoever watches it had better watch another one.
    async fn loses_touch(&self) {
        while self.lease.holds(Instant::now()) {
            tokio::time::sleep(self.timing.renewal).await;
        }
    }
}

impl Desk {
    fn open(&self, request: Request<Question>) -> Result<Question, tonic::Status> {
        let question = request.into_inner();
        self.node.check_caller(question.protocol, &question.cluster)?;
        Ok(question)
    }

    fn groups(&self) -> Result<&dyn GroupsHandler, tonic::Status> {
        self.groups.as_deref().ok_or_else(|| tonic::Status::unimplemented("this node has no groups"))
    }
}

fn reply(content: &impl Serialize) -> Reply {
    Reply { content: wire::encode(content).into() }
}

#[tonic::async_trait]
impl MembershipService for Desk {
    /// States in postcard's encoding.
    type WatchStream = Pin<Box<dyn Stream<Item = Result<Reply, tonic::Status>> + Send>>;

    async fn hello(&self, request: Request<Question>) -> Result<Response<Reply>, tonic::Status> {
        // Whoever asks is told, whichever cluster it is from: that is how it finds out. Its version must be ours, to be understood.
        let question = request.into_inner();
        self.node.check_caller(question.protocol, &[])?;
        let greeting: Greeting = wire::decode(&question.content)?;
        self.node.hear_caller(&greeting);
        Ok(Response::new(reply(&self.node.greeting())))
    }

    async fn propose(&self, request: Request<Question>) -> Result<Response<Reply>, tonic::Status> {
        let mut proposal: Proposal = wire::decode(&self.open(request)?.content)?;
        let seated = self.node.seated()?;
        let timing = &self.node.timing;
        let outcome = match seated.leader() {
            Some(leader) if leader == seated.seat.number => self.node.lead(seated, &proposal, timing.proposal).await,
            _ if proposal.is_forwarded => Outcome::NotNow("the leader has changed".to_owned()),
            None => Outcome::NotNow("there is no leader at present".to_owned()),
            Some(leader) => {
                proposal.is_forwarded = true;
                match self.node.book.peer(leader) {
                    Some(address) => {
                        let cluster = seated.seat.cluster;
                        self.node.ask(&address, cluster, &proposal, timing.proposal, Outcome::NotNow).await
                    }
                    None => Outcome::NotNow(format!("it is not known where the leader, node {leader}, is")),
                }
            }
        };
        Ok(Response::new(reply(&outcome)))
    }

    async fn status(&self, request: Request<Question>) -> Result<Response<Reply>, tonic::Status> {
        self.open(request)?;
        Ok(Response::new(reply(&self.node.status())))
    }

    async fn apply_groups(&self, request: Request<Question>) -> Result<Response<Reply>, tonic::Status> {
        let wanted: ApplyGroups = wire::decode(&self.open(request)?.content)?;
        Ok(Response::new(reply(&self.groups()?.apply(wanted).await)))
    }

    async fn list_groups(&self, request: Request<Question>) -> Result<Response<Reply>, tonic::Status> {
        self.open(request)?;
        Ok(Response::new(reply(&self.groups()?.list())))
    }

    async fn watch(&self, request: Request<Question>) -> Result<Response<Self::WatchStream>, tonic::Status> {
        self.open(request)?;
        if !self.node.lease.holds(Instant::now()) {
            let phase = self.node.phase.borrow().clone();
            return Err(tonic::Status::unavailable(format!("this node has no touch with its cluster: {phase}")));
        }
        let mut states = self.node.state.subscribe();
        states.mark_changed();
        let states = stream::unfold(states, |mut states| async {
            states.changed().await.ok()?;
            let state = Arc::clone(&states.borrow_and_update());
            Some((Ok(reply(&*state)), states))
        });
        let node = Arc::clone(&self.node);
        let ends = async move {
            tokio::select! {
                () = node.closing.cancelled() => {}
                () = node.loses_touch() => {}
            }
        };
        Ok(Response::new(Box::pin(states.take_until(ends))))
    }
}

/// The result of a proposal that was handed in from outside.
pub(super) fn settled(outcome: Outcome) -> Result<crate::state::Applied, ProposeError> {
    match outcome {
        Outcome::Applied(applied) => Ok(applied),
        Outcome::NotNow(why) => Err(ProposeError::NoLeader(why)),
        Outcome::Running(why) => Err(ProposeError::Running(why)),
        Outcome::Never(why) => Err(ProposeError::Refused(why)),
        Outcome::Unknown(why) => Err(ProposeError::Unknown(why)),
    }
}
