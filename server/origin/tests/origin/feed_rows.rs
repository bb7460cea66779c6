//! What Postgres sends of rows: old ones by each replica identity, large values, large transactions, subtransactions.

use forebay_origin::{AffectedKeys, MAX_KEYS_OF_CHANGE, MAX_KEYS_OF_TRANSACTION, Xid};

use crate::feed::{Shop, change, keys};

fn group_of(table: &str) -> String {
    format!("[[group]]\nname = 'g'\nkey = 'g:{{a}}'\nload = 'SELECT $1'\nas = 'string'\ninvalidated_by = ['{table}']\n")
}

#[tokio::test]
async fn each_replica_identity_tells_the_former_key_or_every_key() {
    for (identity, expected) in [
        ("FULL", [vec!["g:2"], vec!["g:3", "g:2"], vec!["g:3"]]),
        ("USING INDEX by_a", [vec!["g:2"], vec!["g:3", "g:2"], vec!["g:3"]]),
        // The old rows have the primary key only.
        ("DEFAULT", [vec!["g *"], vec!["g *"], vec!["g *"]]),
    ] {
        let shop = Shop::open_with(&group_of("items(a)")).await;
        shop.sql(
            "CREATE TABLE items (id int PRIMARY KEY, a int NOT NULL, text text); CREATE UNIQUE INDEX by_a ON items (a); \
             INSERT INTO items VALUES (1, 2)",
        )
        .await;
        shop.sql(&format!("ALTER TABLE items REPLICA IDENTITY {identity}")).await;
        let (mut feed, _) = shop.begun().await;
        let statements =
            ["UPDATE items SET text = 'x'", "UPDATE items SET a = 3, text = 'y'", "DELETE FROM items WHERE id = 1"];
        for (sql, expected) in statements.into_iter().zip(expected) {
            shop.sql(sql).await;
            assert_eq!(keys(&change(&mut feed).await), expected, "{identity}: {sql}");
        }
        feed.close().await;
    }
}

#[tokio::test]
async fn large_values_that_were_not_touched_still_tell_their_key() {
    let shop = Shop::open_with(&group_of("documents(name)")).await;
    // A value of incompressible text that is stored beside the row.
    shop.sql(
        "CREATE TABLE documents (id int PRIMARY KEY, name text, n int); ALTER TABLE documents ALTER name SET STORAGE EXTERNAL; \
         INSERT INTO documents VALUES (1, repeat('long', 2500), 1)",
    )
    .await;
    let long = format!("g:{}", "long".repeat(2500));
    for (identity, expected) in [("FULL", vec![long.clone()]), ("DEFAULT", vec!["g *".to_owned()])] {
        shop.sql(&format!("ALTER TABLE documents REPLICA IDENTITY {identity}")).await;
        let (mut feed, _) = shop.begun().await;
        shop.sql("UPDATE documents SET n = n + 1").await;
        assert_eq!(keys(&change(&mut feed).await), expected, "{identity}");
        feed.close().await;
    }
}

#[tokio::test]
async fn a_subtransaction_is_told_of_by_the_id_of_the_whole() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    // The row's own id is of the subtransaction, which no snapshot names.
    let told = shop
        .sql(
            "BEGIN; SAVEPOINT s; UPDATE products SET name = 'x' WHERE id = 1; RELEASE s; SELECT pg_current_xact_id(); COMMIT; \
             SELECT xmin FROM products WHERE id = 1",
        )
        .await;
    let ids: Vec<u64> = told.lines().map(|id| id.parse().unwrap()).collect();
    assert_ne!(ids[0], ids[1]);
    let told = change(&mut feed).await;
    assert_eq!((keys(&told), told.xid), (vec!["product:1".to_owned()], Some(Xid(ids[0]))));
    feed.close().await;
}

#[tokio::test]
async fn a_transaction_that_changes_too_much_ends_as_every_key() {
    let shop = Shop::open().await;
    let (mut feed, _) = shop.begun().await;
    let rows = 3 * MAX_KEYS_OF_TRANSACTION;
    shop.sql(&format!(
        "BEGIN; INSERT INTO notes VALUES ('ann', 7); INSERT INTO products (id) SELECT n FROM generate_series(10000, {}) n; \
         INSERT INTO notes VALUES ('ann', 8); COMMIT; INSERT INTO products (id) VALUES (9000)",
        9999 + rows
    ))
    .await;
    let (mut products, mut lines, mut parts) = (0, Vec::new(), 0);
    let mut is_whole = false;
    loop {
        let told = change(&mut feed).await;
        parts += 1;
        for affected in &told.affected {
            match &affected.keys {
                AffectedKeys::All => is_whole = true,
                AffectedKeys::These(keys) if &*affected.group == "product" => {
                    assert!(!is_whole, "every key was told of already");
                    products += keys.len();
                }
                AffectedKeys::These(keys) => lines.extend(keys.iter().cloned()),
            }
        }
        if told.position.is_some() {
            break;
        }
    }
    assert!(is_whole && products <= MAX_KEYS_OF_TRANSACTION, "{products}");
    assert!(parts <= MAX_KEYS_OF_TRANSACTION / MAX_KEYS_OF_CHANGE + 2, "{parts}");
    assert_eq!(lines, ["line:ann:7", "line:ann:8"], "other groups are told of as ever");
    assert_eq!(keys(&change(&mut feed).await), ["product:9000"], "and so are other transactions");
    feed.close().await;
}
