//! Nodes by a name in the DNS: SRV records with hosts and ports, or addresses of nodes that all have the same peer port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use tokio::sync::Mutex;

/// An answer is used for this long. It is short, since a cluster that forms waits for it.
const FRESH: Duration = Duration::from_secs(2);
/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A name that stands for the nodes of a cluster.
pub struct DnsName {
    name: String,
    /// The peer port where the records have none.
    port: u16,
    resolver: TokioResolver,
    last: Mutex<Answer>,
}

/// What the last look-up gave.
#[derive(Default)]
struct Answer {
    addresses: Vec<String>,
    at: Option<Instant>,
    problem: Option<String>,
}

/// Why nodes cannot be looked up by a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name}: {problem}\n  hint: dns:NAME or dns:NAME:PORT, for instance dns:_peer._tcp.forebay.internal or dns:forebay.internal:8001"
)]
pub struct InvalidDnsName {
    name: String,
    problem: String,
}

impl DnsName {
    /// From `NAME` or `NAME:PORT`. A name that begins with `_` has SRV records (RFC 2782), any other one addresses, at which the peer port
    /// is `PORT`, or `port` if there is none. The system's resolvers are asked.
    ///
    /// # Errors
    /// When it is no such thing, or the system's resolvers are not known.
    pub fn new(text: &str, port: u16) -> Result<DnsName, InvalidDnsName> {
        let invalid = |problem: String| InvalidDnsName { name: text.to_owned(), problem };
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let resolver =
            resolver.map_err(|error| invalid(format!("the system's DNS servers are not known ({error})")))?;
        let (name, port) = split(text, port).map_err(invalid)?;
        Ok(DnsName { name, port, resolver, last: Mutex::default() })
    }

    /// The peer ports, as `host:port`.
    pub(super) async fn addresses(&self) -> Vec<String> {
        let mut last = self.last.lock().await;
        if last.at.is_none_or(|at| at.elapsed() >= FRESH) {
            let looked_up = tokio::time::timeout(TIMEOUT, self.look_up()).await;
            let looked_up = looked_up.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
            last.at = Some(Instant::now());
            let problem = match looked_up {
                Ok(addresses) => {
                    last.addresses = addresses;
                    None
                }
                Err(problem) => Some(problem),
            };
            if problem.is_some() && problem != last.problem {
                tracing::info!(
                    "cluster: {} cannot be looked up: {}",
                    self.name,
                    problem.as_deref().unwrap_or_default()
                );
            }
            last.problem = problem;
        }
        last.addresses.clone()
    }

    async fn look_up(&self) -> Result<Vec<String>, String> {
        let mut addresses: Vec<String> = if self.name.starts_with('_') {
            let lookup = self.resolver.srv_lookup(self.name.as_str()).await.map_err(|error| error.to_string())?;
            lookup.answers().iter().filter_map(|record| service(&record.data)).collect()
        } else {
            let lookup = self.resolver.lookup_ip(self.name.as_str()).await.map_err(|error| error.to_string())?;
            lookup.iter().map(|ip: IpAddr| SocketAddr::new(ip, self.port).to_string()).collect()
        };
        addresses.sort();
        addresses.dedup();
        Ok(addresses)
    }
}

/// `host:port` of an SRV record.
fn service(data: &RData) -> Option<String> {
    match data {
        RData::SRV(srv) => Some(format!("{}:{}", srv.target.to_utf8().trim_end_matches('.'), srv.port)),
        _ => None,
    }
}

fn split(text: &str, port: u16) -> Result<(String, u16), String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, digits)) => (name, digits.parse().map_err(|_| format!("{digits:?} is no port"))?),
        None => (text, port),
    };
    let is_plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_');
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok((name.to_owned(), port)),
        false => Err("it is no name".to_owned()),
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dns:{}:{}", self.name, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_a_port() {
        assert_eq!(split("forebay.internal", 8001), Ok(("forebay.internal".to_owned(), 8001)));
        assert_eq!(split("forebay.internal:9001", 8001), Ok(("forebay.internal".to_owned(), 9001)));
        for wrong in ["", ":8001", "forebay:x", "two words", "a/b"] {
            assert!(split(wrong, 8001).is_err(), "{wrong:?}");
        }
    }
}
