//! The servers that are compared: each in a process and a directory of its own, on free ports.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_redis_tests::process::{ServerProcess, StartError, free_ports, loopback};

use crate::load::driver::{Driver, LoadError};
use crate::load::replies::Wire;
use crate::load::tape::Tape;
use crate::load::workload::Dataset;
use crate::processor::{self, CpuTime, ProcessId};
use crate::wire;

/// Connections and pipeline that fill a server.
const FILL_CONNECTIONS: usize = 8;
const FILL_PIPELINE: usize = 64;

/// Bytes that memcached may fill with items, in MiB; more than any dataset.
const MEMCACHED_MEGABYTES: &str = "8192";

/// What kind of server it is, and how it is started.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Redis { io_threads: usize },
    Memcached { threads: usize },
    Forebay { binary: PathBuf, threads: usize, groups: Groups },
}

/// Whether a Forebay reads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    None,
    /// Three groups, one of which has the keys of every dataset of strings.
    Matching,
}

/// A running server.
pub(crate) struct Contender {
    /// What the tables call it.
    pub(crate) name: &'static str,
    wire: Wire,
    address: SocketAddr,
    process: ServerProcess,
    /// What it holds.
    dataset: Option<Dataset>,
}

impl Contender {
    /// Starts a server and waits until it answers.
    pub(crate) fn start(name: &'static str, kind: &Kind) -> Result<Contender, StartError> {
        Contender::start_under(name, kind, &[])
    }

    /// Likewise, with `runner` before its command line.
    pub(crate) fn start_under(name: &'static str, kind: &Kind, runner: &[String]) -> Result<Contender, StartError> {
        let wire = kind.wire();
        let command = |directory: &Path| {
            let (command, port) = kind.command(directory);
            let mut command = under(runner, command);
            // A Ctrl-C is for us alone; the servers are ended once the tables are printed.
            command.process_group(0);
            (command, loopback(port))
        };
        let (process, address) = ServerProcess::start(name, command, |&address| wire::answers(address, wire))?;
        Ok(Contender { name, wire, address, process, dataset: None })
    }

    pub(crate) fn wire(&self) -> Wire {
        self.wire
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> ProcessId {
        self.process.id()
    }

    /// Confines it to these processors.
    pub(crate) fn pin(&self, cpus: &[usize]) {
        processor::pin(self.pid(), cpus);
    }

    /// What it has used of the processors since it started.
    pub(crate) fn cpu_time(&self) -> CpuTime {
        CpuTime::of(self.pid())
    }

    /// Bytes of physical memory that it occupies.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// The directory that it runs in.
    pub(crate) fn directory(&self) -> &Path {
        self.process.directory()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn end(&mut self) {
        self.process.terminate();
        self.process.ends();
    }

    /// Sees to it that it holds this dataset and nothing else.
    pub(crate) fn hold(&mut self, dataset: &Dataset) -> Result<(), LoadError> {
        if self.dataset.replace(*dataset) == Some(*dataset) {
            return Ok(());
        }
        wire::empty(self.address, self.wire)?;
        let mut filled = 0;
        while filled < dataset.keys {
            let tape = Tape::creating(dataset, self.wire, filled);
            filled += tape.len();
            Driver::connect(self.address, self.wire, FILL_CONNECTIONS, FILL_PIPELINE, &tape)?.run_through()?;
        }
        Ok(())
    }
}

impl Kind {
    /// A plain cache.
    pub(crate) fn forebay(binary: &Path, threads: usize) -> Kind {
        Kind::Forebay { binary: binary.to_owned(), threads, groups: Groups::None }
    }

    pub(crate) fn wire(&self) -> Wire {
        match self {
            Kind::Memcached { .. } => Wire::Memcached,
            Kind::Redis { .. } | Kind::Forebay { .. } => Wire::Resp,
        }
    }

    /// The command, and the port that its server listens on.
    fn command(&self, directory: &Path) -> (Command, u16) {
        match self {
            Kind::Redis { io_threads } => redis(*io_threads),
            Kind::Memcached { threads } => memcached(*threads),
            Kind::Forebay { binary, threads, groups } => forebay(binary, *threads, *groups, directory),
        }
    }
}

fn under(runner: &[String], command: Command) -> Command {
    let Some((program, arguments)) = runner.split_first() else {
        return command;
    };
    let mut run = Command::new(program);
    run.args(arguments).arg(command.get_program()).args(command.get_args());
    run
}

fn redis(io_threads: usize) -> (Command, u16) {
    let [port] = free_ports();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
    if io_threads > 1 {
        command.args(["--io-threads", &io_threads.to_string(), "--io-threads-do-reads", "yes"]);
    }
    (command, port)
}

fn memcached(threads: usize) -> (Command, u16) {
    let [port] = free_ports();
    let mut command = Command::new("memcached");
    // It runs as root only when told to, and as whoever starts it otherwise.
    command.args(["-u", "root", "-l", "127.0.0.1", "-p", &port.to_string(), "-t", &threads.to_string()]);
    command.args(["-m", MEMCACHED_MEGABYTES, "-c", "4096"]);
    (command, port)
}

fn forebay(binary: &Path, threads: usize, groups: Groups, directory: &Path) -> (Command, u16) {
    let [port, direct, http, metrics] = free_ports().map(|port| port.to_string());
    let mut command = Command::new(binary);
    command.args(["node", "--bind", "127.0.0.1", "--threads", &threads.to_string(), "--data-dir"]);
    command.arg(directory.join("data"));
    command.args(["--port", &port, "--direct-port", &direct, "--http-port", &http]);
    // What it is compared with is no member of a cluster either.
    command.args(["--peer-port", "off", "--metrics-port", &metrics]);
    if groups == Groups::Matching {
        let path = directory.join("groups.toml");
        fs::write(&path, GROUPS).expect("the directory is ours");
        command.arg("--groups").arg(path);
        command.arg("--origin").arg(format!("sqlite://{}?mode=rwc", directory.join("origin.db").display()));
    }
    (command, port.parse().expect("a port was written"))
}

/// Groups whose loads need no table. The keys of strings are those of the last one.
const GROUPS: &str = r#"
[[group]]
name = "user"
key = "user:{id}"
load = "SELECT 'user ' || $1 AS name"
as = "hash"

[[group]]
name = "product"
key = "product:{id}"
load = "SELECT 'product ' || $1 AS name"
as = "json"
ttl = "10m"

[[group]]
name = "key"
key = "key:{id}"
load = "SELECT 'value of ' || $1"
as = "string"
ttl = "10m"
"#;
