//! The sockets of a node. Bound before anything is built, so that a port in use is the first thing to be told.

use std::io;
use std::net::{IpAddr, SocketAddr};

use forebay_origin::Fault;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::{ClusterConfig, Doors};

/// Connections that the system keeps until they are accepted; it may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// The sockets of a node.
pub struct Listeners {
    /// RESP for any client.
    pub open: TcpListener,
    /// RESP for cluster-aware clients.
    pub direct: Option<TcpListener>,
    pub http: Option<TcpListener>,
    pub metrics: Option<TcpListener>,
    /// For other nodes: requests and copies, and Raft.
    pub cluster: Option<ClusterListeners>,
}

/// The doors for other nodes.
pub struct ClusterListeners {
    pub peer: TcpListener,
    pub raft: TcpListener,
}

impl Listeners {
    /// Opens every door. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// With a fault for each that cannot be opened.
    pub fn bind(doors: &Doors, cluster: Option<&ClusterConfig>) -> Result<Listeners, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut door = |flag: &str, port: Option<u16>| {
            let address = SocketAddr::new(doors.bind, port?);
            bind(address).map_err(|error| faults.push(fault(flag, address, &error))).ok()
        };
        let open = door("--port", Some(doors.port));
        let direct = door("--direct-port", doors.direct_port);
        let http = door("--http-port", doors.http_port);
        let metrics = door("--metrics-port", doors.metrics_port);
        let peer = door("--peer-port", cluster.map(|cluster| cluster.peer_port));
        let raft = door("--raft-port", cluster.map(|cluster| cluster.raft_port));
        let cluster = peer.zip(raft).map(|(peer, raft)| ClusterListeners { peer, raft });
        match (open, faults.is_empty()) {
            (Some(open), true) => Ok(Listeners { open, direct, http, metrics, cluster }),
            _ => Err(faults),
        }
    }
}

/// The port that a listener was given, 0 if the system does not tell.
pub fn port_of(listener: &TcpListener) -> u16 {
    listener.local_addr().map_or(0, |address| address.port())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted node must not wait for the last connections of its predecessor to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn fault(flag: &str, address: SocketAddr, error: &io::Error) -> Fault {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!("another process listens there: give another {flag}, or 0 for a free port"),
        io::ErrorKind::AddrNotAvailable => "no interface of this machine has that address: see --bind".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
        _ => String::new(),
    };
    Fault::unplaced(flag, format!("{address} cannot be opened: {error}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_port_that_is_taken_is_told_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = port_of(&taken);
        let bind = "127.0.0.1".parse().expect("an address");
        let doors = Doors { bind, port, direct_port: None, http_port: Some(port), metrics_port: Some(0) };
        let faults = Listeners::bind(&doors, None).err().expect("faults");
        let places: Vec<_> = faults.iter().map(|fault| fault.place.as_str()).collect();
        assert_eq!(places, ["--port", "--http-port"]);
        assert!(faults[0].to_string().contains(&port.to_string()));
    }
}
