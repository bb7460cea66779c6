//! Nodes that do what owners and replicas are to do, honestly and without a network: they sync, report and hand over.

use std::collections::BTreeMap;

use super::*;

/// The state and the processes that live.
pub(super) struct World {
    pub(super) state: ClusterState,
    /// The process of each node that runs.
    pub(super) lives: BTreeMap<NodeNumber, Incarnation>,
    last_life: u64,
}

impl World {
    pub(super) fn new(copies: u8) -> World {
        World { state: new_state(copies), lives: BTreeMap::new(), last_life: 0 }
    }

    /// A cluster of so many nodes, in which everything is where it is to be.
    pub(super) fn settled(nodes: u32, copies: u8) -> World {
        let mut world = World::new(copies);
        (0..nodes).for_each(|node| {
            world.start(description(node));
        });
        world.settle();
        world
    }

    /// A process of this node starts.
    pub(super) fn start(&mut self, description: Description) -> NodeNumber {
        let incarnation = self.next_life();
        match self.state.apply(Change::Join { description, incarnation }) {
            Applied::Joined { number, .. } => {
                self.lives.insert(number, incarnation);
                number
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn next_life(&mut self) -> Incarnation {
        self.last_life += 1;
        Incarnation(self.last_life)
    }

    pub(super) fn restart(&mut self, number: NodeNumber) {
        let description = self.state.member(number).expect("a member").description.clone();
        assert_eq!(self.start(description), number);
    }

    pub(super) fn incarnation(&self, number: NodeNumber) -> Incarnation {
        self.state.member(number).expect("a member").incarnation
    }

    /// The process ends, and the leader has found out.
    pub(super) fn crash(&mut self, number: NodeNumber) {
        self.lives.remove(&number);
        let incarnation = self.incarnation(number);
        self.apply(Change::Down { number, incarnation });
    }

    pub(super) fn apply(&mut self, change: Change) -> Applied {
        self.state.apply(change)
    }

    /// All nodes go on until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            let changes = self.to_do();
            if changes.is_empty() {
                assert!(self.state.is_settled(), "nobody knows what to do");
                return;
            }
            changes.into_iter().for_each(|change| {
                self.apply(change);
            });
        }
        panic!("it does not settle");
    }

    /// What the nodes that live would propose now.
    pub(super) fn to_do(&self) -> Vec<Change> {
        // A process that lives need not be a member any more.
        let is_member = |number: NodeNumber, life: Incarnation| {
            self.state.member(number).is_some_and(|member| member.incarnation == life)
        };
        let lives = self.lives.iter().filter(|(number, life)| is_member(**number, **life));
        lives.flat_map(|(number, _)| self.to_do_by(*number)).collect()
    }

    fn to_do_by(&self, number: NodeNumber) -> Vec<Change> {
        let (state, epoch, incarnation) = (&self.state, self.state.epoch(), self.incarnation(number));
        let mut changes = Vec::new();
        for (holder, fed) in state.to_sync(number) {
            let slots: SlotSet = fed.iter().filter(|slot| state.slot(*slot).syncing.contains(&holder)).collect();
            if !slots.is_empty() && self.lives.contains_key(&holder) {
                let incarnation = self.incarnation(holder);
                changes.push(Change::Synced { number: holder, incarnation, slots, epoch });
            }
        }
        for (to, slots) in state.handovers(number) {
            changes.push(Change::HandOver { from: number, to, slots, epoch });
        }
        let is_asked = |slot: &u16| state.slot(*slot).replicas.contains(&number) && !state.has_reported(*slot, number);
        let positions: Vec<_> = state.orphaned().filter(is_asked).map(|slot| (slot, position(slot, number))).collect();
        if !positions.is_empty() {
            changes.push(Change::Report { number, incarnation, positions, epoch });
        }
        changes
    }
}

/// How far a replica has come: some are a little behind.
fn position(slot: u16, number: NodeNumber) -> Position {
    Position { epoch: 1, sequence: u64::from((u32::from(slot) * 7 + number.0) % 3) }
}
