//! Who takes over a slot that has lost its owner.

use std::cmp::Reverse;

use super::settle::Present;
use super::{Position, Slot};
use crate::slots::{Holders, NodeNumber};

impl Present {
    /// Gives a slot without an owner to its heir, if it can be told who that is: the replica that has come furthest, once all have told
    /// how far they have come; without replicas anybody, since it is a cache. False if nobody can be told yet.
    pub(super) fn succeed(
        &self,
        number: u16,
        slot: &mut Slot,
        target: &Holders,
        reports: Option<&Vec<(NodeNumber, Position)>>,
    ) -> bool {
        if slot.replicas.is_empty() {
            return self.begin_anew(number, slot, target);
        }
        let position = |replica: &NodeNumber| {
            reports?.iter().find(|(reporter, _)| reporter == replica).map(|(_, position)| *position)
        };
        let Some(positions) = slot.replicas.iter().map(position).collect::<Option<Vec<_>>>() else { return false };
        let rank = |replica: NodeNumber| target.iter().position(|wanted| *wanted == replica).unwrap_or(usize::MAX);
        let claims = slot.replicas.iter().zip(&positions);
        let heir = claims.max_by_key(|(replica, position)| {
            (**position, self.is_up(**replica), Reverse(rank(**replica)), Reverse(**replica))
        });
        let Some((heir, furthest)) = heir.map(|(heir, position)| (*heir, *position)) else { return false };
        // Who is behind lacks effects that clients may have seen: it is sent the slot anew, if it is wanted.
        let mut positions = positions.into_iter();
        slot.replicas.retain(|_| positions.next() == Some(furthest));
        slot.hand_over(heir, self.epoch);
        true
    }

    /// Nobody has a whole copy. Who was being sent one has at least a part.
    fn begin_anew(&self, number: u16, slot: &mut Slot, target: &Holders) -> bool {
        let syncing = target.iter().filter(|wanted| slot.syncing.contains(wanted)).chain(&slot.syncing);
        let anybody = self.seated.get(usize::from(number) % self.seated.len().max(1));
        let heir = syncing.chain(target).find(|number| self.is_up(**number)).or(anybody).copied();
        let Some(heir) = heir else { return false };
        slot.syncing.retain(|syncing| *syncing != heir);
        slot.owner = Some(heir);
        slot.owned_since = self.epoch;
        true
    }
}
