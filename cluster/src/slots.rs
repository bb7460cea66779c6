//! Which nodes hold each slot.

use arrayvec::ArrayVec;

use crate::slot::SLOT_COUNT;

/// The most copies of a slot that there can be, the owner's included.
pub const MAX_COPIES: usize = 7;

/// A node's number within its cluster: given once, when it joins, and never again to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeNumber(pub u32);

/// The holders of one slot: its owner, then its replicas.
pub type Holders = ArrayVec<NodeNumber, MAX_COPIES>;

/// The holders of every slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotTable {
    holders: Box<[Holders]>,
}

impl SlotTable {
    /// Nobody holds anything.
    pub fn vacant() -> SlotTable {
        SlotTable { holders: vec![Holders::new(); usize::from(SLOT_COUNT)].into() }
    }

    /// From the holders of every slot in order.
    pub(crate) fn new(holders: Vec<Holders>) -> SlotTable {
        assert_eq!(holders.len(), usize::from(SLOT_COUNT), "a table has all slots");
        SlotTable { holders: holders.into() }
    }

    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub fn holders(&self, slot: u16) -> &Holders {
        &self.holders[usize::from(slot)]
    }

    /// `None` where nobody holds it.
    ///
    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub fn owner(&self, slot: u16) -> Option<NodeNumber> {
        self.holders(slot).first().copied()
    }

    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub fn replicas(&self, slot: u16) -> &[NodeNumber] {
        self.holders(slot).get(1..).unwrap_or_default()
    }

    /// Every slot with its holders.
    pub fn iter(&self) -> impl Iterator<Item = (u16, &Holders)> {
        (0..SLOT_COUNT).zip(&self.holders)
    }
}
