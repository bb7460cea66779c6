use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// Records own memory, so that a lost or doubled one shows under a leak checker.
type Boxed = Box<u64>;

fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Hashes of which many agree in all bits, so that chains grow long.
fn crowded(number: u64) -> u64 {
    spread(number % 5)
}

fn add(table: &mut Table<Boxed>, hash: fn(u64) -> u64, number: u64) {
    table.insert(hash(number), Box::new(number), |record| hash(**record));
}

fn find(table: &Table<Boxed>, hash: fn(u64) -> u64, number: u64) -> Option<Place> {
    table.find(hash(number), |record| **record == number)
}

fn numbers(table: &Table<Boxed>) -> BTreeSet<u64> {
    let all: Vec<u64> = table.iter().map(|record| **record).collect();
    let set: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(set.len(), all.len(), "a record is in the table twice");
    set
}

#[derive(Clone, Debug)]
enum Step {
    Toggle(u64),
    AddMany(u64),
    RemoveMany(u64),
    Scan,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..400u64).prop_map(Step::Toggle),
        1 => (1..600u64).prop_map(Step::AddMany),
        1 => (1..600u64).prop_map(Step::RemoveMany),
        6 => Just(Step::Scan),
    ];
    prop::collection::vec(step, 0..120)
}

/// The table beside what it should hold. `transient` numbers come and go from `FIRST_TRANSIENT` on.
struct Pair {
    table: Table<Boxed>,
    model: HashMap<u64, ()>,
    hash: fn(u64) -> u64,
}

const FIRST_TRANSIENT: u64 = 1000;

impl Pair {
    fn new(hash: fn(u64) -> u64) -> Self {
        Pair { table: Table::new(), model: HashMap::new(), hash }
    }

    fn toggle(&mut self, number: u64) {
        match find(&self.table, self.hash, number) {
            Some(place) => {
                assert!(self.model.remove(&number).is_some());
                assert_eq!(self.table.remove(place).as_deref(), Some(&number));
            }
            None => {
                assert!(self.model.insert(number, ()).is_none());
                add(&mut self.table, self.hash, number);
            }
        }
    }

    fn add(&mut self, number: u64) {
        if !self.model.contains_key(&number) {
            self.toggle(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if self.model.contains_key(&number) {
            self.toggle(number);
        }
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.model.len());
        assert_eq!(numbers(&self.table), self.model.keys().copied().collect());
        let chained: usize = (0..self.table.buckets.len()).map(|n| chain(self.table.buckets.get(n)).count() - 1).sum();
        assert_eq!(self.table.overflow as usize, chained, "buckets in chains are miscounted");
    }
}

fn behaves_as_a_map_and_scans_all(hash: fn(u64) -> u64, stable: u64, steps: Vec<Step>) {
    let mut pair = Pair::new(hash);
    (0..stable).for_each(|number| pair.add(number));
    let (mut cursor, mut seen) = (0, BTreeSet::new());
    for step in steps {
        match step {
            Step::Toggle(number) => pair.toggle(FIRST_TRANSIENT + number),
            Step::AddMany(count) => (0..count).for_each(|number| pair.add(FIRST_TRANSIENT + number)),
            Step::RemoveMany(count) => (0..count).for_each(|number| pair.remove(FIRST_TRANSIENT + number)),
            Step::Scan => {
                cursor = pair.table.scan(cursor, |record| {
                    seen.insert(**record);
                });
                if cursor == 0 {
                    assert!((0..stable).all(|number| seen.contains(&number)), "a scan missed a record");
                    seen.clear();
                }
            }
        }
        pair.check();
    }
    while cursor != 0 {
        cursor = pair.table.scan(cursor, |record| {
            seen.insert(**record);
        });
        if cursor == 0 {
            assert!((0..stable).all(|number| seen.contains(&number)), "a scan missed a record");
        }
    }
    let records: BTreeSet<u64> = pair.table.into_records().into_iter().map(|record| *record).collect();
    assert_eq!(records, pair.model.into_keys().collect());
}

proptest! {
    #[test]
    fn agrees_with_a_map_while_it_is_scanned(stable in 0..900u64, steps in steps()) {
        behaves_as_a_map_and_scans_all(spread, stable, steps);
    }

    #[test]
    fn agrees_with_a_map_where_hashes_collide(stable in 0..60u64, steps in steps()) {
        behaves_as_a_map_and_scans_all(crowded, stable, steps);
    }

    #[test]
    fn any_cursor_leads_to_the_end(records in 0..900u64, cursor in 0..1u64 << CURSOR_BITS) {
        let mut table = Table::new();
        (0..records).for_each(|number| add(&mut table, spread, number));
        let mut cursor = cursor;
        for _ in 0..=records {
            let next = table.scan(cursor, |_| {});
            if next == 0 {
                return Ok(());
            }
            prop_assert!(next > cursor);
            cursor = next;
        }
        prop_assert!(false, "the scan does not end");
    }
}

#[test]
fn large_tables_grow_and_shrink() {
    let mut pair = Pair::new(spread);
    (0..20_000).for_each(|number| pair.add(number));
    pair.check();
    assert!((0..20_000).all(|number| find(&pair.table, spread, number).is_some()));
    (0..19_900).for_each(|number| pair.remove(number));
    pair.check();
    (19_900..20_000).for_each(|number| pair.remove(number));
    assert!(pair.table.allocated() <= 64, "an empty table keeps {} bytes", pair.table.allocated());
}

#[test]
fn an_entry_costs_less_than_fifteen_bytes_of_index() {
    for records in [61u64, 500, 610, 5_000, 100_000, 150_000] {
        // Many tables of a size, since one has luck with its chains.
        let tables = 200_000 / records;
        let bytes: usize = (0..tables).map(|n| index_size(n << 32, records)).sum();
        let each = bytes as f64 / (tables * records) as f64;
        println!("{records} records: {each:.2} bytes each");
        assert!(each < 15.0, "{each:.2} bytes for each of {records} records");
    }
}

fn index_size(first: u64, records: u64) -> usize {
    let mut table = Table::<u64>::new();
    for number in first..first + records {
        table.insert(spread(number), number, |record| spread(*record));
    }
    table.allocated()
}

#[test]
fn random_reaches_every_record() {
    let mut table = Table::new();
    (0..100).for_each(|number| add(&mut table, spread, number));
    let mut random = crate::random::Random::new(1);
    let reached: BTreeSet<u64> =
        (0..20_000).filter_map(|_| table.random(random.next()).map(|record| **record)).collect();
    assert_eq!(reached.len(), 100);
    assert!(Table::<u64>::new().random(3).is_none());
}

/// Pearson's test (K. Pearson, 1900): with so many degrees of freedom the statistic is nearly normal, with a variance of twice them.
#[test]
fn random_is_fair() {
    for records in [1u64, 2, 10, 13, 14, 100, 1_000] {
        let mut table = Table::new();
        (0..records).for_each(|number| add(&mut table, spread, number));
        let mut random = crate::random::Random::new(records);
        let expected = 200.0;
        let mut picked = vec![0.0; records as usize];
        for _ in 0..records * expected as u64 {
            picked[table.random(random.next()).map_or(0, |record| **record as usize)] += 1.0;
        }
        let statistic: f64 = picked.iter().map(|times| (times - expected) * (times - expected) / expected).sum();
        let freedom = (records - 1) as f64;
        assert!(statistic <= freedom + 5.0 * (2.0 * freedom).sqrt(), "{statistic} for {records} records");
    }
}
