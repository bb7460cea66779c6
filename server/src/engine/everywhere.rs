//! Commands that are about all keys: each node does its part, and the replies become one.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use forebay_cluster::peer::{Call, CallError};
use forebay_cluster::{Node as Member, Standing, Topology};
use forebay_resp::{Args, Protocol, Reply};

use super::Engine;
use super::forward::{self, Outcome};
use super::merge::{Merged, number};
use super::patience::Patience;
use crate::command::error::CommandError;
use crate::command::spec::Merge;
use crate::session::Session;

/// Bits of a scan's cursor that are the node's own; above them stands the node's place among the members.
const OWN_CURSOR_BITS: u32 = 54;

impl Engine {
    /// Has every member run a request, this node included.
    ///
    /// # Errors
    /// When one of them cannot be reached, or answers an error. Others may have done their part.
    pub(super) async fn everywhere(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        merge: Merge,
        patience: &mut Patience,
    ) -> Result<(), CommandError> {
        let topology = self.populated(patience).await?;
        let members: Vec<_> = topology.nodes().iter().filter(|member| may_own(member)).collect();
        if merge == Merge::Cursor {
            return self.scan_on(session, args, reply, &topology, &members).await;
        }
        let protocol = reply.protocol();
        let ask = |member: &&Member| self.ask(session, args.iter(), protocol, &topology, member);
        let calls: Vec<_> = members.iter().map(ask).collect();
        let mut merged = Merged::of(merge, 0);
        for call in calls {
            merged.add(&[], self.done(session, args, protocol, call).await?)?;
        }
        merged.write(reply);
        Ok(())
    }

    /// The topology, as soon as there is anybody in it.
    async fn populated(&self, patience: &mut Patience) -> Result<Arc<Topology>, CommandError> {
        loop {
            let topology = self.node.topology.load_full();
            if topology.nodes().iter().any(may_own) {
                return Ok(topology);
            }
            if !self.settled(topology.epoch() + 1, patience).await {
                return Err(CommandError::Down);
            }
        }
    }

    /// Runs one step of a scan where its cursor says, and lets it go on at the next member when it has come to the end there.
    async fn scan_on(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        topology: &Topology,
        members: &[&Member],
    ) -> Result<(), CommandError> {
        let invalid = || CommandError::text("ERR invalid cursor");
        let cursor = args.get(1).and_then(|cursor| std::str::from_utf8(cursor).ok()?.parse::<u64>().ok());
        let cursor = cursor.ok_or_else(invalid)?;
        let (place, own) = (cursor >> OWN_CURSOR_BITS, cursor & ((1 << OWN_CURSOR_BITS) - 1));
        let own = own.to_string();
        let part: Vec<&[u8]> =
            args.iter().enumerate().map(|(at, argument)| if at == 1 { own.as_bytes() } else { argument }).collect();
        let part = Args::from(&part[..]);
        let member = usize::try_from(place).ok().and_then(|place| members.get(place));
        let Some(member) = member else {
            reply.array(2);
            reply.bulk(b"0");
            reply.array(0);
            return Ok(());
        };
        let call = self.ask(session, part.iter(), reply.protocol(), topology, member);
        let mut content = self.done(session, part, reply.protocol(), call).await?;
        forward::error_in(&content)?;
        let not_understood = || CommandError::text("ERR a node answered a scan in a way that is not understood");
        let (count, digits) = (number(&mut content, b'*'), number(&mut content, b'$'));
        let digits = digits.filter(|_| count == Some(2)).and_then(|digits| usize::try_from(digits).ok());
        let digits = digits.filter(|digits| digits + 2 <= content.len()).ok_or_else(not_understood)?;
        let next = content.split_to(digits);
        content.advance(2);
        let next: u64 =
            std::str::from_utf8(&next).ok().and_then(|next| next.parse().ok()).ok_or_else(not_understood)?;
        let next = match next {
            0 if place + 1 < members.len() as u64 => (place + 1) << OWN_CURSOR_BITS,
            0 => 0,
            next => place << OWN_CURSOR_BITS | next,
        };
        reply.array(2);
        reply.bulk(next.to_string().as_bytes());
        forward::conclude(reply, content);
        Ok(())
    }

    /// What came of a part: what was asked of another member, or this node's own.
    async fn done(
        &self,
        session: &mut Session,
        args: Args<'_>,
        protocol: Protocol,
        asked: Option<Call>,
    ) -> Result<Bytes, CommandError> {
        let outcome = match asked {
            Some(call) => answer_of(call).await?,
            None => self.do_own(session, args, protocol).await,
        };
        match outcome {
            Outcome::Replied(content) => Ok(content),
            Outcome::Again { .. } => Err(CommandError::Down),
            Outcome::Uncertain => Err(forward::uncertain()),
            Outcome::Refused(error) => Err(error),
        }
    }
}

/// Whether there may be slots of this member: not once it is down.
fn may_own(member: &Member) -> bool {
    matches!(member.standing, Standing::Up | Standing::Leaving | Standing::Draining)
}

/// Nothing was done where nobody could be reached.
async fn answer_of(call: Call) -> Result<Outcome, CommandError> {
    let mut answers = call.await.map_err(|error| match error {
        CallError::TooLarge(size) => forward::too_large(size),
        CallError::Unreachable(_) | CallError::Broken | CallError::Busy => CommandError::Down,
    })?;
    Ok(forward::take(&mut answers).unwrap_or(Outcome::Uncertain))
}
