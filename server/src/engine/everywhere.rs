//! Commands that are about all keys: each node does its part, and the replies become one.

use std::sync::Arc;

use bytes::Bytes;
use forebay_cluster::{Node as Member, SLOT_COUNT, Standing, Topology};
use forebay_resp::{Args, Protocol, Reply};

use super::Engine;
use super::forward::{self, Outcome};
use super::merge::Merged;
use super::part;
use super::patience::Patience;
use crate::command::error::CommandError;
use crate::command::spec::{Flags, Merge};
use crate::session::Session;

impl Engine {
    /// Has every member run a request, this node included.
    ///
    /// # Errors
    /// When one of them cannot be reached for too long, or answers an error. Others may have done their part.
    pub(super) async fn everywhere(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        merge: Merge,
        patience: &mut Patience,
    ) -> Result<(), CommandError> {
        match merge {
            Merge::Scan => self.scan(session, args, reply, patience).await,
            Merge::Any => self.anywhere(session, args, reply, patience).await,
            merge => self.everyone(session, args, reply, merge, patience).await,
        }
    }

    /// Asks all, and begins anew where one could not be reached, or where slots were moving while all wrote: they may have been nobody's part. So what
    /// all do may be done twice within the time of the request.
    async fn everyone(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        merge: Merge,
        patience: &mut Patience,
    ) -> Result<(), CommandError> {
        let writes = self.resolved(args).spec.flags.contains(Flags::WRITE);
        loop {
            let topology = self.whole(patience).await?;
            let members: Vec<_> = topology.nodes().iter().filter(|member| may_own(member)).collect();
            match self.all_of(session, args, reply.protocol(), &topology, &members).await? {
                Parts::Answered(_) if writes && self.has_changed_since(&topology, patience).await => {}
                Parts::Answered(parts) => {
                    let mut merged = Merged::of(merge, 0);
                    parts.into_iter().try_for_each(|part| merged.add(&[], part))?;
                    merged.write(reply);
                    return Ok(());
                }
                Parts::Again { epoch } => self.settled_or_down(epoch, patience).await?,
            }
        }
    }

    /// Asks one after the other, until one has something to answer. Who owns more slots is more probably asked first.
    async fn anywhere(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        patience: &mut Patience,
    ) -> Result<(), CommandError> {
        loop {
            let topology = self.whole(patience).await?;
            let mut members: Vec<_> = topology.nodes().iter().filter(|member| may_own(member)).collect();
            let drawn = topology.owner_of(rand::random::<u16>() % SLOT_COUNT).map(|owner| owner.number);
            members.sort_by_key(|member| Some(member.number) != drawn);
            match self.first_of(session, args, reply.protocol(), &topology, &members).await? {
                Ok(found) => {
                    match found {
                        Some(found) => forward::conclude(reply, found),
                        None => reply.null(),
                    }
                    return Ok(());
                }
                Err(epoch) => self.settled_or_down(epoch, patience).await?,
            }
        }
    }

    /// The first answer that is not a null; the epoch to wait for where somebody cannot be asked.
    async fn first_of(
        &self,
        session: &mut Session,
        args: Args<'_>,
        protocol: Protocol,
        topology: &Topology,
        members: &[&Member],
    ) -> Result<Result<Option<Bytes>, u64>, CommandError> {
        for member in members {
            match self.all_of(session, args, protocol, topology, &[member]).await? {
                Parts::Again { epoch } => return Ok(Err(epoch)),
                Parts::Answered(parts) => {
                    let found = parts.into_iter().find(|part| !part.starts_with(b"$-1") && !part.starts_with(b"_"));
                    if let Some(found) = found {
                        forward::error_in(&found)?;
                        return Ok(Ok(Some(found)));
                    }
                }
            }
        }
        Ok(Ok(None))
    }

    /// Has these members run a request, all at the same time.
    ///
    /// # Errors
    /// When nobody knows whether one of them has run it.
    pub(super) async fn all_of(
        &self,
        session: &mut Session,
        args: Args<'_>,
        protocol: Protocol,
        topology: &Topology,
        members: &[&Member],
    ) -> Result<Parts, CommandError> {
        let command = self.resolved(args);
        let ask = |member: &&Member| self.ask(session, args.iter(), protocol, topology, member);
        let calls: Vec<_> = members.iter().map(ask).collect();
        let (mut parts, mut again, mut failed) = (Vec::with_capacity(calls.len()), None, None);
        for (member, call) in members.iter().zip(calls) {
            let outcome = match call {
                Some(call) => part::outcome(call, (session, command), topology, member).await,
                None => self.do_own(session, args, protocol).await,
            };
            match outcome {
                Outcome::Replied(content) => parts.push(content),
                Outcome::Again { epoch } => again = again.max(Some(epoch)),
                // The others are waited for in any case: none of them may come behind what the client asks next.
                Outcome::Uncertain => failed = failed.or_else(|| Some(forward::uncertain())),
                Outcome::Refused(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(again.map_or(Parts::Answered(parts), |epoch| Parts::Again { epoch }))
    }

    /// The topology, as soon as each slot has an owner who is there: without one its keys would be left out.
    pub(super) async fn whole(&self, patience: &mut Patience) -> Result<Arc<Topology>, CommandError> {
        loop {
            let topology = self.node.topology.load_full();
            if (0..SLOT_COUNT).all(|slot| topology.owner_of(slot).is_some_and(may_own)) {
                return Ok(topology);
            }
            self.settled_or_down(topology.epoch() + 1, patience).await?;
        }
    }

    /// Whether there is another topology by now, and time to go by that.
    async fn has_changed_since(&self, topology: &Topology, patience: &mut Patience) -> bool {
        let epoch = self.node.topology.load().epoch();
        epoch != topology.epoch() && self.settled(epoch, patience).await
    }

    /// Waits until the topology is of `epoch` or later, or for a while.
    ///
    /// # Errors
    /// Once the request has waited for long enough.
    pub(super) async fn settled_or_down(&self, epoch: u64, patience: &mut Patience) -> Result<(), CommandError> {
        self.settled(epoch, patience).await.then_some(()).ok_or(CommandError::Down)
    }
}

/// What came of the parts of a request.
pub(super) enum Parts {
    /// By members, in the order in which they were asked.
    Answered(Vec<Bytes>),
    /// One of them could not be asked, and may be once the topology is of that epoch.
    Again { epoch: u64 },
}

/// Whether there may be slots of this member: not once it is down.
pub(super) fn may_own(member: &Member) -> bool {
    matches!(member.standing, Standing::Up | Standing::Leaving | Standing::Draining)
}
