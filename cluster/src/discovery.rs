//! Where nodes that may know the cluster are to be found: by a fixed list, and by a source that is asked again and again, since the nodes
//! behind it come and go.

#[cfg(feature = "cloudmap")]
mod cloud_map;
mod dns;
mod source;

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

#[cfg(feature = "cloudmap")]
use self::cloud_map::CloudMap;
pub use self::dns::DnsError as DiscoveryError;
use self::dns::DnsName;
use self::source::{Lookup, Source};

/// A source of nodes, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// A name in the DNS. One that begins with `_` has SRV records (RFC 2782), any other one addresses of nodes whose peer port is `port`,
    /// or the same as that of the node that asks.
    Dns { name: String, port: Option<u16> },
    /// A service of AWS Cloud Map. Instances that say no port have the same as the node that asks.
    #[cfg(feature = "cloudmap")]
    CloudMap { namespace: String, service: String },
}

const HINT: &str = "write dns:NAME or dns:NAME:PEER_PORT, such as dns:forebay.internal or dns:_peer._tcp.forebay.internal, or \
                    cloudmap:NAMESPACE/SERVICE";

/// Why a text names no source of nodes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct InvalidDiscovery {
    pub problem: String,
    pub hint: String,
}

impl FromStr for Discovery {
    type Err = InvalidDiscovery;

    fn from_str(text: &str) -> Result<Discovery, InvalidDiscovery> {
        match text.split_once(':') {
            Some(("dns", name)) => dns::parse(name),
            Some(("cloudmap", path)) => cloud_map(path),
            _ => Err(InvalidDiscovery { problem: format!("`{text}` names no source of nodes"), hint: HINT.to_owned() }),
        }
    }
}

impl fmt::Display for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Discovery::Dns { name, port: None } => write!(f, "dns:{name}"),
            Discovery::Dns { name, port: Some(port) } => write!(f, "dns:{name}:{port}"),
            #[cfg(feature = "cloudmap")]
            Discovery::CloudMap { namespace, service } => write!(f, "cloudmap:{namespace}/{service}"),
        }
    }
}

#[cfg(feature = "cloudmap")]
fn cloud_map(path: &str) -> Result<Discovery, InvalidDiscovery> {
    match path.split('/').collect::<Vec<_>>()[..] {
        [namespace, service] if !namespace.is_empty() && !service.is_empty() => {
            Ok(Discovery::CloudMap { namespace: namespace.to_owned(), service: service.to_owned() })
        }
        _ => Err(InvalidDiscovery {
            problem: format!("`{path}` is no service of AWS Cloud Map"),
            hint: "write cloudmap:NAMESPACE/SERVICE".to_owned(),
        }),
    }
}

#[cfg(not(feature = "cloudmap"))]
fn cloud_map(_path: &str) -> Result<Discovery, InvalidDiscovery> {
    Err(InvalidDiscovery {
        problem: "this build cannot ask AWS Cloud Map".to_owned(),
        hint: "build with `cargo build --release --features cloudmap`, or use the container image, which has it"
            .to_owned(),
    })
}

/// The first nodes to ask: those of a list, and those that a source tells.
#[derive(Debug)]
pub struct Seeds {
    /// Peer ports, as `host:port`.
    fixed: Vec<String>,
    source: Option<Source>,
}

impl Seeds {
    /// Those of the list `fixed` of peer ports, as `host:port`, and those that `discovery` tells. `peer_port` is this node's own;
    /// `dns_server` is asked instead of the system's DNS servers.
    ///
    /// # Errors
    /// When the source can never be asked.
    pub fn new(
        fixed: Vec<String>,
        discovery: Option<&Discovery>,
        peer_port: u16,
        dns_server: Option<SocketAddr>,
    ) -> Result<Seeds, DiscoveryError> {
        let lookup = match discovery {
            None => return Ok(Seeds::from(fixed)),
            Some(Discovery::Dns { name, port }) => {
                Lookup::Dns(Box::new(DnsName::new(name, port.unwrap_or(peer_port), dns_server)?))
            }
            #[cfg(feature = "cloudmap")]
            Some(Discovery::CloudMap { namespace, service }) => {
                Lookup::CloudMap(CloudMap::new(namespace, service, peer_port))
            }
        };
        let source = discovery.map(|discovery| Source::new(discovery.to_string(), lookup));
        Ok(Seeds { fixed, source })
    }

    /// Whether there never are any.
    pub fn is_none(&self) -> bool {
        self.fixed.is_empty() && self.source.is_none()
    }

    /// Whether there may be others later.
    pub fn may_change(&self) -> bool {
        self.source.is_some()
    }

    /// The peer ports as they are known now, as `host:port`. A source that cannot be asked just now gives those of the last time.
    pub async fn addresses(&self) -> Vec<String> {
        let mut addresses = self.fixed.clone();
        if let Some(source) = &self.source {
            addresses.extend(source.addresses().await);
            addresses.sort();
            addresses.dedup();
        }
        addresses
    }

    /// Why the source did not answer the last time, if it did not.
    pub fn problem(&self) -> Option<String> {
        self.source.as_ref()?.problem()
    }
}

impl From<Vec<String>> for Seeds {
    /// Each once, however often it is listed.
    fn from(mut fixed: Vec<String>) -> Seeds {
        let mut known = HashSet::new();
        fixed.retain(|seed| known.insert(seed.clone()));
        Seeds { fixed, source: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_written_as_it_is_read() {
        for text in ["dns:forebay.internal", "dns:forebay.internal:9001", "dns:_peer._tcp.forebay.internal"] {
            assert_eq!(text.parse::<Discovery>().map(|discovery| discovery.to_string()), Ok(text.to_owned()));
        }
        let dns = |name: &str, port| Discovery::Dns { name: name.to_owned(), port };
        assert_eq!("dns:forebay.internal:9001".parse(), Ok(dns("forebay.internal", Some(9001))));
        assert_eq!("dns:forebay".parse(), Ok(dns("forebay", None)));
    }

    /// Who counts those that are other nodes counts this one's address once.
    #[tokio::test]
    async fn a_seed_that_is_listed_twice_is_one() {
        let listed = ["b:1", "a:1", "b:1"].map(str::to_owned).to_vec();
        assert_eq!(Seeds::from(listed).addresses().await, ["b:1", "a:1"]);
    }

    #[cfg(feature = "cloudmap")]
    #[test]
    fn a_service_of_cloud_map_has_a_namespace() {
        let shop = Discovery::CloudMap { namespace: "shop".to_owned(), service: "forebay".to_owned() };
        assert_eq!("cloudmap:shop/forebay".parse(), Ok(shop.clone()));
        assert_eq!(shop.to_string(), "cloudmap:shop/forebay");
        for wrong in ["cloudmap:", "cloudmap:shop", "cloudmap:shop/", "cloudmap:/forebay", "cloudmap:a/b/c"] {
            assert!(wrong.parse::<Discovery>().is_err(), "{wrong}");
        }
    }

    #[cfg(not(feature = "cloudmap"))]
    #[test]
    fn without_the_feature_it_is_told_what_to_build() {
        let invalid = "cloudmap:shop/forebay".parse::<Discovery>().expect_err("it is not there");
        assert!(invalid.hint.contains("--features cloudmap"), "{invalid:?}");
    }

    #[test]
    fn what_names_no_source_is_refused_with_a_hint() {
        let wrong =
            ["", "forebay", "dns", "dns:", "dns::8001", "dns:a:x", "dns:a:0", "dns:two words", "dns:a/b", "etcd:a"];
        for text in wrong {
            let invalid = text.parse::<Discovery>().expect_err(text);
            assert!(invalid.hint.contains("dns:NAME"), "{text}: {invalid:?}");
        }
    }
}
