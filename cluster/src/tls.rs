//! The certificates by which nodes know each other: both ends of a connection between nodes show one that the same authority signed.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// A node's certificate and key, and the authority that signs all nodes' certificates, as they were read from their files.
#[derive(Clone)]
pub struct PeerTls {
    identity: Identity,
    authority: Certificate,
}

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct PeerTlsError {
    path: PathBuf,
    source: io::Error,
}

impl PeerTls {
    /// Reads the three files, which are in PEM.
    ///
    /// # Errors
    /// When one cannot be read. What is in them is looked at when the ports are opened.
    pub fn read(cert: &Path, key: &Path, ca: &Path) -> Result<PeerTls, PeerTlsError> {
        let identity = Identity::from_pem(contents(cert)?, contents(key)?);
        Ok(PeerTls { identity, authority: Certificate::from_pem(contents(ca)?) })
    }

    /// For a port that nodes call: who has no certificate of the authority is turned away.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone()).client_ca_root(self.authority.clone())
    }

    /// For calls to other nodes: the certificate must name the host that was called.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().identity(self.identity.clone()).ca_certificate(self.authority.clone())
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, PeerTlsError> {
    fs::read(path).map_err(|source| PeerTlsError { path: path.to_owned(), source })
}

/// Without the key.
impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerTls")
    }
}
