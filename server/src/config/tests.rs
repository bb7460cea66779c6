//! The configuration as a whole: which source goes first, and what is told when something is wrong.

use std::ffi::OsString;
use std::io::Write;

use forebay_origin::KafkaTls;

use super::*;

fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let arguments = std::iter::once("forebay").chain(arguments.iter().copied()).map(OsString::from);
    let look_up = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
    Invocation::read(arguments, &look_up)
}

fn config(arguments: &[&str], environment: &[(&str, &str)]) -> Config {
    read(arguments, environment).expect("a right configuration").config
}

fn faults(arguments: &[&str], environment: &[(&str, &str)]) -> Vec<String> {
    match read(arguments, environment) {
        Err(ConfigError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("faults were expected, not {other:?}"),
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("a path in UTF-8")
}

#[test]
fn every_setting_has_a_default_that_is_right() {
    let config = config(&[], &[]);
    assert_eq!((config.doors.port, config.doors.direct_port), (6379, Some(6380)));
    assert_eq!((config.doors.http_port, config.doors.metrics_port), (Some(9999), Some(2112)));
    assert_eq!(config.grace, Duration::from_secs(30));
    assert_eq!(config.maxmemory_policy, EvictionPolicy::default());
    assert_eq!(config.maxclients, 10_000);
    assert!(config.origin.is_none() && config.requirepass.is_none());
}

#[test]
fn the_defaults_are_those_of_the_parts() {
    let config = config(&["--origin", "sqlite://x"], &[]).origin.expect("an origin");
    let default = OriginConfig::new("sqlite://x");
    assert_eq!(format!("{config:?}"), format!("{default:?}"));
}

#[test]
fn flag_then_environment_then_file_then_default() {
    let file = file("port = 1\nhttp_port = 1\nmetrics_port = 1\n");
    let environment = [("FOREBAY_CONFIG", path(&file)), ("FOREBAY_PORT", "2"), ("FOREBAY_HTTP_PORT", "2")];
    let doors = config(&["--port", "3"], &environment).doors;
    assert_eq!((doors.port, doors.http_port, doors.metrics_port, doors.direct_port), (3, Some(2), Some(1), Some(6380)));
}

#[test]
fn an_empty_variable_says_nothing() {
    let config = config(&[], &[("FOREBAY_PORT", ""), ("FOREBAY_REQUIREPASS", "")]);
    assert_eq!(config.doors.port, 6379);
    assert!(config.requirepass.is_none());
}

#[test]
fn what_repeats_comes_from_one_source_as_a_whole() {
    let file = file("origin = \"sqlite://a\"\norigin_replica = [\"sqlite://b\", \"sqlite://c\"]\n");
    let replicas = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments: Vec<_> = ["--config", path(&file)].iter().chain(arguments).copied().collect();
        config(&arguments, environment).origin.expect("an origin").replicas
    };
    assert_eq!(replicas(&[], &[]), ["sqlite://b", "sqlite://c"]);
    assert_eq!(replicas(&[], &[("FOREBAY_ORIGIN_REPLICA", "sqlite://d sqlite://e")]), ["sqlite://d", "sqlite://e"]);
    assert_eq!(replicas(&["--origin-replica", "sqlite://f"], &[("FOREBAY_ORIGIN_REPLICA", "x")]), ["sqlite://f"]);
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place() {
    let file = file("prot = 1\nmaxmemory = \"5 apples\"\n[[group]]\nname = \"a\"\nkey = \"a:{id}\"\nas = \"json\"\n");
    let told = faults(&["--config", path(&file), "--port", "x"], &[("FOREBAY_GRACE", "soon")]);
    let starts = [
        format!("{}:1:1: error: prot: there is no such setting", path(&file)),
        format!("{}:3:1: error: group \"a\".load: it is missing", path(&file)),
        "error: --port: `x` is no port".to_owned(),
        format!("{}:2:13: error: maxmemory: `5 apples` is no amount of memory", path(&file)),
        "error: FOREBAY_GRACE: `soon` is no length of time".to_owned(),
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for start in &starts {
        assert!(told.iter().any(|fault| fault.starts_with(start)), "{start} in {told:#?}");
    }
}

#[test]
fn a_near_key_is_suggested() {
    let file = file("http-port = 1\n");
    assert!(faults(&["--config", path(&file)], &[])[0].ends_with("did you mean `http_port`?"));
}

#[test]
fn broken_toml_is_told_with_its_place() {
    let file = file("port = 1\nport = \n");
    let told = faults(&["--config", path(&file)], &[]);
    assert!(told.iter().any(|fault| fault.contains(":2:")), "{told:#?}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let told = faults(
        &["--config", "/nowhere/forebay.toml", "--groups", "/nowhere/groups.toml", "--origin", "sqlite://x"],
        &[],
    );
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].contains("/nowhere/forebay.toml") && told[1].contains("--groups"));
}

#[test]
fn strangers_are_kept_out_unless_it_is_said() {
    assert!(faults(&["--bind", "0.0.0.0"], &[])[0].contains("--insecure"));
    assert!(faults(&["--bind", "::"], &[])[0].contains("neither a password nor TLS"));
    config(&["--bind", "0.0.0.0", "--insecure"], &[]);
    config(&["--bind", "0.0.0.0"], &[("FOREBAY_INSECURE", "true")]);
    config(&["--bind", "0.0.0.0"], &[("FOREBAY_REQUIREPASS", "secret")]);
    config(&["--bind", "::1"], &[]);
}

#[test]
fn a_password_keeps_nobody_from_the_ports_of_nodes() {
    let trusts = |arguments: &[&str]| {
        config(&[&["--bind", "10.0.0.5", "--requirepass", "x"], arguments].concat(), &[]).trusts_strangers()
    };
    assert!(trusts(&[]));
    assert!(!trusts(&["--insecure"]), "it was said that the network is trusted");
    assert!(!trusts(&["--peer-port", "off"]));
    assert!(!trusts(&["--peer-tls-cert", "c.pem", "--peer-tls-key", "k.pem", "--peer-tls-ca", "a.pem"]));
    assert!(!config(&[], &[]).trusts_strangers());
}

#[test]
fn what_others_are_told_is_a_host() {
    for right in ["node-1.internal", "forebay_1", "10.0.0.7", "::1", "[2001:db8::1]"] {
        assert_eq!(config(&["--advertise", right], &[]).identity.advertise.as_deref(), Some(right));
    }
    let long = "x".repeat(254);
    for wrong in ["", "node-1:8001", "10.0.0.7:8001", "[::1]:8001", "[10.0.0.7]", "two words", "0.0.0.0", "::", &long] {
        assert!(faults(&["--advertise", wrong], &[])[0].contains("without a port"), "{wrong}");
    }
}

#[test]
fn tls_needs_a_certificate_and_its_key() {
    assert!(faults(&["--tls-cert", "c.pem"], &[])[0].contains("--tls-key: it is missing"));
    assert!(faults(&["--tls-key", "k.pem"], &[])[0].contains("--tls-cert: it is missing"));
    assert!(faults(&["--tls-ca", "a.pem"], &[])[0].contains("--tls-cert: it is missing"));
    let tls = config(&["--bind", "0.0.0.0", "--tls-cert", "c.pem", "--tls-key", "k.pem"], &[]).tls.expect("TLS");
    assert_eq!((tls.cert, tls.ca), (PathBuf::from("c.pem"), None));
}

#[test]
fn nodes_are_found_by_a_source_that_is_understood() {
    let arguments = ["--discover", "dns:forebay.internal", "--bootstrap-expect", "3", "--join", "a:8001"];
    let config = config(&arguments, &[]);
    let found = config.part.member().expect("a peer port");
    assert_eq!(found.discover, Some("dns:forebay.internal".parse().expect("a source")));
    assert_eq!(found.join, ["a:8001"]);
    let frontend = read(&["frontend", "--discover", "dns:forebay.internal"], &[]).expect("right").config.part;
    assert!(matches!(frontend, Part::Frontend(FrontendConfig { peer_port: 8001, .. })), "{frontend:?}");
    let shared = [("FOREBAY_PEER_PORT", "9001")];
    let frontend = read(&["frontend", "--discover", "dns:forebay.internal"], &shared).expect("right").config.part;
    assert!(matches!(frontend, Part::Frontend(FrontendConfig { peer_port: 9001, .. })), "{frontend:?}");
    let told = faults(&["--dns-server", "ns.internal:53"], &[("FOREBAY_DISCOVER", "consul:forebay")]);
    assert!(told[0].contains("FOREBAY_DISCOVER: `consul:forebay` names no source of nodes"), "{told:#?}");
    assert!(told[1].contains("--dns-server: `ns.internal:53` is no IP address with a port"), "{told:#?}");
    for task in ["node", "check"] {
        let told = faults(&[task, "--discover", "dns:a", "--peer-port", "off"], &[]);
        assert!(told[0].contains("--discover: --peer-port is off"), "{task}: {told:#?}");
    }
}

/// What a node may have in its environment and file is no hindrance to what is run beside it.
#[test]
fn commands_to_a_cluster_read_where_it_is_and_nothing_of_nodes() {
    let file = file("threads = \"x\"\npeer_port = 9001\n[[group]]\nname = \"a\"\n");
    let environment = [
        ("FOREBAY_CONFIG", path(&file)),
        ("FOREBAY_BIND", "0.0.0.0"),
        ("FOREBAY_GROUPS", "/nowhere/groups.toml"),
        ("FOREBAY_BOOTSTRAP_EXPECT", "3"),
        ("FOREBAY_MAXMEMORY", "5 apples"),
        ("FOREBAY_TLS_CERT", "c.pem"),
        ("FOREBAY_LOG_LEVEL", "debug"),
    ];
    for arguments in [&["cluster", "status"][..], &["cluster", "drain", "1"], &["groups", "list"]] {
        let config = config(arguments, &environment);
        assert_eq!((config.node.as_str(), config.log.level), ("127.0.0.1:9001", tracing::Level::DEBUG));
    }
    let told = faults(&["cluster", "status"], &[("FOREBAY_PEER_TLS_CERT", "c.pem"), ("FOREBAY_NODE", "here")]);
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(matches!(read(&["cluster", "status", "--maxmemory", "1gb"], &[]), Err(ConfigError::CommandLine(_))));
}

#[test]
fn a_command_asks_the_node_that_is_named_or_that_of_this_machine() {
    let node = |arguments: &[&str], environment: &[(&str, &str)]| {
        config(&[&["cluster", "status"], arguments].concat(), environment).node
    };
    assert_eq!(node(&[], &[]), "127.0.0.1:8001");
    assert_eq!(node(&[], &[("FOREBAY_BIND", "10.0.0.5"), ("FOREBAY_PEER_PORT", "9001")]), "10.0.0.5:9001");
    assert_eq!(node(&[], &[("FOREBAY_BIND", "::")]), "[::1]:8001");
    for port in ["0", "off"] {
        assert_eq!(node(&[], &[("FOREBAY_PEER_PORT", port)]), "127.0.0.1:8001", "{port}");
    }
    let file = file("node = \"c:3\"\n");
    let configured = [("FOREBAY_CONFIG", path(&file)), ("FOREBAY_BIND", "nonsense")];
    assert_eq!(node(&[], &configured), "c:3");
    let named = [configured[0], ("FOREBAY_NODE", "b:2")];
    assert_eq!(node(&[], &named), "b:2");
    assert_eq!(node(&["--node", "a:1"], &named), "a:1");
    assert_eq!(config(&[], &named).node, "", "a node asks nobody");
}

#[test]
fn the_help_of_a_command_lists_what_means_something_there() {
    let help = |arguments: &[&str]| match read(arguments, &[]) {
        Err(ConfigError::CommandLine(help)) => help.to_string(),
        other => panic!("help was asked for: {other:?}"),
    };
    let status = help(&["cluster", "status", "--help"]);
    assert!(["--node", "--peer-tls-cert", "--log-level", "--config"].iter().all(|flag| status.contains(flag)));
    assert!(["--maxmemory", "--bind", "--origin", "--join"].iter().all(|flag| !status.contains(flag)), "{status}");
    assert!(!help(&["node", "--help"]).contains("--node "));
}

#[test]
fn certificates_between_nodes_come_together() {
    let all = ["--peer-tls-cert", "c.pem", "--peer-tls-key", "k.pem", "--peer-tls-ca", "a.pem"];
    assert_eq!(config(&all, &[]).peer_tls.expect("certificates").name, None);
    assert_eq!(faults(&all[..2], &[]).len(), 2);
    assert_eq!(faults(&["--peer-tls-name", "forebay.internal"], &[]).len(), 3);
}

/// The configuration takes what the cluster does.
#[test]
fn a_weight_has_the_limits_of_the_cluster() {
    let weight = |text: &str| config(&["--weight", text], &[]).part.member().expect("a peer port").weight;
    assert_eq!((weight("0.001"), weight("100")), (1, forebay_cluster::state::MAX_WEIGHT));
    for wrong in ["0", "100.1", "1000", "heavy"] {
        assert!(faults(&["--weight", wrong], &[])[0].contains("a number from 0.001 to 100;"), "{wrong}");
    }
}

#[test]
fn kubernetes_variables_are_recognised() {
    assert!(faults(&[], &[("FOREBAY_PORT", "tcp://10.0.0.1:6379")])[0].contains("enableServiceLinks"));
}

#[test]
fn groups_and_replicas_want_an_origin() {
    let groups = file("[[group]]\nname = \"a\"\nkey = \"a:{id}\"\nload = \"SELECT $1\"\nas = \"json\"\n");
    assert!(faults(&["--groups", path(&groups)], &[])[0].contains("nowhere to load them from"));
    assert!(faults(&["--origin-replica", "sqlite://x"], &[])[0].contains("--origin-replica"));
    let both = config(&["--groups", path(&groups), "--config", path(&groups), "--origin", "sqlite://x"], &[]);
    assert_eq!(both.groups.len(), 2, "both places count; that the names clash is the origin's to say");
}

#[test]
fn a_password_in_an_url_is_not_repeated() {
    let told = faults(&["--origin", "mysql://user:hunter2@host/db"], &[]);
    assert!(!told[0].contains("hunter2"), "{told:#?}");
}

#[test]
fn tasks_and_their_flags() {
    assert_eq!(read(&[], &[]).expect("right").task, Task::Node);
    assert_eq!(read(&["node", "--port", "1"], &[]).expect("right").config.doors.port, 1);
    assert_eq!(read(&["check"], &[("FOREBAY_PORT", "1")]).expect("right").task, Task::Check);
    let demo = read(&["demo", "--seconds", "3", "--load"], &[]).expect("right");
    assert_eq!(demo.task, Task::Demo(DemoOptions { seconds: Some(3), load: true }));
    assert_eq!((demo.config.identity.data_dir, demo.config.log.level), (None, tracing::Level::WARN));
}

#[test]
fn a_frontend_needs_to_know_where_its_cluster_is_and_nothing_of_data() {
    let invocation = read(&["frontend", "--join", "a:1", "--join", "b:2"], &[]).expect("right");
    assert_eq!(invocation.task, Task::Frontend);
    let join = ["a:1", "b:2"].map(str::to_owned).to_vec();
    let frontend = FrontendConfig { join, discover: None, peer_port: 8001, dns_server: None };
    assert_eq!(invocation.config.part, Part::Frontend(frontend));
    assert_eq!((invocation.config.doors.direct_port, invocation.config.identity.data_dir), (None, None));
    assert!(faults(&["frontend"], &[])[0].starts_with("error: --join: it is not known where the cluster is"));
    let told = faults(&["frontend", "--join", "a:1", "--maxmemory", "1gb", "--copies", "x"], &[]);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told.iter().all(|fault| fault.contains("a frontend holds no data")), "{told:#?}");
}

/// One file and one environment may serve nodes and frontends.
#[test]
fn what_is_meant_for_nodes_is_nothing_to_a_frontend_unless_it_is_told_so_itself() {
    let file = file(
        "join = \"a:1\"\nmaxmemory = \"1gb\"\nenable_debug_command = \"yes\"\n[[group]]\nname = \"a\"\nkey = \"a:{id}\"\n\
         load = \"SELECT $1\"\nas = \"json\"\n",
    );
    let environment = [("FOREBAY_ORIGIN", "sqlite://x"), ("FOREBAY_DIRECT_PORT", "6380"), ("FOREBAY_DATA_DIR", "/d")];
    let config = read(&["frontend", "--config", path(&file)], &environment).expect("right").config;
    assert_eq!((config.maxmemory, config.debug_commands), (0, DebugCommands::No));
    assert!(config.origin.is_none() && config.groups.is_empty());
    assert_eq!((config.doors.direct_port, config.identity.data_dir), (None, None));
}

#[test]
fn an_unknown_word_is_told_with_what_there_is() {
    for arguments in [&["frontdoor"][..], &["--prot", "1"], &["node", "--port"]] {
        let Err(ConfigError::CommandLine(error)) = read(arguments, &[]) else {
            panic!("{arguments:?} is wrong");
        };
        assert!(error.to_string().contains("Usage:") || error.to_string().contains("--help"), "{error}");
    }
}

/// The README's table is the table of settings.
#[test]
fn the_readme_lists_every_setting() {
    let readme = include_str!("../../../README.md");
    let rows: Vec<String> = std::iter::once(&CONFIG_FILE).chain(setting::SETTINGS).map(row).collect();
    assert!(readme.contains(&rows.join("\n")), "README.md should say:\n\n{}\n", rows.join("\n"));
}

fn row(setting: &Setting) -> String {
    let flag = match setting.is_switch() {
        true => setting.flag(),
        false => format!("{} {}", setting.flag(), setting.value),
    };
    let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
    format!("| `{flag}` | {default} | {} |", setting.help.replace('|', "\\|"))
}

#[test]
fn topics_of_changes_are_read_with_who_may_read_them() {
    let kafka = |arguments: &[&str], environment: &[(&str, &str)]| {
        let all = [&["--origin", "postgres://db/shop"][..], arguments].concat();
        config(&all, environment).origin.expect("an origin").kafka
    };
    assert_eq!(kafka(&[], &[]).topics, ["forebay"]);
    let given = kafka(
        &[
            "--feed-brokers",
            "a:9092,[::1]:9093",
            "--feed-brokers",
            "b:1",
            "--feed-topic",
            "t",
            "--feed-topic",
            "s",
            "--feed-tls",
            "on",
        ],
        &[("FOREBAY_FEED_USER", "ann"), ("FOREBAY_FEED_PASSWORD", "secret")],
    );
    assert_eq!(given.brokers, ["a:9092", "[::1]:9093", "b:1"]);
    assert_eq!((given.topics.as_slice(), &given.tls), (&["s".to_owned(), "t".to_owned()][..], &KafkaTls::WellKnown));
    assert!(format!("{given:?}").contains("ScramSha512") && !format!("{given:?}").contains("secret"), "{given:?}");
    assert!(faults(&["--feed-password", "x"], &[])[0].contains("it is of no user"));
}
