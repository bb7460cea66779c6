//! How this node's Raft calls the others'.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::raft::raft_client::RaftClient;
use forebay_proto::raft::{Answer, Call};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::book::Book;
use super::channels::Channels;
use super::raft::{Snapshot, Types, Vote, number_of};
use super::wire::{self, MAX_MESSAGE};
use crate::state::{ClusterId, Standing};

/// What all connections of a node share.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) cluster: ClusterId,
    pub(super) channels: Arc<Channels>,
    pub(super) book: Arc<Book>,
}

/// Calls to one node.
pub(super) struct Line {
    network: Network,
    to: u64,
    /// Where it was when it was made a member of Raft.
    first_known: String,
    /// When it was last called as a follower.
    called: Option<Instant>,
    /// Since when no such call was answered.
    silent_since: Option<Instant>,
}

/// How long a follower may take to write entries.
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A member that is lost stays one of Raft's, so that it learns of its cluster when it can be reached again; until then it is called this often.
const LOST_PAUSE: Duration = Duration::from_secs(5);

/// Who was drained and has not answered for so long, as long as others are down before they are lost, is called as seldom.
const LOSE_AFTER: Duration = Duration::from_secs(60);

/// Pauses between attempts to reach a node that is not there.
const PAUSES_MS: [u64; 4] = [50, 100, 200, 400];

impl RaftNetworkFactory<Types> for Network {
    type Network = Line;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Line {
        Line { network: self.clone(), to: target, first_known: node.addr.clone(), called: None, silent_since: None }
    }
}

impl Line {
    fn address(&self) -> String {
        self.network.book.raft(number_of(self.to)).unwrap_or_else(|| self.first_known.clone())
    }

    /// Whether it is to be called now.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_early = self.called.is_some_and(|called| now.saturating_duration_since(called) < LOST_PAUSE);
        let is_due = !is_early || !self.is_away(now);
        if is_due {
            self.called = Some(now);
        }
        is_due
    }

    /// Whether its seat was given to others long ago, so that nobody waits for it.
    fn is_away(&self, now: Instant) -> bool {
        let is_silent = || self.silent_since.is_some_and(|since| now.saturating_duration_since(since) >= LOSE_AFTER);
        match self.network.book.standing(number_of(self.to)) {
            Some(Standing::Lost) => true,
            Some(Standing::Drained) => is_silent(),
            _ => false,
        }
    }

    /// Takes note of whether a call was answered.
    fn note(&mut self, is_answered: bool, now: Instant) {
        self.silent_since = if is_answered { None } else { self.silent_since.or(Some(now)) };
    }

    fn client(&self, address: &str) -> Result<RaftClient<Channel>, Status> {
        let channel = self.network.channels.to(address)?;
        Ok(RaftClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
    }

    /// One call; `send` is the client's method for it.
    async fn call<T, Sent, Answered>(
        &self,
        content: &impl Serialize,
        timeout: Duration,
        send: Sent,
    ) -> Result<T, RPCError<Types>>
    where
        T: DeserializeOwned,
        Sent: FnOnce(RaftClient<Channel>, Request<Call>) -> Answered,
        Answered: Future<Output = Result<Response<Answer>, Status>>,
    {
        let call = Call {
            cluster: self.network.cluster.0.to_vec().into(),
            protocol: PEER_PROTOCOL,
            to: number_of(self.to).0,
            content: wire::encode(content).into(),
        };
        let address = self.address();
        let client = self.client(&address).map_err(failure)?;
        let answer = tokio::time::timeout(timeout, send(client, Request::new(call)));
        // A node that does not answer is called again after a pause: at once would be a spin where the call fails at once.
        let answer = answer.await.map_err(|_| unreachable(format!("no answer within {timeout:?}")))?;
        let answer =
            answer.inspect_err(|status| self.network.channels.tell_distrust(&address, status)).map_err(failure)?;
        wire::decode(&answer.into_inner().content).map_err(failure)
    }
}

fn failure(status: Status) -> RPCError<Types> {
    match status.code() {
        // The call was ended, by us or by a connection that is being made anew.
        Code::Cancelled => RPCError::Network(NetworkError::from_string(status)),
        _ => unreachable(status),
    }
}

fn unreachable(why: impl Display) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::from_string(why))
}

impl RaftNetworkV2<Types> for Line {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        if !self.is_due(Instant::now()) {
            return Err(unreachable(format!("it is away, and called every {LOST_PAUSE:?}")));
        }
        // openraft gives both a heartbeat's time. Entries must get onto a disk.
        let timeout =
            if request.entries.is_empty() { option.hard_ttl() } else { option.hard_ttl().max(APPEND_TIMEOUT) };
        let answer = self.call(&request, timeout, |mut client, call| async move { client.append(call).await }).await;
        self.note(answer.is_ok(), Instant::now());
        answer
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(&request, option.soft_ttl(), |mut client, call| async move { client.vote(call).await }).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.call(&request, option.soft_ttl(), |mut client, call| async move { client.pre_vote(call).await }).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let content = (vote, snapshot.meta, snapshot.snapshot);
        let send = self
            .call(&content, option.hard_ttl(), |mut client, call| async move { client.install_snapshot(call).await });
        tokio::select! {
            answer = send => answer.map_err(StreamingError::from),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        self.call(&request, option.soft_ttl(), |mut client, call| async move { client.transfer_leader(call).await })
            .await
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = PAUSES_MS[PAUSES_MS.len() - 1];
        Some(Backoff::new(PAUSES_MS.into_iter().chain(std::iter::repeat(last)).map(Duration::from_millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::description;
    use super::*;
    use crate::slots::NodeNumber;
    use crate::state::{Change, ClusterState, Incarnation};

    /// Calls to the one member of a cluster.
    struct Scene {
        state: ClusterState,
        line: Line,
    }

    const JOIN: fn() -> Change = || Change::Join { description: description(1), incarnation: Incarnation(1) };
    const DOWN: Change = Change::Down { number: NodeNumber(1), incarnation: Incarnation(1) };

    impl Scene {
        fn new() -> Scene {
            let state = ClusterState::new(ClusterId([1; 16]), 2);
            let network =
                Network { cluster: state.cluster(), channels: Arc::new(Channels::new(None)), book: Arc::default() };
            let line = Line { network, to: 1, first_known: "127.0.0.1:1".to_owned(), called: None, silent_since: None };
            let mut scene = Scene { state, line };
            scene.follow(JOIN());
            scene
        }

        fn follow(&mut self, change: Change) {
            self.state.apply(change);
            self.line.network.book.follow(&Arc::new(self.state.clone()));
        }
    }

    #[test]
    fn who_is_lost_is_called_seldom_until_it_is_back() {
        let (mut scene, now) = (Scene::new(), Instant::now());
        scene.follow(DOWN);
        assert!(scene.line.is_due(now) && scene.line.is_due(now), "it may be back any moment");
        scene.follow(Change::Lose { number: NodeNumber(1) });
        assert!(!scene.line.is_due(now + LOST_PAUSE / 2));
        assert!(scene.line.is_due(now + LOST_PAUSE));
        assert!(!scene.line.is_due(now + LOST_PAUSE));
        scene.follow(JOIN());
        assert!(scene.line.is_due(now + LOST_PAUSE));
    }

    #[test]
    fn who_was_drained_is_called_seldom_once_it_is_silent() {
        assert_eq!(LOSE_AFTER, super::super::timing::Timing::default().lose_after);
        let (mut scene, now) = (Scene::new(), Instant::now());
        scene.follow(DOWN);
        scene.follow(Change::Drain { number: NodeNumber(1) });
        scene.line.note(false, now);
        assert!(scene.line.is_due(now) && scene.line.is_due(now + LOST_PAUSE / 2), "it may be stopping just now");
        let later = now + LOSE_AFTER;
        scene.line.note(false, later);
        assert!(scene.line.is_due(later));
        assert!(!scene.line.is_due(later + LOST_PAUSE / 2));
        assert!(scene.line.is_due(later + LOST_PAUSE));
        scene.line.note(true, later + LOST_PAUSE);
        assert!(scene.line.is_due(later + LOST_PAUSE), "it runs again");
    }
}
