//! The side of the node that clients are connected to: listening to the owners of what they read.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::Standing;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};
use tracing::debug;

use super::message::{self, Ask, News, What};
use super::subscribers::{self, SIGN_OF_LIFE};
use super::{Who, Writer};
use crate::cluster::Cluster;
use crate::node::Node;

/// How long news are waited for, the owner's sign of life included. Nobody's copy is old for longer than this without a word, when connections
/// neither work nor break.
const PATIENCE: Duration = Duration::from_millis(1_500);
const _: () = assert!(SIGN_OF_LIFE.as_millis() * 2 < PATIENCE.as_millis(), "a sign of life may be late");

/// Between two attempts to be heard by a node.
const AGAIN: Duration = Duration::from_millis(100);

/// Between two looks at whether this node is in touch with its cluster.
const LOOK: Duration = Duration::from_millis(100);

/// How long CLIENT TRACKING waits until all owners know of it. Of those that do not, nothing is kept by then.
const READY: Duration = Duration::from_secs(1);

pub struct Hearing {
    /// The tokens of the owners that are heard, by their peer addresses.
    tokens: RwLock<HashMap<String, u64>>,
    /// Rises when clients want more of owners than before.
    wanted: AtomicU64,
    wants_more: Notify,
    /// All that had been wanted by then is known to all owners.
    ready: watch::Sender<u64>,
    /// A client was not kept waiting until then.
    is_late: AtomicBool,
}

impl Default for Hearing {
    fn default() -> Self {
        let (tokens, wanted, wants_more, is_late) = Default::default();
        Hearing { tokens, wanted, wants_more, ready: watch::Sender::new(0), is_late }
    }
}

impl Hearing {
    /// The token by which the owner is listened to.
    pub fn token(&self, owner: &str) -> Option<u64> {
        self.tokens.read().get(owner).copied()
    }

    /// Clients want more than before.
    pub(super) fn want_more(&self) {
        self.wanted.fetch_add(1, Relaxed);
        self.wants_more.notify_one();
    }

    /// Waits until all owners know what is wanted by now, or it has taken too long.
    pub async fn is_ready(&self) {
        let wanted = self.wanted.load(Relaxed);
        let mut ready = self.ready.subscribe();
        if tokio::time::timeout(READY, ready.wait_for(|ready| *ready >= wanted)).await.is_err() {
            self.is_late.store(true, Relaxed);
        }
    }
}

/// What is known of one owner.
struct Owner {
    /// Tells answers to earlier questions from others.
    attempt: u64,
    token: Option<u64>,
    /// What was wanted when it was told last.
    told: u64,
    /// News of it may have been lost since clients were told that they track.
    has_gap: bool,
}

/// What has come of a question.
struct Answered {
    owner: String,
    attempt: u64,
    what: Answer,
}

enum Answer {
    Begun(Option<(u64, u64)>),
    Told(Option<u64>),
    News(Option<Vec<News>>),
    Rested,
}

type Question = Pin<Box<dyn Future<Output = Answered> + Send>>;

/// Listens to all owners while somebody here tracks, for ever; and forgets who has listened here and has gone.
pub async fn listen(node: Arc<Node>) -> Infallible {
    let mut looks = tokio::time::interval(LOOK);
    let Some(cluster) = &node.cluster else {
        return std::future::pending().await;
    };
    let mut changes = node.changes.subscribe();
    let mut listener = Listener {
        node: &node,
        cluster,
        owners: HashMap::new(),
        questions: FuturesUnordered::new(),
        attempts: 0,
        are_relying: false,
        is_out_of_touch: false,
    };
    loop {
        listener.follow();
        tokio::select! {
            Some(answered) = listener.questions.next(), if !listener.questions.is_empty() => listener.take(answered),
            _ = changes.changed() => {}
            () = node.tracking.hearing.wants_more.notified() => {}
            _ = looks.tick() => subscribers::clear_up(&node),
        }
    }
}

struct Listener<'n> {
    node: &'n Arc<Node>,
    cluster: &'n Cluster,
    owners: HashMap<String, Owner>,
    questions: FuturesUnordered<Question>,
    attempts: u64,
    /// Clients rely on what was told them: that they track.
    are_relying: bool,
    /// They were told that this node is out of touch.
    is_out_of_touch: bool,
}

impl Listener<'_> {
    /// Fits the owners that are listened to to the topology and to what is wanted.
    fn follow(&mut self) {
        let tracking = &self.node.tracking;
        if !tracking.has_clients() {
            self.are_relying = false;
            return self.stop();
        }
        if !self.node.is_in_touch() {
            self.stop();
            // Again and again, since somebody may read something meanwhile.
            tracking.tell_slots(self.node, |_| true);
            if !std::mem::replace(&mut self.is_out_of_touch, true) {
                debug!("out of touch with the cluster: clients are told to drop what they keep");
                tracking.tell_everything(self.node, |terms| terms.is_broadcasting);
            }
            return;
        }
        self.is_out_of_touch = false;
        let topology = self.node.topology.load_full();
        let may_own = |standing| matches!(standing, Standing::Up | Standing::Leaving | Standing::Draining);
        let others = topology.nodes().iter().filter(|other| Some(other.number) != topology.number_here());
        let others: HashSet<&str> =
            others.filter(|other| may_own(other.standing)).map(|other| other.peer_address.as_str()).collect();
        let gone: Vec<String> = self.owners.keys().filter(|owner| !others.contains(owner.as_str())).cloned().collect();
        for owner in gone {
            self.owners.remove(&owner);
            self.drop_token(&owner);
        }
        for owner in others {
            if !self.owners.contains_key(owner) {
                let has_gap = self.are_relying;
                self.owners.insert(owner.to_owned(), Owner { attempt: 0, token: None, told: 0, has_gap });
                self.begin(owner.to_owned());
            }
        }
        let wanted = tracking.hearing.wanted.load(Relaxed);
        let behind: Vec<(String, u64)> = self
            .owners
            .iter_mut()
            .filter(|(_, state)| state.token.is_some() && state.told < wanted)
            .filter_map(|(owner, state)| Some((owner.clone(), state.token?)))
            .collect();
        for (owner, token) in behind {
            self.tell(owner, token, wanted);
        }
        self.note_ready(wanted);
    }

    fn note_ready(&mut self, wanted: u64) {
        let is_told = |state: &Owner| state.token.is_some() && state.told >= wanted && state.told != TELLING;
        if self.owners.values().all(is_told) {
            self.are_relying = true;
            let hearing = &self.node.tracking.hearing;
            hearing.ready.send_if_modified(|ready| std::mem::replace(ready, wanted) != wanted);
            if hearing.is_late.swap(false, Relaxed) {
                // What was changed in between, nobody was told.
                self.node.tracking.tell_everything(self.node, |terms| terms.is_broadcasting);
            }
        }
    }

    fn stop(&mut self) {
        self.owners.clear();
        self.questions.clear();
        self.node.tracking.hearing.tokens.write().clear();
    }

    /// From here on nobody asks the owner by the token; then clients are told of what they have read by it.
    fn drop_token(&self, owner: &str) {
        self.node.tracking.hearing.tokens.write().remove(owner);
        self.node.tracking.lost(self.node, owner);
    }

    fn take(&mut self, answered: Answered) {
        let Answered { owner, attempt, what } = answered;
        let Some(state) = self.owners.get_mut(&owner).filter(|state| state.attempt == attempt) else { return };
        match what {
            Answer::Rested => self.begin(owner),
            Answer::Begun(Some((token, told))) => {
                (state.token, state.told) = (Some(token), told);
                let has_gap = std::mem::take(&mut state.has_gap);
                self.node.tracking.hearing.tokens.write().insert(owner.clone(), token);
                if has_gap {
                    // What was changed since it was heard last, nobody was told.
                    self.node.tracking.tell_everything(self.node, |terms| terms.is_broadcasting);
                }
                self.ask_news(owner, token);
            }
            Answer::Told(Some(told)) => state.told = told,
            Answer::News(Some(news)) => {
                let token = state.token;
                news.iter().for_each(|news| hear(self.node, news));
                if let Some(token) = token {
                    self.ask_news(owner, token);
                }
            }
            Answer::Begun(None) | Answer::Told(None) | Answer::News(None) => {
                debug!(owner, "changes of keys are not heard of");
                let had_token = state.token.take().is_some();
                state.has_gap = true;
                self.attempts += 1;
                state.attempt = self.attempts;
                let attempt = state.attempt;
                if had_token {
                    self.drop_token(&owner);
                }
                self.questions.push(Box::pin(async move {
                    tokio::time::sleep(AGAIN).await;
                    Answered { owner, attempt, what: Answer::Rested }
                }));
            }
        }
    }

    fn begin(&mut self, owner: String) {
        self.attempts += 1;
        let attempt = self.attempts;
        if let Some(state) = self.owners.get_mut(&owner) {
            state.attempt = attempt;
        }
        // In this order: what is wanted afterwards is told again.
        let wanted = self.node.tracking.hearing.wanted.load(Relaxed);
        let answer = self.ask(&owner, &Ask::Begin { prefixes: self.node.tracking.named_prefixes() });
        self.questions.push(Box::pin(async move {
            let token = answer.await.and_then(message::take_token);
            Answered { owner, attempt, what: Answer::Begun(token.map(|token| (token, wanted))) }
        }));
    }

    /// Tells the owner which prefixes are wanted.
    fn tell(&mut self, owner: String, token: u64, wanted: u64) {
        let Some(state) = self.owners.get_mut(&owner) else { return };
        state.told = TELLING;
        let attempt = state.attempt;
        let answer = self.ask(&owner, &Ask::Prefixes { token, prefixes: self.node.tracking.named_prefixes() });
        self.questions.push(Box::pin(async move {
            let what = Answer::Told(answer.await.map(|_| wanted));
            Answered { owner, attempt, what }
        }));
    }

    fn ask_news(&mut self, owner: String, token: u64) {
        let Some(attempt) = self.owners.get(&owner).map(|state| state.attempt) else { return };
        let answer = self.ask(&owner, &Ask::News { token });
        self.questions.push(Box::pin(async move {
            let what = Answer::News(answer.await.and_then(message::take_news));
            Answered { owner, attempt, what }
        }));
    }

    /// The answer, if one comes in time from who knows the token.
    fn ask(&self, owner: &str, ask: &Ask) -> impl Future<Output = Option<Bytes>> + Send + use<> {
        let call = self.cluster.peers.call(owner, self.node.topology.load().epoch(), &ask.write());
        async move {
            let answer = tokio::time::timeout(PATIENCE, call).await.ok()?.ok()?;
            message::of_known(answer)
        }
    }
}

/// [`Owner::told`] while the owner is being told: it is not told once more meanwhile.
const TELLING: u64 = u64::MAX;

/// Passes on what an owner has told.
fn hear(node: &Node, News { what, quiet }: &News) {
    let tracking = &node.tracking;
    let writer = (*quiet != 0).then(|| Writer { who: Who::client(*quiet), client: *quiet });
    match what {
        What::Key(key) => {
            let interested = tracking.interests.take(forebay_cluster::slot_of(key), key);
            interested.into_iter().for_each(|who| tracking.tell_one(node, who, key, writer));
        }
        What::OfPrefix(key) => tracking.broadcast(node, key, writer),
        What::Everything => {
            tracking.interests.clear();
            tracking.tell_everything(node, |_| true);
        }
    }
}
