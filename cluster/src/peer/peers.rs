//! All peers, by address.

use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tonic::transport::ClientTlsConfig;

use super::feed::{Feed, FeedError};
use super::hello::Hello;
use super::link::{Call, Link, Manner};

/// The ways to other nodes. A connection comes about with the first call, and again after it has ended.
pub struct Peers {
    manner: Arc<Manner>,
    links: DashMap<String, Arc<Link>>,
}

impl Peers {
    /// Ways that are gone on `runtime`; with certificates as `tls` says, if it does. While the process is not in touch with its cluster,
    /// answers are not waited for long.
    pub fn new(
        runtime: Handle,
        tls: Option<ClientTlsConfig>,
        is_in_touch: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Peers {
        let manner = Manner { runtime, tls, hello: Mutex::default(), is_in_touch: Box::new(is_in_touch) };
        Peers { manner: Arc::new(manner), links: DashMap::new() }
    }

    /// Says who calls from now on. Before, nobody can be called.
    pub fn introduce(&self, hello: Hello) {
        *self.manner.hello.lock() = Some(hello);
    }

    /// Sends a request, placed by the topology of `epoch`, to the node at `address` (host and peer port).
    #[inline]
    pub fn call(&self, address: &str, epoch: u64, content: &[u8]) -> Call {
        match self.links.get(address) {
            Some(link) => link.call(epoch, content),
            None => self.link(address).call(epoch, content),
        }
    }

    /// Begins a feed to the node at `address`.
    ///
    /// # Errors
    /// When it cannot be reached, or does not want one.
    pub async fn open_feed(&self, address: &str) -> Result<Feed, FeedError> {
        self.link(address).open_feed().await
    }

    /// Forgets the ways to all but these.
    pub fn keep<'a>(&self, addresses: impl Iterator<Item = &'a str> + Clone) {
        self.links.retain(|address, _| addresses.clone().any(|kept| kept == address));
    }

    fn link(&self, address: &str) -> Arc<Link> {
        let link = self.links.entry(address.to_owned());
        Arc::clone(&link.or_insert_with(|| Arc::new(Link::new(address.to_owned(), Arc::clone(&self.manner)))))
    }
}
