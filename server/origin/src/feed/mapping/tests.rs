use proptest::prelude::*;

use super::super::change::{Affected, AffectedKeys};
use super::*;
use crate::group::Shape;

const TEXT: u32 = 25;

/// A mapping of groups with these patterns, each invalidated by one table.
fn mapping(groups: &[(&str, &str)]) -> Mapping {
    let groups: Vec<GroupConfig> = groups
        .iter()
        .map(|(pattern, table)| {
            let mut group = GroupConfig::new(*pattern, KeyPattern::parse(pattern).unwrap(), "SELECT 1", Shape::String);
            group.invalidated_by = vec![table.parse().unwrap()];
            group
        })
        .collect();
    Mapping::of(&groups, Feed::Wal)
}

/// A table in the schema `public`; the columns of `identity` are the replica identity.
fn relation(name: &str, columns: &[&str], identity: &[&str]) -> Relation {
    let columns = columns.iter().map(|column| Column {
        name: (*column).to_owned(),
        type_oid: TEXT,
        in_identity: identity.contains(column),
    });
    Relation { schema: "public".into(), name: name.into(), columns: columns.collect() }
}

fn facts(relation: &Relation, spelling: Spelling) -> Facts {
    let mut facts = Facts::default();
    for column in &relation.columns {
        facts.insert(&relation.schema, &relation.name, &column.name, ColumnFact { type_oid: TEXT, spelling });
    }
    facts
}

fn bound(groups: &[(&str, &str)], relation: &Relation) -> BoundRelation {
    mapping(groups).bind(relation, &facts(relation, Spelling::Printed))
}

fn cells<'r>(values: &[Option<&'r str>]) -> Vec<Cell<'r>> {
    values.iter().map(|value| value.map_or(Cell::Null, |text| Cell::Text(text.as_bytes()))).collect()
}

/// The keys by group, or `*` for every one.
fn keys(affected: Vec<Affected>) -> Vec<String> {
    let in_words = |affected: Affected| match affected.keys {
        AffectedKeys::All => vec![format!("{} *", affected.group)],
        AffectedKeys::These(keys) => keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
    };
    affected.into_iter().flat_map(in_words).collect()
}

fn changed(bound: &BoundRelation, row: &RowChange<'_>) -> (Vec<String>, Mapped) {
    let mut gathered = Gathered::default();
    let mapped = bound.change(row, &mut gathered).unwrap();
    (keys(gathered.take()), mapped)
}

#[test]
fn composite_captures_are_taken_in_the_order_of_the_columns_that_are_named() {
    let lines = relation("lines", &["n", "order_id", "shop"], &["shop", "order_id"]);
    let bound = bound(&[("line:{shop}:{order}", "lines(shop, order_id)")], &lines);
    let new = cells(&[Some("1"), Some("77"), Some("eu")]);
    assert_eq!(changed(&bound, &RowChange::Insert { new: new.clone() }).0, ["line:eu:77"]);
    let old = OldRow { is_whole: false, cells: cells(&[None, Some("76"), Some("eu")]) };
    assert_eq!(changed(&bound, &RowChange::Update { old: Some(old.clone()), new }).0, ["line:eu:77", "line:eu:76"]);
    assert_eq!(changed(&bound, &RowChange::Delete { old }).0, ["line:eu:76"]);
}

#[test]
fn a_row_that_does_not_tell_its_former_key_means_every_key() {
    let prices = relation("prices", &["id", "product_id"], &["id"]);
    let bound = bound(&[("product:{id}", "prices(product_id)")], &prices);
    let new = cells(&[Some("1"), Some("5")]);
    assert_eq!(changed(&bound, &RowChange::Insert { new: new.clone() }).0, ["product:5"]);
    let (keys, mapped) = changed(&bound, &RowChange::Update { old: None, new });
    assert_eq!((keys, mapped.untold_keys), (vec!["product:{id} *".to_owned()], 1));
    let old = OldRow { is_whole: false, cells: cells(&[Some("1"), None]) };
    assert_eq!(changed(&bound, &RowChange::Delete { old }).0, ["product:{id} *"]);
    let old = OldRow { is_whole: true, cells: cells(&[Some("1"), Some("5")]) };
    assert_eq!(changed(&bound, &RowChange::Delete { old }).0, ["product:5"], "with REPLICA IDENTITY FULL it does");
    let unchanged = vec![Cell::Text(b"1"), Cell::Unchanged];
    assert_eq!(changed(&bound, &RowChange::Insert { new: unchanged.clone() }).0, ["product:{id} *"]);
    let old = OldRow { is_whole: true, cells: cells(&[Some("1"), Some("5")]) };
    assert_eq!(changed(&bound, &RowChange::Update { old: Some(old), new: unchanged }).0, ["product:5"]);
}

#[test]
fn what_is_null_is_in_no_key_and_what_no_key_can_hold_in_none_either() {
    let things = relation("things", &["a", "b"], &["a", "b"]);
    let bound = bound(&[("t:{a}:{b}", "things(a, b)")], &things);
    let (keys, mapped) = changed(&bound, &RowChange::Insert { new: cells(&[Some("1"), None]) });
    assert_eq!((keys.len(), mapped.null_keys), (0, 1));
    for (a, b) in [("", "1"), ("1", ""), ("1:2", "3"), ("1", "2:3")] {
        assert!(changed(&bound, &RowChange::Insert { new: cells(&[Some(a), Some(b)]) }).0.is_empty(), "{a} {b}");
    }
}

#[test]
fn values_stand_in_keys_as_captures_are_written() {
    let things = relation("things", &["v"], &["v"]);
    for (spelling, printed, expected) in [
        (Spelling::Printed, "42", "t:42"),
        (Spelling::Bool, "t", "t:true"),
        (Spelling::Bool, "f", "t:false"),
        (Spelling::Bytes, "\\x6162", "t:ab"),
        (Spelling::Bytes, "\\x616", "t:{v} *"),
        (Spelling::Bytes, "61", "t:{v} *"),
        (Spelling::Many, "1.50", "t:{v} *"),
    ] {
        let bound = mapping(&[("t:{v}", "things(v)")]).bind(&things, &facts(&things, spelling));
        assert_eq!(changed(&bound, &RowChange::Insert { new: cells(&[Some(printed)]) }).0, [expected]);
    }
    let mut retyped = things.clone();
    retyped.columns[0].type_oid += 1;
    let bound = mapping(&[("t:{v}", "things(v)")]).bind(&retyped, &facts(&things, Spelling::Printed));
    assert_eq!(changed(&bound, &RowChange::Insert { new: cells(&[Some("1")]) }).0, ["t:{v} *"], "the type has changed");
    for (name, is_enum, spelling) in [
        ("int8", false, Spelling::Whole),
        ("mood", true, Spelling::Printed),
        ("mood", false, Spelling::Many),
        ("numeric", false, Spelling::Many),
        ("timestamptz", false, Spelling::Many),
        ("bpchar", false, Spelling::Many),
    ] {
        assert_eq!(Spelling::of(name, is_enum), spelling, "{name}");
    }
}

#[test]
fn a_table_alone_a_lost_column_and_a_truncation_mean_every_key() {
    let scores = relation("scores", &["player"], &["player"]);
    let groups = [
        ("board:{n}", "scores"),
        ("score:{p}", "public.scores(player)"),
        ("x:{p}", "scores(lost)"),
        ("y:{p}", "other.scores(player)"),
    ];
    let bound = bound(&groups, &scores);
    assert_eq!(bound.groups(), ["board:{n}", "score:{p}", "x:{p}"]);
    let insert = RowChange::Insert { new: cells(&[Some("ann")]) };
    assert_eq!(changed(&bound, &insert).0, ["board:{n} *", "score:ann", "x:{p} *"]);
    let mut gathered = Gathered::default();
    bound.truncate(&mut gathered);
    assert_eq!(keys(gathered.take()), ["board:{n} *", "score:{p} *", "x:{p} *"]);
    assert!(mapping(&groups).bind(&relation("unknown", &["player"], &[]), &Facts::default()).is_unmapped());
    let wrong = bound.change(&RowChange::Insert { new: cells(&[]) }, &mut gathered);
    assert_eq!(wrong, Err(WrongWidth { found: 0, expected: 1 }));
}

/// What Postgres sends of an update or of a delete.
fn sent<'r>(old: &[Cell<'r>], new: Option<&[Cell<'r>]>, identity: Option<&[bool]>) -> RowChange<'r> {
    let is_whole = identity.is_none();
    let kept = |at: usize| identity.is_none_or(|identity| identity[at]);
    let told = old.iter().enumerate().map(|(at, cell)| if kept(at) { *cell } else { Cell::Null });
    let told = OldRow { is_whole, cells: told.collect() };
    match new {
        None => RowChange::Delete { old: told },
        Some(new) => {
            let has_changed = is_whole || (0..old.len()).any(|at| kept(at) && old[at] != new[at]);
            RowChange::Update { old: has_changed.then_some(told), new: new.to_vec() }
        }
    }
}

fn as_cells(row: &[Option<String>]) -> Vec<Cell<'_>> {
    row.iter().map(|value| value.as_ref().map_or(Cell::Null, |text| Cell::Text(text.as_bytes()))).collect()
}

fn row() -> impl Strategy<Value = Vec<Option<String>>> {
    prop::collection::vec(prop::option::weighted(0.9, "[ab:]{0,2}"), 3)
}

proptest! {
    #[test]
    fn whatever_postgres_sends_the_former_key_and_the_present_one_are_meant(
        before in row(),
        after in prop::option::of(row()),
        identity in prop::option::of(prop::array::uniform3(any::<bool>())),
        named in prop::sample::subsequence(vec!["a", "b", "c"], 1..=3).prop_shuffle(),
    ) {
        let columns = ["a", "b", "c"];
        let in_identity = |at: usize| identity.is_none_or(|identity| identity[at]);
        let identity_names: Vec<&str> = (0..3).filter(|at| in_identity(*at)).map(|at| columns[at]).collect();
        let relation = relation("t", &columns, &identity_names);
        let pattern = named.iter().fold("t".to_owned(), |pattern, name| format!("{pattern}:{{{name}}}"));
        let table = format!("t({})", named.join(","));
        let bound = bound(&[(&pattern, &table)], &relation);
        let old = as_cells(&before);
        let new = after.as_deref().map(as_cells);
        let (told, _) = changed(&bound, &sent(&old, new.as_deref(), identity.as_ref().map(|i| &i[..])));

        let key_of = |row: &[Option<String>]| {
            let parts: Option<Vec<&str>> =
                named.iter().map(|name| row[columns.iter().position(|c| c == name).unwrap()].as_deref()).collect();
            let parts = parts?;
            // Every capture but a {rest*} holds what is not empty and has no `:`.
            let fits = parts.iter().all(|part| !part.is_empty() && !part.contains(':'));
            fits.then(|| format!("t:{}", parts.join(":")))
        };
        let meant: Vec<String> = [Some(before.as_slice()), after.as_deref()].into_iter().flatten().filter_map(key_of).collect();
        if told == [format!("{pattern} *")] {
            let is_covered = named.iter().all(|name| identity_names.contains(name));
            prop_assert!(!is_covered, "with all columns in the identity there is no need for every key");
        } else {
            for key in &meant {
                prop_assert!(told.contains(key), "{key} is missing in {told:?}");
            }
            prop_assert!(told.iter().all(|key| meant.contains(key)), "{told:?} where {meant:?} are meant");
        }
    }
}
