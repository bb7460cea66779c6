//! The configuration: from the command line, the environment and a file to checked values, with all that is wrong told at once.

mod command_line;
mod file;
mod parse;
mod reader;
mod setting;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use forebay_cluster::discovery::Discovery;
use forebay_cluster::topology::address;
use forebay_cluster::{NodeId, PeerTlsFiles};
use forebay_origin::{Fault, GroupConfig, KafkaConfig, KafkaLogin, OriginConfig, parse_groups};
use forebay_store::EvictionPolicy;

use crate::ecs;
use crate::identity::DebugCommands;
use command_line::CommandLine;
use file::ConfigFile;
use reader::{Complaint, Environment, Reader};
use setting::{Audience, CONFIG_FILE, SETTINGS, Setting};

/// The default of `--peer-port`.
const PEER_PORT: u16 = 8001;

/// What was asked for: a task, and the configuration to do it with.
#[derive(Debug)]
pub struct Invocation {
    pub task: Task,
    pub config: Config,
}

/// What the process is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    Node,
    Frontend,
    Check,
    Demo(DemoOptions),
    Cluster(ClusterAction),
    Groups(GroupsAction),
}

/// `forebay cluster`: what is asked of a running cluster. Nodes are named by their number, the beginning of their id, or host and peer port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAction {
    Status,
    Drain { node: String },
    Undrain { node: String },
    Remove { node: String },
    Rebalance,
}

/// `forebay groups`: what is asked about the groups of a running cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupsAction {
    Apply { file: String, unchecked: bool, allow_empty: bool },
    List,
    Show { name: String },
}

/// The flags of `forebay demo` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoOptions {
    /// Stop after so many seconds.
    pub seconds: Option<u64>,
    /// Run clients of our own.
    pub load: bool,
}

impl Task {
    /// The default of a setting, which may be another one for a task that is not there to serve.
    fn default_of(&self, setting: &Setting) -> &'static str {
        match (self, setting.name) {
            (Task::Demo(_), "data-dir") => "",
            (Task::Demo(_), "log-level") => "warn",
            // Nobody asks for it, and port 7000 is often another's.
            (Task::Demo(_), "raft-port") => "0",
            (Task::Frontend, "direct-port") => "off",
            (Task::Frontend, "data-dir") => "",
            _ => setting.default,
        }
    }

    /// Whether a setting means anything to the task. Environment and file may be those of nodes, too.
    fn has(&self, setting: &Setting) -> bool {
        match self {
            // Where this machine's node is.
            Task::Cluster(_) | Task::Groups(_) if matches!(setting.name, "bind" | "peer-port") => true,
            Task::Cluster(_) | Task::Groups(_) => setting.of != Audience::Servers,
            Task::Frontend => setting.of != Audience::Commands && setting.not_for_frontends.is_none(),
            Task::Node | Task::Check | Task::Demo(_) => setting.of != Audience::Commands,
        }
    }

    /// Whether it is a command to a running cluster, and serves nobody.
    fn is_command(&self) -> bool {
        matches!(self, Task::Cluster(_) | Task::Groups(_))
    }

    /// Whether groups mean anything to the task where a node is configured.
    fn has_groups(&self) -> bool {
        matches!(self, Task::Node | Task::Check | Task::Demo(_))
    }
}

/// Everything that can be configured, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read, as it was named.
    pub file: Option<PathBuf>,
    /// Whom a command to a running cluster asks: host and peer port of any of its nodes. Empty for other tasks.
    pub node: String,
    pub doors: Doors,
    pub identity: IdentityConfig,
    pub part: Part,
    pub peer_tls: Option<PeerTlsFiles>,
    /// Where Amazon ECS tells of the task that this process runs in, if it is one.
    pub ecs_metadata: Option<String>,
    /// Threads that serve connections.
    pub threads: usize,
    pub maxclients: usize,
    /// Bytes; 0 for no limit.
    pub maxmemory: u64,
    pub maxmemory_policy: EvictionPolicy,
    pub databases: u16,
    pub origin: Option<OriginConfig>,
    pub groups: Vec<GroupConfig>,
    /// Changes of the database a second that are looked at later; 0: none.
    pub freshness_samples: u64,
    /// Bytes of writes that may wait for the origin, of groups that write behind.
    pub write_behind_max: u64,
    pub requirepass: Option<String>,
    pub tls: Option<TlsConfig>,
    /// Whoever can reach the ports is trusted.
    pub insecure: bool,
    pub debug_commands: DebugCommands,
    /// How long a drain waits for connections to end.
    pub grace: Duration,
    pub log: LogConfig,
}

/// Where the node listens. Port 0 takes a free one; `None` leaves the door closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doors {
    pub bind: IpAddr,
    pub port: u16,
    pub direct_port: Option<u16>,
    pub http_port: Option<u16>,
    pub metrics_port: Option<u16>,
}

/// Who the node is.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// Where the node keeps its identity; `None`: it has none beyond the process.
    pub data_dir: Option<PathBuf>,
    /// Taken from the data directory when it is not given.
    pub node_id: Option<NodeId>,
    /// Host name or address that clients and other nodes are told. `None`: it is found out.
    pub advertise: Option<String>,
    pub zone: Option<String>,
}

/// What the process is to be to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A node that is alone, and nobody can join it.
    Alone,
    Member(ClusterConfig),
    Frontend(FrontendConfig),
}

/// How a frontend finds its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendConfig {
    /// Nodes to begin with: host and peer port.
    pub join: Vec<String>,
    /// Where more are found.
    pub discover: Option<Discovery>,
    /// The nodes' peer port, where a source does not say it.
    pub peer_port: u16,
    /// `None`: the system's.
    pub dns_server: Option<SocketAddr>,
}

/// How the node meets others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// 0 takes a free one, as with the next.
    pub peer_port: u16,
    pub raft_port: u16,
    /// Nodes to begin with: host and peer port.
    pub join: Vec<String>,
    /// Where more are found.
    pub discover: Option<Discovery>,
    /// `None`: the system's.
    pub dns_server: Option<SocketAddr>,
    pub bootstrap_expect: usize,
    /// Copies of each entry, the owner's included.
    pub copies: u8,
    /// Copies that must have a write before it is acknowledged, the owner's included.
    pub min_acks: u8,
    /// Reads a second by way of other nodes that make a key hot; 0: none is.
    pub hot_key_reads: u64,
    /// In thousandths.
    pub weight: u32,
}

/// TLS for RESP and HTTP clients: files in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Whose certificates clients must show; `None`: they need not show any.
    pub ca: Option<PathBuf>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    pub level: tracing::Level,
    pub format: LogFormat,
}

/// One line per event, for people or for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The command line could not be understood, or help was asked for.
    CommandLine(clap::Error),
    /// Everything that is wrong.
    Faults(Vec<Fault>),
}

impl Invocation {
    /// Reads the command line (the program's name first), the environment and the configuration file.
    ///
    /// # Errors
    /// With all faults at once; for the command line's own grammar with the first.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        environment: &Environment<'_>,
    ) -> Result<Invocation, ConfigError> {
        let command_line = CommandLine::parse(arguments).map_err(ConfigError::CommandLine)?;
        let mut faults = Vec::new();
        let path = config_path(&command_line, environment);
        let file = path.as_ref().and_then(|path| {
            let text = read_file(path, &CONFIG_FILE.flag(), &mut faults)?;
            let has_groups = command_line.task.has_groups();
            Some(ConfigFile::parse(path.display().to_string(), text, has_groups, &mut faults))
        });
        let mut reader = Reader { command_line: &command_line, environment, file, faults };
        let config = Config::read(&mut reader, path);
        match reader.faults.is_empty() {
            true => Ok(Invocation { task: command_line.task, config }),
            false => Err(ConfigError::Faults(reader.faults)),
        }
    }
}

impl Config {
    fn read(reader: &mut Reader<'_>, file: Option<PathBuf>) -> Config {
        refuse_what_means_nothing(reader);
        let node = read_node(reader);
        let doors = Doors::read(reader);
        let identity = IdentityConfig::read(reader);
        let origin = read_origin(reader);
        let groups = read_groups(reader, origin.is_some());
        let requirepass = reader.optional("requirepass", parse::text).filter(|password| !password.is_empty());
        let tls = read_tls(reader);
        let part = Part::read(reader);
        let peer_tls = read_peer_tls(reader);
        let insecure = reader.value("insecure", parse::switch);
        refuse_strangers(reader, doors.bind, insecure || requirepass.is_some() || tls.is_some());
        Config {
            file,
            node,
            doors,
            identity,
            part,
            peer_tls,
            ecs_metadata: (reader.environment)(ecs::ENDPOINT).and_then(|endpoint| endpoint.into_string().ok()),
            threads: reader.optional("threads", parse::at_least_one).unwrap_or_else(cores),
            maxclients: reader.value("maxclients", parse::at_least_one),
            maxmemory: reader.value("maxmemory", parse::size),
            maxmemory_policy: reader.value("maxmemory-policy", parse::policy),
            databases: reader.value("databases", parse::databases),
            origin,
            groups,
            freshness_samples: reader.value("freshness-samples", parse::samples),
            write_behind_max: reader.value("write-behind-max", parse::size),
            requirepass,
            tls,
            insecure,
            debug_commands: reader.value("enable-debug-command", parse::debug_commands),
            grace: reader.value("grace", parse::time),
            log: LogConfig {
                level: reader.value("log-level", parse::log_level),
                format: reader.value("log-format", parse::log_format),
            },
        }
    }
}

impl Config {
    /// Whether the ports for nodes can be reached from outside, and ask nobody who he is: passwords and TLS are for clients.
    pub fn trusts_strangers(&self) -> bool {
        let has_peer_ports = self.part.member().is_some();
        has_peer_ports && !self.doors.bind.is_loopback() && self.peer_tls.is_none() && !self.insecure
    }
}

impl Doors {
    fn read(reader: &mut Reader<'_>) -> Doors {
        Doors {
            bind: match reader.command_line.task.is_command() {
                true => IpAddr::V4(Ipv4Addr::LOCALHOST),
                false => reader.value("bind", parse::address),
            },
            port: reader.value("port", parse::port),
            direct_port: reader.value("direct-port", parse::port_or_off),
            http_port: reader.value("http-port", parse::port_or_off),
            metrics_port: reader.value("metrics-port", parse::port_or_off),
        }
    }
}

impl IdentityConfig {
    fn read(reader: &mut Reader<'_>) -> IdentityConfig {
        IdentityConfig {
            data_dir: reader.value("data-dir", parse::path_or_none),
            node_id: reader.optional("node-id", parse::node_id),
            advertise: reader.optional("advertise", parse::host),
            zone: reader.optional("zone", parse::text),
        }
    }
}

impl Part {
    fn read(reader: &mut Reader<'_>) -> Part {
        match reader.command_line.task {
            Task::Frontend => Part::Frontend(FrontendConfig::read(reader)),
            Task::Cluster(_) | Task::Groups(_) => Part::Alone,
            Task::Node | Task::Check | Task::Demo(_) => ClusterConfig::read(reader).map_or(Part::Alone, Part::Member),
        }
    }

    /// How the process meets other nodes, if it is to be one.
    pub fn member(&self) -> Option<&ClusterConfig> {
        match self {
            Part::Member(config) => Some(config),
            Part::Alone | Part::Frontend(_) => None,
        }
    }
}

impl FrontendConfig {
    fn read(reader: &mut Reader<'_>) -> FrontendConfig {
        let config = FrontendConfig {
            join: reader.all("join", parse::host_and_port),
            discover: reader.optional("discover", parse::discovery),
            peer_port: reader.value("peer-port", parse::port),
            dns_server: reader.optional("dns-server", parse::socket),
        };
        if config.join.is_empty() && config.discover.is_none() {
            let hint = "give --join HOST:PEER_PORT of a node, or of several, or --discover";
            reader.refuse("join", Complaint::new("it is not known where the cluster is", hint));
        }
        config
    }
}

impl ClusterConfig {
    fn read(reader: &mut Reader<'_>) -> Option<ClusterConfig> {
        let peer_port = reader.value("peer-port", parse::port_or_off);
        let config = ClusterConfig {
            peer_port: peer_port.unwrap_or_default(),
            raft_port: reader.value("raft-port", parse::port),
            join: reader.all("join", parse::host_and_port),
            discover: reader.optional("discover", parse::discovery),
            dns_server: reader.optional("dns-server", parse::socket),
            bootstrap_expect: reader.value("bootstrap-expect", parse::at_least_one),
            copies: reader.value("copies", parse::copies),
            min_acks: reader.value("min-acks", parse::copies),
            hot_key_reads: reader.value("hot-key-reads", parse::count),
            weight: reader.value("weight", parse::weight),
        };
        if config.min_acks > config.copies {
            let problem = format!("{} copies cannot acknowledge a write: there are {}", config.min_acks, config.copies);
            reader.refuse("min-acks", Complaint::new(problem, "it is at most --copies"));
        }
        let has_seeds = !config.join.is_empty() || config.discover.is_some();
        if config.bootstrap_expect > 1 && !has_seeds {
            let hint = "give --join HOST:PEER_PORT for at least one of the others, or --discover";
            reader.refuse("bootstrap-expect", Complaint::new("it is not known where the other nodes are", hint));
        }
        // The demo may find the settings of a node in its environment.
        if peer_port.is_none() && has_seeds && matches!(reader.command_line.task, Task::Node | Task::Check) {
            let setting = if config.join.is_empty() { "discover" } else { "join" };
            reader.refuse(setting, Complaint::new("--peer-port is off", "a node of a cluster needs one"));
        }
        peer_port.map(|_| config)
    }
}

fn config_path(command_line: &CommandLine, environment: &Environment<'_>) -> Option<PathBuf> {
    let given = command_line.values(&CONFIG_FILE).pop();
    given.or_else(|| reader::variable(environment, &CONFIG_FILE)).map(PathBuf::from)
}

fn read_file(path: &PathBuf, place: &str, faults: &mut Vec<Fault>) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            let problem = format!("{} cannot be read: {error}", path.display());
            faults.push(Fault::unplaced(place, problem, ""));
            None
        }
    }
}

fn read_origin(reader: &mut Reader<'_>) -> Option<OriginConfig> {
    let url = reader.optional("origin", parse::origin_url);
    let replicas = reader.all("origin-replica", parse::origin_url);
    if url.is_none() && !replicas.is_empty() {
        reader.refuse(
            "origin-replica",
            Complaint::new("there is no origin that it could be a replica of", "give --origin, too"),
        );
    }
    let mut origin = OriginConfig::new(url.unwrap_or_default());
    origin.replicas = replicas;
    origin.max_connections = reader.value("origin-pool-size", parse::at_least_one);
    origin.load_timeout = reader.value("origin-load-timeout", parse::time_above_zero);
    origin.batch_window = reader.value("origin-batch-window", parse::time);
    origin.batch_max = reader.value("origin-batch-max", parse::at_least_one);
    origin.max_waiting_loads = reader.value("origin-max-waiting", parse::at_least_one);
    origin.idle_timeout = reader.value("origin-idle-timeout", parse::time_above_zero);
    origin.max_lifetime = reader.value("origin-max-lifetime", parse::time_above_zero);
    origin.feed_name = reader.value("feed-name", parse::feed_name);
    origin.feed_max_retained = reader.value("feed-max-retained", parse::size_above_zero);
    origin.kafka = read_kafka(reader);
    if origin.batch_window >= origin.load_timeout {
        reader.refuse(
            "origin-batch-window",
            Complaint::new("it is not shorter than the load timeout", "the defaults are 500us and 2s"),
        );
    }
    (!origin.url.is_empty()).then_some(origin)
}

/// Where the topics are that tell of changes.
fn read_kafka(reader: &mut Reader<'_>) -> KafkaConfig {
    let first_topic = reader.value("feed-topic", parse::topic);
    let mut topics = reader.all("feed-topic", parse::topic);
    if topics.is_empty() {
        topics.push(first_topic);
    }
    topics.sort();
    topics.dedup();
    let brokers = reader.all("feed-brokers", parse::brokers).concat();
    let tls = reader.value("feed-tls", parse::broker_tls);
    let mechanism = reader.value("feed-sasl", parse::mechanism);
    let (user, password) = (reader.optional("feed-user", parse::text), reader.optional("feed-password", parse::text));
    let login = match (user, password) {
        (Some(user), Some(password)) => Some(KafkaLogin { mechanism, user, password }),
        (None, None) => None,
        (Some(_), None) => {
            reader.refuse("feed-user", Complaint::new("it has no password", "give FOREBAY_FEED_PASSWORD, too"));
            None
        }
        (None, Some(_)) => {
            reader.refuse("feed-password", Complaint::new("it is of no user", "give --feed-user, too"));
            None
        }
    };
    KafkaConfig { brokers, topics, tls, login }
}

/// The groups of the configuration file, then those of the groups file.
fn read_groups(reader: &mut Reader<'_>, has_origin: bool) -> Vec<GroupConfig> {
    if !reader.command_line.task.has_groups() {
        return Vec::new();
    }
    let mut groups = reader.file.as_mut().map(|file| std::mem::take(&mut file.groups)).unwrap_or_default();
    let path = reader.optional("groups", parse::path);
    if let Some(path) = path {
        let text = read_file(&path, "--groups", &mut reader.faults);
        match text.map(|text| parse_groups(&text, &path.display().to_string())) {
            Some(Ok(more)) => groups.extend(more),
            Some(Err(faults)) => reader.faults.extend(faults),
            None => {}
        }
    }
    if !groups.is_empty() && !has_origin {
        reader.refuse(
            "origin",
            Complaint::new("there are groups, and nowhere to load them from", "give --origin postgres://…"),
        );
    }
    groups
}

/// Whom a command asks: this machine's node, if nothing else is said.
fn read_node(reader: &mut Reader<'_>) -> String {
    if !reader.command_line.task.is_command() {
        return String::new();
    }
    let given = reader.optional("node", parse::host_and_port);
    given.unwrap_or_else(|| {
        let bind = match reader.value("bind", parse::address) {
            IpAddr::V4(all) if all.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(all) if all.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            own => own,
        };
        // With the port off, or any free one, nobody can know better.
        let port = reader.value("peer-port", parse::port_or_off).filter(|port| *port > 0);
        address(&bind.to_string(), port.unwrap_or(PEER_PORT))
    })
}

fn read_tls(reader: &mut Reader<'_>) -> Option<TlsConfig> {
    let cert = reader.optional("tls-cert", parse::path);
    let key = reader.optional("tls-key", parse::path);
    let ca = reader.optional("tls-ca", parse::path);
    match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsConfig { cert, key, ca }),
        (None, None) if ca.is_none() => None,
        (given, _) => {
            let lacking = if given.is_some() { "tls-key" } else { "tls-cert" };
            reader.refuse(lacking, Complaint::new("it is missing", "TLS needs a certificate and its private key"));
            None
        }
    }
}

fn read_peer_tls(reader: &mut Reader<'_>) -> Option<PeerTlsFiles> {
    let name = reader.optional("peer-tls-name", parse::text);
    let parts = ["peer-tls-cert", "peer-tls-key", "peer-tls-ca"].map(|name| (name, reader.optional(name, parse::path)));
    match parts {
        [(_, Some(cert)), (_, Some(key)), (_, Some(ca))] => Some(PeerTlsFiles { cert, key, ca, name }),
        [(_, None), (_, None), (_, None)] if name.is_none() => None,
        some => {
            let hint = "nodes need a certificate, its private key and the authority of the others' certificates";
            let lacking = some.into_iter().filter(|(_, path)| path.is_none());
            lacking.for_each(|(name, _)| reader.refuse(name, Complaint::new("it is missing", hint)));
            None
        }
    }
}

/// Flags that say what the task cannot do.
fn refuse_what_means_nothing(reader: &mut Reader<'_>) {
    let task = &reader.command_line.task;
    let flags: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| !task.has(setting) && !reader.command_line.values(setting).is_empty())
        .collect();
    for setting in flags {
        let why = setting.not_for_frontends.unwrap_or_default();
        let hint = "it is a setting of nodes; `forebay frontend --help` lists those of a frontend";
        reader.refuse(setting.name, Complaint::new(why, hint));
    }
}

/// Whoever can reach the ports could read and write everything.
fn refuse_strangers(reader: &mut Reader<'_>, bind: IpAddr, is_guarded: bool) {
    if reader.command_line.task.is_command() {
        return;
    }
    if !bind.is_loopback() && !is_guarded {
        let problem = format!("{bind} can be reached from outside, and there is neither a password nor TLS");
        reader.refuse(
            "bind",
            Complaint::new(problem, "set FOREBAY_REQUIREPASS, or pass --insecure if the network is trusted"),
        );
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests;
