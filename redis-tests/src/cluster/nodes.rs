//! Nodes as processes: started, killed, stopped, woken and restarted by the test that owns them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::network::{Network, NetworkKind, socket};
use crate::connection::Connection;
use crate::http;
use crate::process::eventually;
use crate::server::{ForebayPorts, forebay_binary};

/// The ports of every node; each has an address of its own.
pub const PORTS: ForebayPorts =
    ForebayPorts { resp: 6379, direct: 6380, http: 9999, peer: 8001, raft: 7000, metrics: 2112 };

/// How long a node may take from its start to being ready, from SIGTERM to its end, or a cluster to settle. Generous: it is no claim, only the
/// end of waiting for what will not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is shown of a node's output when a test fails.
const SHOWN_BYTES: u64 = 6 * 1024;

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Nodes at the start; the cluster forms when all of them have met.
    pub nodes: usize,
    /// Further command-line arguments of every node, such as `--min-acks 2`.
    pub args: Vec<String>,
    /// The text of a configuration file for every node.
    pub config: Option<String>,
    pub network: NetworkKind,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 3, args: Vec::new(), config: None, network: NetworkKind::Loopback }
    }
}

impl ClusterOptions {
    /// Three nodes with these further arguments, separated by blanks.
    pub fn with(args: &str) -> Self {
        Self { args: args.split_whitespace().map(str::to_owned).collect(), ..Self::default() }
    }

    /// Adds an origin and the groups that read through to it.
    pub fn in_front_of(mut self, url: &str, groups: &str) -> Self {
        self.args.extend(["--origin".to_owned(), url.to_owned()]);
        self.config = Some(groups.to_owned());
        self
    }
}

/// Running nodes. When a test panics while it holds them, the ends of their outputs are printed.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub network: Network,
    options: ClusterOptions,
    directory: TempDir,
}

impl Cluster {
    /// Starts the nodes, and waits until all are ready and hold what they should.
    ///
    /// # Panics
    /// When they do not become ready.
    pub fn start(options: ClusterOptions) -> Self {
        let mut cluster = Self::prepare(options);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.await_settled();
        cluster
    }

    /// The nodes without their processes.
    pub fn prepare(options: ClusterOptions) -> Self {
        let (network, directory) = (Network::take(options.network), TempDir::new().expect("a temporary directory"));
        let mut cluster = Self { nodes: Vec::new(), network, options, directory };
        for _ in 0..cluster.options.nodes {
            cluster.prepare_node();
        }
        cluster
    }

    /// Starts one more node, which joins by the first ones, and waits until it is ready; its number.
    pub fn add(&mut self) -> usize {
        let number = self.prepare_node();
        self.nodes[number].start();
        self.nodes[number].await_ready();
        number
    }

    /// One more node that is not started yet; its number.
    pub fn prepare_node(&mut self) -> usize {
        let number = self.nodes.len();
        let directory = self.directory.path().join(format!("node-{}", number + 1));
        fs::create_dir(&directory).expect("a directory for the node");
        let mut command = self.network.command(number, &forebay_binary());
        let arguments = self.arguments(number, &directory);
        command.args(arguments).current_dir(&directory).stdin(Stdio::null());
        let address = self.network.address(number);
        self.nodes.push(Node { number, address, command, directory, child: None, last_exit: None });
        number
    }

    fn arguments(&self, number: usize, directory: &Path) -> Vec<String> {
        let address = self.network.address(number).to_string();
        let mut arguments =
            vec!["node".to_owned(), "--bind".to_owned(), address.clone(), "--advertise".to_owned(), address];
        arguments.extend(PORTS.arguments());
        arguments.extend(["--enable-debug-command", "yes", "--data-dir"].map(str::to_owned));
        arguments.push(data(directory).display().to_string());
        for seed in (0..self.options.nodes).filter(|seed| *seed != number) {
            arguments.extend(["--join".to_owned(), format!("{}:{}", self.network.address(seed), PORTS.peer)]);
        }
        if number < self.options.nodes && self.options.nodes > 1 {
            arguments.extend(["--bootstrap-expect".to_owned(), self.options.nodes.to_string()]);
        }
        if !self.network.is_loopback() {
            arguments.push("--insecure".to_owned());
        }
        if let Some(text) = &self.options.config {
            let path = directory.join("forebay.toml");
            fs::write(&path, text).expect("the configuration file is written");
            arguments.extend(["--config".to_owned(), path.display().to_string()]);
        }
        arguments.extend(self.options.args.iter().cloned());
        arguments
    }

    /// The open doors of all nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// The nodes whose processes run.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.child.is_some())
    }

    /// Waits until all running nodes are ready and agree that every slot has its owner and its copies.
    ///
    /// # Panics
    /// When that does not come about: the message has what the nodes say.
    pub fn await_settled(&self) {
        self.running().for_each(Node::await_ready);
        let members = self.running().count();
        self.await_settled_with(members);
    }

    /// Waits until all running nodes agree that `members` nodes own all slots and hold their copies.
    ///
    /// # Panics
    /// When that does not come about: the message has what the nodes say.
    pub fn await_settled_with(&self, members: usize) {
        self.await_settled_within(members, PATIENCE);
    }

    /// The same with another limit, for what takes its time by design.
    ///
    /// # Panics
    /// When that does not come about: the message has what the nodes say.
    pub fn await_settled_within(&self, members: usize, limit: Duration) {
        let copies = self.copies().min(members);
        let mut said = String::new();
        let is_settled = eventually(limit, || {
            said = self.running().find_map(|node| node.unsettled(members, copies)).unwrap_or_default();
            said.is_empty()
        });
        assert!(is_settled, "the cluster does not settle: {said}");
    }

    /// `--copies`, or its default.
    fn copies(&self) -> usize {
        let mut args = self.options.args.iter().skip_while(|arg| *arg != "--copies");
        args.nth(1).map_or(3, |copies| copies.parse().expect("a number of copies"))
    }

    /// Runs `forebay cluster …` against a node; what it printed, and whether it succeeded.
    pub fn command(&mut self, node: usize, args: &[&str]) -> Result<String, String> {
        self.forebay(node, &[&["cluster"], args].concat())
    }

    /// Runs `forebay …` with `--node` for a node; what it printed, and whether it succeeded.
    pub fn forebay(&mut self, node: usize, args: &[&str]) -> Result<String, String> {
        let mut command = self.network.command(node, &forebay_binary());
        let peer = format!("{}:{}", self.network.address(node), PORTS.peer);
        let done =
            command.args(args).args(["--node", &peer]).stdin(Stdio::null()).output().expect("the binary can be run");
        let printed = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if done.status.success() { Ok(printed) } else { Err(printed) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in &self.nodes {
                eprintln!("---- the end of the output of {node} ----\n{}----", node.output_tail());
            }
        }
    }
}

/// One node, with its directory and, while it runs, its process.
pub struct Node {
    number: usize,
    address: Ipv4Addr,
    command: Command,
    directory: PathBuf,
    child: Option<Child>,
    last_exit: Option<ExitStatus>,
}

impl Node {
    /// Starts the process, without waiting for anything. What it prints is added to what its predecessors printed.
    ///
    /// # Panics
    /// When it runs already, or cannot be run.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{self} runs already");
        let output =
            OpenOptions::new().create(true).append(true).open(self.output_path()).expect("a file for the output");
        let errors = output.try_clone().expect("a second handle to the output");
        let child = self.command.stdout(output).stderr(errors).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{:?}: {error}", self.command)));
    }

    /// Adds an argument for the next start.
    pub fn add_args(&mut self, args: &[&str]) {
        self.command.args(args);
    }

    /// Waits until the node says that it serves its cluster.
    ///
    /// # Panics
    /// When it does not.
    pub fn await_ready(&self) {
        assert!(eventually(PATIENCE, || self.is_ready()), "{self} does not become ready:\n{}", self.output_tail());
    }

    /// Whether `/ready` says so.
    pub fn is_ready(&self) -> bool {
        http::status(socket(self.address, PORTS.http), "/ready") == Some(200)
    }

    /// Kills the process as a crash would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    /// The same for a process that may have ended by itself.
    pub fn kill_if_running(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }

    /// Asks the process to end in order, without waiting for it.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until the process has ended; how it did.
    ///
    /// # Panics
    /// When it does not end.
    pub fn await_end(&mut self) -> ExitStatus {
        assert!(eventually(PATIENCE, || self.has_ended()), "{self} does not end");
        self.last_exit.expect("it has ended")
    }

    /// Whether there is no process, or no more.
    pub fn has_ended(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait().expect("our own child can be waited for")
        {
            self.last_exit = Some(status);
            self.child = None;
        }
        self.child.is_none()
    }

    /// Stops the process where it stands; its sockets stay open.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts it again, with all that its disk holds, and waits until it is ready.
    pub fn restart(&mut self) {
        self.start();
        self.await_ready();
    }

    /// Empties its data directory.
    ///
    /// # Panics
    /// When it runs.
    pub fn wipe(&mut self) {
        assert!(self.has_ended(), "{self} runs");
        fs::remove_dir_all(data(&self.directory)).expect("the data directory can be removed");
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        data(&self.directory)
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{self} does not run"));
        let pid = Pid::from_child(child);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("{self} gets no {signal:?}: {error}"));
    }

    /// Its place in the cluster's list.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The host that it is known by.
    pub fn host(&self) -> Ipv4Addr {
        self.address
    }

    /// The open door.
    pub fn address(&self) -> SocketAddr {
        socket(self.address, PORTS.resp)
    }

    /// The door for clients that know of clusters.
    pub fn direct(&self) -> SocketAddr {
        socket(self.address, PORTS.direct)
    }

    /// Whether the open door takes connections.
    pub fn connectable(&self) -> bool {
        Connection::open(self.address()).is_ok()
    }

    /// A connection to the open door.
    ///
    /// # Panics
    /// When the node does not take it.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address()).unwrap_or_else(|error| panic!("{self}: {error}"))
    }

    /// All that its processes have printed.
    pub fn output(&self) -> String {
        fs::read(self.output_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn output_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(self.output_path())?;
            let start = file.metadata()?.len().saturating_sub(SHOWN_BYTES);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|error| format!("(none: {error})\n"))
    }

    fn output_path(&self) -> PathBuf {
        self.directory.join("output.log")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} at {}", self.number + 1, self.address)
    }
}

/// A moment to wait until, so that a fault lasts as long as it should whatever the test does meanwhile.
pub fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_killed_stopped_woken_wiped_and_restarted() {
        let mut cluster = Cluster::prepare(ClusterOptions { nodes: 1, ..ClusterOptions::default() });
        let node = &mut cluster.nodes[0];
        node.start();
        node.await_ready();

        let short = Duration::from_millis(300);
        node.pause();
        let mut silent = Connection::open_within(node.address(), short).expect("the system accepts for it");
        assert!(silent.call(&["PING"]).is_err(), "it answers while it is stopped");
        node.resume();
        node.await_ready();

        node.kill();
        assert!(Connection::open(node.address()).is_err(), "it answers after its death");
        let files = || fs::read_dir(node.data()).expect("the data directory is there").count();
        assert!(files() > 0);
        node.wipe();
        assert!(!node.data().exists());
        node.restart();
        node.terminate();
        assert!(node.await_end().success());
        assert!(node.output().matches("\n").count() > 2, "both processes have printed");
    }
}
