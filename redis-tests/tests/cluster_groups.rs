//! Groups are replaced while a cluster runs: nobody is given what a former definition loaded, and mistakes change nothing.

use std::fs;
use std::thread;

use forebay_redis_tests::cluster::node::{Node, PATIENCE};
use forebay_redis_tests::cluster::nodes::{Cluster, ClusterOptions};
use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;

/// Rows of the only table.
const ROWS: usize = 300;

#[test]
fn what_a_former_definition_loaded_is_not_served_any_more() {
    let database = database();
    let mut cluster = start(&database);
    apply(&mut cluster, 0, &groups("old", "")).expect("the groups are right");
    await_version(&cluster, 1);
    let mut connection = cluster.nodes[0].connect();
    for n in 1..=ROWS {
        assert_eq!(connection.command(&format!("GET thing:{n}")), Reply::bulk(&format!("old {n}")));
    }
    assert_eq!(connection.command("GET thing:0"), Reply::NilBulk, "there is no such row");
    // A client's own value is nobody's definition.
    assert_eq!(connection.command("SET thing:5 mine"), Reply::ok());

    let told = apply(&mut cluster, 1, &groups("new", "")).expect("the groups are right");
    assert!(told.contains("changed  thing") && told.contains("version 2"), "{told}");
    await_version(&cluster, 2);
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for n in (1..=ROWS).filter(|n| *n != 5) {
            assert_eq!(connection.command(&format!("GET thing:{n}")), Reply::bulk(&format!("new {n}")), "at {node}");
        }
        assert_eq!(connection.command("GET thing:5"), Reply::bulk("mine"), "at {node}");
        assert_eq!(connection.command("GET thing:0"), Reply::NilBulk);
    }
    let names: Vec<String> = (1..=ROWS).map(|n| format!("thing:{n}")).collect();
    cluster.await_equal_copies(&names, PATIENCE);

    // Removed: its keys are keys like any other, and what it had loaded is gone.
    let told = apply(&mut cluster, 2, &groups("new", "").replace("thing:", "other:").replace("\"thing\"", "\"other\""))
        .expect("the groups are right");
    assert!(told.contains("new      other") && told.contains("removed  thing"), "{told}");
    await_version(&cluster, 3);
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for n in (1..=ROWS).filter(|n| *n != 5) {
            assert_eq!(connection.command(&format!("GET thing:{n}")), Reply::NilBulk, "at {node}");
        }
        assert_eq!(connection.command("GET other:7"), Reply::bulk("new 7"), "at {node}");
    }
    let is_tidy = || cluster.nodes[0].connect().command("DBSIZE") == Reply::Integer(2);
    assert!(eventually(PATIENCE, is_tidy), "entries are left: {}", cluster.nodes[0].connect().command("DBSIZE"));
}

/// A rule that is not part of the definition changes, and nothing has to be loaded again.
#[test]
fn what_is_defined_as_before_stays() {
    let database = database();
    let mut cluster = start(&database);
    apply(&mut cluster, 0, &groups("old", "")).expect("the groups are right");
    await_version(&cluster, 1);
    let mut connection = cluster.nodes[2].connect();
    for n in 1..=ROWS {
        assert_eq!(connection.command(&format!("GET thing:{n}")), Reply::bulk(&format!("old {n}")));
    }
    database.forget();
    apply(&mut cluster, 0, &groups("old", "ttl = \"1h\"")).expect("the groups are right");
    await_version(&cluster, 2);
    for n in 1..=ROWS {
        assert_eq!(connection.command(&format!("GET thing:{n}")), Reply::bulk(&format!("old {n}")));
    }
    assert_eq!(database.asked("FROM things"), 0, "something was loaded again");
    let again = apply(&mut cluster, 1, &groups("old", "ttl = \"60m\" # the same")).expect("the groups are right");
    assert!(again.contains("nothing differs") && again.contains("version 2"), "{again}");
}

/// The load is under way when the groups change: what it brings is too late for everybody who asks afterwards.
#[test]
fn a_load_that_is_under_way_does_not_outlive_its_definition() {
    let database = database();
    let mut cluster = start(&database);
    let slow = groups("old", "").replace("WHERE id = $1", "WHERE id = $1 AND (SELECT pg_sleep(1)) IS NOT NULL");
    apply(&mut cluster, 0, &slow).expect("the groups are right");
    await_version(&cluster, 1);
    let waiters: Vec<_> = (0..3)
        .map(|node| {
            let mut connection = cluster.nodes[node].connect();
            thread::spawn(move || connection.command("GET thing:7"))
        })
        .collect();
    database.await_asleep("pg_sleep");
    apply(&mut cluster, 0, &groups("new", "")).expect("the groups are right");
    await_version(&cluster, 2);
    for node in &cluster.nodes {
        assert_eq!(node.connect().command("GET thing:7"), Reply::bulk("new 7"), "at {node}");
    }
    for waiter in waiters {
        // They asked before the change.
        let reply = waiter.join().expect("no panic");
        assert!(reply == Reply::bulk("old 7") || reply == Reply::bulk("new 7"), "{reply}");
    }
    for node in &cluster.nodes {
        assert_eq!(node.connect().command("GET thing:7"), Reply::bulk("new 7"), "at {node}, afterwards");
    }
}

#[test]
fn a_node_that_joins_or_starts_again_uses_the_agreed_groups() {
    let database = database();
    let mut cluster = start(&database);
    let listed = cluster.forebay(0, &["groups", "list"]).expect("it answers");
    assert!(listed.contains("agreed on no groups") && listed.contains("own:{id}"), "{listed}");
    assert_eq!(cluster.nodes[0].connect().command("GET own:7"), Reply::bulk("own 7"));
    apply(&mut cluster, 0, &groups("agreed", "")).expect("the groups are right");
    let joined = cluster.add();
    cluster.await_settled();
    cluster.nodes[1].kill();
    cluster.nodes[1].restart();
    cluster.await_settled();
    await_version(&cluster, 1);
    for node in &cluster.nodes {
        assert_eq!(node.connect().command("GET thing:7"), Reply::bulk("agreed 7"), "at {node}");
        assert_eq!(node.connect().command("GET own:7"), Reply::NilBulk, "{node} uses the groups of its file");
    }
    assert!(cluster.nodes[1].output().contains("are not used any more"), "{}", cluster.nodes[1].output());
    let shown = cluster.forebay(joined, &["groups", "show", "thing"]).expect("it is there");
    assert!(shown.starts_with("[[group]]\nname = \"thing\"\nkey = \"thing:{id}\"\n"), "{shown}");
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    let mut database = database();
    let mut cluster = start(&database);
    apply(&mut cluster, 0, &groups("old", "")).expect("the groups are right");
    let refused = |cluster: &mut Cluster, text: &str, words: &[&str]| {
        let told = apply(cluster, 1, text).expect_err("it was taken");
        assert!(words.iter().all(|word| told.contains(word)), "{words:?} are not all in:\n{told}");
    };
    let two_faults = groups("new", "ttl = \"soon\"\nlod = 1");
    refused(&mut cluster, &two_faults, &["groups.toml:", "soon", "did you mean `load`", "2 faults"]);
    refused(&mut cluster, &groups("new", "").replace("FROM things", "FROM thngs"), &["group \"thing\".load", "thngs"]);
    refused(&mut cluster, "# nothing", &["no [[group]]", "--allow-empty"]);
    refused(&mut cluster, &"#".repeat((1 << 20) + 1), &["1048577 bytes", "1048576"]);
    let missing = cluster.forebay(0, &["groups", "apply", "/no/such/file"]).expect_err("there is none");
    assert!(missing.contains("/no/such/file cannot be read"), "{missing}");
    let unknown = cluster.forebay(0, &["groups", "show", "thinh"]).expect_err("there is none");
    assert!(unknown.contains("did you mean \"thing\""), "{unknown}");

    database.stop();
    refused(&mut cluster, &groups("new", ""), &["cannot be reached", "--unchecked"]);
    assert!(cluster.forebay(1, &["groups", "list"]).expect("it answers").contains("version 1,"));
    let file = write(&cluster, &groups("new", "").replace("FROM things", "FROM thngs"));
    cluster.forebay(1, &["groups", "apply", "--unchecked", &file]).expect("nobody has looked at its SQL");
    await_version(&cluster, 2);
    database.start_again();
    let fails = |node: &Node| matches!(node.connect().command("GET thing:8"), Reply::Error(text) if text.starts_with(b"ORIGINERR"));
    assert!(eventually(PATIENCE, || fails(&cluster.nodes[0])), "a bad query is not told");
    assert!(cluster.nodes.iter().all(Node::is_ready), "a group that fails is no reason to be taken out of service");

    cluster.nodes[2].kill();
    cluster.nodes[1].kill();
    refused_alone(&mut cluster);
    let nobody = cluster.forebay(2, &["groups", "list"]).expect_err("nobody listens");
    assert!(nobody.contains("--node names the peer port"), "{nobody}");
}

/// A node that is alone of three cannot have anything agreed on; nor does it know whether what it knows is still so.
fn refused_alone(cluster: &mut Cluster) {
    let same = groups("new", "").replace("FROM things", "FROM thngs");
    for text in [groups("new", ""), same] {
        let file = write(cluster, &text);
        let told = cluster.forebay(0, &["groups", "apply", "--unchecked", &file]);
        let told = told.expect_err("a minority has agreed on something");
        assert!(told.contains("leader") || told.contains("not known whether"), "{told}");
        assert!(told.contains("hint:"), "{told}");
    }
    let status = cluster.command(0, &["status"]).expect_err("a node that is cut off is healthy");
    assert!(status.starts_with("this node has no touch with its cluster: what follows may be old\n"), "{status}");
    assert!(status.contains(" up ") && status.contains("is cut off"), "{status}");
}

// ---- what all of them use -----------------------------------------------------------------------

fn database() -> Database {
    Database::start(&format!(
        "CREATE TABLE things (id int PRIMARY KEY); INSERT INTO things SELECT generate_series(1, {ROWS});"
    ))
}

/// Three nodes with a group in their own configurations.
fn start(database: &Database) -> Cluster {
    let own = groups("own", "").replace("thing:", "own:").replace("\"thing\"", "\"own\"");
    Cluster::start(ClusterOptions::default().in_front_of(&database.url(), &own))
}

/// One group whose values are `word` and the id.
fn groups(word: &str, more: &str) -> String {
    let load = format!("SELECT '{word} ' || id FROM things WHERE id = $1");
    format!("[[group]]\nname = \"thing\"\nkey = \"thing:{{id}}\"\nload = \"{load}\"\nas = \"string\"\n{more}\n")
}

fn apply(cluster: &mut Cluster, node: usize, text: &str) -> Result<String, String> {
    let file = write(cluster, text);
    cluster.forebay(node, &["groups", "apply", &file])
}

fn write(cluster: &Cluster, text: &str) -> String {
    let file = cluster.nodes[0].data().with_file_name("groups.toml");
    fs::write(&file, text).expect("the file is written");
    file.display().to_string()
}

/// Waits until all nodes use that version.
fn await_version(cluster: &Cluster, version: u64) {
    let line = format!("groups_version:{version}\r\n");
    let uses = |node: &Node| {
        let reply = node.connect().command("INFO forebay");
        reply.text().is_some_and(|text| String::from_utf8_lossy(text).contains(&line))
    };
    assert!(eventually(PATIENCE, || cluster.running().all(uses)), "not all nodes use version {version}");
}
