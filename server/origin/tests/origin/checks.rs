//! What `forebay check` finds.

use forebay_origin::{OriginConfig, check, parse_groups};

use crate::shop;

#[tokio::test]
async fn all_faults_of_all_groups_are_found_at_once_with_their_places() {
    let postgres = shop::postgres().await;
    let text = r#"
[[group]]
name = "right"
key = "right:{id}"
load = "SELECT * FROM products WHERE id = $1"
as = "hash"
save = "UPDATE products SET name = $2 WHERE id = $1"

[[group]]
name = "table"
key = "table:{id}"
load = "SELECT * FROM prodcts WHERE id = $1"
as = "json"

[[group]]
name = "column"
key = "column:{id}"
as = "string"
load = "SELECT nme FROM products WHERE id = $1"
remove = "DELETE FROM nowhere WHERE id = $1"

[[group]]
name = "wide"
key = "wide:{id}"
load = "SELECT id, name FROM products WHERE id = $1"
as = "string"

[[group]]
name = "address"
key = "address:{ip}"
load = "SELECT host($1::inet)"
as = "string"
"#;
    let groups = parse_groups(text, "groups.toml").unwrap();
    let faults = check(shop::patient(&postgres), groups.clone()).await;
    let found: Vec<(&str, usize, usize)> =
        faults.iter().map(|fault| (fault.place.as_str(), fault.line, fault.column)).collect();
    let expected = [
        ("group \"table\".load", 12, 8),
        ("group \"column\".load", 19, 8),
        ("group \"column\".remove", 20, 10),
        ("group \"wide\".load", 25, 8),
        ("group \"address\".load", 31, 8),
    ];
    assert_eq!(found, expected, "{faults:#?}");
    let text: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        text[1],
        "groups.toml:19:8: error: group \"column\".load: column \"nme\" does not exist\n  \
         hint: Perhaps you meant to reference the column \"products.name\"."
    );
    assert!(text[4].contains("$1 is of the type inet"), "{}", text[4]);

    let config = OriginConfig {
        url: "postgres://ann:secret@127.0.0.1:1/x".into(),
        replicas: vec![postgres.url("postgres")],
        ..shop::patient(&postgres)
    };
    let faults = check(config, groups[..2].to_vec()).await;
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(faults[0].problem.contains("ann@127.0.0.1:1") && !faults[0].problem.contains("secret"));
    assert!(faults[1].problem.contains("prodcts"));
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_refused_before_anybody_is_asked() {
    let groups = vec![shop::names(), shop::names()];
    let config = OriginConfig {
        replicas: vec!["sqlite://x.db".into(), "nonsense".into()],
        max_connections: 0,
        ..OriginConfig::new("mysql://x")
    };
    let faults = check(config.clone(), groups.clone()).await;
    let places: Vec<&str> = faults.iter().map(|fault| fault.place.as_str()).collect();
    let expected =
        ["origin.max_connections", "group \"name\".name", "group \"name\".key", "origin", "origin replica 2"];
    assert_eq!(places, expected);
    assert_eq!(forebay_origin::Origin::start(config, groups).await.unwrap_err(), faults);
}
