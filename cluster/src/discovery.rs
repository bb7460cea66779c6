//! Where nodes that may know the cluster are to be found: by a fixed list, or by a name in the DNS that is asked again and again, since
//! the nodes behind it come and go.

mod dns;

pub use self::dns::{DnsName, InvalidDnsName};

/// The first nodes to ask.
#[derive(Debug)]
pub enum Seeds {
    /// Peer ports, as `host:port`.
    Static(Vec<String>),
    Dns(Box<DnsName>),
}

impl Seeds {
    /// Whether there never are any.
    pub fn is_none(&self) -> bool {
        matches!(self, Seeds::Static(addresses) if addresses.is_empty())
    }

    /// The peer ports as they are known now, as `host:port`. A name that cannot be looked up just now gives those of the last time.
    pub async fn addresses(&self) -> Vec<String> {
        match self {
            Seeds::Static(addresses) => addresses.clone(),
            Seeds::Dns(name) => name.addresses().await,
        }
    }
}

impl From<Vec<String>> for Seeds {
    fn from(addresses: Vec<String>) -> Seeds {
        Seeds::Static(addresses)
    }
}
