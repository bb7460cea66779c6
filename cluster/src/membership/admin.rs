//! What the command line and frontends ask of a cluster, through any of its nodes.

use std::time::Duration;

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::membership::Request;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tonic::transport::Channel;

use super::channels::dial;
use super::groups::{AppliedGroups, ApplyGroups, GroupsError, ListedGroups};
use super::proposing::{Outcome, Proposal, ProposeError};
use super::service::{self, Status};
use super::wire;
use crate::refusal;
use crate::state::{Applied, Change, ClusterState, GroupsText, Member};
use crate::tls::PeerTls;

/// How long a change is asked for while the cluster has no leader, which takes it half a second to elect.
const LEADER: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "{address}: {problem}\n  hint: --node names the peer port of a node that runs; one with --peer-port off cannot be asked"
    )]
    Unreachable { address: String, problem: String },
    #[error(transparent)]
    Proposal(#[from] ProposeError),
    #[error(transparent)]
    Groups(#[from] GroupsError),
    #[error("{0}")]
    Refused(String),
}

/// A node of the cluster, by its peer port.
pub struct Admin {
    address: String,
    has_tls: bool,
    channel: Channel,
}

impl Admin {
    /// Through the node at `address`, which is `host:port`. A connection is made by the first question.
    ///
    /// # Errors
    /// When that is no address, or the certificates are none.
    pub fn new(address: &str, tls: Option<&PeerTls>) -> Result<Admin, AdminError> {
        let channel = dial(address, tls).map_err(|status| AdminError::Unreachable {
            address: address.to_owned(),
            problem: status.message().to_owned(),
        })?;
        Ok(Admin { address: address.to_owned(), has_tls: tls.is_some(), channel })
    }

    /// What the node knows of the cluster and of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<Status, AdminError> {
        let reply = service::client(self.channel.clone())
            .status(question(&()))
            .await
            .map_err(|status| self.unreachable(&status))?;
        wire::decode(&reply.into_inner().content).map_err(|status| self.unreachable(&status))
    }

    /// Has a change made by the leader. While there is none, as for a moment after its death, or none answers, it is asked for again;
    /// however often, it is made once.
    ///
    /// # Errors
    /// When it was not made, or that is not known.
    pub async fn propose(&self, change: Change) -> Result<Applied, AdminError> {
        let proposal = Proposal::new(change);
        let deadline = tokio::time::Instant::now() + LEADER;
        let mut is_uncertain = false;
        loop {
            let outcome = self.attempt(&proposal).await?;
            is_uncertain |= matches!(outcome, Outcome::Unknown(_));
            match outcome {
                Outcome::NotNow(_) | Outcome::Unknown(_) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                // An earlier attempt may still be carried out.
                Outcome::NotNow(why) if is_uncertain => return Err(ProposeError::Unknown(why).into()),
                outcome => return applied(service::settled(outcome)?),
            }
        }
    }

    async fn attempt(&self, proposal: &Proposal) -> Result<Outcome, AdminError> {
        let reply = service::client(self.channel.clone()).propose(question(proposal)).await;
        let reply = reply.map_err(|status| self.unreachable(&status))?;
        wire::decode(&reply.into_inner().content).map_err(|status| self.unreachable(&status))
    }

    /// The member that `name` means: its number, its id or the beginning of that, or the `host:port` of its peer port.
    ///
    /// # Errors
    /// When none does, or several do.
    pub async fn find(&self, name: &str) -> Result<Member, AdminError> {
        let state = self.status().await?.state;
        let mut found = state.members().filter(|member| is_meant(member, name));
        match (found.next(), found.next()) {
            (Some(member), None) => Ok(member.clone()),
            (Some(_), Some(_)) => Err(AdminError::Refused(format!("{name} means several nodes"))),
            (None, _) => Err(AdminError::Refused(format!("there is no node {name}"))),
        }
    }

    /// Gives all that a member holds to others.
    ///
    /// # Errors
    /// As [`Admin::find`] and [`Admin::propose`].
    pub async fn drain(&self, name: &str) -> Result<Applied, AdminError> {
        let number = self.find(name).await?.number;
        self.propose(Change::Drain { number }).await
    }

    /// Forgets a member.
    ///
    /// # Errors
    /// As [`Admin::find`] and [`Admin::propose`].
    pub async fn remove(&self, name: &str) -> Result<Applied, AdminError> {
        let number = self.find(name).await?.number;
        self.propose(Change::Remove { number }).await
    }

    /// Shares the slots out anew.
    ///
    /// # Errors
    /// As [`Admin::propose`].
    pub async fn rebalance(&self) -> Result<Applied, AdminError> {
        self.propose(Change::Rebalance).await
    }

    /// Has the node check groups, and the cluster agree on them.
    ///
    /// # Errors
    /// When the node does not answer, and when it finds something wrong.
    pub async fn apply_groups(&self, wanted: ApplyGroups) -> Result<AppliedGroups, AdminError> {
        let reply = service::client(self.channel.clone())
            .apply_groups(question(&wanted))
            .await
            .map_err(|status| self.unreachable(&status))?;
        let applied: Result<AppliedGroups, GroupsError> =
            wire::decode(&reply.into_inner().content).map_err(|status| self.unreachable(&status))?;
        Ok(applied?)
    }

    /// The groups that the node uses.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn list_groups(&self) -> Result<ListedGroups, AdminError> {
        let reply = service::client(self.channel.clone())
            .list_groups(question(&()))
            .await
            .map_err(|status| self.unreachable(&status))?;
        wire::decode(&reply.into_inner().content).map_err(|status| self.unreachable(&status))
    }

    /// The groups that were applied at run time.
    ///
    /// # Errors
    /// As [`Admin::status`].
    pub async fn groups(&self) -> Result<Option<GroupsText>, AdminError> {
        Ok(self.status().await?.state.groups().cloned())
    }

    /// The states of the cluster from now on, the present one first. It ends when the node does, or loses touch with the others.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn watch(&self) -> Result<impl Stream<Item = Result<ClusterState, AdminError>> + use<>, AdminError> {
        let replies = service::client(self.channel.clone())
            .watch(question(&()))
            .await
            .map_err(|status| self.unreachable(&status))?;
        let (address, has_tls) = (self.address.clone(), self.has_tls);
        Ok(replies.into_inner().map(move |reply| {
            let state = reply.and_then(|reply| wire::decode(&reply.content));
            state.map_err(|status| unreachable(&address, &status, has_tls))
        }))
    }

    fn unreachable(&self, status: &tonic::Status) -> AdminError {
        unreachable(&self.address, status, self.has_tls)
    }
}

fn applied(applied: Applied) -> Result<Applied, AdminError> {
    match applied {
        Applied::Refused(refusal) => Err(AdminError::Refused(refusal.to_string())),
        applied => Ok(applied),
    }
}

fn unreachable(address: &str, status: &tonic::Status, has_tls: bool) -> AdminError {
    AdminError::Unreachable { address: address.to_owned(), problem: refusal::of(status, has_tls) }
}

fn question(content: &impl Serialize) -> Request {
    Request { protocol: PEER_PROTOCOL, cluster: Vec::new().into(), content: wire::encode(content).into() }
}

fn is_meant(member: &Member, name: &str) -> bool {
    /// Digits of an id that tell it from others.
    const ENOUGH: usize = 4;
    let description = &member.description;
    let has_id = name.len() >= ENOUGH && description.id.as_str().starts_with(name);
    has_id || member.number.0.to_string() == name || description.peer_address() == name
}
