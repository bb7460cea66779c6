//! Following a cluster from outside, as frontends do: every new state is told by one of its nodes, and by another one when that is gone.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::membership::{Reply, Request};
use parking_lot::Mutex;
use rand::seq::SliceRandom;
use tokio::sync::watch;
use tonic::{Code, Status, Streaming};

use super::channels::dial;
use super::{service, wire};
use crate::discovery::Seeds;
use crate::state::{ClusterId, ClusterState, Member, Standing};
use crate::tls::PeerTls;

/// How long a node may take to tell its first state.
const FIRST: Duration = Duration::from_secs(1);

/// When no node tells anything, all are asked again after a pause, which doubles up to the second time.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A watcher that has lost its node is still in touch for so long: it finds another one meanwhile. A member's lease lasts about as long.
const GRACE: Duration = Duration::from_secs(1);

/// How long the seeds may be of another cluster, while nobody of the one that is known answers, before that is taken for gone.
const REPLACED: Duration = Duration::from_secs(30);

/// Follows a cluster of which this process is no member.
///
/// It stays with the cluster that it has found first: by mistake, a seed may be a node of another one. If that cluster is gone and the seeds
/// have formed another, the process has to begin anew, since epochs and numbers of nodes mean something else there.
pub struct Watcher {
    seeds: Seeds,
    tls: Option<PeerTls>,
    pub(super) state: watch::Sender<Arc<ClusterState>>,
    touch: Mutex<Touch>,
    /// Whose nodes the seeds are, while they are of another cluster.
    strangers: Mutex<Option<String>>,
    failure: watch::Sender<Option<String>>,
}

/// Whether states come.
#[derive(Clone, Copy)]
enum Touch {
    Never,
    Held,
    LostAt(Instant),
}

/// Who has answered when all were asked.
#[derive(Default)]
struct Round {
    /// Addresses of nodes of another cluster.
    strangers: Vec<(String, ClusterId)>,
    /// Somebody who is of the cluster that is known, or of none, or does not say.
    has_others: bool,
}

/// Since when the cluster that is known seems to be replaced by another.
#[derive(Default)]
struct Replaced {
    since: Option<Instant>,
}

/// What has been said of nodes that tell nothing, so that it is said once.
#[derive(Default)]
struct Complaints {
    nodes: HashMap<String, String>,
    all: bool,
}

impl Watcher {
    /// One that asks the seeds first, and later the members that it knows of before them.
    pub fn new(seeds: Seeds, tls: Option<PeerTls>) -> Watcher {
        let nothing = ClusterState::new(ClusterId([0; 16]), 1);
        Watcher {
            seeds,
            tls,
            state: watch::Sender::new(Arc::new(nothing)),
            touch: Mutex::new(Touch::Never),
            strangers: Mutex::default(),
            failure: watch::Sender::new(None),
        }
    }

    /// Why this process cannot follow its cluster, if that does not pass by itself: it should end.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// What keeps it from hearing of its cluster, if more is known than that nobody tells of it.
    pub fn problem(&self) -> Option<String> {
        self.strangers.lock().clone()
    }

    /// The latest state that was told; before that, an empty one of epoch 0. Its epoch never falls.
    pub fn state(&self) -> watch::Receiver<Arc<ClusterState>> {
        self.state.subscribe()
    }

    /// Whether a node tells what is agreed on, or did a moment ago.
    pub fn is_in_touch(&self) -> bool {
        match *self.touch.lock() {
            Touch::Never => false,
            Touch::Held => true,
            Touch::LostAt(when) => when.elapsed() < GRACE,
        }
    }

    /// Watches one node after the other, for ever.
    pub async fn watch(&self) -> Infallible {
        let (mut complaints, mut pause) = (Complaints::default(), PAUSE);
        let (mut last, mut replaced) = (None, Replaced::default());
        loop {
            let began = Instant::now();
            let mut round = Round::default();
            let watched = self.watch_any(last.as_deref(), &mut complaints, &mut round).await;
            round.has_others |= watched.is_some();
            self.judge(&round, &mut replaced);
            if watched.is_none() {
                complaints.of_all(self.state.borrow().epoch());
            }
            // One that has told for a while is replaced at once; one that begins and ends must not be asked without a pause.
            if watched.is_some() && began.elapsed() > LONGEST_PAUSE {
                pause = PAUSE;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            last = watched.or(last);
        }
    }

    /// Watches the first node that tells anything, until it tells no more. `None` if there is none.
    async fn watch_any(&self, last: Option<&str>, complaints: &mut Complaints, round: &mut Round) -> Option<String> {
        let members = self.members(last);
        if let Some(address) = self.watch_first(members.clone(), complaints, round).await {
            return Some(address);
        }
        // Where the seeds are may take a source seconds to say.
        let mut seeds = self.seeds.addresses().await;
        // Where a member was, anybody may be by now; of a seed it was said that it is of the cluster.
        round.strangers.retain(|(address, _)| seeds.contains(address));
        seeds.retain(|seed| !members.contains(seed));
        seeds.sort_by_key(|address| last == Some(address));
        self.watch_first(seeds, complaints, round).await
    }

    async fn watch_first(
        &self,
        addresses: Vec<String>,
        complaints: &mut Complaints,
        round: &mut Round,
    ) -> Option<String> {
        for address in addresses {
            match self.follow(&address, complaints).await {
                (true, why) => {
                    tracing::info!(
                        "cluster: {address} tells no more of the cluster ({}), others are asked",
                        why.message()
                    );
                    return Some(address);
                }
                (false, why) => {
                    match why.code() {
                        Code::FailedPrecondition => round.note(&address, self.stranger(&address).await),
                        // The node itself says so.
                        Code::Unavailable if std::error::Error::source(&why).is_none() => round.has_others = true,
                        _ => {}
                    }
                    complaints.of(address, &why);
                }
            }
        }
        None
    }

    /// The cluster of a node that refuses to tell of the one that is known, if it is of another.
    async fn stranger(&self, address: &str) -> Option<ClusterId> {
        let question =
            Request { protocol: PEER_PROTOCOL, cluster: Vec::new().into(), content: wire::encode(&()).into() };
        let mut node = service::client(dial(address, self.tls.as_ref()).ok()?);
        let reply = in_time(node.status(question)).await.ok()?.into_inner();
        let status: service::Status = wire::decode(&reply.content).ok()?;
        let theirs = status.state.cluster();
        (status.state.epoch() > 0 && self.cluster().is_some_and(|ours| ours != theirs)).then_some(theirs)
    }

    /// Looks at whether the cluster that is known is gone, and another one is in its place.
    fn judge(&self, round: &Round, replaced: &mut Replaced) {
        let is_over = replaced.see(round, Instant::now());
        let ours = self.cluster();
        let strangers = match (replaced.since, round.strangers.first(), ours) {
            (Some(_), Some((address, theirs)), Some(ours)) => {
                Some(format!("{address} is of another cluster, {theirs}, than the one that is known here, {ours}"))
            }
            (Some(_), ..) => return,
            (None, ..) => None,
        };
        self.strangers.lock().clone_from(&strangers);
        if let Some(strangers) = strangers.filter(|_| is_over) {
            let why = format!(
                "no node of its cluster has answered for {REPLACED:?}, and {strangers}\n  hint: started again, this process follows the other \
                 cluster, unless --join and --discover name nodes of the former one"
            );
            self.failure.send_replace(Some(why));
        }
    }

    /// The members that are known, as they are asked: in any order, so that not all frontends are with one node; those that should be up first,
    /// and the one that was watched last behind all others.
    fn members(&self, last: Option<&str>) -> Vec<String> {
        let state = Arc::clone(&self.state.borrow());
        let mut members: Vec<&Member> = state.members().collect();
        members.shuffle(&mut rand::rng());
        members.sort_by_key(|member| member.standing != Standing::Up);
        let mut addresses: Vec<String> = members.into_iter().map(|member| member.description.peer_address()).collect();
        addresses.sort_by_key(|address| last == Some(address));
        addresses
    }

    /// Takes the states that a node tells until it tells no more: whether it has told any, and why it ended.
    async fn follow(&self, address: &str, complaints: &mut Complaints) -> (bool, Status) {
        let mut states = match self.ask(address).await {
            Ok(states) => states,
            Err(why) => return (false, why),
        };
        let mut told = false;
        let why = loop {
            let reply = match told {
                true => states.message().await,
                false => in_time(states.message()).await,
            };
            match reply.and_then(|reply| self.take(reply)) {
                Ok(()) if told => {}
                Ok(()) => {
                    told = true;
                    *complaints = Complaints::default();
                    let state = self.state.borrow();
                    tracing::info!("cluster: {address} tells of cluster {}, epoch {}", state.cluster(), state.epoch());
                }
                Err(why) => break why,
            }
        };
        if told {
            *self.touch.lock() = Touch::LostAt(Instant::now());
        }
        (told, why)
    }

    async fn ask(&self, address: &str) -> Result<Streaming<Reply>, Status> {
        let question = Request {
            protocol: PEER_PROTOCOL,
            cluster: self.cluster().map(|cluster| cluster.0.to_vec()).unwrap_or_default().into(),
            content: wire::encode(&()).into(),
        };
        let mut node = service::client(dial(address, self.tls.as_ref())?);
        Ok(in_time(node.watch(question)).await?.into_inner())
    }

    /// Takes a state, unless it is an older one than what is known: the node is behind then, and will catch up.
    fn take(&self, reply: Option<Reply>) -> Result<(), Status> {
        let reply = reply.ok_or_else(|| Status::unavailable("it has ended, or lost touch with the others"))?;
        let state: ClusterState = wire::decode(&reply.content)?;
        if self.cluster().is_some_and(|ours| ours != state.cluster()) {
            return Err(Status::failed_precondition(format!("it is of another cluster, {}", state.cluster())));
        }
        // Before the state is shown: who is woken by it may ask at once whether states come.
        *self.touch.lock() = Touch::Held;
        self.state.send_if_modified(|known| {
            let is_newer = state.epoch() > known.epoch();
            if is_newer {
                *known = Arc::new(state);
            }
            is_newer
        });
        Ok(())
    }

    /// The cluster that was found.
    fn cluster(&self) -> Option<ClusterId> {
        let state = self.state.borrow();
        (state.epoch() > 0).then(|| state.cluster())
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(FIRST, answer).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("no answer within {FIRST:?}"))))
}

impl Round {
    /// A node refuses to tell of the cluster that is known. It is of `stranger`, if it says so.
    fn note(&mut self, address: &str, stranger: Option<ClusterId>) {
        match stranger {
            Some(cluster) => self.strangers.push((address.to_owned(), cluster)),
            None => self.has_others = true,
        }
    }
}

impl Replaced {
    /// Takes note of who has answered; whether only strangers have for long enough.
    fn see(&mut self, round: &Round, now: Instant) -> bool {
        if round.has_others {
            self.since = None;
        } else if !round.strangers.is_empty() {
            self.since.get_or_insert(now);
        }
        let is_old = self.since.is_some_and(|since| now.saturating_duration_since(since) >= REPLACED);
        is_old && !round.strangers.is_empty()
    }
}

impl Complaints {
    /// Says why a node tells nothing. A node that cannot be reached may come back; one that refuses will not change its mind.
    fn of(&mut self, address: String, why: &Status) {
        let causes = std::iter::successors(std::error::Error::source(why), |cause| cause.source());
        let problem = causes.last().map_or_else(|| why.message().to_owned(), ToString::to_string);
        if self.nodes.get(&address) == Some(&problem) {
            return;
        }
        match why.code() {
            Code::FailedPrecondition => tracing::error!("cluster: {address} is of no use here: {problem}"),
            _ => tracing::info!(
                "cluster: {address} does not tell of the cluster, and is asked again and again ({problem})"
            ),
        }
        self.nodes.insert(address, problem);
    }

    fn of_all(&mut self, epoch: u64) {
        if !std::mem::replace(&mut self.all, true) {
            tracing::warn!(
                "cluster: no node tells of the cluster; all are asked again and again (known: epoch {epoch})"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_replaced_when_only_strangers_have_answered_for_long() {
        let stranger = || Round { strangers: vec![("a:1".to_owned(), ClusterId([2; 16]))], has_others: false };
        let both = || Round { has_others: true, ..stranger() };
        let (mut replaced, now) = (Replaced::default(), Instant::now());
        assert!(!replaced.see(&stranger(), now));
        assert!(!replaced.see(&stranger(), now + REPLACED / 2));
        assert!(!replaced.see(&Round::default(), now + REPLACED), "nobody answers");
        assert!(replaced.see(&stranger(), now + REPLACED));
        assert!(!replaced.see(&both(), now + REPLACED), "somebody else does");
        assert!(!replaced.see(&stranger(), now + REPLACED * 3 / 2), "it begins anew");
        assert!(replaced.see(&stranger(), now + REPLACED * 5 / 2));
    }
}
