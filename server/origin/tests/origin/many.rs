//! A group's own query for many keys.

use std::time::Duration;

use bytes::Bytes;
use forebay_origin::{GroupConfig, LoadError, Loaded, Origin, OriginConfig, Value, check, parse_groups};
use futures_util::future::join_all;

use crate::shop::{self, calls, group, load, text};
use crate::snapshots;

/// Wide enough for a test's misses to arrive together, however busy the machine is.
const WINDOW: Duration = Duration::from_millis(100);

fn with_many(mut group: GroupConfig, many: &str) -> GroupConfig {
    group.load_many = Some(many.to_owned());
    group
}

async fn load_together(origin: &Origin, keys: &[&str]) -> Vec<Result<Loaded, LoadError>> {
    let group = |key: &str| origin.group_of(key.as_bytes()).expect("a group has the key");
    let keys = keys.iter().map(|key| (group(key), Bytes::copy_from_slice(key.as_bytes())));
    join_all(origin.begin(keys).into_iter().map(forebay_origin::PendingLoad::result)).await
}

fn values(loaded: Vec<Result<Loaded, LoadError>>) -> Vec<Option<Value>> {
    loaded.into_iter().map(|loaded| loaded.expect("the key can be loaded").value).collect()
}

#[tokio::test]
async fn both_queries_give_the_same_for_a_row_whatever_tells_whose_it_is() {
    let postgres = shop::postgres().await;
    let columns = [
        ("u", "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"),
        ("t", "é:x", "x"),
        ("s", "-3", "3"),
        ("i", "70000", "7"),
        ("b", "true", "false"),
        ("n", "1.50", "2"),
        ("n", "1.5", "15"),
        ("f", "2.5", "25e-1"),
        ("d", "2024-02-29", "2024-03-01"),
        ("ts", "2024-01-01T02:00:00+02", "2024-01-01 00:00:01Z"),
        ("y", "raw", "cooked"),
        ("m", "so so", "no label"),
        ("c", "ab", "abc"),
        ("v", "cd", "c"),
        ("g", "ef", "e"),
        ("r", "0.5", "5"),
        ("l", "2024-01-01 12:00:00", "2024-01-01 12:00:01"),
    ];
    let fields = "u, t, s, i, b, n, f, d, ts, m, c, v, g, r, l";
    let groups = columns.iter().zip(1..).flat_map(|((column, ..), number)| {
        ["hash", "json"].map(|shape| {
            let one = format!("SELECT {fields} FROM things WHERE {column} = $1");
            let many = format!("SELECT /* many */ {column} AS key_part, {fields} FROM things WHERE {column} = ANY($1)");
            with_many(group(&format!("{shape}{number}"), &format!("{shape}{number}:{{key_part*}}"), &one, shape), &many)
        })
    });
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, groups.collect()).await;
    for ((_, there, other), number) in columns.iter().zip(1..) {
        for shape in ["hash", "json"] {
            let [there, other] = [there, other].map(|part| format!("{shape}{number}:{part}"));
            let alone = [load(&origin, &there).await, load(&origin, &other).await];
            let before = calls(&postgres, "/* many */").await;
            let together = load_together(&origin, &[&there, &other]).await;
            assert_eq!(calls(&postgres, "/* many */").await, before + 1, "{there}");
            let [alone, together] = [values(alone.into()), values(together)];
            assert!(alone[0].is_some(), "{there}");
            assert_eq!(alone, together, "{there}");
        }
    }
    origin.close().await;
}

#[tokio::test]
async fn a_capture_is_part_of_the_value_if_load_has_it() {
    let postgres = shop::postgres().await;
    let all = "SELECT * FROM products WHERE id = ANY($1)";
    let groups = vec![
        with_many(shop::names(), "SELECT id, name FROM products WHERE id = ANY($1)"),
        with_many(
            group("id", "id:{id}", "SELECT id FROM products WHERE id = $1", "string"),
            "SELECT unnest($1::bigint[]) AS id",
        ),
        with_many(
            group("doc", "doc:{id}", "SELECT doc FROM products WHERE id = $1", "json"),
            "SELECT doc, id FROM products WHERE id = ANY($1)",
        ),
        with_many(
            group("row", "row:{id}", "SELECT id, name, price, sold, added, doc FROM products WHERE id = $1", "json"),
            // In another order, and with rows that nobody has asked for.
            "SELECT added, doc, name, price, sold, id FROM products WHERE id = ANY($1) OR id < 100",
        ),
        with_many(
            group("pair", "pair:{sold}:{id}", "SELECT name, sold FROM products WHERE id = $2 AND sold = $1", "hash"),
            "SELECT p.* FROM (SELECT id, sold, name FROM products) p JOIN unnest($1::bool[], $2::bigint[]) AS k(sold, id) USING (sold, id)",
        ),
        with_many(
            group("wide", "wide:{id}", "SELECT name, picture FROM products WHERE id = $1", "hash"),
            &all.replace('*', "id, name, picture"),
        ),
    ];
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, groups).await;
    let keys = [
        "name:7",
        "name:8",
        "name:9999",
        "id:5",
        "id:6",
        "doc:7",
        "doc:8",
        "row:1",
        "row:200",
        "row:9999",
        "pair:true:2",
        "pair:false:2",
        "pair:false:3",
        "wide:7",
        "wide:8",
        "name:abc",
    ];
    let together = load_together(&origin, &keys).await;
    let snapshots: Vec<bool> = together.iter().flatten().map(|loaded| loaded.snapshot.is_some()).collect();
    assert_eq!(snapshots, [vec![true; 15], vec![false]].concat(), "all but what nobody was asked for");
    let together = values(together);
    for (key, together) in keys.iter().zip(&together) {
        assert_eq!(load(&origin, key).await.expect("the key can be loaded").value, *together, "{key}");
    }
    let there: Vec<bool> = together.iter().map(Option::is_some).collect();
    let expected =
        [false, true, false, true, true, true, false, true, true, false, true, false, true, true, true, false];
    assert_eq!(there, expected);
    for status in origin.status().groups {
        assert_eq!(status.batched, Some(true), "{}", status.name);
    }
    origin.close().await;
}

#[tokio::test]
async fn several_rows_of_a_key_and_a_key_that_fails_are_their_own_matter() {
    let postgres = shop::postgres().await;
    let groups = vec![
        with_many(
            group("note", "note:{author}", "SELECT line FROM notes WHERE author = $1", "string"),
            "SELECT author, line FROM notes WHERE author = ANY($1)",
        ),
        with_many(
            group("inet", "inet:{address*}", "SELECT host($1::text::inet) AS host", "string"),
            "SELECT address, host(address::inet) AS host FROM unnest($1::text[]) AS a(address)",
        ),
    ];
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, groups).await;
    let loaded = load_together(&origin, &["note:ann", "note:bob", "note:eve"]).await;
    assert!(matches!(&loaded[0], Err(LoadError::Shape { problem, .. }) if problem.contains("more than one row")));
    assert_eq!(loaded[1].clone().unwrap().value, Some(Value::String("1".into())));
    assert_eq!(loaded[2].clone().unwrap().value, None);
    let loaded = load_together(&origin, &["inet:10.0.0.1", "inet:bad", "inet:10.0.0.2"]).await;
    assert!(loaded[0].is_ok() && loaded[2].is_ok());
    assert!(matches!(&loaded[1], Err(LoadError::Query { .. })), "{:?}", loaded[1]);
    origin.close().await;
}

#[tokio::test]
async fn it_says_what_it_could_see() {
    let postgres = snapshots::postgres().await;
    let many = with_many(shop::names(), "SELECT id, name FROM products WHERE id = ANY($1)");
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![many]).await;
    let change = "UPDATE products SET name = 'new' WHERE id = 8";
    let xid = snapshots::begin(&postgres, "open", change).await;
    let before = load_together(&origin, &["name:8", "name:9", "name:9999"]).await;
    postgres.sql("postgres", "COMMIT PREPARED 'open'").await;
    let after = load_together(&origin, &["name:8", "name:9", "name:9999"]).await;
    let sees = |loaded: &Result<Loaded, LoadError>| loaded.clone().unwrap().snapshot.unwrap().sees(xid);
    assert!(!before.iter().any(sees) && after.iter().all(sees));
    assert_eq!(text(&origin, "name:8").await.as_deref(), Some("new"));
    origin.close().await;
}

#[tokio::test]
async fn what_does_not_fit_load_is_named() {
    let postgres = shop::postgres().await;
    let one = "SELECT name, price FROM products WHERE id = $1";
    let wrong = [
        ("SELECT name, price FROM products WHERE id = ANY($1)", "it gives no column \"id\""),
        ("SELECT id, name FROM products WHERE id = ANY($1)", "it gives no column \"price\", which `load` gives"),
        ("SELECT id, name, price, sold FROM products WHERE id = ANY($1)", "it gives the column \"sold\""),
        (
            "SELECT id, name, price::text FROM products WHERE id = ANY($1)",
            "\"price\" is of the type text, and numeric in `load`",
        ),
        ("SELECT id, name, price FROM products WHERE id = $1", "$1 is of the type int8, and no array"),
        (
            "SELECT id, name, price FROM products WHERE id = ANY($1::int[])",
            "$1 is an array of int4, and int8 in `load`",
        ),
        ("SELECT name AS id, name, price FROM products WHERE id = ANY($1)", "its rows cannot be matched with keys"),
        ("SELECT id, name, prize AS price FROM products WHERE id = ANY($1)", "column \"prize\" does not exist"),
        ("SELECT id, id, name, price FROM products WHERE id = ANY($1)", "two columns are called \"id\""),
    ];
    let groups: Vec<GroupConfig> = wrong
        .iter()
        .zip(1..)
        .map(|((many, _), number)| {
            with_many(group(&format!("g{number}"), &format!("g{number}:{{id}}"), one, "hash"), many)
        })
        .collect();
    let faults = check(shop::patient(&postgres), groups.clone()).await;
    assert_eq!(faults.len(), wrong.len(), "{faults:#?}");
    for ((fault, (many, words)), number) in faults.iter().zip(wrong).zip(1..) {
        assert_eq!(fault.place, format!("group \"g{number}\".load_many"));
        assert!(fault.problem.contains(words), "{many}: {fault}");
    }
    // Who has not checked is told, too.
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    let error = load(&origin, "g1:1").await.expect_err("the group cannot be used");
    assert!(error.to_string().contains("load_many: it gives no column \"id\""), "{error}");
    origin.close().await;
}

#[test]
fn what_shows_without_a_database_is_told_without_one() {
    let file = |key: &str, load: &str, many: &str| {
        format!("[[group]]\nname = 'g'\nkey = '{key}'\nas = 'string'\nload = '{load}'\nload_many = '{many}'\n")
    };
    for (key, load, many, words) in [
        ("a:{x}", "SELECT $1", "SELECT 1", "it does not use $1, which `load` uses"),
        ("a:{x}:{y}", "SELECT $1", "SELECT $1, $2", "it uses $2, which `load` does not use"),
        ("a:{x}", "SELECT $1", "SELECT $1, $2", "it uses $2, but there is only $1"),
        ("a", "SELECT 1", "SELECT 1", "`a` is one key, so there are never many to load"),
        ("a:{x}", "SELECT $1", "SELECT ''", "no statement can be read"),
    ] {
        let many = if many.ends_with("''") { many.replace("''", "\"") } else { many.to_owned() };
        let faults = parse_groups(&file(key, load, &many), "").expect_err("it is refused");
        let fault = faults.iter().find(|fault| fault.place == "group \"g\".load_many").expect("of that setting");
        assert!(fault.problem.contains(words) && fault.line == 6, "{fault}");
    }
    let text = file("a:{x}", "SELECT $1", "SELECT unnest($1) AS x");
    let group = &parse_groups(&text, "").expect("it is right")[0];
    let mut without = group.clone();
    without.load_many = None;
    assert!(!group.is_defined_as(&without) && group.fingerprint() != without.fingerprint());
}
