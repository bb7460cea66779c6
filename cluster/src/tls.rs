//! The certificates by which nodes know each other: both ends of a connection between nodes show one that the same authority signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs, io};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// What connections between nodes speak (RFC 9113).
const HTTP_2: &[u8] = b"h2";

/// A node's certificate and key, and the authority that signs all nodes' certificates.
#[derive(Clone)]
pub struct PeerTls {
    server: Arc<ServerConfig>,
    client: ClientTlsConfig,
    caller: Arc<ClientConfig>,
    /// See [`PeerTlsFiles::name`].
    name: Option<String>,
}

/// Where the certificates are: files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    /// What the certificate of every node names. Without it, each names the host that the node is called by.
    pub name: Option<String>,
}

/// Why the files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} cannot be used: {problem}\n  hint: name a file in PEM format")]
    NotPem { path: PathBuf, problem: String },
    #[error("{cert} and {key} are no pair: {problem}")]
    NoPair { cert: PathBuf, key: PathBuf, problem: rustls::Error },
}

impl PeerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or holds something else, or the key is not the certificate's.
    pub fn read(files: &PeerTlsFiles) -> Result<PeerTls, PeerTlsError> {
        let PeerTlsFiles { cert, key, ca, name } = files;
        let client = ClientTlsConfig::new()
            .identity(Identity::from_pem(contents(cert)?, contents(key)?))
            .ca_certificate(Certificate::from_pem(contents(ca)?));
        let (server, caller) = (Arc::new(server(files)?), Arc::new(caller(files)?));
        Ok(PeerTls { server, client, caller, name: name.clone() })
    }

    /// For a port that nodes call: who has no certificate of the authority is turned away.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For calls by tonic's own connections to the node at `address`, a host and a port. Agreeing on a connection may take `within`: the limit
    /// that tonic has for connecting is TCP's alone, and who vanished meanwhile never answers.
    pub(crate) fn client(&self, address: &str, within: Duration) -> ClientTlsConfig {
        self.client.clone().domain_name(self.name_at(address)).timeout(within)
    }

    /// For calls to other nodes by a thread's own connections.
    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.caller))
    }

    /// What the certificate of the node at `address`, a host and a port, is to name.
    ///
    /// # Errors
    /// When that can be no host's name.
    pub(crate) fn name_of(&self, address: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
        ServerName::try_from(self.name_at(address).to_owned())
    }

    fn name_at<'a>(&'a self, address: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or_else(|| host_of(address))
    }
}

/// The host of `host:port`. An IPv6 address stands in brackets there, and without them in certificates.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn server(files: &PeerTlsFiles) -> Result<ServerConfig, PeerTlsError> {
    let PeerTlsFiles { cert, key, ca, .. } = files;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), Arc::clone(&provider)).build();
    let (chain, private) = pair(files)?;
    let no_pair = |problem| PeerTlsError::NoPair { cert: cert.clone(), key: key.clone(), problem };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(no_pair)?
        .with_client_cert_verifier(verifier.map_err(|error| not_pem(ca, &error))?)
        .with_single_cert(chain, private)
        .map_err(no_pair)?;
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

fn caller(files: &PeerTlsFiles) -> Result<ClientConfig, PeerTlsError> {
    let PeerTlsFiles { cert, key, ca, .. } = files;
    let (chain, private) = pair(files)?;
    let no_pair = |problem| PeerTlsError::NoPair { cert: cert.clone(), key: key.clone(), problem };
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(no_pair)?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(chain, private)
        .map_err(no_pair)?;
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

fn roots(ca: &Path) -> Result<RootCertStore, PeerTlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|error| not_pem(ca, &error))?;
    }
    Ok(roots)
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn pair(files: &PeerTlsFiles) -> Result<Pair, PeerTlsError> {
    let private = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| not_pem(&files.key, &error))?;
    Ok((certificates(&files.cert)?, private))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PeerTlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(not_pem(path, &pem::Error::NoItemsFound)),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(not_pem(path, &error)),
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, PeerTlsError> {
    fs::read(path).map_err(|source| PeerTlsError::Unreadable { path: path.to_owned(), source })
}

fn not_pem(path: &Path, error: &impl fmt::Display) -> PeerTlsError {
    PeerTlsError::NotPem { path: path.to_owned(), problem: error.to_string() }
}

/// Without the key.
impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerTls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_names_the_host_alone() {
        for (address, host) in
            [("10.0.0.7:8001", "10.0.0.7"), ("[2001:db8::1]:8001", "2001:db8::1"), ("n1.test:1", "n1.test")]
        {
            assert_eq!(host_of(address), host);
            assert!(ServerName::try_from(host_of(address)).is_ok(), "{address}");
        }
    }
}
