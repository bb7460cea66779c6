//! A DNS server (dnsmasq) that tells nodes of each other: names are entered while it runs, and it can be stopped for a while.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{ServerProcess, eventually};

use super::network::socket;
use super::node::PATIENCE;

/// The server's port: one that needs no right, below those that the system gives to outgoing connections.
const PORT: u16 = 5353;

/// What all names end with. Nobody outside is asked for such a name.
pub const ZONE: &str = "test";

/// A DNS server of one's own.
pub struct NameServer {
    address: Ipv4Addr,
    /// A file for each entry. The server notices new ones.
    entries: TempDir,
    /// SRV records, as dnsmasq has them: `name,host,port`.
    services: Vec<String>,
    process: Option<ServerProcess>,
}

impl NameServer {
    /// A server that is not started yet.
    ///
    /// # Panics
    /// When there is no temporary directory.
    pub fn at(address: Ipv4Addr) -> Self {
        let entries = TempDir::new().expect("a temporary directory");
        Self { address, entries, services: Vec::new(), process: None }
    }

    /// Adds an SRV record; before the start.
    pub fn offer(&mut self, service: &str, host: &str, port: u16) {
        self.services.push(format!("{service},{host},{port}"));
    }

    /// One more address of a name, from now on.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn enter(&self, name: &str, host: Ipv4Addr) {
        let path = self.entries.path().join(format!("{name}-{host}"));
        fs::write(path, format!("{host} {name}\n")).expect("the entry is written");
    }

    /// Starts the server, with all that was entered.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&mut self) {
        let command = |_: &_| (self.command(), self.socket());
        let started = ServerProcess::start("dnsmasq", command, |address| TcpStream::connect(address).is_ok());
        let (process, _) = started.unwrap_or_else(|error| panic!("{error}; run redis-tests/scripts/setup cluster"));
        self.process = Some(process);
    }

    fn command(&self) -> Command {
        let mut command = Command::new("dnsmasq");
        let address = self.address;
        // As root it would become another user, who may not read the entries.
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--pid-file="]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--log-queries", "--log-facility=-"]);
        command.arg(format!("--local=/{ZONE}/")).arg(format!("--port={PORT}"));
        command.arg(format!("--listen-address={address}"));
        command.arg(format!("--hostsdir={}", self.entries.path().display()));
        command.args(self.services.iter().map(|service| format!("--srv-host={service}")));
        command
    }

    /// Stops the server; nobody answers then.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Waits until it has been asked for a name `times` times since it was started.
    ///
    /// # Panics
    /// When it is not.
    pub fn await_questions(&self, name: &str, times: usize) {
        let process = self.process.as_ref().expect("it runs");
        let question = format!("{name} from");
        let is_asked = || process.output().matches(&question).count() >= times;
        assert!(eventually(PATIENCE, is_asked), "it is not asked for {name} {times} times:\n{}", process.output());
    }

    /// Where it is asked.
    pub fn socket(&self) -> SocketAddr {
        socket(self.address, PORT)
    }
}
