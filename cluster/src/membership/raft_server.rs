//! What other nodes' Raft instances call: the raft port.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use forebay_proto::raft::raft_server::{Raft as RaftService, RaftServer};
use forebay_proto::raft::{Answer, Call, Grant, Renewal, Verdict};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Request, Response, Status};

use super::node::{Node, Seated};
use super::raft::{Snapshot, SnapshotMeta, Vote};
use super::wire::{self, MAX_MESSAGE};
use crate::slots::NodeNumber;
use crate::state::Incarnation;

/// The service of the raft port.
pub(super) fn service(node: &Arc<Node>) -> RaftServer<Port> {
    RaftServer::new(Port(Arc::clone(node)))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

pub(super) struct Port(Arc<Node>);

impl Port {
    /// Answers one of Raft's calls, if it is meant for this node.
    async fn answer<'p, Question, Reply, Failure, Asked, Answering>(
        &'p self,
        call: Request<Call>,
        ask: Asked,
    ) -> Result<Response<Answer>, Status>
    where
        Question: DeserializeOwned,
        Reply: Serialize,
        Failure: ToString,
        Asked: FnOnce(&'p Seated, Question) -> Answering,
        Answering: Future<Output = Result<Reply, Failure>>,
    {
        let call = call.into_inner();
        self.0.check_caller(call.protocol, &call.cluster)?;
        let seated = self.0.seated()?;
        let number = seated.seat.number;
        if call.to != number.0 {
            return Err(Status::failed_precondition(format!(
                "this is node {number}, and the call is meant for node {}",
                call.to
            )));
        }
        let reply = ask(seated, wire::decode(&call.content)?).await;
        let reply = reply.map_err(|failure| Status::internal(failure.to_string()))?;
        // What was under way when a test cut the node off does not come out either.
        self.0.channels.check()?;
        Ok(Response::new(Answer { content: wire::encode(&reply).into() }))
    }
}

#[tonic::async_trait]
impl RaftService for Port {
    async fn append(&self, call: Request<Call>) -> Result<Response<Answer>, Status> {
        self.answer(call, |seated, question| seated.raft.append_entries(question)).await
    }

    async fn pre_vote(&self, call: Request<Call>) -> Result<Response<Answer>, Status> {
        self.answer(call, |seated, question| seated.raft.pre_vote(question)).await
    }

    async fn vote(&self, call: Request<Call>) -> Result<Response<Answer>, Status> {
        self.answer(call, |seated, question| seated.raft.vote(question)).await
    }

    async fn install_snapshot(&self, call: Request<Call>) -> Result<Response<Answer>, Status> {
        let install = |seated: &'_ Seated, (vote, meta, snapshot): (Vote, SnapshotMeta, Vec<u8>)| {
            let raft = seated.raft.clone();
            async move { raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await }
        };
        self.answer(call, install).await
    }

    async fn transfer_leader(&self, call: Request<Call>) -> Result<Response<Answer>, Status> {
        self.answer(call, |seated, question| seated.raft.handle_transfer_leader(question)).await
    }

    async fn renew(&self, renewal: Request<Renewal>) -> Result<Response<Grant>, Status> {
        let renewal = renewal.into_inner();
        self.0.check_caller(renewal.protocol, &renewal.cluster)?;
        let life = (NodeNumber(renewal.number), Incarnation(renewal.incarnation));
        let verdict = self.0.seated().map_or(Verdict::NotNow, |seated| self.0.grant(seated, life, renewal.epoch));
        Ok(Response::new(Grant { verdict: verdict.into() }))
    }
}

impl Node {
    /// Decides on a renewal, if this node leads.
    pub(super) fn grant(&self, seated: &Seated, life: (NodeNumber, Incarnation), epoch: u64) -> Verdict {
        let mut grants = seated.grants.lock();
        // Under the lock, so that what was condemned before is in the state, or in the book.
        let now = Instant::now();
        grants.renew(seated.leadership(&self.timing), &self.state(), life, epoch, now)
    }
}
