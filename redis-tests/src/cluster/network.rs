//! Where nodes live, and how their links are cut.
//!
//! On the loopback interface every address of 127.0.0.0/8 can be bound, so each node has one of its own and all use the same port numbers, below
//! those that the system gives to outgoing connections: nobody can take a port while its node is being restarted.
//!
//! For partitions each node gets a network namespace with an address on a bridge, and a set of addresses whose packets it does not let in
//! (nftables). The clients are outside, on the bridge, and reach all nodes at any time. That takes the rights of root.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

use super::node::PORTS;

/// The most nodes that a network has.
const MAX_NODES: u8 = 99;

/// The host number by which a test holds its network, so that no other test takes it.
const HOLDER: u8 = 254;

/// Which kind of network a cluster is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkKind {
    /// Fast and for everybody, but its links cannot be cut.
    #[default]
    Loopback,
    /// A namespace for each node; for root only.
    Namespaces,
}

/// A network of its own for one cluster.
pub enum Network {
    Loopback { prefix: [u8; 3], _held: TcpListener },
    Namespaces(Namespaces),
}

impl Network {
    /// Takes a network that nobody uses.
    ///
    /// # Panics
    /// When there is none, or the rights for it are missing.
    pub fn take(kind: NetworkKind) -> Self {
        match kind {
            NetworkKind::Loopback => Self::loopback(),
            NetworkKind::Namespaces => Self::Namespaces(Namespaces::make()),
        }
    }

    fn loopback() -> Self {
        let free = candidates().map(|[b, c]| [127, b | 1, c]).find_map(|prefix| {
            let [a, b, c] = prefix;
            let held = TcpListener::bind((Ipv4Addr::new(a, b, c, HOLDER), PORTS.resp)).ok()?;
            Some(Self::Loopback { prefix, _held: held })
        });
        free.unwrap_or_else(|| panic!("no loopback network is free: is port {} bound to all addresses?", PORTS.resp))
    }

    /// The address of a node; they are counted from 0.
    pub fn address(&self, node: usize) -> Ipv4Addr {
        let host = u8::try_from(node + 1).ok().filter(|host| *host <= MAX_NODES).expect("few nodes");
        let [a, b, c] = match self {
            Self::Loopback { prefix, .. } => *prefix,
            Self::Namespaces(namespaces) => namespaces.prefix,
        };
        Ipv4Addr::new(a, b, c, host)
    }

    /// Whether its addresses are the machine's own, which a node trusts.
    pub fn is_loopback(&self) -> bool {
        matches!(self, Self::Loopback { .. })
    }

    /// The command that runs `program` where the node lives.
    pub fn command(&mut self, node: usize, program: &std::path::Path) -> Command {
        match self {
            Self::Loopback { .. } => Command::new(program),
            Self::Namespaces(namespaces) => {
                namespaces.add(node);
                // `ip netns exec` becomes the program, so the process has the id that we know.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespaces.name(node)]).arg(program);
                command
            }
        }
    }

    /// No packet goes between the nodes of `these` and those of `those` any more, in either direction.
    ///
    /// # Panics
    /// When links cannot be cut here.
    pub fn cut(&self, these: &[usize], those: &[usize]) {
        self.cut_one_way(these, those);
        self.cut_one_way(those, these);
    }

    /// No packet from the nodes of `from` reaches those of `to` any more.
    ///
    /// # Panics
    /// When links cannot be cut here.
    pub fn cut_one_way(&self, from: &[usize], to: &[usize]) {
        let Self::Namespaces(namespaces) = self else {
            panic!("links of the loopback interface cannot be cut");
        };
        let senders: Vec<String> = from.iter().map(|node| self.address(*node).to_string()).collect();
        for node in to {
            namespaces.nft(*node, &format!("add element ip cut senders {{ {} }}", senders.join(", ")));
        }
    }

    /// All links are whole again.
    pub fn heal(&self) {
        if let Self::Namespaces(namespaces) = self {
            namespaces.made.iter().for_each(|node| namespaces.nft(*node, "flush set ip cut senders"));
        }
    }
}

/// Addresses to try, different for tests that run at the same time.
fn candidates() -> impl Iterator<Item = [u8; 2]> {
    static TAKEN: AtomicU8 = AtomicU8::new(0);
    let process = std::process::id();
    let first = process.wrapping_mul(31).wrapping_add(u32::from(TAKEN.fetch_add(1, Ordering::Relaxed)) * 7);
    (0..u32::from(u16::MAX)).map(move |n| {
        let [.., b, c] = first.wrapping_add(n).to_be_bytes();
        [b, c]
    })
}

/// A bridge and a namespace for each node; gone when this is dropped.
pub struct Namespaces {
    /// What all its interfaces and namespaces begin with; the names of interfaces have 15 characters at most.
    name: String,
    prefix: [u8; 3],
    made: Vec<usize>,
}

impl Namespaces {
    fn make() -> Self {
        let namespaces = candidates().find_map(|[b, c]| {
            // 198.18.0.0/15 is for measurements between networks (RFC 2544): nobody lives there.
            let prefix = [198, 18 | (b & 1), c];
            let name = format!("fb{:02x}{:02x}", prefix[1], prefix[2]);
            ip_quietly(&["link", "add", &name, "type", "bridge"]).ok()?;
            Some(Self { name, prefix, made: Vec::new() })
        });
        let namespaces = namespaces.unwrap_or_else(|| {
            let refusal = ip_quietly(&["link", "add", "fbprobe", "type", "bridge"]);
            panic!(
                "no bridge can be made (root and iproute2 are needed, redis-tests/scripts/setup cluster): {refusal:?}"
            )
        });
        let [a, b, c] = namespaces.prefix;
        ip(&["addr", "add", &format!("{a}.{b}.{c}.{HOLDER}/24"), "dev", &namespaces.name]);
        ip(&["link", "set", &namespaces.name, "up"]);
        namespaces
    }

    fn name(&self, node: usize) -> String {
        format!("{}n{}", self.name, node + 1)
    }

    fn add(&mut self, node: usize) {
        if self.made.contains(&node) {
            return;
        }
        self.made.push(node);
        let (name, inside) = (self.name(node), format!("{}i{}", self.name, node + 1));
        let [a, b, c] = self.prefix;
        ip(&["netns", "add", &name]);
        ip(&["link", "add", &name, "type", "veth", "peer", "name", &inside, "netns", &name]);
        ip(&["link", "set", &name, "master", &self.name, "up"]);
        ip(&["-n", &name, "addr", "add", &format!("{a}.{b}.{c}.{}/24", node + 1), "dev", &inside]);
        ip(&["-n", &name, "link", "set", &inside, "up"]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        self.nft(node, "add table ip cut");
        self.nft(node, "add set ip cut senders { type ipv4_addr; }");
        self.nft(node, "add chain ip cut input { type filter hook input priority 0; }");
        self.nft(node, "add rule ip cut input ip saddr @senders drop");
    }

    fn nft(&self, node: usize, rule: &str) {
        ip(&["netns", "exec", &self.name(node), "nft", rule]);
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in &self.made {
            // The other end of the pair goes with the namespace.
            let _ = ip_quietly(&["netns", "delete", &self.name(*node)]);
            let _ = ip_quietly(&["link", "delete", &self.name(*node)]);
        }
        let _ = ip_quietly(&["link", "delete", &self.name]);
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Network({})", self.address(0))
    }
}

/// Runs `ip`.
///
/// # Panics
/// When it fails.
fn ip(args: &[&str]) {
    ip_quietly(args).unwrap_or_else(|words| panic!("ip {}: {words}", args.join(" ")));
}

fn ip_quietly(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{error}; run redis-tests/scripts/setup cluster"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Where the RESP port of an address is.
pub fn socket(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}
