//! What a groups file may say, and what is said about one that is wrong.

use std::time::Duration;

use forebay_origin::{Abilities, Feed, Refresh, Shape, WriteStrategy, parse_groups, parse_groups_for};
use proptest::prelude::*;

const WHOLE_FILE: &str = r#"
port = 6379

[origin]
url = "postgres://db/shop"

[[group]]
name           = "product"
key            = "product:{id}"
load           = "SELECT * FROM products WHERE id = $1"
as             = "json"
ttl            = "10m"
ttl_jitter     = 0.2
absent_ttl     = "0s"
refresh        = "early"
stale_if_error = "1h"
write          = "none"
save           = "INSERT INTO products (id, doc) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET doc = $2"
remove         = "DELETE FROM products WHERE id = $1"

[[group]]
name = "user"
key  = "user:{id}"
load = "SELECT * FROM users WHERE id = $1"
as   = "hash"
"#;

#[test]
fn every_setting_is_read_and_left_out_ones_have_their_defaults() {
    let groups = parse_groups(WHOLE_FILE, "forebay.toml").unwrap();
    let [product, user] = &groups[..] else { panic!("{groups:?}") };
    assert_eq!((product.name.as_str(), product.key.to_string().as_str()), ("product", "product:{id}"));
    assert_eq!((product.as_, product.refresh, product.write), (Shape::Json, Refresh::Early, WriteStrategy::None));
    assert_eq!((product.ttl, product.ttl_jitter), (Some(Duration::from_secs(600)), 0.2));
    assert_eq!((product.absent_ttl, product.stale_if_error), (None, Some(Duration::from_secs(3600))));
    assert!(product.save.is_some() && product.remove.is_some());
    assert_eq!((user.as_, user.refresh, user.ttl, user.ttl_jitter), (Shape::Hash, Refresh::Off, None, 0.1));
    assert_eq!((user.absent_ttl, user.stale_if_error), (Some(Duration::from_secs(30)), None));
    assert_eq!(parse_groups("port = 1", "x").unwrap().len(), 0);
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place() {
    let text = r#"
[[group]]
name = "a"
key = "a:{id"
lod = "SELECT 1"
as = "list"
ttl = "10 parsecs"
ttl_jitter = 2
refresh = "late"

[[group]]
name = "b"
key = "b:{id}"
load = "SELECT $2"
as = "string"
write = "through"
feed = "wal"
save = "UPDATE b SET v = $3"

[[group]]
name = "b"
key = "b:{x}"
load = "SELECT 1; SELECT $1"
as = "text"
ttl = 10

[[group]]
name = "c"
key = "c:{x}"
load = "SELECT 1"
as = "string"
"#;
    let abilities = Abilities { feeds: true, writes: false };
    let faults = parse_groups_for(text, "groups.toml", abilities).unwrap_err();
    let told: Vec<String> =
        faults.iter().map(|fault| format!("{}:{} {}", fault.line, fault.column, fault.place)).collect();
    let expected = [
        "2:1 group \"a\".load",
        "4:7 group \"a\".key",
        "5:1 group \"a\".lod",
        "6:6 group \"a\".as",
        "7:7 group \"a\".ttl",
        "8:14 group \"a\".ttl_jitter",
        "9:11 group \"a\".refresh",
        "14:8 group \"b\".load",
        "16:9 group \"b\".write",
        "17:8 group \"b\".feed",
        "18:8 group \"b\".save",
        "21:8 group \"b\".name",
        "22:7 group \"b\".key",
        "23:8 group \"b\".load",
        "24:6 group \"b\".as",
        "25:7 group \"b\".ttl",
        "30:8 group \"c\".load",
    ];
    assert_eq!(told, expected, "{faults:#?}");
    assert_eq!(faults[2].hint, "did you mean `load`?");
    assert!(faults[3].problem.contains("comes with the list, set and sorted set commands"));
    assert!(faults[7].problem.contains("it uses $2, but there is only $1"), "{}", faults[7]);
    assert!(faults[8].problem.contains("write = \"through\" is not available yet"));
    assert!(faults[13].problem.contains("more than one statement"), "{}", faults[13]);
}

#[test]
fn tables_that_cannot_invalidate_a_groups_keys_are_faults() {
    let with = |settings: &str| {
        let text =
            format!("[[group]]\nname = 'a'\nkey = 'a:{{x}}:{{y}}'\nload = 'SELECT $1, $2'\nas = 'hash'\n{settings}\n");
        parse_groups(&text, "g")
    };
    let group = with("invalidated_by = ['Friends(b, a)', 'scores']").unwrap().remove(0);
    assert_eq!(group.invalidated_by, ["friends(b,a)".parse().unwrap(), "scores".parse().unwrap()]);
    assert_eq!((group.feed, group.change_feed()), (None, Some(Feed::Wal)));
    for (settings, said) in [
        (
            "invalidated_by = ['friends(a)']",
            &[
                "g:6:18: error: group \"a\".invalidated_by: `friends(a)` is of 1 column, but `a:{x}:{y}` has 2 captures\n  \
                 hint: write a column for each of x, y, or \"friends\" alone: then any change invalidates every key of the group",
            ][..],
        ),
        (
            "invalidated_by = ['friends(a', 'friends(a, b)', 'friends(a, b)']",
            &["`friends(a`: the parenthesis is never closed", "`friends(a, b)` stands there twice"],
        ),
        ("invalidated_by = 'friends'", &["it is no list of tables"]),
        ("feed = 'notify'", &["there is nothing to be learnt from `notify` without `invalidated_by`"]),
        ("invalidated_by = ['scores']\nfeed = 'rumour'", &["`rumour` is no change feed"]),
    ] {
        let faults = with(settings).unwrap_err();
        assert_eq!(faults.len(), said.len(), "{settings}: {faults:#?}");
        for said in said {
            assert!(faults.iter().any(|fault| fault.to_string().contains(said)), "{settings}: {said}: {faults:#?}");
        }
    }
}

#[test]
fn groups_that_get_in_each_others_way_are_faults() {
    let text = r#"
[[group]]
name = "a"
key = "k:{rest*}"
load = "SELECT $1"
as = "string"

[[group]]
name = "a"
key = "k:{id}"
load = "SELECT $1"
as = "string"
"#;
    let faults = parse_groups(text, "groups.toml").unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert_eq!((faults[0].line, faults[1].line), (9, 10));
    assert!(faults[1].to_string().contains("group \"a\" with `k:{rest*}` comes first"), "{}", faults[1]);
}

#[test]
fn a_file_that_is_no_toml_says_where() {
    let faults = parse_groups("[[group]]\nname = \"x\nkey = 1\n", "groups.toml").unwrap_err();
    assert_eq!((faults[0].place.as_str(), faults[0].line), ("syntax", 2), "{faults:?}");
    let faults = parse_groups("group = 1\n", "groups.toml").unwrap_err();
    assert!(faults[0].problem.contains("no list of tables"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "(\\[\\[group\\]\\]\n|name|key|load|as|ttl| = |\"|\\{|\\}|\\$1|\n|1|é|\\[|\\]){0,30}") {
        let _ = parse_groups(&text, "any");
    }
}
