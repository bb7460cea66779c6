//! A node as a process: started, killed, stopped, woken and restarted by the test that owns it.

use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::network::socket;
use crate::connection::Connection;
use crate::http;
use crate::process::{eventually, is_stopped, states};
use crate::reply::Reply;
use crate::server::ForebayPorts;

/// The ports of every node; each has an address of its own.
pub const PORTS: ForebayPorts =
    ForebayPorts { resp: 6379, direct: 6380, http: 9999, peer: 8001, raft: 7000, metrics: 2112 };

/// How long a node may take from its start to being ready, from SIGTERM to its end, or a cluster to settle. Generous: it is no claim, only the
/// end of waiting for what will not come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is shown of a node's output when a test fails.
const SHOWN_BYTES: u64 = 6 * 1024;

/// One node, with its directory and, while it runs, its process.
pub struct Node {
    number: usize,
    address: Ipv4Addr,
    advertised: Ipv4Addr,
    command: Command,
    directory: PathBuf,
    child: Option<Child>,
    last_exit: Option<ExitStatus>,
}

impl Node {
    /// A node that is not started yet; `command` starts it.
    pub(super) fn new(
        number: usize,
        address: Ipv4Addr,
        advertised: Ipv4Addr,
        command: Command,
        directory: PathBuf,
    ) -> Self {
        Self { number, address, advertised, command, directory, child: None, last_exit: None }
    }

    /// Whether it was started and has not been seen to end.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

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
    pub fn add_args(&mut self, args: &[impl AsRef<OsStr>]) {
        self.command.args(args);
    }

    /// Sets a variable of its environment for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.command.env(name, value);
    }

    /// Waits until the node says that it serves its cluster.
    ///
    /// # Panics
    /// When it does not.
    pub fn await_ready(&self) {
        eventually(PATIENCE, || self.is_ready() || self.is_dead());
        assert!(self.is_ready(), "{self} does not become ready:\n{}", self.output_tail());
    }

    /// Waits until it is ready; it must take keys of all nodes then, and answer for them.
    ///
    /// # Panics
    /// When it does not.
    pub fn assert_serves(&self) {
        self.await_ready();
        let mut connection = self.connect();
        for n in 0..50 {
            assert_eq!(connection.command(&format!("SET k:{n} {n}")), Reply::ok(), "k:{n} at {self}");
            assert_eq!(connection.command(&format!("GET k:{n}")), Reply::bulk(&n.to_string()), "k:{n} at {self}");
        }
    }

    /// Whether its process has ended by itself and nobody has looked yet.
    fn is_dead(&self) -> bool {
        states(self.child.as_ref().map_or(0, Child::id)).iter().all(|state| *state == 'Z')
    }

    /// Whether `/ready` says so.
    pub fn is_ready(&self) -> bool {
        http::status(socket(self.address, PORTS.http), "/ready") == Some(200)
    }

    /// Why it is not ready, as `/ready` says it.
    pub fn unreadiness(&self) -> Option<String> {
        let answer = http::ask(socket(self.address, PORTS.http), "GET", "/ready", "")?;
        (answer.status != 200).then_some(answer.body)
    }

    /// Waits until it has said all these words in its output, in any case of letters.
    ///
    /// # Panics
    /// When it does not say them.
    pub fn await_words(&self, words: &[&str]) {
        let lacks = |words: &[&str]| -> Vec<String> {
            let output = self.output().to_lowercase();
            words.iter().filter(|word| !output.contains(&word.to_lowercase())).map(ToString::to_string).collect()
        };
        let has_said = eventually(PATIENCE, || lacks(words).is_empty() || self.is_dead());
        assert!(has_said && lacks(words).is_empty(), "{self} does not say {:?}:\n{}", lacks(words), self.output_tail());
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
    ///
    /// # Panics
    /// When it does not stop.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        assert!(eventually(PATIENCE, || is_stopped(self.child.as_ref().map_or(0, Child::id))), "{self} does not stop");
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
        self.advertised
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

    /// The end of what they have printed.
    pub fn output_tail(&self) -> String {
        let read = || -> io::Result<String> {
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

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}", self.number + 1, self.address)
    }
}

/// A moment to wait until, so that a fault lasts as long as it should whatever the test does meanwhile.
pub fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// Where a node keeps its data, in its directory.
pub(super) fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::nodes::{Cluster, ClusterOptions};

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
