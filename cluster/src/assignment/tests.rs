use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn seat(number: u32, zones: u32) -> Seat {
    // Identities are random in life: taken here from the number, so that a failure can be repeated.
    let mut bytes = [0; 20];
    let mixed = u64::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&mixed.to_le_bytes());
    let zone = (zones > 0).then(|| format!("zone-{}", number % zones));
    Seat { number: NodeNumber(number), id: NodeId::from_bytes(bytes), weight: 1000, zone }
}

fn seats(numbers: std::ops::Range<u32>) -> Vec<Seat> {
    numbers.map(|number| seat(number, 0)).collect()
}

fn owned(table: &SlotTable, seats: &[Seat]) -> Vec<usize> {
    let count = |seat: &Seat| table.iter().filter(|(_, holders)| holders.first() == Some(&seat.number)).count();
    seats.iter().map(count).collect()
}

fn copies_held(table: &SlotTable, seats: &[Seat]) -> Vec<usize> {
    let count = |seat: &Seat| table.iter().filter(|(_, holders)| holders.contains(&seat.number)).count();
    seats.iter().map(count).collect()
}

/// Standard deviation and maximum, as parts of the mean.
fn spread(counts: &[usize]) -> (f64, f64) {
    let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    let variance = counts.iter().map(|count| (*count as f64 - mean).powi(2)).sum::<f64>() / counts.len() as f64;
    (variance.sqrt() / mean, counts.iter().copied().max().unwrap_or_default() as f64 / mean)
}

fn moved(before: &SlotTable, after: &SlotTable) -> usize {
    (0..SLOT_COUNT).filter(|slot| before.owner(*slot) != after.owner(*slot)).count()
}

#[test]
fn shares_are_even_and_a_join_moves_the_newcomers_share() {
    let slots = usize::from(SLOT_COUNT);
    let (mut worst, mut moved_in_vain) = ((0.0f64, 0.0f64), 0.0f64);
    for nodes in 3..=12 {
        for first in 0..8 {
            let all = seats(first * 20..first * 20 + nodes + 1);
            let before = assign(&SlotTable::vacant(), &all[..nodes as usize], 3);
            let after = assign(&before, &all, 3);
            for (table, seats) in [(&before, &all[..nodes as usize]), (&after, &all[..])] {
                let (deviation, most) = spread(&owned(table, seats));
                worst = (worst.0.max(deviation), worst.1.max(most));
            }
            let ideal = slots.div_ceil(all.len());
            moved_in_vain = moved_in_vain.max((moved(&before, &after) as f64 - ideal as f64) / slots as f64);
        }
    }
    println!(
        "3 to 12 nodes: deviation {:.4}, maximum {:.4}, moved beyond the ideal {moved_in_vain:.4}",
        worst.0, worst.1
    );
    assert!(worst.0 <= 0.01 && worst.1 <= 1.02, "{worst:?}");
    assert!(moved_in_vain <= 0.0, "{moved_in_vain}");
}

#[test]
fn a_thousand_nodes_share_alike() {
    let all = seats(0..1_001);
    let before = assign(&SlotTable::vacant(), &all[..1_000], 3);
    let after = assign(&before, &all, 3);
    let ((deviation, most), moved) = (spread(&owned(&after, &all)), moved(&before, &after));
    println!("1,000 nodes: deviation {deviation:.4}, maximum {most:.4}; a join moves {moved} slots");
    // 16 or 17 slots each: the mean is 16.4.
    assert!(most <= 1.05 && moved <= 17, "{most}, {moved}");
}

#[test]
fn what_has_lost_its_owner_goes_to_a_replica() {
    let all = seats(0..5);
    let before = assign(&SlotTable::vacant(), &all, 3);
    let after = assign(&before, &all[1..], 3);
    let lost = (0..SLOT_COUNT).filter(|slot| before.owner(*slot) == Some(all[0].number));
    let to_replicas = lost.clone().filter(|slot| before.replicas(*slot).contains(&after.owner(*slot).unwrap())).count();
    // All but what evens out the shares.
    assert!(to_replicas * 100 >= lost.count() * 98, "{to_replicas}");
    let (deviation, most) = spread(&owned(&after, &all[1..]));
    assert!(deviation <= 0.02 && most <= 1.02, "{deviation} {most}");
}

#[test]
fn copies_are_in_different_zones() {
    for (nodes, zones) in [(3, 3), (4, 2), (6, 3), (9, 3), (7, 3)] {
        let all: Vec<_> = (0..nodes).map(|number| seat(number, zones)).collect();
        let table = assign(&SlotTable::vacant(), &all, 3);
        let fewest = table.iter().map(|(_, holders)| zones_of(&all, holders)).min();
        assert_eq!(fewest, Some(zones.min(3) as usize), "{nodes} nodes in {zones} zones");
    }
}

fn zones_of(seats: &[Seat], holders: &Holders) -> usize {
    let zone =
        |number: &NodeNumber| seats.iter().find(|seat| seat.number == *number).and_then(|seat| seat.zone.as_ref());
    holders.iter().filter_map(zone).collect::<BTreeSet<_>>().len()
}

/// Clients of clusters are told of every run of slots that the same nodes hold.
#[test]
fn slots_are_held_in_runs() {
    for (nodes, most) in [(3, 500), (6, 2_000), (12, 4_000)] {
        let mut table = SlotTable::vacant();
        (1..=nodes).for_each(|nodes| table = assign(&table, &seats(0..nodes), 3));
        let is_new_run = |slot: &u16| table.holders(*slot) != table.holders(slot - 1);
        let runs = 1 + (1..SLOT_COUNT).filter(is_new_run).count();
        println!("{nodes} nodes: {runs} runs");
        assert!(runs <= most, "{nodes} nodes: {runs} runs");
    }
}

#[test]
fn weight_is_share() {
    let mut all = seats(0..4);
    all[2].weight = 3_000;
    let table = assign(&SlotTable::vacant(), &all, 2);
    assert_eq!(owned(&table, &all), [2731, 2731, 8192, 2730]);
    all[2].weight = 0;
    let after = assign(&table, &all, 2);
    assert_eq!(copies_held(&after, &all)[2], 0, "a node without weight is emptied");
}

#[test]
fn without_seats_nobody_holds_anything() {
    let table = assign(&SlotTable::vacant(), &seats(0..3), 3);
    assert_eq!(assign(&table, &[], 3), SlotTable::vacant());
}

/// Nodes that come and go, with weights and zones.
fn any_history() -> impl Strategy<Value = Vec<BTreeSet<u32>>> {
    prop::collection::vec(prop::collection::btree_set(0u32..9, 1..8), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_slot_is_held_as_often_as_it_can_be(history in any_history(), copies in 1usize..5, zones in 0u32..4) {
        let mut table = SlotTable::vacant();
        for numbers in history {
            let seats: Vec<_> = numbers.iter().map(|number| seat(*number, zones)).collect();
            let before = table;
            table = assign(&before, &seats, copies);
            for (slot, holders) in table.iter() {
                prop_assert_eq!(holders.len(), copies.min(seats.len()), "slot {}", slot);
                prop_assert_eq!(holders.iter().collect::<BTreeSet<_>>().len(), holders.len(), "slot {}", slot);
                prop_assert!(holders.iter().all(|number| numbers.contains(&number.0)), "slot {}", slot);
                let possible = seats.iter().filter_map(|seat| seat.zone.as_ref()).collect::<BTreeSet<_>>().len();
                prop_assert_eq!(zones_of(&seats, holders), possible.min(holders.len()), "slot {}", slot);
            }
            let (_, most) = spread(&owned(&table, &seats));
            prop_assert!(most <= 1.02, "{}", most);
            prop_assert_eq!(&assign(&table, &seats, copies), &table, "who has what it is to have keeps it");
            // What goes to a node with a copy costs nothing.
            let is_cheap = |slot: &u16| table.owner(*slot).is_some_and(|owner| before.holders(*slot).contains(&owner));
            let kept = (0..SLOT_COUNT).filter(is_cheap).count();
            let share = usize::from(SLOT_COUNT) / seats.len();
            let stayed = seats.iter().filter(|seat| before.iter().any(|(_, holders)| holders.first() == Some(&seat.number))).count();
            let could_stay: usize = owned(&before, &seats).iter().map(|had| *had.min(&share)).sum();
            prop_assert!(kept >= could_stay.min(stayed * share), "{} kept of {}", kept, could_stay);
        }
    }
}
