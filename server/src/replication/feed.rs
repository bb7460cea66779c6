//! The owner's end of a feed: sends what is in a peer's outbox, and the slots that it asks for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::NodeNumber;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::copying::Copying;
use super::effect::{Answer, Malformed};
use super::frames::Assembler;
use super::peer::Peer;
use super::{Feed, Host, Replication};

/// How long a peer to which no feed can be opened, or whose feed has ended, is left alone: twice as long each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Opens feeds.
pub trait Opener: Send + Sync + 'static {
    /// A feed to the peer; `None` if it cannot be reached.
    fn open(&self, to: NodeNumber) -> impl Future<Output = Option<Feed>> + Send;
}

impl Replication {
    /// Keeps a feed open to every peer that holds a copy of a slot of this node, or is to hold one. Runs for ever; dropped, it ends them.
    pub async fn keep_feeds(self: Arc<Self>, host: Arc<dyn Host>, opener: Arc<impl Opener>) {
        let mut changes = self.peers_changed.subscribe();
        let mut feeds = Feeds::default();
        loop {
            feeds.fit(&self, &host, &opener);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Sends the peer what it is to have, until the feed ends.
    ///
    /// **Invariant.** *One feed at a time empties a peer's outbox.* Of two, each would take what the other one counts, and nothing that the
    /// holder answers would be true. So it is the peer itself that is given here and not its number, which another has as soon as the node
    /// has been away: a connection that began before that may take seconds to be there.
    pub(super) async fn send(&self, host: &dyn Host, peer: &Arc<Peer>, feed: Feed) {
        if peer.is_retired() {
            return;
        }
        if peer.outbox.is_cut() {
            self.restart(peer);
        }
        let Feed { outgoing, incoming } = feed;
        let base = peer.outbox.base();
        tokio::select! {
            () = self.send_records(host, peer, outgoing) => {}
            ended = self.hear(peer, base, incoming) => {
                if let Err(error) = ended {
                    tracing::warn!(peer = peer.number.0, %error, "a feed is ended");
                }
            }
        }
        // From here on the outbox is filled for the next feed: what changes nothing until then needs not be sent again.
        if !peer.is_retired() {
            self.restart(peer);
        }
    }

    async fn send_records(&self, host: &dyn Host, peer: &Arc<Peer>, outgoing: mpsc::Sender<Bytes>) {
        let mut copying = Copying::new(peer);
        loop {
            if peer.is_retired() || outgoing.is_closed() {
                return;
            }
            if peer.outbox.is_cut() {
                self.counts.cut_off.fetch_add(1, Relaxed);
                tracing::warn!(peer = peer.number.0, "a peer is too far behind and is compared anew");
                return;
            }
            let copies = copying.step(self, host);
            match peer.outbox.take() {
                Some(frame) => {
                    if outgoing.send(frame).await.is_err() {
                        return;
                    }
                }
                None if copies => {}
                None => tokio::select! {
                    () = peer.outbox.woken() => {}
                    () = outgoing.closed() => return,
                },
            }
            if copies {
                // A step takes some microseconds, and there may be thousands.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Hears the peer's answers until the feed ends.
    async fn hear(&self, peer: &Arc<Peer>, base: u64, mut incoming: mpsc::Receiver<Bytes>) -> Result<(), Malformed> {
        let mut assembler = Assembler::default();
        while let Some(mut frame) = incoming.recv().await {
            while let Some(answer) = assembler.next(&mut frame)? {
                self.heed(peer, base, Answer::read(&answer)?);
            }
        }
        Ok(())
    }

    fn heed(&self, peer: &Arc<Peer>, base: u64, answer: Answer) {
        match answer {
            Answer::Dealt { records } => {
                let slots = peer.has_dealt(base.saturating_add(records));
                if slots.into_iter().any(|slot| self.is_newly_complete(slot, peer.number)) {
                    self.completed.notify_one();
                }
            }
            Answer::Astray { slot } => {
                if let Some(target) = self.log(slot).lock().target(peer.number) {
                    target.ask(slot);
                }
            }
            Answer::Refused { slot, record } => {
                if let Some(target) = self.log(slot).lock().target(peer.number) {
                    target.refuse(base.saturating_add(record));
                }
            }
        }
    }

    /// Begins the peer's outbox anew, and says in it where each of its slots stands.
    fn restart(&self, peer: &Peer) {
        peer.restart();
        for slot in 0..forebay_cluster::SLOT_COUNT {
            self.log(slot).lock().reattach(slot, peer.number);
        }
    }
}

/// The feeds that are kept open.
#[derive(Default)]
struct Feeds {
    tasks: JoinSet<()>,
    by_peer: HashMap<NodeNumber, Arc<Peer>>,
}

impl Feeds {
    /// Begins feeds to peers that are new. Those to peers that have retired end by themselves.
    fn fit(&mut self, replication: &Arc<Replication>, host: &Arc<dyn Host>, opener: &Arc<impl Opener>) {
        while self.tasks.try_join_next().is_some() {}
        let peers = replication.peers.read();
        self.by_peer.retain(|number, peer| peers.get(number).is_some_and(|known| Arc::ptr_eq(known, peer)));
        for (number, peer) in peers.iter() {
            if self.by_peer.contains_key(number) {
                continue;
            }
            let feed = keep_feed(Arc::clone(replication), Arc::clone(host), Arc::clone(opener), Arc::clone(peer));
            self.tasks.spawn(feed);
            self.by_peer.insert(*number, Arc::clone(peer));
        }
    }
}

async fn keep_feed(replication: Arc<Replication>, host: Arc<dyn Host>, opener: Arc<impl Opener>, peer: Arc<Peer>) {
    let mut pause = SHORTEST_PAUSE;
    while !peer.is_retired() {
        if let Some(feed) = opener.open(peer.number).await {
            let began = tokio::time::Instant::now();
            replication.send(&*host, &peer, feed).await;
            if began.elapsed() > LONGEST_PAUSE {
                pause = SHORTEST_PAUSE;
            }
        }
        if !peer.is_retired() {
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }
}
