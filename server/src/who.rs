//! Who this node is, and where others find it: what was configured, what the data directory has, what the machine and ECS tell.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use forebay_cluster::NodeId;
use tracing::{info, warn};

use crate::config::{Config, IdentityConfig};
use crate::data_dir::{self, DataDirError};
use crate::ecs;

/// A node's name and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub id: NodeId,
    /// The host that clients and other nodes are told.
    pub host: String,
    pub zone: Option<String>,
}

impl Who {
    /// What was configured goes first, and is kept. The identity is otherwise that of the data directory, which holds the log that was written
    /// under it;
    /// a new one comes from the ECS task, so that it is the same after the task's processes and disk were replaced, or is drawn by lot.
    ///
    /// # Errors
    /// When the data directory cannot be used, or is another node's.
    pub async fn find(config: &Config) -> Result<Who, DataDirError> {
        let task = task(config).await;
        let IdentityConfig { data_dir, node_id, advertise, zone } = &config.identity;
        let new = || task.as_ref().map_or_else(|| NodeId::from_bytes(rand::random()), |task| task.node_id.clone());
        let id = match (node_id, data_dir) {
            (Some(id), None) => id.clone(),
            (given, Some(directory)) => data_dir::node_id(directory, given.as_ref(), new)?,
            (None, None) => new(),
        };
        let address = task.as_ref().and_then(|task| task.address);
        let host = advertise.clone().unwrap_or_else(|| host(config.doors.bind, address));
        let zone = zone.clone().or_else(|| task.and_then(|task| task.zone));
        Ok(Who { id, host, zone })
    }
}

/// The ECS task, if this is one and there is something to be learnt from it.
async fn task(config: &Config) -> Option<ecs::Task> {
    let endpoint = config.ecs_metadata.as_ref()?;
    match ecs::Task::ask(endpoint).await {
        Ok(task) => {
            info!(zone = task.zone, address = task.address.map(|address| address.to_string()), "this is an ECS task");
            Some(task)
        }
        Err(error) => {
            warn!("ECS does not tell of this task, and the node does without: {endpoint}: {error}");
            None
        }
    }
}

/// The address that the node listens at. If it listens at all of the machine's, the one that others know: that of the task, or the one
/// from which the machine calls others.
fn host(bind: IpAddr, task: Option<Ipv4Addr>) -> String {
    let address = match (bind.is_unspecified(), task) {
        (false, _) => Ok(bind),
        (true, Some(address)) => Ok(IpAddr::V4(address)),
        (true, None) => outgoing(bind),
    };
    let address = address.unwrap_or_else(|error| {
        warn!("this machine's address is not known ({error}), so that no other can be sent here: give --advertise");
        bind
    });
    address.to_string()
}

/// No packet is sent for it: the system only chooses the address that it would send from.
fn outgoing(bind: IpAddr) -> io::Result<IpAddr> {
    /// Addresses that belong to nobody (RFC 5737, RFC 3849), behind the default route like most others.
    const SOMEBODY: (Ipv4Addr, Ipv6Addr) =
        (Ipv4Addr::new(192, 0, 2, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let somebody = match bind {
        IpAddr::V4(_) => IpAddr::V4(SOMEBODY.0),
        IpAddr::V6(_) => IpAddr::V6(SOMEBODY.1),
    };
    let socket = UdpSocket::bind(SocketAddr::new(bind, 0))?;
    socket.connect(SocketAddr::new(somebody, 9))?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_listener_is_told_unless_it_stands_for_all() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let task = Some(Ipv4Addr::new(10, 0, 0, 108));
        assert_eq!(host(address("127.0.0.3"), task), "127.0.0.3");
        assert_eq!(host(address("0.0.0.0"), task), "10.0.0.108");
        assert_eq!(host(address("::"), task), "10.0.0.108");
        // A machine without a network has none.
        if let Ok(own) = outgoing(address("0.0.0.0")) {
            assert!(!own.is_unspecified());
            assert_eq!(host(address("0.0.0.0"), None), own.to_string());
        }
    }
}
