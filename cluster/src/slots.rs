//! Which nodes hold each slot.

use std::fmt;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::slot::SLOT_COUNT;

/// The most copies of a slot that there can be, the owner's included.
pub const MAX_COPIES: usize = 7;

/// A node's number within its cluster: given once, when it joins, and never again to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeNumber(pub u32);

/// The holders of one slot: its owner, then its replicas.
pub type Holders = ArrayVec<NodeNumber, MAX_COPIES>;

/// The holders of every slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTable {
    holders: PerSlot<Holders>,
}

/// Something for every slot, and for no more: what is read from a file or a peer is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct PerSlot<T>(Box<[T]>);

/// What was read is not about every slot.
#[derive(Debug, thiserror::Error)]
#[error("{0} slots instead of {SLOT_COUNT}")]
pub(crate) struct WrongSlotCount(usize);

impl<T: Clone> PerSlot<T> {
    /// The same for every slot.
    pub(crate) fn all(value: T) -> Self {
        PerSlot(vec![value; usize::from(SLOT_COUNT)].into())
    }
}

impl<T> PerSlot<T> {
    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub(crate) fn get(&self, slot: u16) -> &T {
        &self.0[usize::from(slot)]
    }

    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub(crate) fn get_mut(&mut self, slot: u16) -> &mut T {
        &mut self.0[usize::from(slot)]
    }

    /// # Panics
    /// When there is not one value for every slot.
    pub(crate) fn collect(values: impl Iterator<Item = T>) -> Self {
        PerSlot::try_from(values.collect::<Vec<_>>()).expect("a value for every slot")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        (0..SLOT_COUNT).zip(&self.0)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut T)> {
        (0..SLOT_COUNT).zip(&mut self.0)
    }
}

impl<T> TryFrom<Vec<T>> for PerSlot<T> {
    type Error = WrongSlotCount;

    fn try_from(values: Vec<T>) -> Result<Self, WrongSlotCount> {
        match values.len() == usize::from(SLOT_COUNT) {
            true => Ok(PerSlot(values.into())),
            false => Err(WrongSlotCount(values.len())),
        }
    }
}

impl fmt::Display for NodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SlotTable {
    /// Nobody holds anything.
    pub fn vacant() -> SlotTable {
        SlotTable { holders: PerSlot::all(Holders::new()) }
    }

    /// From the holders of every slot in order.
    pub(crate) fn new(holders: Vec<Holders>) -> SlotTable {
        SlotTable { holders: PerSlot::collect(holders.into_iter()) }
    }

    /// # Panics
    /// When `slot` is not below [`SLOT_COUNT`].
    pub fn holders(&self, slot: u16) -> &Holders {
        self.holders.get(slot)
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
        self.holders.iter()
    }
}
