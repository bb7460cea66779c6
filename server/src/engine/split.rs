//! One request for the keys of several owners: each gets a part, and the replies become one.

use forebay_cluster::{NodeNumber, Topology};
use forebay_resp::{Args, Reply};
use smallvec::SmallVec;

use super::Engine;
use super::forward::{self, Outcome};
use super::merge::Merged;
use super::part;
use super::patience::Patience;
use crate::command::error::CommandError;
use crate::command::spec::{Find, Flags, Merge};
use crate::command::table::Command;
use crate::session::Session;

/// The keys of a request that are one owner's, by their places among all keys of the request.
struct Part {
    owner: Option<NodeNumber>,
    keys: Vec<usize>,
}

impl Engine {
    /// Runs a request by parts, until each of its keys was seen to.
    pub(super) async fn split(
        &self,
        session: &mut Session,
        args: Args<'_>,
        reply: &mut Reply,
        merge: Merge,
        patience: &mut Patience,
    ) -> Result<(), CommandError> {
        let command = self.table.resolve(args).map_err(|unresolved| unresolved.error)?;
        let units = units(command, args).ok_or(CommandError::Arity(command.full_name))?;
        self.remember_split(session, command, args);
        let mut merged = Merged::of(merge, units.len());
        let mut left: Vec<usize> = (0..units.len()).collect();
        while !left.is_empty() {
            let topology = self.node.topology.load_full();
            let parts = parts(&topology, &units, &left);
            left.clear();
            let mut until = topology.epoch();
            let protocol = reply.protocol();
            let ask = |part: &Part| {
                let owner = topology.node(part.owner?)?;
                self.ask(session, part.arguments(args, &units).into_iter(), protocol, &topology, owner)
            };
            let calls: Vec<_> = parts.iter().map(ask).collect();
            let mut failed = None;
            for (part, call) in parts.into_iter().zip(calls) {
                let outcome = match (part.owner.and_then(|owner| topology.node(owner)), call) {
                    (None, _) => Outcome::Again { epoch: topology.epoch() + 1 },
                    (Some(owner), Some(call)) => part::outcome(call, (session, command), &topology, owner).await,
                    (Some(_), None) => {
                        let arguments = part.arguments(args, &units);
                        self.do_own(session, Args::from(&arguments[..]), protocol).await
                    }
                };
                match outcome {
                    // The other parts are waited for in any case: none of them may come behind what the client asks next.
                    Outcome::Replied(content) => failed = failed.or(merged.add(&part.keys, content).err()),
                    Outcome::Uncertain => failed = failed.or_else(|| Some(forward::uncertain())),
                    Outcome::Refused(error) => failed = failed.or(Some(error)),
                    Outcome::Again { epoch } => {
                        until = until.max(epoch);
                        left.extend(part.keys);
                    }
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
            if !left.is_empty() && !self.settled(until, patience).await {
                let is_begun = left.len() < units.len() && command.spec.flags.contains(Flags::WRITE);
                return Err(if is_begun { half_done() } else { CommandError::Down });
            }
        }
        merged.write(reply);
        Ok(())
    }
}

/// The error for a write of whose keys some were written.
fn half_done() -> CommandError {
    CommandError::text(
        "CLUSTERDOWN some of the keys have no owner that can be reached now: the command may or may not have been carried out for the others",
    )
}

/// The arguments that belong to one key.
pub(super) struct Unit {
    slot: u16,
    first: usize,
    count: usize,
}

impl Unit {
    /// Where it begins among the arguments.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// The request for this key alone; what stands before the keys goes with each.
    pub(super) fn request<'a>(&self, args: Args<'a>, before: usize) -> SmallVec<[&'a [u8]; 4]> {
        (0..before).chain(self.first..self.first + self.count).filter_map(|at| args.get(at)).collect()
    }
}

/// The keys of a request with what belongs to each; `None` if they do not stand in one run to its end.
pub(super) fn units(command: &Command, args: Args<'_>) -> Option<Vec<Unit>> {
    let [spec] = command.spec.keys else { return None };
    let Find::Range { last: -1, step, .. } = spec.find else { return None };
    let positions = command.spec.key_positions(args).ok()?;
    let unit = |at: &u32| {
        let first = *at as usize;
        let slot = forebay_cluster::slot_of(args.get(first)?);
        (first + usize::from(step) <= args.len()).then_some(Unit { slot, first, count: usize::from(step) })
    };
    positions.iter().map(unit).collect()
}

fn parts(topology: &Topology, units: &[Unit], keys: &[usize]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for &key in keys {
        let owner = topology.owner_of(units[key].slot).map(|owner| owner.number);
        match parts.iter_mut().find(|part| part.owner == owner) {
            Some(part) => part.keys.push(key),
            None => parts.push(Part { owner, keys: vec![key] }),
        }
    }
    parts
}

impl Part {
    /// The request for this part alone.
    fn arguments<'a>(&self, args: Args<'a>, units: &[Unit]) -> SmallVec<[&'a [u8]; 16]> {
        let of_keys = self.keys.iter().flat_map(|&key| units[key].first..units[key].first + units[key].count);
        // What stands before the keys goes with each part.
        let before = 0..units.first().map_or(1, |unit| unit.first);
        before.chain(of_keys).filter_map(|at| args.get(at)).collect()
    }
}
