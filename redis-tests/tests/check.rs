//! `forebay check` and change feeds: what it prints for an administrator, and that running it is enough.

use std::process::Command;
use std::time::Duration;

use forebay_redis_tests::connection::Connection;
use forebay_redis_tests::database::Database;
use forebay_redis_tests::process::eventually;
use forebay_redis_tests::reply::Reply;
use forebay_redis_tests::server::{Forebay, ForebayOptions, forebay_binary};

/// How long a node may take to say what is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

const TABLES: &str = "
    CREATE ROLE feed LOGIN;
    CREATE TABLE products (id bigint PRIMARY KEY, name text, price numeric);
    CREATE TABLE prices (id bigint PRIMARY KEY, product_id bigint);
    CREATE TABLE keyless (id bigint);
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO feed;
";

struct Checked {
    is_right: bool,
    sql: String,
    complaints: String,
}

/// Groups of which one reads products, by these tables.
fn groups(invalidated_by: &str, feed: &str) -> String {
    format!(
        "[[group]]\nname = 'product'\nkey = 'product:{{id}}'\nload = 'SELECT name FROM products WHERE id = $1'\nas = 'string'\n\
         invalidated_by = [{invalidated_by}]\nfeed = '{feed}'\n"
    )
}

fn check(url: &str, groups: &str) -> Checked {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("groups.toml");
    std::fs::write(&file, groups).expect("a file");
    let mut command = Command::new(forebay_binary());
    let command = command.args(["check", "--origin", url, "--groups"]).arg(&file);
    let output = command.output().expect("forebay runs");
    Checked {
        is_right: output.status.success(),
        sql: String::from_utf8(output.stdout).expect("text"),
        complaints: String::from_utf8(output.stderr).expect("text"),
    }
}

fn as_feed(database: &Database) -> String {
    database.url().replace("postgres@", "feed@")
}

/// The lines of a script that do something.
fn statements(sql: &str) -> Vec<&str> {
    sql.lines().filter(|line| !line.starts_with("--") && !line.is_empty()).collect()
}

#[test]
fn who_may_do_nothing_is_told_the_sql_and_once_it_was_run_nothing_is_missing() {
    let database = Database::start(TABLES);
    let groups = groups("'products(id)'", "wal");
    let checked = check(&as_feed(&database), &groups);
    assert!(!checked.is_right);
    for words in [
        "error: feed: there is no publication forebay, and \"feed\" does not own public.products",
        "let the owner of the tables, or a superuser, run: CREATE PUBLICATION forebay FOR TABLE public.products",
        "error: feed: \"feed\" may not replicate, and so neither make a slot nor read from it",
        "2 faults in the configuration",
    ] {
        assert!(checked.complaints.contains(words), "{words} is missing in {}", checked.complaints);
    }
    let sql = statements(&checked.sql);
    assert_eq!(sql.len(), 2, "{}", checked.sql);
    assert_eq!(sql[1], "ALTER ROLE feed REPLICATION;");
    database.sql(&sql.join("\n"));
    let checked = check(&as_feed(&database), &groups);
    assert!(checked.is_right, "{}", checked.complaints);
    assert!(checked.sql.contains("-- done: CREATE PUBLICATION") && checked.sql.contains("-- done: ALTER ROLE feed"));
    assert!(checked.sql.ends_with("ok: the origin answers, and 1 group is prepared\n"), "{}", checked.sql);
    // The superuser needs nobody, and is told what would be made.
    database.sql("DROP PUBLICATION forebay");
    let checked = check(&database.url(), &groups);
    assert!(checked.is_right && checked.complaints.is_empty(), "{}", checked.complaints);
    assert!(checked.sql.contains("\nCREATE PUBLICATION forebay FOR TABLE public.products WITH"), "{}", checked.sql);
}

#[test]
fn a_publication_that_tells_of_too_little_is_named_with_what_it_lacks() {
    let database = Database::start(TABLES);
    database.sql("ALTER ROLE feed REPLICATION");
    let groups = groups("'products(id)', 'prices(product_id)'", "wal");
    for (publication, problem, statement) in [
        (
            "FOR TABLE products",
            "the publication forebay has no table public.prices",
            "ALTER PUBLICATION forebay ADD TABLE public.prices;",
        ),
        (
            "FOR TABLE products WHERE (id > 5), prices",
            "the publication forebay has only some rows or columns of public.products",
            "ALTER PUBLICATION forebay DROP TABLE public.products;",
        ),
        (
            "FOR TABLE products (id), prices",
            "the publication forebay has only some rows or columns of public.products",
            "ALTER PUBLICATION forebay ADD TABLE public.products;",
        ),
        (
            "FOR TABLE products, prices WITH (publish = 'insert, update')",
            "the publication forebay does not tell of each delete, truncate",
            "ALTER PUBLICATION forebay SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true);",
        ),
    ] {
        database.sql(&format!("DROP PUBLICATION IF EXISTS forebay; CREATE PUBLICATION forebay {publication}"));
        let checked = check(&as_feed(&database), &groups);
        assert!(!checked.is_right && checked.complaints.contains(problem), "{publication}: {}", checked.complaints);
        assert!(checked.sql.lines().any(|line| line == statement), "{publication}: {}", checked.sql);
        database.sql(&statements(&checked.sql).join("\n"));
        let checked = check(&as_feed(&database), &groups);
        assert!(checked.is_right, "{publication}: {}", checked.complaints);
        // What only costs loads is no fault.
        let warning = "warning: group \"product\".invalidated_by: old rows of `public.prices` come without the column `product_id`";
        assert!(checked.complaints.contains(warning), "{}", checked.complaints);
    }
}

#[test]
fn tables_that_cannot_be_followed_are_told_with_their_place() {
    let database = Database::start(TABLES);
    for (tables, problem, hint) in [
        ("'keyless(id)'", "`public.keyless` has no key", "ALTER TABLE public.keyless REPLICA IDENTITY FULL"),
        ("'nowhere(id)'", "there is no table `nowhere`", "search path"),
        ("'products(idd)'", "`products` has no column `idd`", "did you mean `id`?"),
    ] {
        let checked = check(&database.url(), &groups(tables, "wal"));
        assert!(!checked.is_right, "{tables}");
        assert!(checked.complaints.contains("groups.toml:6:18: error: group \"product\".invalidated_by: "));
        assert!(checked.complaints.contains(problem) && checked.complaints.contains(hint), "{}", checked.complaints);
    }
}

#[test]
fn a_server_without_a_free_slot_is_told_with_what_to_do() {
    let database = Database::start(TABLES);
    take_all_slots(&database);
    let checked = check(&database.url(), &groups("'products(id)'", "wal"));
    let problem = "error: feed: all replication slots of the server are taken: ";
    assert!(!checked.is_right && checked.complaints.contains(problem), "{}", checked.complaints);
    assert!(checked.complaints.contains("ALTER SYSTEM SET max_replication_slots = "), "{}", checked.complaints);
}

/// A node does not wait for its feed: it says what is missing, and goes on as soon as that is there.
#[test]
fn a_node_whose_slot_cannot_be_made_says_so_and_makes_it_when_it_can() {
    let database = Database::start(TABLES);
    database.sql("INSERT INTO products VALUES (1, 'one', 1)");
    take_all_slots(&database);
    let options = ForebayOptions::in_front_of(&database.url(), &groups("'products(id)'", "wal"));
    let server = Forebay::start(options).unwrap_or_else(|error| panic!("{error}"));
    let mut client = server.connect();
    let mut said = String::new();
    let says = |client: &mut Connection, said: &mut String| {
        let told =
            ["feed_wal_fault", "feed_wal_last_error"].map(|field| client.info("forebay", field).unwrap_or_default());
        *said = told.join(" ");
        said.contains("max_replication_slots")
    };
    assert!(eventually(PATIENCE, || says(&mut client, &mut said)), "nothing is said of slots: {said}");
    println!("{said}");
    assert_eq!(client.command("GET product:1"), Reply::bulk("one"), "it answers all the same");
    database.sql("SELECT pg_drop_replication_slot('taken_1')");
    server.await_feed("wal");
    database.sql("UPDATE products SET name = 'two' WHERE id = 1");
    client.await_reply("GET product:1", &Reply::bulk("two"));
}

fn take_all_slots(database: &Database) {
    database.sql(
        "SELECT pg_create_physical_replication_slot('taken_' || n) \
         FROM generate_series(1, current_setting('max_replication_slots')::int) n",
    );
}

#[test]
fn a_query_for_many_keys_that_does_not_fit_is_told_with_its_place() {
    let database = Database::start(TABLES);
    let file = |many: &str| {
        format!(
            "[[group]]\nname = 'product'\nkey = 'product:{{id}}'\nload = 'SELECT name FROM products WHERE id = $1'\n\
             load_many = '{many}'\nas = 'string'\n"
        )
    };
    for (many, problem, hint) in [
        (
            "SELECT name FROM products WHERE id = ANY($1)",
            "it gives no column \"id\", which would tell whose row it is",
            "AS \"id\"",
        ),
        ("SELECT id, name FROM products WHERE id = $1", "$1 is of the type int8, and no array", "ANY($1)"),
        (
            "SELECT id, name FROM products WHERE id = ANY($1) AND price = $2",
            "it uses $2, but there is only $1",
            "captures",
        ),
        ("SELECT id, name FROM products", "it does not use $1, which `load` uses", "ANY($1)"),
        ("SELECT id, nome AS name FROM products WHERE id = ANY($1)", "column \"nome\" does not exist", ""),
    ] {
        let checked = check(&database.url(), &file(many));
        assert!(!checked.is_right, "{many}");
        let place = "groups.toml:5:13: error: group \"product\".load_many: ";
        assert!(checked.complaints.contains(place), "{}", checked.complaints);
        assert!(checked.complaints.contains(problem) && checked.complaints.contains(hint), "{}", checked.complaints);
    }
    let checked = check(&database.url(), &file("SELECT id, name FROM products WHERE id = ANY($1)"));
    assert!(checked.is_right, "{}", checked.complaints);
}

#[test]
fn triggers_are_printed_for_who_may_make_them() {
    let database = Database::start(TABLES);
    let groups = groups("'products(id)'", "notify");
    let checked = check(&as_feed(&database), &groups);
    let problem = "error: feed: public.products has no triggers that tell of its rows, and \"feed\" does not own it";
    assert!(!checked.is_right && checked.complaints.contains(problem), "{}", checked.complaints);
    database.sql(&checked.sql);
    let checked = check(&as_feed(&database), &groups);
    assert!(
        checked.is_right && checked.sql.contains("-- done: the triggers of public.products"),
        "{}",
        checked.complaints
    );
}

#[test]
fn sqlite_has_no_feeds() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite://{}?mode=rwc", directory.path().join("shop.db").display());
    let checked = check(&url, &groups("'products(id)'", "wal"));
    assert!(
        !checked.is_right && checked.complaints.contains("SQLite tells nobody of changes"),
        "{}",
        checked.complaints
    );
}

/// What a node would read at its start, and end.
#[test]
fn files_and_seeds_that_a_node_could_not_use_are_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("empty.pem");
    std::fs::write(&file, "").expect("a file");
    let file = file.display().to_string();
    let flags = ["--tls-cert", "--tls-key", "--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca"];
    let told = run(Command::new(forebay_binary()).arg("check").args(flags.into_iter().flat_map(|flag| [flag, &file])));
    assert!(told.contains("error: --tls-cert:") && told.contains("error: --tls-key:"), "{told}");
    assert!(told.contains("error: --peer-tls-cert") && told.contains("3 faults"), "{told}");
    for wrong in [["--weight", "1000"], ["--advertise", "a:8001"], ["--discover", "nowhere"]] {
        let told = run(Command::new(forebay_binary()).arg("check").args(wrong));
        assert!(told.contains(&format!("error: {}:", wrong[0])), "{told}");
    }
    let told = run(Command::new(forebay_binary()).args(["check", "--peer-port", "off", "--join", "a:8001"]));
    assert!(told.contains("error: --join: --peer-port is off"), "{told}");
}

/// As behind `head`.
#[test]
fn who_reads_no_more_is_not_complained_to() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(forebay_binary()).arg("check").stdout(writer).output().expect("forebay runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a command that fails complains of.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("forebay runs");
    assert!(!output.status.success(), "{command:?} finds nothing");
    String::from_utf8(output.stderr).expect("text")
}
