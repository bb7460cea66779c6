//! Why a connection between nodes did not come about, in words that name what is to be looked at.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// Why a call failed that was made with certificates, or without.
pub(crate) fn of(status: &tonic::Status, has_tls: bool) -> String {
    /// How a connection ends that came about, but on which nobody speaks HTTP/2 to us. What a port that wants TLS says is no frame.
    const ENDED: [&str; 4] = ["frame with invalid size", "connection closed", "broken pipe", "connection reset"];
    let why = status.source().map_or_else(|| status.message().to_owned(), in_words);
    let has_ended = ENDED.iter().any(|end| why.contains(end));
    match (has_tls, has_ended) {
        (false, true) => format!("{why}; if it wants TLS, this end needs certificates (--peer-tls-cert)"),
        // By TLS 1.3 a refusal comes after the connection has come about, as a text within HTTP/2's error, or too late to be read.
        (true, _) if why.contains("CertificateRequired") => format!("{why}: {WANTS_CERTIFICATE}"),
        (true, _) if why.contains("received fatal alert") => format!("{why}: {DOUBTS_CERTIFICATE}"),
        (true, true) => format!("{why}; that is how it ends if {DOUBTS_CERTIFICATE}, which its log tells"),
        _ => why,
    }
}

const WANTS_CERTIFICATE: &str = "it wants a certificate (--peer-tls-cert here)";
const DOUBTS_CERTIFICATE: &str = "it does not accept this node's certificate (its --peer-tls-ca)";

/// Why a call failed, if that is since the two ends do not trust each other.
pub(crate) fn of_trust(status: &tonic::Status) -> Option<String> {
    let source = status.source()?;
    let mut causes = std::iter::successors(Some(source), |error| cause(*error));
    causes.find_map(|cause| cause.downcast_ref::<rustls::Error>()).map(tls_in_words)
}

/// What `error` comes down to. tonic's own text says only that there was one.
pub(crate) fn in_words(error: &(dyn Error + 'static)) -> String {
    let causes: Vec<_> = std::iter::successors(Some(error), |error| cause(*error)).collect();
    let tls = causes.iter().find_map(|cause| cause.downcast_ref::<rustls::Error>());
    match tls {
        Some(error) => tls_in_words(error),
        None => causes.last().map(ToString::to_string).unwrap_or_default(),
    }
}

/// The error within an error. That of an I/O error hides from `source`.
fn cause<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}

/// The other end is "it".
fn tls_in_words(error: &rustls::Error) -> String {
    match error {
        rustls::Error::NoCertificatesPresented => {
            "it shows no certificate, and nodes must (--peer-tls-cert there)".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is not of this node's authority (--peer-tls-ca)".to_owned()
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS, and this node does (--peer-tls-cert)".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => WANTS_CERTIFICATE.to_owned(),
        rustls::Error::AlertReceived(alert) => {
            format!("{DOUBTS_CERTIFICATE}: {alert:?}")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_is_told() {
        let tls = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls));
        assert!(in_words(&error).contains("--peer-tls-ca"), "{}", in_words(&error));
        let refused = io::Error::other(io::Error::from(io::ErrorKind::ConnectionRefused));
        assert_eq!(in_words(&refused), "connection refused");
    }
}
