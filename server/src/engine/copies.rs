//! WAIT: how many copies hold what a client has written.

use forebay_cluster::peer::Call;
use forebay_cluster::state::Incarnation;
use forebay_resp::{Args, Protocol};

use super::Engine;
use super::everywhere::may_own;
use super::forward::{self, Outcome};
use super::merge::number;
use crate::command::call::Copies;
use crate::session::{Door, Session};

impl Engine {
    /// Waits until so many copies hold what the session has written, or its time is over, and tells how many do. Other nodes that have written for it
    /// are asked; they tell of all that they have ever written, which is as much or more. What a node has written in a life that is over, or
    /// cannot be asked about, nobody surely holds. It is told once: what is written from then on is not counted with it.
    pub(super) async fn copies(&self, session: &mut Session, args: Args<'_>, copies: Copies) -> usize {
        let elsewhere = session.told.as_ref().map(|told| told.elsewhere.clone()).unwrap_or_default();
        let calls = match (session.door, &elsewhere[..]) {
            (Door::Open, []) if self.node.is_frontend() => self.ask_others(session, args),
            (Door::Open, writers) => {
                writers.iter().map(|writer| (*writer, self.ask_writer(session, args, *writer))).collect()
            }
            (Door::Direct | Door::Peer, _) => Vec::new(),
        };
        let mut fewest = self.copies_of_own(session, copies, calls.is_empty()).await;
        for (writer, call) in calls {
            let held = match call {
                Some(call) => copies_of_others(call).await,
                None => None,
            };
            if let (None, Some(told)) = (held, &mut session.told) {
                told.elsewhere.retain(|known| *known != writer);
            }
            fewest = Some(fewest.unwrap_or(usize::MAX).min(held.unwrap_or_default()));
        }
        fewest.unwrap_or_default()
    }

    /// How many copies hold what this node has written, for the session or, if that has written nothing anywhere, at all.
    async fn copies_of_own(&self, session: &Session, copies: Copies, is_all: bool) -> Option<usize> {
        let member = self.node.member()?;
        let written = session.told.as_ref().map(|told| told.written.clone()).unwrap_or_default();
        match written.is_empty() {
            false => {
                let held = member.replication.acknowledged(&written, copies.wanted);
                let _in_time = tokio::time::timeout(copies.limit, held).await;
                Some(member.replication.copies(&written))
            }
            true if is_all => {
                let told = member.replication.told();
                let _in_time = tokio::time::timeout(copies.limit, told.dealt_with()).await;
                Some(told.up_to_date())
            }
            true => None,
        }
    }

    /// Asks a node that has written, if it is still in that life.
    fn ask_writer(&self, session: &Session, args: Args<'_>, writer: Incarnation) -> Option<Call> {
        let topology = self.node.topology.load_full();
        let member = topology.nodes().iter().find(|member| member.incarnation == writer)?;
        self.ask(session, args.iter(), Protocol::Resp2, &topology, member)
    }

    fn ask_others(&self, session: &Session, args: Args<'_>) -> Vec<(Incarnation, Option<Call>)> {
        let topology = self.node.topology.load_full();
        let members = topology.nodes().iter().filter(|member| may_own(member));
        let ask = |member| self.ask(session, args.iter(), Protocol::Resp2, &topology, member);
        members.map(|member| (member.incarnation, ask(member))).collect()
    }
}

/// What another node says; `None` if it does not.
async fn copies_of_others(call: Call) -> Option<usize> {
    match forward::take(&mut call.await.ok()?)? {
        Outcome::Replied(mut content) => number(&mut content, b':').and_then(|held| usize::try_from(held).ok()),
        Outcome::Again { .. } | Outcome::Uncertain | Outcome::Refused(_) => None,
    }
}
