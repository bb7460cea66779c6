//! Clusters of nodes: prepared, started together, joined by more, watched until they have settled.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::network::{Network, NetworkKind};
use super::node::{Node, PATIENCE, PORTS, data};
use super::weather::{Conditions, Weather};
use crate::process::eventually;
use crate::server::forebay_binary;

/// The ports that proxies stand before: what is advertised, by which peers and clients of clusters come.
const PROXIED: [u16; 4] = [PORTS.resp, PORTS.direct, PORTS.peer, PORTS.raft];

/// The number of the network's first address for proxies.
const PROXIES_FROM: usize = 49;

/// The number of the network's first address for frontends.
const FRONTENDS_FROM: usize = 39;

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
    /// Whether nodes reach each other through proxies, which [`Cluster::weather`] makes slow; on the loopback interface only.
    pub has_weather: bool,
    /// Whether each is told of the first ones by `--join`. Otherwise the further arguments say how they find each other.
    pub is_listed: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            nodes: 3,
            args: Vec::new(),
            config: None,
            network: NetworkKind::Loopback,
            has_weather: false,
            is_listed: true,
        }
    }
}

impl ClusterOptions {
    /// Three nodes with these further arguments, separated by blanks.
    pub fn with(args: &str) -> Self {
        Self { args: args.split_whitespace().map(str::to_owned).collect(), ..Self::default() }
    }

    /// Adds an origin and the groups that read through to it. The database shares the machine with all nodes and clients: that it has to wait
    /// for a processor is to cost time, and to be no outage.
    pub fn in_front_of(mut self, url: &str, groups: &str) -> Self {
        self.args.extend(["--origin", url, "--origin-load-timeout", "10s"].map(str::to_owned));
        self.config = Some(groups.to_owned());
        self
    }
}

/// Running nodes. When a test panics while it holds them, the ends of their outputs are printed.
pub struct Cluster {
    pub nodes: Vec<Node>,
    /// Doors without data, started by tests one by one.
    pub frontends: Vec<Node>,
    pub network: Network,
    /// A proxy for each node, if there is weather.
    weather: Vec<Weather>,
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
        let is_possible = !options.has_weather || options.network == NetworkKind::Loopback;
        assert!(is_possible, "there is weather on the loopback interface only");
        let (network, directory) = (Network::take(options.network), TempDir::new().expect("a temporary directory"));
        let (nodes, frontends) = (Vec::new(), Vec::new());
        let mut cluster = Self { nodes, frontends, network, weather: Vec::new(), options, directory };
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
        let advertised = self.advertised(number);
        if self.options.has_weather {
            self.weather.push(Weather::between(advertised, address, &PROXIED, number as u64));
        }
        self.nodes.push(Node::new(number, address, advertised, command, directory));
        number
    }

    /// A frontend that is not started yet, and is told of these nodes; its number among the frontends.
    pub fn prepare_frontend(&mut self, seeds: &[usize]) -> usize {
        let number = self.frontends.len();
        let directory = self.directory.path().join(format!("frontend-{}", number + 1));
        fs::create_dir(&directory).expect("a directory for the frontend");
        let place = number + FRONTENDS_FROM;
        let address = self.network.address(place);
        let mut command = self.network.command(place, &forebay_binary());
        command.args(["frontend", "--bind", &address.to_string()]).current_dir(&directory).stdin(Stdio::null());
        for (flag, port) in [("--port", PORTS.resp), ("--http-port", PORTS.http), ("--metrics-port", PORTS.metrics)] {
            command.args([flag, &port.to_string()]);
        }
        for seed in seeds {
            command.args(["--join", &format!("{}:{}", self.advertised(*seed), PORTS.peer)]);
        }
        self.frontends.push(Node::new(place, address, address, command, directory));
        number
    }

    /// Starts a frontend that is told of these nodes, and waits until it is ready; its number among the frontends.
    pub fn add_frontend(&mut self, seeds: &[usize]) -> usize {
        let number = self.prepare_frontend(seeds);
        self.frontends[number].restart();
        number
    }

    fn arguments(&self, number: usize, directory: &Path) -> Vec<String> {
        let [address, advertised] =
            [self.network.address(number), self.advertised(number)].map(|host| host.to_string());
        let mut arguments = ["node", "--bind", &address, "--advertise", &advertised].map(str::to_owned).to_vec();
        arguments.extend(PORTS.arguments());
        arguments.extend(["--enable-debug-command", "yes", "--data-dir"].map(str::to_owned));
        arguments.push(data(directory).display().to_string());
        for seed in (0..self.options.nodes).filter(|seed| self.options.is_listed && *seed != number) {
            arguments.extend(["--join".to_owned(), format!("{}:{}", self.advertised(seed), PORTS.peer)]);
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

    /// The address that others, and clients that know of clusters, know the node by.
    pub fn advertised(&self, number: usize) -> Ipv4Addr {
        self.network.address(if self.options.has_weather { number + PROXIES_FROM } else { number })
    }

    /// Makes the way to every node slow, or quick again.
    ///
    /// # Panics
    /// When the cluster was made without weather.
    pub fn weather(&self, conditions: Conditions) {
        assert!(self.options.has_weather, "the nodes reach each other without a proxy");
        self.weather.iter().for_each(|weather| weather.set(conditions));
    }

    /// The open doors of all nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// All nodes but one.
    pub fn others(&self, than: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| *node != than).collect()
    }

    /// The nodes whose processes run.
    pub fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_started())
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

    /// Whether all running nodes agree that they own all slots and hold their copies.
    pub fn is_settled(&self) -> bool {
        let members = self.running().count();
        let copies = self.copies().min(members);
        self.running().all(|node| node.unsettled(members, copies).is_none())
    }

    /// Every node that runs must answer for keys of all of them.
    ///
    /// # Panics
    /// When one does not.
    pub fn assert_serves(&self) {
        self.running().for_each(Node::assert_serves);
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
        let peer = format!("{}:{}", self.network.address(node), PORTS.peer);
        self.run(&[args, &["--node", &peer]].concat())
    }

    /// Runs `forebay …` where the first node lives; what it printed, and whether it succeeded.
    pub fn run(&mut self, args: &[&str]) -> Result<String, String> {
        let mut command = self.network.command(0, &forebay_binary());
        let done = command.args(args).stdin(Stdio::null()).output().expect("the binary can be run");
        let printed = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        if done.status.success() { Ok(printed) } else { Err(printed) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in self.nodes.iter().chain(&self.frontends) {
                eprintln!("---- the end of the output of {node} ----\n{}----", node.output_tail());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Connection;
    use crate::reply::Reply;

    #[test]
    fn a_node_is_reached_through_its_weather() {
        let options = ClusterOptions { nodes: 1, has_weather: true, ..ClusterOptions::default() };
        let mut cluster = Cluster::prepare(options);
        cluster.nodes[0].restart();
        assert_ne!(cluster.nodes[0].host(), cluster.nodes[0].address().ip());
        let outside = (cluster.nodes[0].host(), PORTS.direct).into();
        let mut connection = Connection::open(outside).expect("the proxy accepts");
        cluster.weather(Conditions { delay: Duration::from_millis(5), ..Conditions::default() });
        assert_eq!(connection.command("PING"), Reply::Simple(b"PONG".to_vec()));
        cluster.nodes[0].kill();
        assert!(connection.is_closed(), "the proxy keeps a connection to a dead node");
        cluster.nodes[0].restart();
        let mut connection = Connection::open(outside).expect("the proxy accepts again");
        assert_eq!(connection.command("PING"), Reply::Simple(b"PONG".to_vec()));
    }
}
