//! TLS for clients: certificates from files, and the handshake.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_origin::Fault;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
pub use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;

/// How long a client may take to agree on a connection.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// Reads the files. The process' cryptography must have been installed before.
///
/// # Errors
/// With a fault for each file that cannot be read, and one when the certificate and the key are no pair.
pub fn acceptor(config: &TlsConfig) -> Result<TlsAcceptor, Vec<Fault>> {
    let mut faults = Vec::new();
    let chain = certificates("--tls-cert", &config.cert, &mut faults);
    let key = PrivateKeyDer::from_pem_file(&config.key);
    let key = key.map_err(|error| faults.push(unreadable("--tls-key", &config.key, &error))).ok();
    let roots = config.ca.as_ref().map(|file| roots(file, &mut faults));
    let Some(key) = key.filter(|_| faults.is_empty()) else {
        return Err(faults);
    };
    server_config(chain, key, roots).map(|config| TlsAcceptor::from(Arc::new(config))).map_err(|fault| vec![fault])
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Option<RootCertStore>,
) -> Result<ServerConfig, Fault> {
    let builder = match roots {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
            let verifier = verifier.map_err(|error| Fault::unplaced("--tls-ca", error.to_string(), ""))?;
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| {
        Fault::unplaced("--tls-cert", error.to_string(), "the certificate and the private key must belong together")
    })
}

fn roots(file: &Path, faults: &mut Vec<Fault>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--tls-ca", file, faults) {
        if let Err(error) = roots.add(certificate) {
            faults.push(Fault::unplaced("--tls-ca", format!("{}: {error}", file.display()), ""));
        }
    }
    roots
}

fn certificates(flag: &str, file: &Path, faults: &mut Vec<Fault>) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => certificates,
        Ok(_) => {
            faults.push(unreadable(flag, file, &pem::Error::NoItemsFound));
            Vec::new()
        }
        Err(error) => {
            faults.push(unreadable(flag, file, &error));
            Vec::new()
        }
    }
}

fn unreadable(flag: &str, file: &Path, error: &pem::Error) -> Fault {
    Fault::unplaced(flag, format!("{} cannot be used: {error}", file.display()), "name a file in PEM format")
}
