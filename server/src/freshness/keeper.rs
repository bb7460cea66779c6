//! Following what the database commits, and telling those whom it concerns.
//!
//! The keeper is whoever leads the cluster, in the term of its lead: who leads later has the higher term, and displaces it at the database.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use forebay_cluster::membership::Membership;
use forebay_cluster::state::{Applied, Change as Agreed};
use forebay_origin::{
    Affected, AffectedKeys, Change, ChangeFeed, Feed, FeedEvent, FeedMemory, Gap, Origin, Position, Visibility,
};
use forebay_resp::{Args, Reply};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use super::{Guard, meter};
use crate::clients::Client;
use crate::cluster::Member;
use crate::engine::Engine;
use crate::groups;
use crate::session::{Door, Session};

/// Between two looks at who leads, and which feeds the groups want.
const LOOK: Duration = Duration::from_millis(100);

/// How long a feed that cannot be followed as it is configured is not tried again.
const REFUSED: Duration = Duration::from_secs(5);

/// Events that are being dealt with at the same time. While there are as many, the feed waits, and the database keeps what follows: also behind a
/// transaction that stays invisible.
const MAX_DEALING: usize = 64;

/// Keys of one request to their owners.
const KEYS_OF_REQUEST: usize = 256;

/// The pause after the first failure to tell somebody; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Does the keeper's work whenever this node is the keeper, for ever.
pub async fn keep(engine: Arc<Engine>) -> Infallible {
    let alone_since = engine.node().clock.unix_millis() as u64;
    loop {
        let may_begin = |_: &u64| engine.node().member().is_none_or(Member::is_ready);
        let Some(term) = term(&engine, alone_since).filter(may_begin) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        let mut keeper =
            Keeper { tasks: JoinSet::new(), followed: BTreeSet::new(), desk: Arc::new(Desk::new(&engine)), term };
        // A lease that is lost for a moment ends nothing: what is told meanwhile waits, and listening anew would be a gap.
        while self::term(&engine, alone_since) == Some(term) {
            keeper.follow_what_is_wanted().await;
            tokio::time::sleep(LOOK).await;
        }
        keeper.end().await;
    }
}

/// The term in which this node is the keeper, if it is.
fn term(engine: &Engine, alone_since: u64) -> Option<u64> {
    let node = engine.node();
    match node.member() {
        Some(member) => member.membership.leads(),
        None if node.is_frontend() => None,
        // Nobody else can be; and after a restart the time is a later one.
        None => Some(alone_since),
    }
}

/// A keeper in its term.
struct Keeper {
    desk: Arc<Desk>,
    term: u64,
    tasks: JoinSet<()>,
    followed: BTreeSet<&'static str>,
}

impl Keeper {
    async fn follow_what_is_wanted(&mut self) {
        let Some(origin) = &self.desk.engine.node().origin else { return };
        let wanted: Vec<Feed> =
            [Feed::Wal, Feed::Notify, Feed::Kafka].into_iter().filter(|feed| wants(origin, *feed)).collect();
        for feed in wanted {
            if self.followed.is_empty() {
                let node = Arc::clone(self.desk.engine.node());
                self.tasks.spawn(async move { match meter::measure(node).await {} });
            }
            if self.followed.insert(feed.as_str()) {
                let (desk, term) = (Arc::clone(&self.desk), self.term);
                self.desk.claim().await;
                info!(feed = feed.as_str(), term, "this node follows what the database commits");
                self.tasks.spawn(async move { follow(&desk, feed, term).await });
            }
        }
    }

    async fn end(mut self) {
        self.tasks.shutdown().await;
        for feed in [Feed::Wal, Feed::Notify, Feed::Kafka] {
            self.desk.engine.node().freshness.follows(feed, None);
        }
        if !self.followed.is_empty() {
            info!(term = self.term, "another node is to follow what the database commits");
        }
    }
}

fn wants(origin: &Origin, feed: Feed) -> bool {
    origin.groups().iter().any(|group| !group.invalidated_by.is_empty() && group.feed.unwrap_or(Feed::Wal) == feed)
}

async fn follow(desk: &Arc<Desk>, feed: Feed, term: u64) {
    let Some(origin) = desk.engine.node().origin.clone() else { return };
    let mut told = None;
    loop {
        match origin.follow(feed, origin.feed_config(term, desk.memory(feed))) {
            Ok(followed) => {
                desk.engine.node().freshness.follows(feed, Some(followed.view()));
                deal_with_all(desk, feed, followed).await;
            }
            Err(fault) => {
                let fault = groups::one_line(&fault);
                if told.as_ref() != Some(&fault) {
                    error!(feed = feed.as_str(), "changes of the database are not followed: {fault}");
                }
                told = Some(fault);
            }
        }
        tokio::time::sleep(REFUSED).await;
    }
}

/// Deals with what a feed tells, several events at a time, and confirms it in its order.
async fn deal_with_all(desk: &Arc<Desk>, feed: Feed, mut events: ChangeFeed) {
    let mut dealing = FuturesOrdered::new();
    loop {
        tokio::select! {
            Some(position) = dealing.next(), if !dealing.is_empty() => {
                if let Some(position) = position {
                    events.confirm(position);
                }
            }
            event = events.next(), if dealing.len() < MAX_DEALING => match event {
                Some(event) => dealing.push_back(desk.deal_with(feed, event)),
                None => return,
            },
        }
    }
}

/// From where changes are told to the owners of keys and to the cluster.
struct Desk {
    engine: Arc<Engine>,
    client: Arc<Client>,
    /// Of the primary, if it has snapshots.
    visibility: Option<Visibility>,
    calling_in: tokio::sync::Mutex<()>,
    to_call_in: Mutex<ToCallIn>,
    /// What a node that is alone remembers of feeds, which ends with what it has loaded.
    memories: Mutex<Vec<(Feed, FeedMemory)>>,
}

/// Groups that are to be called in together: while the cluster agrees on some, others gather.
#[derive(Default)]
struct ToCallIn {
    groups: BTreeSet<String>,
    memories: Vec<(Feed, FeedMemory)>,
    /// How many lots there have been.
    lot: u64,
}

impl Desk {
    fn new(engine: &Arc<Engine>) -> Desk {
        Desk {
            client: Arc::new(Client::of_peers(engine.node().clock.unix_millis())),
            engine: Arc::clone(engine),
            visibility: engine.node().origin.as_ref().and_then(|origin| origin.visibility()),
            calling_in: Default::default(),
            to_call_in: Default::default(),
            memories: Default::default(),
        }
    }

    /// Lets the others know who is the keeper. Nothing depends on it.
    async fn claim(&self) {
        if let Some(member) = self.engine.node().member() {
            let number = *member.membership.number().borrow();
            if let Err(error) = member.membership.propose(Agreed::SetKeeper { number }).await {
                warn!("the others do not learn who follows the database: {error}");
            }
        }
    }

    /// What the cluster remembers of a feed.
    fn memory(&self, feed: Feed) -> Option<FeedMemory> {
        match self.engine.node().member() {
            Some(member) => {
                let state = Arc::clone(&member.membership.state().borrow());
                state.called_in().memory(feed.as_str()).and_then(FeedMemory::from_text)
            }
            None => self.memories.lock().iter().find(|(known, _)| *known == feed).map(|(_, memory)| memory.clone()),
        }
    }

    /// Has everybody deal with an event. Gives what is to be confirmed then.
    fn deal_with(self: &Arc<Self>, feed: Feed, event: FeedEvent) -> impl Future<Output = Option<Position>> + use<> {
        let desk = Arc::clone(self);
        async move {
            match event {
                FeedEvent::Change(change) => {
                    desk.engine.node().freshness.meter.offer(&change, Instant::now());
                    desk.tell_until_it_is_seen(&change).await;
                    change.position
                }
                FeedEvent::Remember(memory) => {
                    desk.call_in([], Some((feed, memory))).await;
                    None
                }
                FeedEvent::Gap(Gap { groups, reason, memory, position, .. }) => {
                    warn!(
                        feed = feed.as_str(),
                        ?groups,
                        "changes may have been missed, what was loaded before is called in: {reason}"
                    );
                    if !desk.engine.node().freshness.guards.has(Guard::Gaps) {
                        return position;
                    }
                    desk.call_in(groups.iter().map(|group| group.to_string()), memory.map(|memory| (feed, memory)))
                        .await;
                    position
                }
            }
        }
    }

    /// Tells of a change when new snapshots see its transaction, or whoever loads next would read what was there before, and have to load
    /// again. If that takes long, as with a synchronous replica that is stalled, it is told at once, so that most is taken out, and once more
    /// when it is seen: nobody has to remember so long what loads since then have not seen.
    async fn tell_until_it_is_seen(&self, change: &Change) {
        if let (Some(visibility), Some(xid)) = (&self.visibility, change.xid) {
            if !visibility.is_seen_soon(xid).await {
                warn!(
                    "transaction {xid} is committed, but not visible; it is told of now and when it is, and the database keeps the log until then"
                );
                self.tell(change).await;
                visibility.wait_for(xid).await;
            }
        }
        self.tell(change).await;
    }

    async fn tell(&self, change: &Change) {
        let xid = change.xid.map_or_else(|| "-".to_owned(), |xid| xid.to_string());
        let at = change.committed_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let at = at.map_or_else(|| "-".to_owned(), |at| at.as_micros().to_string());
        let mut whole = Vec::new();
        for Affected { group, keys } in &change.affected {
            match keys {
                AffectedKeys::All => whole.push(group.to_string()),
                AffectedKeys::These(keys) => {
                    for some in keys.chunks(KEYS_OF_REQUEST) {
                        let head = [&b"FOREBAY.CHANGED"[..], xid.as_bytes(), at.as_bytes()];
                        let args: Vec<&[u8]> = head.into_iter().chain(some.iter().map(Bytes::as_ref)).collect();
                        self.run_until_done(&args).await;
                    }
                }
            }
        }
        if !whole.is_empty() {
            self.call_in(whole, None).await;
        }
    }

    /// Has nothing served any more that was loaded for these groups so far; returns when that is so at every node.
    async fn call_in(&self, groups: impl IntoIterator<Item = String>, memory: Option<(Feed, FeedMemory)>) {
        let lot = {
            let mut waiting = self.to_call_in.lock();
            waiting.groups.extend(groups);
            waiting.memories.extend(memory);
            waiting.lot
        };
        let _turn = self.calling_in.lock().await;
        let next = {
            let mut waiting = self.to_call_in.lock();
            if waiting.lot != lot {
                // It went with another's.
                return;
            }
            let next = waiting.lot + 1;
            std::mem::replace(&mut *waiting, ToCallIn { lot: next, ..ToCallIn::default() })
        };
        match self.engine.node().member() {
            Some(member) => self.agree(&member.membership, next).await,
            None => {
                if !next.groups.is_empty() {
                    groups::call_in_alone(self.engine.node(), &next.groups).await;
                }
                let mut memories = self.memories.lock();
                for (feed, memory) in next.memories {
                    memories.retain(|(known, _)| *known != feed);
                    memories.push((feed, memory));
                }
            }
        }
    }

    async fn agree(&self, membership: &Membership, lot: ToCallIn) {
        let groups: Vec<String> = lot.groups.into_iter().collect();
        let memories = lot.memories.iter().map(|(feed, memory)| (feed.as_str().to_owned(), memory.to_text())).collect();
        let concerns_entries = !groups.is_empty();
        let change = Agreed::CallIn { groups, memories };
        let epoch = until_done(|| async {
            match membership.propose(change.clone()).await {
                Ok(Applied::Done { epoch } | Applied::Joined { epoch, .. }) => Ok(epoch),
                Ok(Applied::Unchanged) => Ok(membership.state().borrow().epoch()),
                Ok(Applied::Refused(refusal)) => Err(refusal.to_string()),
                Err(error) => Err(error.to_string()),
            }
        });
        let epoch = epoch.await.to_string();
        if concerns_entries {
            self.run_until_done(&[b"FOREBAY.REACHED", epoch.as_bytes()]).await;
        }
    }

    async fn run_until_done(&self, args: &[&[u8]]) {
        match self.engine.node().freshness.guards.has(Guard::Retell) {
            true => until_done(|| self.run(args)).await,
            false => drop(self.run(args).await),
        }
    }

    /// Runs one of the nodes' own commands, wherever it belongs.
    async fn run(&self, args: &[&[u8]]) -> Result<(), String> {
        let node = self.engine.node();
        let mut session = Session::new(Arc::clone(&self.client), node.http_lane(), true, Door::Open);
        session.is_internal = true;
        session.now = node.clock.unix_millis();
        let mut reply = Reply::new();
        let _step = self.engine.execute(&mut session, Args::from(args), &mut reply).await;
        while let Some(told) = session.take_unacknowledged() {
            if !self.engine.acknowledged(&told).await {
                return Err("the holders of copies do not answer".to_owned());
            }
        }
        match (self.engine.still_owns(&mut session), reply.chunk().split_first()) {
            (true, Some((b'-', line))) => Err(String::from_utf8_lossy(line).trim_end().to_owned()),
            (true, Some(_)) => Ok(()),
            (true, None) => Err("there is no reply".to_owned()),
            (false, _) => Err("this node has lost its lease".to_owned()),
        }
    }
}

/// Tries again until it is done. Whoever drops the future gives it up.
async fn until_done<T, F: Future<Output = Result<T, String>>>(mut attempt: impl FnMut() -> F) -> T {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(reason) if pause == LONGEST_PAUSE => {
                warn!("a change of the database cannot be told to everybody yet: {reason}")
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
