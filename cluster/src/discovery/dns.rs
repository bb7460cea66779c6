//! Nodes by a name in the DNS: SRV records with hosts and ports, or addresses of nodes that all have the same peer port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;

use super::{Discovery, HINT, InvalidDiscovery};

/// How long a server's answer is waited for before it is asked once more.
const PATIENCE: Duration = Duration::from_secs(1);

/// A name that stands for the nodes of a cluster.
pub(super) struct DnsName {
    name: String,
    /// The peer port where the records have none.
    port: u16,
    resolver: TokioResolver,
}

/// Why the DNS can never be asked.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error(
        "the system's DNS servers are not known: {0}\n  hint: see /etc/resolv.conf, or give --dns-server ADDRESS:PORT"
    )]
    NoServers(NetError),
    #[error("dns:{0} says no port, and this node's own is any that is free\n  hint: write dns:{0}:PORT")]
    NoPort(String),
}

/// From `NAME` or `NAME:PORT`.
pub(super) fn parse(text: &str) -> Result<Discovery, InvalidDiscovery> {
    let invalid = |problem: String| InvalidDiscovery { problem, hint: HINT.to_owned() };
    let (name, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((name, digits)) => {
            let port = digits.parse().ok().filter(|port| *port > 0);
            (name, Some(port.ok_or_else(|| invalid(format!("`{digits}` is no port")))?))
        }
    };
    let is_plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_');
    match !name.is_empty() && name.chars().all(is_plain) {
        true => Ok(Discovery::Dns { name: name.to_owned(), port }),
        false => Err(invalid(format!("`{name}` is no name in the DNS"))),
    }
}

impl DnsName {
    /// Looked up at `server`, or else at the servers that the system names.
    pub(super) fn new(name: &str, port: u16, server: Option<SocketAddr>) -> Result<DnsName, DnsError> {
        let has_ports = is_service(name);
        if port == 0 && !has_ports {
            return Err(DnsError::NoPort(name.to_owned()));
        }
        Ok(DnsName { name: name.to_owned(), port, resolver: resolver(server).map_err(DnsError::NoServers)? })
    }

    /// The peer ports, as `host:port`.
    pub(super) async fn look_up(&self) -> Result<Vec<String>, String> {
        let found = match is_service(&self.name) {
            true => self.services().await,
            false => self.hosts(&self.name, self.port).await,
        };
        let addresses = found.map_err(|error| in_words(&error))?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    async fn services(&self) -> Result<Vec<SocketAddr>, NetError> {
        let lookup = self.resolver.srv_lookup(self.name.as_str()).await?;
        let services: Vec<SRV> = lookup.answers().iter().filter_map(|record| service(&record.data)).collect();
        // By the same servers: the hosts' names need mean nothing to the system.
        let hosts = join_all(services.iter().map(|service| self.hosts_of(service))).await;
        let (found, failed): (Vec<_>, Vec<_>) = hosts.into_iter().partition(Result::is_ok);
        match (found.is_empty(), failed.into_iter().next()) {
            (true, Some(error)) => error,
            _ => Ok(found.into_iter().flatten().flatten().collect()),
        }
    }

    async fn hosts_of(&self, service: &SRV) -> Result<Vec<SocketAddr>, NetError> {
        self.hosts(&service.target.to_utf8(), service.port).await
    }

    async fn hosts(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
        let lookup = self.resolver.lookup_ip(name).await?;
        Ok(lookup.iter().map(|ip: IpAddr| SocketAddr::new(ip, port)).collect())
    }
}

/// Whether a name has SRV records (RFC 2782).
fn is_service(name: &str) -> bool {
    name.starts_with('_')
}

fn service(data: &RData) -> Option<SRV> {
    match data {
        RData::SRV(service) => Some(service.clone()),
        _ => None,
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut builder = TokioResolver::builder_with_config(only(server), TokioRuntimeProvider::default());
            // Who names a server means that one.
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    let options: &mut ResolverOpts = builder.options_mut();
    // The source keeps the last answer itself. Another one that keeps a "no such name" for as long as its zone says would hide the nodes
    // that a cluster waits for.
    options.cache_size = 0;
    options.timeout = PATIENCE;
    options.attempts = 1;
    // A node listens at one address. Where names have both kinds, the other one would be tried in vain.
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    builder.build()
}

fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|connection| {
        let mut connection = connection;
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    ResolverConfig::from_parts(None, Vec::new(), vec![server])
}

fn in_words(error: &NetError) -> String {
    match error {
        error if error.is_nx_domain() => "there is no such name".to_owned(),
        error if error.is_no_records_found() => "the name has no such records".to_owned(),
        NetError::Timeout | NetError::NoConnections => "the DNS server does not answer".to_owned(),
        error => error.to_string(),
    }
}
