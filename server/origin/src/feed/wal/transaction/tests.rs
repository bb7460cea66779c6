use super::super::pgoutput::tests::written;
use super::*;
use crate::feed::change::{Affected, AffectedKeys, MAX_KEYS_OF_CHANGE};
use crate::feed::mapping::{Cell, Column, ColumnFact, Spelling};
use crate::group::{Feed, GroupConfig, Shape};
use crate::pattern::KeyPattern;

const EPOCH: u64 = 5 << 32;

/// Transactions of a table `products(id)` with the oid 1 that a group names, and of a table 2 that none does.
fn transactions() -> (Transactions, Arc<Board>) {
    let key = KeyPattern::parse("product:{id}").unwrap();
    let mut group = GroupConfig::new("product", key, "SELECT 1", Shape::String);
    group.invalidated_by = vec!["products(id)".parse().unwrap()];
    let mut facts = Facts::default();
    facts.insert("public", "products", "id", ColumnFact { type_oid: 20, spelling: Spelling::Printed });
    let board = Arc::new(Board::default());
    let mut transactions = Transactions::new(Arc::clone(&board), Xid(EPOCH + 1000));
    transactions.map(Mapping::of([&group], Feed::Wal), facts);
    for (oid, name) in [(1, "products"), (2, "others")] {
        let columns = vec![Column { name: "id".into(), type_oid: 20, in_identity: true }];
        let relation = Relation { schema: "public".into(), name: name.into(), columns };
        assert_eq!(transactions.take(&written(&Message::Relation { oid, relation })), Taken::Nothing);
    }
    (transactions, board)
}

fn begin(xid: u32) -> Vec<u8> {
    written(&Message::Begin { committed_micros: 1_000_000, xid })
}

fn insert(oid: u32, id: &str) -> Vec<u8> {
    written(&Message::Row { relation: oid, change: RowChange::Insert { new: vec![Cell::Text(id.as_bytes())] } })
}

fn commit(end: u64) -> Vec<u8> {
    written(&Message::Commit { end })
}

fn of_product(keys: AffectedKeys) -> Vec<Affected> {
    vec![Affected { group: "product".into(), keys }]
}

/// What comes of messages, in order; what comes to nothing is left out.
fn taken(transactions: &mut Transactions, messages: impl IntoIterator<Item = Vec<u8>>) -> Vec<Taken> {
    let taken = messages.into_iter().map(|message| transactions.take(&message));
    taken.filter(|taken| *taken != Taken::Nothing).collect()
}

#[test]
fn a_transaction_is_told_of_at_its_end_with_its_whole_id() {
    let (mut transactions, board) = transactions();
    assert_eq!(taken(&mut transactions, [begin(999), insert(1, "7"), insert(1, "8"), insert(1, "7")]), []);
    assert!(transactions.is_open());
    let told = taken(&mut transactions, [commit(50)]);
    let change = Change {
        xid: Some(Xid(EPOCH + 999)),
        committed_at: Some(SystemTime::UNIX_EPOCH + POSTGRES_EPOCH + Duration::from_secs(1)),
        affected: of_product(AffectedKeys::These(vec!["product:7".into(), "product:8".into()])),
        position: Some(Position::new(50)),
    };
    assert_eq!(told, [Taken::Change(change)]);
    assert!(!transactions.is_open());
    let counts = board.status().counts;
    assert_eq!((counts.transactions, counts.rows, counts.keys), (1, 3, 2));
}

#[test]
fn one_that_changes_no_key_is_passed() {
    let (mut transactions, board) = transactions();
    assert_eq!(taken(&mut transactions, [begin(1), insert(2, "7"), commit(60)]), [Taken::Passed(Position::new(60))]);
    assert_eq!(taken(&mut transactions, [begin(1), commit(61)]), [Taken::Passed(Position::new(61))]);
    assert_eq!(board.status().counts.unmapped, 1);
}

#[test]
fn a_large_one_comes_in_parts_of_which_the_last_can_be_confirmed() {
    let (mut transactions, _) = transactions();
    let rows = (0..2 * MAX_KEYS_OF_CHANGE).map(|id| insert(1, &id.to_string()));
    let told = taken(&mut transactions, std::iter::once(begin(5)).chain(rows).chain([commit(70)]));
    let parts: Vec<(usize, Option<Position>)> = told
        .iter()
        .map(|taken| match taken {
            Taken::Change(Change { xid: Some(Xid(xid)), affected, position, .. }) if *xid == EPOCH + 5 => {
                let keys = affected.iter().map(|affected| match &affected.keys {
                    AffectedKeys::These(keys) => keys.len(),
                    AffectedKeys::All => panic!("no row left its key untold"),
                });
                (keys.sum(), *position)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts, [(MAX_KEYS_OF_CHANGE, None), (MAX_KEYS_OF_CHANGE, None), (0, Some(Position::new(70)))]);
}

#[test]
fn what_cannot_be_read_counts_as_a_change_of_every_key() {
    let wide = RowChange::Insert { new: vec![Cell::Null, Cell::Null] };
    for poison in [vec![], b"I\0\0".to_vec(), insert(99, "1"), written(&Message::Row { relation: 1, change: wide })] {
        let (mut transactions, board) = transactions();
        let told = taken(&mut transactions, [begin(5), poison.clone(), insert(1, "1"), commit(80)]);
        assert_eq!(told.len(), 1, "{poison:?}");
        let Taken::Change(change) = &told[0] else { panic!("{told:?}") };
        assert_eq!((&change.affected, change.position), (&of_product(AffectedKeys::All), Some(Position::new(80))));
        assert_eq!(board.status().counts.unreadable, 1);
    }
    let (mut transactions, _) = transactions();
    let told = taken(&mut transactions, [b"B?".to_vec(), insert(1, "1"), commit(90)]);
    let all = Change {
        xid: None,
        committed_at: None,
        affected: of_product(AffectedKeys::All),
        position: Some(Position::new(90)),
    };
    assert_eq!(told, [Taken::Change(all)], "without its beginning a transaction has no id");
}

#[test]
fn a_truncation_is_every_key_and_other_groups_take_effect_at_once() {
    let (mut transactions, _) = transactions();
    let truncate = written(&Message::Truncate { relations: vec![1, 2] });
    let told = taken(&mut transactions, [begin(5), truncate.clone(), commit(1)]);
    assert!(
        matches!(&told[..], [Taken::Change(change)] if change.affected == of_product(AffectedKeys::All)),
        "{told:?}"
    );
    transactions.map(Mapping::default(), Facts::default());
    assert_eq!(
        taken(&mut transactions, [begin(5), truncate, insert(1, "1"), commit(2)]),
        [Taken::Passed(Position::new(2))]
    );
}
