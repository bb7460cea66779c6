//! Certificates for nodes: an authority of one's own, and files in PEM that it has signed.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority, with a directory of its own for its certificate and those that it signs.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    /// A new one, which nobody has heard of.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn generate() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let directory = TempDir::new().expect("a temporary directory");
        write(&directory.path().join("ca.pem"), &issuer.pem());
        Self { issuer, directory }
    }

    /// A node's arguments by which it shows a certificate for these names, of hosts or addresses, and trusts this authority.
    pub fn arguments(&self, names: &[&str]) -> Vec<String> {
        self.arguments_trusting(names, self)
    }

    /// The same, but it trusts the authority `trusted`.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn arguments_trusting(&self, names: &[&str], trusted: &Self) -> Vec<String> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>())
            .expect("names for a certificate");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |kind: &str| self.directory.path().join(format!("{}.{kind}.pem", names[0]));
        write(&file("cert"), &certificate.pem());
        write(&file("key"), &key.serialize_pem());
        let ca = trusted.directory.path().join("ca.pem");
        let files = [("cert", file("cert")), ("key", file("key")), ("ca", ca)];
        files.map(|(kind, path)| [format!("--peer-tls-{kind}"), path.display().to_string()]).concat()
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
