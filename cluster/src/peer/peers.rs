//! All peers, by address.

use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::feed::{Feed, FeedError};
use super::hello::Hello;
use super::lane;
use super::link::{Call, Link, Manner};
use crate::tls::PeerTls;

/// The ways to other nodes. A connection comes about with the first call, and again after it has ended.
pub struct Peers {
    manner: Arc<Manner>,
    /// Those of all threads that are no lane.
    links: Links,
    /// Each lane's own, by its number.
    lanes: Box<[Links]>,
}

type Links = DashMap<String, Arc<Link>, RandomState>;

impl Peers {
    /// Ways that are gone on `runtime`, but those of `lanes` threads; with certificates if there are any. While the process is not in touch
    /// with its cluster, answers are not waited for long.
    pub fn new(
        runtime: Handle,
        lanes: usize,
        tls: Option<PeerTls>,
        is_in_touch: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Peers {
        let manner = Manner { runtime, tls, hello: Mutex::default(), is_in_touch: Box::new(is_in_touch) };
        let lanes = (0..lanes).map(|_| Links::default()).collect();
        Peers { manner: Arc::new(manner), links: Links::default(), lanes }
    }

    /// Says who calls from now on. Before, nobody can be called.
    pub fn introduce(&self, hello: Hello) {
        *self.manner.hello.lock() = Some(hello);
    }

    /// Sends a request, placed by the topology of `epoch`, to the node at `address` (host and peer port).
    #[inline]
    pub fn call(&self, address: &str, epoch: u64, content: &[u8]) -> Call {
        let own = lane::number().and_then(|lane| self.lanes.get(lane));
        let links = own.unwrap_or(&self.links);
        if let Some(link) = links.get(address) {
            return link.call(epoch, content);
        }
        self.link(links, address, own.is_some()).call(epoch, content)
    }

    /// Begins a feed to the node at `address`.
    ///
    /// # Errors
    /// When it cannot be reached, or does not want one.
    pub async fn open_feed(&self, address: &str) -> Result<Feed, FeedError> {
        self.link(&self.links, address, false).open_feed().await
    }

    /// Forgets the ways to all but these.
    pub fn keep<'a>(&self, addresses: impl Iterator<Item = &'a str> + Clone) {
        for links in self.lanes.iter().chain([&self.links]) {
            links.retain(|address, _| addresses.clone().any(|kept| kept == address));
        }
    }

    fn link(&self, links: &Links, address: &str, is_lanes: bool) -> Arc<Link> {
        let link = links.entry(address.to_owned());
        let new = || Arc::new(Link::new(address.to_owned(), Arc::clone(&self.manner), is_lanes));
        Arc::clone(&link.or_insert_with(new))
    }
}
