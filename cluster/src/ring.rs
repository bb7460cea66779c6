//! The consistent-hash ring that says which nodes a slot prefers.
//!
//! Each node has a number of points on a circle of 2⁶⁴ places, as many as its weight says; a slot lies on a place of the circle, too,
//! and prefers the nodes in the order in which their points follow (D. Karger et al., "Consistent Hashing and Random Trees", STOC
//! 1997). So a node that comes or goes changes the preferences of few slots, and those of all others evenly.
//!
//! The slots lie on the circle in their order. They are hashes of keys already, so to hash them again would bring nothing; and so a node's slots
//! are runs between points: clients of clusters are told of some hundred ranges by CLUSTER SLOTS, and not of ten thousand.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::slot::SLOT_COUNT;
use crate::topology::NodeId;

/// Points of a node of weight 1.
pub const POINTS: u32 = 150;

/// A place on the circle. Clockwise is upwards.
type Place = u64;

/// The points of all nodes, which are known here by their index.
#[derive(Debug)]
pub struct Ring {
    /// Sorted.
    points: Vec<(Place, usize)>,
    /// Each node's own, sorted.
    by_node: Vec<Vec<Place>>,
}

impl Ring {
    /// A ring of nodes with their weights, in thousandths. The same nodes give the same ring on every machine, whatever their order.
    pub fn new<'n>(nodes: impl IntoIterator<Item = (&'n NodeId, u32)>) -> Ring {
        let by_node: Vec<_> = nodes.into_iter().map(|(id, weight)| points_of(id, weight)).collect();
        let numbered =
            by_node.iter().enumerate().flat_map(|(node, points)| points.iter().map(move |point| (*point, node)));
        let mut points: Vec<_> = numbered.collect();
        points.sort_unstable();
        Ring { points, by_node }
    }

    /// Every node, in the order in which the slot prefers them.
    pub fn preferences(&self, slot: u16) -> impl Iterator<Item = usize> {
        let place = place_of(slot);
        let first = self.points.partition_point(|(point, _)| *point < place);
        let (before, behind) = self.points.split_at(first);
        let mut seen = vec![false; self.by_node.len()];
        let in_order = behind.iter().chain(before).map(|(_, node)| *node);
        let distinct = in_order.filter(move |node| !std::mem::replace(&mut seen[*node], true));
        // Behind the last of them nobody is left to be found.
        distinct.take(self.by_node.iter().filter(|points| !points.is_empty()).count())
    }

    /// How far a slot is from a node's next point: of two slots, the one with less prefers the node more. `None` for a node without
    /// points.
    pub fn distance(&self, slot: u16, node: usize) -> Option<u64> {
        let (place, points) = (place_of(slot), &self.by_node[node]);
        let next = points.partition_point(|point| *point < place);
        let point = points.get(next).or_else(|| points.first())?;
        Some(point.wrapping_sub(place))
    }
}

fn points_of(id: &NodeId, weight: u32) -> Vec<Place> {
    let number = (u64::from(weight) * u64::from(POINTS)).div_ceil(1000);
    let mut points: Vec<_> = (0..number).map(|point| xxh3_64_with_seed(id.as_str().as_bytes(), point)).collect();
    points.sort_unstable();
    points
}

fn place_of(slot: u16) -> Place {
    debug_assert!(slot < SLOT_COUNT);
    u64::from(slot) * (u64::MAX / u64::from(SLOT_COUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(nodes: u8) -> Vec<NodeId> {
        (0..nodes).map(|node| NodeId::from_bytes([node; 20])).collect()
    }

    fn ring(ids: &[NodeId]) -> Ring {
        Ring::new(ids.iter().map(|id| (id, 1000)))
    }

    #[test]
    fn every_node_is_preferred_once() {
        let ring = ring(&ids(7));
        for slot in 0..SLOT_COUNT {
            let mut nodes: Vec<_> = ring.preferences(slot).collect();
            let nearest = (0..7).min_by_key(|node| ring.distance(slot, *node));
            assert_eq!(nodes.first().copied(), nearest, "slot {slot}");
            nodes.sort_unstable();
            assert_eq!(nodes, (0..7).collect::<Vec<_>>(), "slot {slot}");
        }
    }

    #[test]
    fn a_node_that_leaves_changes_no_other_preference() {
        let ids = ids(6);
        let (all, fewer) = (ring(&ids), ring(&ids[..5]));
        for slot in 0..SLOT_COUNT {
            let without: Vec<_> = all.preferences(slot).filter(|node| *node != 5).collect();
            assert_eq!(without, fewer.preferences(slot).collect::<Vec<_>>(), "slot {slot}");
        }
    }

    #[test]
    fn weight_is_points() {
        let ids = ids(3);
        let ring = Ring::new(ids.iter().zip([1000, 500, 0]));
        assert_eq!(ring.by_node.iter().map(Vec::len).collect::<Vec<_>>(), [150, 75, 0]);
        assert_eq!(ring.distance(9, 2), None);
        assert_eq!(ring.preferences(9).count(), 2);
    }

    /// Nodes of different versions must agree, so the ring is a part of what they speak to one another.
    #[test]
    fn the_ring_is_the_same_for_ever() {
        let ring = ring(&ids(5));
        let first: Vec<_> = [0, 1, 100, 16383].map(|slot| ring.preferences(slot).collect::<Vec<_>>()).concat();
        assert_eq!(first, RECORDED);
    }

    const RECORDED: [usize; 20] = [2, 1, 0, 4, 3, 2, 1, 0, 4, 3, 1, 0, 2, 4, 3, 2, 1, 0, 4, 3];
}
