//! What replication wants of the node, and what the node does about it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::NodeNumber;
use forebay_cluster::membership::Membership;
use forebay_cluster::peer;
use forebay_cluster::state::Change;
use forebay_resp::{Args, Reply};
use forebay_store::{Garbage, Keyspace, Onlooker, Store, UnixMillis};
use tracing::debug;

use crate::clients::Client;
use crate::command::call::Call;
use crate::command::spec::Run;
use crate::command::table::Table;
use crate::node::Node;
use crate::replication::{Feed, Host, Opener, Replication};
use crate::session::{Door, Session};

/// Between two attempts to have it agreed on that copies are complete, and between two looks at what may be complete: slots are told
/// together.
const AGAIN: Duration = Duration::from_millis(20);

/// The node, for its replication.
pub struct CopyHost {
    node: Arc<Node>,
    client: Arc<Client>,
}

impl CopyHost {
    /// That of `node`.
    pub fn new(node: Arc<Node>) -> CopyHost {
        let client = Arc::new(Client::of_peers(node.clock.unix_millis()));
        CopyHost { node, client }
    }
}

impl Host for CopyHost {
    fn store(&self) -> &Store {
        &self.node.store
    }

    fn now(&self) -> UnixMillis {
        self.node.clock.unix_millis()
    }

    fn run(&self, keyspace: &mut Keyspace<'_>, db: u16, args: Args<'_>) {
        let Ok(command) = Table::get().resolve(args) else { return };
        let (Run::Keys(handler), Ok(positions)) = (command.spec.run, command.spec.key_positions(args)) else { return };
        let key = |at: &u32| {
            let bytes = args.get(*at as usize)?;
            Some(self.node.store.key(db, forebay_cluster::slot_of(bytes), bytes))
        };
        let Some(keys) = positions.iter().map(key).collect::<Option<Vec<_>>>() else { return };
        let mut session = Session::new(Arc::clone(&self.client), 0, true, Door::Peer);
        session.db = db;
        session.now = keyspace.now();
        let (now, mut reply) = (keyspace.now(), Reply::new());
        let mut call =
            Call { command, args, keys: &keys, session: &mut session, reply: &mut reply, node: &self.node, now };
        // What the owner has done cannot fail here unless the copy differs, and that is seen by its size.
        if let Err(error) = handler(&mut call, keyspace) {
            debug!(command = command.full_name, %error, "a copy differs from its owner's");
        }
    }

    fn reclaim(&self, garbage: Garbage) {
        let mut garbage = garbage;
        self.node.reclaimer.take_over(&mut garbage);
    }
}

/// Opens feeds to the members of the cluster.
pub struct FeedOpener {
    node: Arc<Node>,
}

impl FeedOpener {
    /// Opens them for `node`.
    pub fn new(node: Arc<Node>) -> FeedOpener {
        FeedOpener { node }
    }
}

impl Opener for FeedOpener {
    async fn open(&self, to: NodeNumber) -> Option<Feed> {
        let address = self.node.topology.load().node(to)?.peer_address.clone();
        match self.node.cluster.as_ref()?.peers.open_feed(&address).await {
            Ok(feed) => Some(feed.into()),
            Err(error) => {
                debug!(%to, %error, "no copies go to the node for now");
                None
            }
        }
    }
}

impl From<peer::Feed> for Feed {
    fn from(feed: peer::Feed) -> Feed {
        let peer::Feed { outgoing, incoming } = feed;
        Feed { outgoing, incoming }
    }
}

/// Has it agreed on which copies are complete, for ever.
pub async fn tell_of_copies(replication: Arc<Replication>, membership: Arc<Membership>) -> Infallible {
    let mut states = membership.state();
    loop {
        replication.completion().await;
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            // Of the copies as they were made by that state or a later one: this one may not have been seen to yet.
            let epoch = replication.applied();
            let complete = replication.complete();
            if complete.is_empty() {
                break;
            }
            for (number, slots) in complete {
                let Some(member) = state.member(number) else { continue };
                let incarnation = member.incarnation;
                let change = Change::Synced { number, incarnation, slots, epoch };
                if let Err(error) = membership.propose(change).await {
                    debug!(%number, %error, "it is not agreed on yet that copies are complete");
                }
            }
            // What was agreed on is taken off the list when its state has come here.
            let _either = tokio::time::timeout(AGAIN, states.changed()).await;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Tells the holders of copies what eviction takes, and keeps it from taking copies.
pub struct Evictions<'n> {
    pub node: &'n Node,
    pub replication: &'n Replication,
}

impl Onlooker for Evictions<'_> {
    fn yields(&self, slot: u16) -> bool {
        self.node.roles.get(slot).serves()
    }

    fn evicted(&mut self, slot: u16, db: u16, key: &[u8]) {
        self.replication.record_eviction(slot, db, key);
    }
}
