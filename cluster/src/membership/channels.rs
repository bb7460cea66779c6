//! Connections to other nodes, one for each address, made when they are first needed and anew when they break.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::refusal;
use crate::tls::PeerTls;

/// A node that does not answer a connection attempt within this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A connection on which nothing is heard is asked whether it lives, and given up after the second: or a partition that is over would
/// last as long as TCP's patience.
const PING_EVERY: Duration = Duration::from_millis(500);
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// All connections of the membership module.
pub(super) struct Channels {
    tls: Option<PeerTls>,
    open: Mutex<HashMap<String, Channel>>,
    /// Why a node is not trusted, by its address, as it was last told.
    distrust: Mutex<HashMap<String, String>>,
    /// Nothing gets through, to or from this node.
    #[cfg(test)]
    pub(super) cut: std::sync::atomic::AtomicBool,
}

impl Channels {
    pub(super) fn new(tls: Option<PeerTls>) -> Channels {
        Channels {
            tls,
            open: Mutex::default(),
            distrust: Mutex::default(),
            #[cfg(test)]
            cut: false.into(),
        }
    }

    pub(super) fn tls(&self) -> Option<&PeerTls> {
        self.tls.as_ref()
    }

    /// A connection to `address`, which is `host:port`. It dials when it is used.
    ///
    /// # Errors
    /// When that is no address.
    pub(super) fn to(&self, address: &str) -> Result<Channel, Status> {
        self.check()?;
        if let Some(channel) = self.open.lock().get(address) {
            return Ok(channel.clone());
        }
        let channel = dial(address, self.tls.as_ref())?;
        self.open.lock().insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Ends the connections to addresses where nobody is any more: they would be dialled for ever.
    pub(super) fn keep(&self, known: &HashSet<String>) {
        self.open.lock().retain(|address, _| known.contains(address));
        self.distrust.lock().retain(|address, _| known.contains(address));
    }

    /// Says, once for each reason, why a node that is there cannot be called.
    pub(super) fn tell_distrust(&self, address: &str, status: &Status) {
        let Some(why) = refusal::of_trust(status) else { return };
        if self.distrust.lock().insert(address.to_owned(), why.clone()).as_ref() != Some(&why) {
            tracing::warn!("cluster: {address} cannot be called: {why}");
        }
    }

    /// Whether calls get through, which only tests prevent.
    pub(super) fn check(&self) -> Result<(), Status> {
        #[cfg(test)]
        if self.cut.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Status::unavailable("cut off by a test"));
        }
        Ok(())
    }
}

/// Whether a failed call surely did nothing: no connection was made, or the callee itself said that it cannot do it now.
pub(super) fn was_not_sent(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    let mut causes = std::iter::successors(first, |cause| cause.source());
    status.code() == Code::Unavailable && (first.is_none() || causes.any(|cause| cause.is::<tonic::ConnectError>()))
}

/// A connection that is made when it is first used.
///
/// # Errors
/// When `address` is not `host:port`, or the certificates are none.
pub(super) fn dial(address: &str, tls: Option<&PeerTls>) -> Result<Channel, Status> {
    let wrong = |error: tonic::transport::Error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Status::invalid_argument(format!("{address}: {error}{cause}"))
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.client(address, CONNECT_TIMEOUT)).map_err(wrong)?;
    }
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::super::service;
    use super::super::tests::{DEADLINE, question};
    use super::*;
    use crate::tls::PeerTlsFiles;

    /// A certificate of an authority of its own.
    fn tls(directory: &Path) -> PeerTls {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let file = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a file");
            path
        };
        let (cert, key) = (file("cert.pem", certificate.pem()), file("key.pem", key.serialize_pem()));
        PeerTls::read(&PeerTlsFiles { cert, key, ca: file("ca.pem", authority.pem()), name: None })
            .expect("certificates")
    }

    #[tokio::test]
    async fn connections_to_where_nobody_is_any_more_are_ended() {
        let channels = Channels::new(None);
        for address in ["10.0.0.1:8001", "10.0.0.2:8001"] {
            channels.to(address).expect("an address");
        }
        channels.keep(&HashSet::from(["10.0.0.2:8001".to_owned()]));
        assert_eq!(channels.open.lock().keys().collect::<Vec<_>>(), ["10.0.0.2:8001"]);
    }

    #[tokio::test]
    async fn who_vanishes_while_certificates_are_shown_is_given_up() {
        let directory = tempfile::tempdir().expect("a directory");
        // The system takes what comes, and nobody ever reads it.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = silent.local_addr().expect("it is bound").to_string();
        let channel = dial(&address, Some(&tls(directory.path()))).expect("an address");
        let answer = tokio::time::timeout(DEADLINE, service::client(channel).status(question())).await;
        let status = answer.expect("it is given up").expect_err("nobody answers");
        assert!(was_not_sent(&status), "{status:?}");
    }
}
