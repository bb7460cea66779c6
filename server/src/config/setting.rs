//! The table of settings: every flag, environment variable and file key of a node.
//!
//! One row is all there is to know of a setting but its type, which its reader in `config.rs` gives it. The command line, its help,
//! the look-up in the environment and in the file, and the table in README.md (which a test compares) follow from the rows.

/// One setting.
pub(super) struct Setting {
    /// The flag without its dashes.
    pub(super) name: &'static str,
    /// What stands for the value in the help; empty for a switch, which is on or off.
    pub(super) value: &'static str,
    /// The value when none is given, in the notation of the command line; empty for none.
    pub(super) default: &'static str,
    /// Whether it may be given several times.
    pub(super) repeats: bool,
    pub(super) topic: Topic,
    /// Why a frontend has no use for it; `None` if it has one.
    pub(super) not_for_frontends: Option<&'static str>,
    /// Whom it means something to, beside frontends.
    pub(super) of: Audience,
    /// One line.
    pub(super) help: &'static str,
}

/// Who reads a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Whoever serves.
    Servers,
    /// The commands to a running cluster, too.
    All,
    /// These alone.
    Commands,
}

/// A heading of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    Doors,
    Node,
    Cluster,
    Memory,
    Origin,
    Access,
    Running,
}

const NO_DATA: &str = "a frontend holds no data";
const NO_LOADS: &str = "a frontend loads nothing: the nodes that own the keys do";
const NO_MEMBER: &str = "a frontend is not a member of its cluster, and nobody calls it but clients";
const NO_SLOTS: &str = "a frontend owns no slots: clients that know of clusters are told the nodes' direct doors";

/// Where the file is: the one setting that cannot stand in it.
pub(super) static CONFIG_FILE: Setting =
    Setting::new(Topic::Doors, "config", "FILE", "", "A configuration file in TOML");

/// All others, by topic.
pub(super) static SETTINGS: &[Setting] = &[
    Setting::new(Topic::Doors, "bind", "ADDRESS", "127.0.0.1", "The address of all listeners"),
    Setting::new(Topic::Doors, "port", "PORT", "6379", "RESP for any client; 0 takes a free port"),
    Setting::new(Topic::Doors, "direct-port", "PORT", "6380", "RESP for cluster-aware clients; `off` closes it")
        .of_nodes(NO_SLOTS),
    Setting::new(
        Topic::Doors,
        "http-port",
        "PORT",
        "9999",
        "HTTP: /api?key=, /health, /ready, live figures at /; or `off`",
    ),
    Setting::new(Topic::Doors, "metrics-port", "PORT", "2112", "Prometheus' /metrics; or `off`"),
    Setting::new(Topic::Doors, "maxclients", "COUNT", "10000", "RESP connections that are served at the same time"),
    Setting::new(
        Topic::Node,
        "data-dir",
        "DIR",
        "./forebay-data",
        "Where the node keeps its identity and the log of the cluster",
    )
    .of_nodes(NO_DATA),
    Setting::new(
        Topic::Node,
        "node-id",
        "HEX",
        "",
        "40 hexadecimal digits [default: those in the data directory, or from the ECS task]",
    )
    .of_nodes(NO_MEMBER),
    Setting::new(
        Topic::Node,
        "advertise",
        "HOST",
        "",
        "What others are told as this node's host [default: --bind, or for 0.0.0.0 the machine's own address]",
    )
    .of_nodes(NO_MEMBER),
    Setting::new(Topic::Node, "zone", "NAME", "", "Availability zone [default: that of the ECS task]"),
    Setting::new(Topic::Node, "threads", "COUNT", "", "Threads that serve connections [default: one per core]"),
    Setting::new(
        Topic::Cluster,
        "peer-port",
        "PORT",
        "8001",
        "gRPC between nodes; `off`: this node is alone and nobody can join it",
    ),
    Setting::new(Topic::Cluster, "raft-port", "PORT", "7000", "Raft between nodes").of_nodes(NO_MEMBER),
    Setting::new(
        Topic::Cluster,
        "join",
        "HOST:PEER_PORT",
        "",
        "A node of the cluster to join, or to form one with; without any, this node is a cluster of one",
    )
    .repeating(),
    Setting::new(
        Topic::Cluster,
        "discover",
        "SOURCE",
        "",
        "Where more such nodes are found: dns:NAME, dns:NAME:PEER_PORT or cloudmap:NAMESPACE/SERVICE",
    ),
    Setting::new(
        Topic::Cluster,
        "dns-server",
        "ADDRESS:PORT",
        "",
        "The DNS server that is asked for them [default: the system's]",
    ),
    Setting::new(
        Topic::Cluster,
        "bootstrap-expect",
        "COUNT",
        "1",
        "On the first start: wait for so many nodes, then form the cluster",
    )
    .of_nodes(NO_MEMBER),
    Setting::new(Topic::Cluster, "copies", "COUNT", "3", "Copies of each entry, the owner's included, at most 7")
        .of_nodes(NO_DATA),
    Setting::new(
        Topic::Cluster,
        "min-acks",
        "COUNT",
        "1",
        "Copies that must have a write before it is acknowledged, the owner's included",
    )
    .of_nodes(NO_DATA),
    Setting::new(
        Topic::Cluster,
        "hot-key-reads",
        "COUNT",
        "500",
        "Reads of a key per second by way of other nodes from which on these keep it for moments; 0 for never",
    )
    .of_nodes(NO_DATA),
    Setting::new(Topic::Cluster, "weight", "NUMBER", "1.0", "This node's capacity beside the others'")
        .of_nodes(NO_DATA),
    Setting::new(
        Topic::Cluster,
        "peer-tls-cert",
        "FILE",
        "",
        "Certificate chain in PEM: nodes must show each other certificates",
    ).for_all(),
    Setting::new(Topic::Cluster, "peer-tls-key", "FILE", "", "Private key of that certificate in PEM").for_all(),
    Setting::new(Topic::Cluster, "peer-tls-ca", "FILE", "", "The authority of the nodes' certificates in PEM").for_all(),
    Setting::new(
        Topic::Cluster,
        "peer-tls-name",
        "NAME",
        "",
        "What every node's certificate names [default: the host that the node is called by]",
    )
    .for_all(),
    Setting::new(
        Topic::Cluster,
        "node",
        "HOST:PEER_PORT",
        "",
        "Whom `forebay cluster` and `forebay groups` ask: any node of the cluster [default: this machine's, by its address and peer port]",
    )
    .of_commands(),
    Setting::new(
        Topic::Memory,
        "maxmemory",
        "SIZE",
        "0",
        "Most bytes that the process allocates, such as 2gb; 0 for no limit",
    )
    .of_nodes(NO_DATA),
    Setting::new(Topic::Memory, "maxmemory-policy", "NAME", "allkeys-lrfu", "What is evicted when memory is short")
        .of_nodes(NO_DATA),
    Setting::new(Topic::Memory, "databases", "COUNT", "16", "Numbered databases; groups apply to number 0"),
    Setting::new(
        Topic::Origin,
        "origin",
        "URL",
        "",
        "postgres://… or sqlite://FILE; without it the node is a plain cache",
    )
    .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-replica", "URL", "", "A read replica of the origin")
        .repeating()
        .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "groups",
        "FILE",
        "",
        "TOML with [[group]] tables; they may also stand in the configuration file",
    )
    .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-pool-size", "COUNT", "16", "Most connections to each database")
        .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-load-timeout", "TIME", "2s", "Longest wait for a load").of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "origin-batch-window",
        "TIME",
        "500us",
        "How long a miss waits for others to share its query",
    )
    .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-batch-max", "COUNT", "512", "Most keys of one query").of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-max-waiting", "COUNT", "100000", "Most loads that wait at the same time")
        .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-idle-timeout", "TIME", "5m", "An unused connection is closed after this")
        .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "origin-max-lifetime", "TIME", "30m", "A connection is replaced at this age")
        .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "feed-name",
        "NAME",
        "forebay",
        "What publication, slots and triggers in the database are called; each cluster at one database needs its own",
    )
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "feed-max-retained",
        "SIZE",
        "4gb",
        "Most write-ahead log that the database keeps for us; beyond it everything is loaded anew",
    )
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "feed-brokers",
        "HOST:PORT",
        "",
        "Brokers of the Kafka cluster whose topics tell of changes, for groups with feed = \"kafka\"",
    )
    .repeating()
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "feed-topic",
        "NAME",
        "forebay",
        "The topics that tell of changes; all partitions of each are read",
    )
    .repeating()
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "feed-tls",
        "WHO",
        "off",
        "TLS to the brokers: off, on (well-known authorities) or a PEM file of further authorities",
    )
    .of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "feed-user", "NAME", "", "User of the brokers, by SASL").of_nodes(NO_LOADS),
    Setting::new(Topic::Origin, "feed-password", "PASSWORD", "", "Its password; better given in the environment")
        .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "feed-sasl",
        "MECHANISM",
        "scram-sha-512",
        "How that user signs in: plain, scram-sha-256 or scram-sha-512",
    )
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "freshness-samples",
        "COUNT",
        "20",
        "Changes of the database per second that are looked at later, whether anybody still serves what they have replaced; 0 for none",
    )
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Origin,
        "write-behind-max",
        "SIZE",
        "64mb",
        "Most bytes of writes that wait for the origin; beyond it they are refused",
    )
    .of_nodes(NO_LOADS),
    Setting::new(
        Topic::Access,
        "requirepass",
        "PASSWORD",
        "",
        "Password of RESP and HTTP clients; better given in the environment",
    ),
    Setting::new(Topic::Access, "tls-cert", "FILE", "", "Certificate chain in PEM: RESP and HTTP clients must use TLS"),
    Setting::new(Topic::Access, "tls-key", "FILE", "", "Private key of the certificate in PEM"),
    Setting::new(Topic::Access, "tls-ca", "FILE", "", "Authorities in PEM: clients must show a certificate of theirs"),
    Setting::new(
        Topic::Access,
        "insecure",
        "",
        "false",
        "Listen beyond loopback although there is neither a password nor TLS",
    ),
    Setting::new(Topic::Access, "enable-debug-command", "WHO", "no", "Who may call DEBUG: no, local or yes")
        .of_nodes(NO_DATA),
    Setting::new(Topic::Running, "grace", "TIME", "30s", "How long a shutdown waits for connections to end"),
    Setting::new(Topic::Running, "log-level", "LEVEL", "info", "error, warn, info, debug or trace").for_all(),
    Setting::new(Topic::Running, "log-format", "FORMAT", "text", "text or json").for_all(),
];

impl Setting {
    const fn new(
        topic: Topic,
        name: &'static str,
        value: &'static str,
        default: &'static str,
        help: &'static str,
    ) -> Setting {
        Setting { name, value, default, repeats: false, topic, not_for_frontends: None, of: Audience::Servers, help }
    }

    const fn repeating(mut self) -> Setting {
        self.repeats = true;
        self
    }

    const fn of_nodes(mut self, why: &'static str) -> Setting {
        self.not_for_frontends = Some(why);
        self
    }

    const fn for_all(mut self) -> Setting {
        self.of = Audience::All;
        self
    }

    const fn of_commands(mut self) -> Setting {
        self.of = Audience::Commands;
        self
    }

    /// The setting with this name.
    ///
    /// # Panics
    /// When there is none: a reader asks for a setting that the table does not have.
    pub(super) fn named(name: &str) -> &'static Setting {
        SETTINGS
            .iter()
            .find(|setting| setting.name == name)
            .unwrap_or_else(|| panic!("the table has no setting `{name}`"))
    }

    pub(super) fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// `--http-port`
    pub(super) fn flag(&self) -> String {
        format!("--{}", self.name)
    }

    /// `FOREBAY_HTTP_PORT`
    pub(super) fn variable(&self) -> String {
        format!("FOREBAY_{}", self.name.to_uppercase().replace('-', "_"))
    }

    /// `http_port`
    pub(super) fn key(&self) -> String {
        self.name.replace('-', "_")
    }
}

impl Topic {
    pub(super) fn heading(self) -> &'static str {
        match self {
            Topic::Doors => "Doors",
            Topic::Node => "Node",
            Topic::Cluster => "Cluster",
            Topic::Memory => "Memory",
            Topic::Origin => "Origin",
            Topic::Access => "Access",
            Topic::Running => "Running",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_three_names() {
        let setting = Setting::named("http-port");
        assert_eq!(setting.flag(), "--http-port");
        assert_eq!(setting.variable(), "FOREBAY_HTTP_PORT");
        assert_eq!(setting.key(), "http_port");
    }

    #[test]
    fn names_are_given_once() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..at].iter().all(|other| other.name != setting.name), "{}", setting.name);
        }
    }
}
