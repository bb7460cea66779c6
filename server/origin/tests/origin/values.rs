//! From captures to parameters, and from rows to values.

use forebay_origin::{LoadError, Value};

use crate::shop::{self, calls, fields, group, load, text};

#[tokio::test]
async fn a_capture_is_a_parameter_of_the_type_that_the_query_wants() {
    let postgres = shop::postgres().await;
    let cases = [
        ("u", "123e4567-e89b-12d3-a456-426614174000"),
        ("s", "-3"),
        ("i", "70000"),
        ("b", "true"),
        ("n", "1.50"),
        ("f", "2.5"),
        ("d", "2024-02-29"),
        ("ts", "2024-01-01T01:00:00+01"),
        ("l", "2024-01-01 12:00:00"),
        ("y", "raw"),
        ("m", "so so"),
        ("c", "ab"),
        ("v", "cd"),
        ("g", "ef"),
        ("r", "0.5"),
        ("t", "é:x"),
    ];
    let groups = cases.iter().map(|(column, _)| {
        let load = format!("SELECT i FROM things WHERE {column} = $1");
        group(column, &format!("{column}:{{value*}}"), &load, "string")
    });
    let origin = shop::origin(shop::patient(&postgres), groups.collect()).await;
    for (column, value) in cases {
        assert_eq!(text(&origin, format!("{column}:{value}")).await.as_deref(), Some("70000"), "{column}");
    }
    assert_eq!(text(&origin, "m:glum").await, None);
    assert_eq!(load(&origin, b"y:\xff\x00").await.unwrap().value, None);
    origin.close().await;
}

#[tokio::test]
async fn a_capture_that_can_be_no_parameter_is_absent_without_a_query() {
    let postgres = shop::postgres().await;
    let groups = vec![shop::names(), group("thing", "thing:{u}", "SELECT t FROM things WHERE u = $1", "string")];
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    for key in
        ["name:abc", "name:007", "name:99999999999999999999", "thing:x", "thing:123E4567-e89b-12d3-a456-426614174000"]
    {
        assert_eq!(text(&origin, key).await, None, "{key}");
    }
    assert_eq!(calls(&postgres, "FROM products").await + calls(&postgres, "FROM things").await, 0);
    assert_eq!(origin.status().groups[0].absent_unasked, 3);
    // A key that can be there is not taken for one of those.
    assert_eq!(text(&origin, "name:1").await.as_deref(), Some("product 1"));
    assert_eq!(calls(&postgres, "FROM products").await, 1);
    origin.close().await;
}

#[tokio::test]
async fn rows_become_strings_documents_and_hashes() {
    let postgres = shop::postgres().await;
    let groups = vec![
        shop::names(),
        group("picture", "picture:{id}", "SELECT picture FROM products WHERE id = $1", "string"),
        group("price", "price:{id}", "SELECT price FROM products WHERE id = $1", "string"),
        group("row", "row:{id}", "SELECT id, name, price, sold FROM products WHERE id = $1", "json"),
        group("doc", "doc:{id}", "SELECT doc FROM products WHERE id = $1", "json"),
        group("hash", "hash:{id}", "SELECT * FROM products WHERE id = $1", "hash"),
        group("all", "all", "SELECT count(*) FROM products", "string"),
        group("odd", "odd:{id}", "SELECT id AS \"a \"\"b\"\"\" FROM products WHERE id = $1 -- the end;", "hash"),
        group(
            "two",
            "two:{author}:{line}",
            "SELECT author || line FROM notes WHERE line = $2 AND author = $1",
            "string",
        ),
        group("second", "second:{ignored}:{line}", "SELECT max(author) FROM notes WHERE line = $2", "string"),
    ];
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    assert_eq!(text(&origin, "name:1").await.as_deref(), Some("product 1"));
    assert_eq!(text(&origin, "name:5000").await, None);
    assert_eq!(text(&origin, "name:7").await, None, "NULL is absent");
    assert_eq!(load(&origin, "picture:1").await.unwrap().value, Some(Value::String(b"\x00\xff"[..].into())));
    assert_eq!(text(&origin, "price:1").await.as_deref(), Some("1.50"));
    let row = r#"{"id":2,"name":"product 2","price":3.00,"sold":true}"#;
    assert_eq!(text(&origin, "row:2").await.as_deref(), Some(row));
    assert_eq!(text(&origin, "doc:7").await.as_deref(), Some(r#"{"a": [1, 2]}"#));
    assert_eq!(text(&origin, "doc:1").await, None);
    let product = fields(&origin, "hash:7").await;
    let product: Vec<(&str, &str)> = product.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    let expected = [
        ("id", "7"),
        ("price", "10.50"),
        ("sold", "false"),
        ("added", "2024-01-02 03:04:05"),
        ("picture", "\0\u{fffd}"),
        ("doc", r#"{"a": [1, 2]}"#),
    ];
    assert_eq!(product, expected);
    assert_eq!(text(&origin, "all").await.as_deref(), Some("2000"));
    assert_eq!(fields(&origin, "odd:3").await, [("a \"b\"".to_owned(), "3".to_owned())]);
    assert_eq!(text(&origin, "two:ann:2").await.as_deref(), Some("ann2"));
    assert_eq!(text(&origin, "second:anything:1").await.as_deref(), Some("bob"));
    origin.close().await;
}

#[tokio::test]
async fn rows_of_another_shape_are_errors_that_name_the_group() {
    let postgres = shop::postgres().await;
    let groups = vec![
        group("note", "note:{author}", "SELECT line FROM notes WHERE author = $1", "string"),
        group("wide", "wide:{id}", "SELECT id, name FROM products WHERE id = $1", "string"),
        group("blob", "blob:{id}", "SELECT id, picture FROM products WHERE id = $1", "json"),
        group("twice", "twice:{id}", "SELECT id, name AS id FROM products WHERE id = $1", "json"),
    ];
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    let (ann, bob) = tokio::join!(load(&origin, "note:ann"), load(&origin, "note:bob"));
    assert_eq!(ann.unwrap_err().reply(), "ORIGINERR group 'note': the query gave more than one row for one key");
    assert_eq!(bob.unwrap().value, Some(Value::String(b"1"[..].into())), "one key's fault is not the other's");
    for (key, words) in [("wide:1", "a string is one column"), ("blob:1", "picture"), ("twice:1", "two columns")] {
        let error = load(&origin, key).await.unwrap_err();
        assert!(matches!(&error, LoadError::Shape { .. }) && error.to_string().contains(words), "{error}");
    }
    origin.close().await;
}

#[tokio::test]
async fn a_changed_schema_is_followed() {
    let postgres = shop::postgres().await;
    let groups = vec![
        group("hash", "hash:{id}", "SELECT * FROM notes WHERE line = $1 AND author = 'bob'", "hash"),
        group("line", "line:{author}", "SELECT line FROM notes WHERE author = $1", "string"),
    ];
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    assert_eq!(fields(&origin, "hash:1").await.len(), 2);
    assert_eq!(text(&origin, "line:bob").await.as_deref(), Some("1"));
    postgres.sql("postgres", "ALTER TABLE notes RENAME COLUMN author TO writer").await;
    let error = load(&origin, "line:bob").await.unwrap_err();
    assert!(error.to_string().contains("group 'line'"), "{error}");
    postgres.sql("postgres", "ALTER TABLE notes RENAME COLUMN writer TO author").await;
    postgres.sql("postgres", "ALTER TABLE notes ALTER COLUMN line TYPE bytea USING line::text::bytea").await;
    assert_eq!(text(&origin, "line:bob").await.as_deref(), Some("1"));
    origin.close().await;
}
