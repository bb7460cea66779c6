//! WAIT: how many copies hold what a client has written.

use forebay_resp::{Args, Protocol};

use super::Engine;
use super::forward::{self, Outcome};
use super::merge::number;
use crate::command::call::Copies;
use crate::session::{Door, Session};

impl Engine {
    /// Waits until so many copies hold what the session has written, or its time is over, and tells how many do. For what was written by
    /// other nodes these are asked; they tell of all that was ever written there, which is as much or more.
    pub(super) async fn copies(&self, session: &Session, args: Args<'_>, copies: Copies) -> usize {
        let is_elsewhere = self.node.is_frontend() || session.told.as_ref().is_some_and(|told| told.elsewhere);
        let calls = match session.door {
            Door::Open if is_elsewhere => self.ask_others(session, args),
            _ => Vec::new(),
        };
        let written = session.told.as_ref().map(|told| told.written.clone()).unwrap_or_default();
        let here = async {
            let member = self.node.member()?;
            match written.is_empty() {
                false => {
                    let held = member.replication.acknowledged(&written, copies.wanted);
                    let _in_time = tokio::time::timeout(copies.limit, held).await;
                    Some(member.replication.copies(&written))
                }
                true if calls.is_empty() => {
                    let told = member.replication.told();
                    let _in_time = tokio::time::timeout(copies.limit, told.dealt_with()).await;
                    Some(told.up_to_date())
                }
                true => None,
            }
        };
        let mut fewest = here.await;
        for call in calls {
            let held = match call.await {
                Ok(mut answers) => match forward::take(&mut answers) {
                    Some(Outcome::Replied(mut content)) => {
                        number(&mut content, b':').and_then(|held| usize::try_from(held).ok())
                    }
                    _ => Some(0),
                },
                // A node that cannot be reached holds nothing that is held elsewhere.
                Err(_) => None,
            };
            fewest = fewest.into_iter().chain(held).min();
        }
        fewest.unwrap_or_default()
    }

    fn ask_others(&self, session: &Session, args: Args<'_>) -> Vec<forebay_cluster::peer::Call> {
        let topology = self.node.topology.load_full();
        let ask = |member| self.ask(session, args.iter(), Protocol::Resp2, &topology, member);
        topology.nodes().iter().filter_map(ask).collect()
    }
}
