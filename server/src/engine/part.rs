//! Parts of a request, each of them done by one node: another one is asked, and this one does its own as it would for another.

use bytes::Buf;
use forebay_cluster::peer::Call;
use forebay_cluster::{Node as Member, Topology};
use forebay_resp::{Args, Protocol, Reply};

use super::forward::{self, Outcome, Requests};
use super::{Engine, Step};
use crate::command::spec::Flags;
use crate::command::table::Command;
use crate::session::{Door, Session};

impl Engine {
    /// Asks another member for a part. `None` if that is this node itself.
    pub(super) fn ask(
        &self,
        session: &Session,
        arguments: impl ExactSizeIterator<Item = impl AsRef<[u8]>>,
        protocol: Protocol,
        topology: &Topology,
        member: &Member,
    ) -> Option<Call> {
        if topology.number_here() == Some(member.number) {
            return None;
        }
        let mut requests = Requests::of(session, protocol);
        requests.add(arguments);
        requests.send(&self.node, topology, &member.peer_address)
    }

    /// Does this node's own part.
    pub(super) async fn do_own(&self, session: &mut Session, args: Args<'_>, protocol: Protocol) -> Outcome {
        let mut own = session.for_a_part(Door::Peer, self.node.clock.unix_millis());
        let outcome = self.do_as(&mut own, args, protocol).await;
        self.absorb(session, own);
        outcome
    }

    /// Takes over what a part of a request has done, and has to wait for.
    pub(super) fn absorb(&self, session: &mut Session, part: Session) {
        if let (Some(member), Some(told)) = (self.node.member(), &part.told) {
            if !told.written.is_empty() {
                member.replication.remember(&mut session.told.get_or_insert_default().written, &told.written);
            }
        }
        session.absorb(part);
    }

    /// Does a part in its own session.
    pub(super) async fn do_as(&self, own: &mut Session, args: Args<'_>, protocol: Protocol) -> Outcome {
        let mut reply = Reply::new();
        reply.set_protocol(protocol);
        // In a box: a part is a request of its own, and could not be a part of itself.
        let step = Box::pin(self.execute(own, args, &mut reply)).await;
        match step {
            Step::Misplaced { epoch } => Outcome::Again { epoch },
            Step::Done | Step::Close | Step::Wait(_) => Outcome::Replied(reply.copy_to_bytes(reply.remaining())),
        }
    }
}

/// What came of a part that another member was asked for.
pub(super) async fn outcome(
    call: Call,
    (session, command): (&mut Session, &Command),
    topology: &Topology,
    member: &Member,
) -> Outcome {
    let outcome = match call.await {
        Ok(mut answers) => forward::take(&mut answers).unwrap_or(Outcome::Uncertain),
        Err(error) => forward::unanswered(&error, command, topology.epoch()),
    };
    if matches!(outcome, Outcome::Replied(_)) && command.spec.flags.contains(Flags::WRITE) {
        session.wrote_at(member.incarnation);
    }
    outcome
}
