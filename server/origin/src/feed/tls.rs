//! TLS for a replication connection, by the same settings as sqlx has for the others: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.

use std::fs;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What of a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verify {
    Nothing,
    /// Who signed it.
    Authority,
    /// That, and the name in it.
    Name,
}

/// Certificates and keys in PEM: each a file's name, or the text itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) authority: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
}

/// Shakes hands with `host`.
///
/// # Errors
/// In words, when a file is of no use or the server is not the one that it should be.
pub(super) async fn handshake(
    stream: TcpStream,
    host: &str,
    verify: Verify,
    files: &TlsFiles,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("`{host}` is no name for a certificate"))?;
    let config = client_config(verify, files)?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map_err(|error| format!("TLS: {error}"))
}

fn client_config(verify: Verify, files: &TlsFiles) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let in_words = |error: Error| format!("TLS: {error}");
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let verifier = Verifier { verify, provider: Arc::clone(&provider), chain: chain(verify, files, provider)? };
    let builder = versions.map_err(in_words)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&contents(key)?).map_err(|error| format!("sslkey: {error}"))?;
            builder.with_client_auth_cert(certificates(certificate, "sslcert")?, key).map_err(in_words)
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err("sslcert and sslkey are given together or not at all".to_owned()),
    }
}

/// Verifies who signed a certificate, and the name; `None` if nobody asks for that.
fn chain(
    verify: Verify,
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<WebPkiServerVerifier>>, String> {
    if verify == Verify::Nothing {
        return Ok(None);
    }
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(authority) = &files.authority {
        for certificate in certificates(authority, "sslrootcert")? {
            roots.add(certificate).map_err(|error| format!("sslrootcert: {error}"))?;
        }
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    verifier.map(Some).map_err(|error| format!("sslrootcert: {error}"))
}

fn certificates(pem: &str, setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let contents = contents(pem).map_err(|error| format!("{setting}: {error}"))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&contents).collect();
    read.map_err(|error| format!("{setting}: {error}"))
}

fn contents(pem: &str) -> Result<Vec<u8>, String> {
    match pem.trim_start().starts_with("-----BEGIN") {
        true => Ok(pem.as_bytes().to_vec()),
        false => fs::read(pem).map_err(|error| format!("{pem}: {error}")),
    }
}

/// Verifies as much as `sslmode` says. That the server has its certificate's key is always verified.
#[derive(Debug)]
struct Verifier {
    verify: Verify,
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verify == Verify::Authority => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
