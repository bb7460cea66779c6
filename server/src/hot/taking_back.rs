//! The task that takes copies back from their holders.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cluster::NodeNumber;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::grants::Due;
use super::message::{ask_back, given_back};
use super::{Hot, LONGEST};
use crate::cluster::Cluster;
use crate::node::Node;

/// Between two looks at what has ended while nothing is under way.
const LOOK: Duration = Duration::from_millis(500);

/// Asks holders for what they have to give back, for ever. One that does not answer is waited for until its copies have ended.
pub async fn take_back(node: Arc<Node>) -> Infallible {
    let (Some(cluster), Some(member)) = (&node.cluster, node.member()) else { return std::future::pending().await };
    let Hot { grants, copies } = &member.hot;
    let mut answers = FuturesUnordered::new();
    loop {
        let now = Instant::now();
        copies.clear_up(now);
        let look = grants.look(now).map_or(now + LOOK, |next| next.min(now + LOOK));
        tokio::select! {
            () = grants.due() => {
                let mut by_holder = HashMap::<NodeNumber, Vec<Due>>::new();
                for due in grants.take_due() {
                    by_holder.entry(due.holder).or_default().push(due);
                }
                answers.extend(by_holder.into_values().filter_map(|keys| ask(&node, cluster, keys)));
            }
            Some(returned) = answers.next(), if !answers.is_empty() => {
                for (due, served) in returned {
                    grants.returned(&due, served);
                }
            }
            () = tokio::time::sleep_until(look.into()) => {}
        }
    }
}

/// Asks one holder; its answer is what it has given back, and how often it has used each. `None` if it is not known where it is: then its copies end by themselves.
fn ask(node: &Node, cluster: &Cluster, keys: Vec<Due>) -> Option<impl Future<Output = Vec<(Due, u32)>> + use<>> {
    let topology = node.topology.load();
    let holder = topology.node(keys.first()?.holder)?;
    let call = cluster.peers.call(&holder.peer_address, topology.epoch(), &ask_back(keys.iter()));
    Some(async move {
        let answer = tokio::time::timeout(LONGEST, call).await.ok().and_then(Result::ok);
        // Whatever has become of a holder that does not answer, its copies have ended when their time is over.
        let served = answer.and_then(|answer| given_back(answer, keys.len())).unwrap_or_default();
        keys.into_iter().zip(served).collect()
    })
}
