//! Greeting other nodes: until there is a cluster, and whenever its leader is not known, so that nodes that came back under other
//! addresses find each other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_proto::PEER_PROTOCOL;
use forebay_proto::membership::Request;
use futures_util::future::join_all;

use super::forming::Greeting;
use super::node::Node;
use super::{service, wire};
use crate::refusal;
use crate::state::ClusterId;

/// How long a node may take to greet back.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Who has not answered, or not as it should, so that it is said once.
#[derive(Default)]
pub(super) struct Rounds {
    unreachable: HashSet<String>,
    doubles: HashSet<String>,
    strangers: HashSet<ClusterId>,
}

impl Node {
    /// Takes note of what a node says of itself that greets this one.
    pub(super) fn hear_caller(&self, greeting: &Greeting) {
        self.candidates.lock().hear_caller(greeting, Instant::now());
        self.enter(greeting);
    }

    /// Takes note of what a node says of itself that this one has greeted.
    fn hear(&self, greeting: &Greeting) {
        self.candidates.lock().hear(greeting, Instant::now());
        self.enter(greeting);
    }

    /// A member of this node's cluster is where it says.
    fn enter(&self, greeting: &Greeting) {
        if let Some((cluster, number)) = greeting.seat {
            if self.cluster() == Some(cluster) {
                self.book.enter(number, &greeting.description);
            }
        }
    }

    /// Greets everybody once.
    pub(super) async fn greet_all(self: &Arc<Node>, rounds: &mut Rounds) {
        let seeds = self.seeds.addresses().await;
        let mut addresses = self.candidates.lock().addresses();
        addresses.extend(seeds.iter().cloned());
        addresses.extend(self.book.peers());
        let greetings = join_all(addresses.into_iter().map(|address| async move {
            let greeted = self.greet(&address).await;
            (address, greeted)
        }));
        let mut seeds_that_are_others = seeds.len();
        for (address, greeted) in greetings.await {
            match greeted {
                Ok(greeting) => {
                    rounds.unreachable.remove(&address);
                    let is_me = greeting.description.id == self.me.id && greeting.incarnation == self.incarnation();
                    if is_me && seeds.contains(&address) {
                        seeds_that_are_others -= 1;
                    }
                    self.note(rounds, &address, &greeting);
                }
                Err(why) => {
                    if rounds.unreachable.insert(address.clone()) {
                        tracing::info!("cluster: {address} does not answer, and is tried again and again ({why})");
                    }
                }
            }
        }
        let mut candidates = self.candidates.lock();
        // A source may have this node alone because the others are not registered yet: whoever formed a cluster now might form one of several.
        if seeds_that_are_others == 0 && !self.seeds.may_change() {
            candidates.seeds_are_me();
        }
        if let Some(since) = Instant::now().checked_sub(self.timing.forget_after) {
            candidates.forget_silent(since);
        }
    }

    fn note(&self, rounds: &mut Rounds, address: &str, greeting: &Greeting) {
        if greeting.description.id == self.me.id
            && greeting.incarnation != self.incarnation()
            && rounds.doubles.insert(address.to_owned())
        {
            tracing::error!("cluster: the process at {address} has this node's identity, {}", self.me.id);
        }
        if let (Some(ours), Some((theirs, _))) = (self.cluster(), greeting.seat) {
            if ours != theirs && rounds.strangers.insert(theirs) {
                tracing::error!("cluster: {address} is in cluster {theirs}, and this node in cluster {ours}");
            }
        }
        self.hear(greeting);
    }

    /// Asks the seeds whether they are of the cluster that the log here is of. Who names seeds wants to be in their cluster, so that one of
    /// the two is a mistake if they are not, and this node must not go on by itself.
    pub(super) async fn question_seeds(self: Arc<Node>, ours: ClusterId) {
        let seeds = self.seeds.addresses().await;
        let greetings = join_all(seeds.into_iter().map(|address| async {
            let greeted = self.greet(&address).await;
            (address, greeted)
        }));
        for (address, greeted) in greetings.await {
            let Ok(Some((theirs, _))) = greeted.map(|greeting| greeting.seat) else { continue };
            if theirs != ours {
                self.fail(format!(
                    "{address} is of another cluster, {theirs}, than the log here, {ours}\n  hint: --join and --discover name nodes of the \
                     cluster that --data-dir was used in; a new directory makes this a new node"
                ));
            }
        }
    }

    async fn greet(&self, address: &str) -> Result<Greeting, String> {
        let channel = self.channels.to(address).map_err(|status| status.message().to_owned())?;
        let cluster = self.cluster().map(|cluster| cluster.0.to_vec()).unwrap_or_default();
        let request = Request {
            protocol: PEER_PROTOCOL,
            cluster: cluster.into(),
            content: wire::encode(&self.greeting()).into(),
        };
        let reply = tokio::time::timeout(TIMEOUT, service::client(channel).hello(request)).await;
        let reply = reply.map_err(|_| format!("no answer within {TIMEOUT:?}"))?;
        let reply = reply.map_err(|status| refusal::of(&status, self.channels.tls().is_some()))?;
        wire::decode(&reply.into_inner().content).map_err(|status| status.message().to_owned())
    }

    /// Greets from time to time while no leader is known, until the node ends.
    pub(super) async fn look_for_leader(self: Arc<Node>) {
        let mut rounds = Rounds::default();
        loop {
            let leader = self.seated.get().and_then(|seated| seated.leader());
            if leader.is_none() || !self.lease.holds(Instant::now()) {
                self.greet_all(&mut rounds).await;
            }
            tokio::select! {
                () = tokio::time::sleep(self.timing.greeting * 5) => {}
                () = self.closing.cancelled() => return,
            }
        }
    }
}
