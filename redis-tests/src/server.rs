//! The two servers that every test can run against.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::connection::Connection;
use crate::http;
use crate::process::{ServerProcess, StartError, free_ports, loopback};

/// Which server a test runs against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The reference: a real redis-server, 7.0.15.
    Redis,
    /// The server under test.
    Forebay,
}

impl Target {
    /// Starts a fresh server of this kind with debug commands allowed.
    ///
    /// # Panics
    /// When the server cannot be started: the message carries its output.
    pub fn start(self) -> Server {
        let started = match self {
            Self::Redis => RedisServer::start(&[]).map(Server::Redis),
            Self::Forebay => Forebay::start(ForebayOptions::default()).map(Server::Forebay),
        };
        started.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// A running server of either kind.
pub enum Server {
    Redis(RedisServer),
    Forebay(Forebay),
}

impl Server {
    /// Where the server speaks RESP.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Redis(server) => server.address(),
            Self::Forebay(server) => server.address(),
        }
    }

    /// A new connection to the server.
    ///
    /// # Panics
    /// When the server does not accept it.
    pub fn connect(&self) -> Connection {
        connect(self.address())
    }
}

/// A running redis-server.
pub struct RedisServer {
    process: ServerProcess,
    port: u16,
}

impl RedisServer {
    /// Starts redis-server with `args` after the harness's own, and waits until it answers.
    pub fn start(args: &[&str]) -> Result<Self, StartError> {
        let command = |_: &Path| {
            let [port] = free_ports();
            let mut command = Command::new(redis_server_binary());
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.args(["--enable-debug-command", "yes", "--enable-module-command", "yes"]);
            command.args(args);
            (command, port)
        };
        let (process, port) = ServerProcess::start("redis-server", command, |port| answers(*port))?;
        Ok(Self { process, port })
    }

    /// Where the server speaks RESP.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// A new connection to the server.
    pub fn connect(&self) -> Connection {
        connect(self.address())
    }

    /// The process behind it.
    pub fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }
}

/// A running Forebay node.
pub struct Forebay {
    process: ServerProcess,
    ports: ForebayPorts,
}

/// How a node is started, beside the ports and the directory that the harness chooses.
#[derive(Clone, Debug, Default)]
pub struct ForebayOptions {
    /// Further command-line arguments.
    pub args: Vec<String>,
    /// Further environment variables.
    pub env: Vec<(String, String)>,
    /// The text of a configuration file, passed by `--config`.
    pub config: Option<String>,
    /// Where it listens; `None` for the loopback interface.
    pub bind: Option<String>,
    /// No other node can join it, and it keeps nothing for that: where its memory is looked at to the megabyte.
    pub alone: bool,
}

/// The ports of a node, one for each of its doors.
#[derive(Clone, Copy, Debug)]
pub struct ForebayPorts {
    /// RESP, the open door.
    pub resp: u16,
    /// RESP, the direct door for cluster clients.
    pub direct: u16,
    pub http: u16,
    pub peer: u16,
    pub raft: u16,
    pub metrics: u16,
}

impl Forebay {
    /// Starts a node and waits until it answers.
    pub fn start(options: ForebayOptions) -> Result<Self, StartError> {
        let binary = forebay_binary();
        let command = |directory: &Path| {
            let ports = ForebayPorts::free();
            (options.command(&binary, directory, ports), ports)
        };
        let (process, ports) = ServerProcess::start("forebay", command, |ports| answers(ports.resp))?;
        Ok(Self { process, ports })
    }

    /// Starts a node in the place of one that has ended, on the same ports.
    pub fn start_on(ports: ForebayPorts, options: ForebayOptions) -> Result<Self, StartError> {
        let binary = forebay_binary();
        let command = |directory: &Path| (options.command(&binary, directory, ports), ports);
        let (process, ports) = ServerProcess::start("forebay", command, |ports| answers(ports.resp))?;
        Ok(Self { process, ports })
    }

    /// The status of a GET of `path` at the HTTP door, such as 200; `None` when nobody answers there.
    pub fn http_status(&self, path: &str) -> Option<u16> {
        http::status(loopback(self.ports.http), path)
    }

    /// Where the node speaks RESP to any client.
    pub fn address(&self) -> SocketAddr {
        loopback(self.ports.resp)
    }

    /// All of the node's ports.
    pub fn ports(&self) -> ForebayPorts {
        self.ports
    }

    /// A new connection to the open door.
    pub fn connect(&self) -> Connection {
        connect(self.address())
    }

    /// The process behind it.
    pub fn process(&mut self) -> &mut ServerProcess {
        &mut self.process
    }
}

impl ForebayOptions {
    /// A node that reads through to the database at `url`, by `groups` in TOML.
    pub fn in_front_of(url: &str, groups: &str) -> Self {
        Self { args: vec!["--origin".to_owned(), url.to_owned()], config: Some(groups.to_owned()), ..Self::default() }
    }

    fn command(&self, binary: &Path, directory: &Path, ports: ForebayPorts) -> Command {
        let mut command = Command::new(binary);
        let ports = ports.arguments();
        command.arg("node");
        for flag_and_port in ports.chunks(2) {
            match &flag_and_port[0] {
                flag if flag == "--peer-port" && self.alone => command.args(["--peer-port", "off"]),
                _ => command.args(flag_and_port),
            };
        }
        let bind = self.bind.as_deref().unwrap_or("127.0.0.1");
        command.args(["--bind", bind, "--enable-debug-command", "yes", "--data-dir"]);
        command.arg(directory.join("data"));
        if let Some(text) = &self.config {
            let path = directory.join("forebay.toml");
            std::fs::write(&path, text).expect("the configuration file is written");
            command.arg("--config").arg(path);
        }
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl ForebayPorts {
    fn free() -> Self {
        let [resp, direct, http, peer, raft, metrics] = free_ports();
        Self { resp, direct, http, peer, raft, metrics }
    }

    /// The flags for them.
    pub fn arguments(self) -> [String; 12] {
        [
            ("--port", self.resp),
            ("--direct-port", self.direct),
            ("--http-port", self.http),
            ("--peer-port", self.peer),
            ("--raft-port", self.raft),
            ("--metrics-port", self.metrics),
        ]
        .map(|(flag, port)| [flag.to_owned(), port.to_string()])
        .as_flattened()
        .to_vec()
        .try_into()
        .expect("a flag and a value for each port")
    }
}

fn connect(address: SocketAddr) -> Connection {
    Connection::open(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
}

/// A server that wants a password says so: it answers, too.
fn answers(port: u16) -> bool {
    let Ok(mut connection) = Connection::open(loopback(port)) else {
        return false;
    };
    matches!(connection.call(&["PING"]), Ok(raw) if raw.starts_with(b"+PONG") || raw.starts_with(b"-NOAUTH"))
}

fn redis_server_binary() -> PathBuf {
    env::var_os("REDIS_SERVER_BIN").map_or_else(|| "redis-server".into(), PathBuf::from)
}

/// `FOREBAY_BIN`, or the binary that the same build put beside the tests.
///
/// # Panics
/// When there is none: a test of Forebay cannot pass without it.
pub fn forebay_binary() -> PathBuf {
    if let Some(path) = env::var_os("FOREBAY_BIN") {
        return path.into();
    }
    let test = env::current_exe().expect("the path of the test binary");
    // target/<profile>/deps/<test>
    let built = test.ancestors().nth(2).expect("a build directory").join("forebay");
    assert!(built.exists(), "{} is missing: run `cargo build -p forebay`, or set FOREBAY_BIN", built.display());
    built
}
