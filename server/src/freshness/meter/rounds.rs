//! Looking again and again at what was drawn.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_cluster::{Node as Member, NodeNumber, Standing as MemberStanding, Topology};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::message::{question, sights};
use super::sampler::{Drawn, PERIOD};
use super::sight::Sight;
use super::verdict::{Answered, of_copies, of_differing, of_owner, of_replica};
use super::{AGES, Place, Verdict};
use crate::node::Node;

/// Between two looks at what is due; what is looked at may be so much older than its age.
const TICK: Duration = Duration::from_millis(50);

/// Keys that a node is asked for at once.
const KEYS_OF_ROUND: usize = 64;

/// Rounds under way at the same time. While there are as many, what is due waits.
const MAX_ROUNDS: usize = 16;

/// A node that has not answered after so long is not waited for.
const ANSWER: Duration = Duration::from_secs(1);

/// How often two nodes that differ are looked at, and the pause between: what the owner tells its copies takes some time.
const TRIES: usize = 3;
const PAUSE: Duration = Duration::from_millis(20);

/// Stale ones are not told of more often.
const TELL: Duration = Duration::from_secs(1);

/// A change that is looked at, until it is of the highest age.
struct Sample {
    drawn: Drawn,
    /// Its place among [`AGES`].
    age: usize,
    /// What its owner had when it was last found to be fresh.
    fresh: Option<u64>,
}

/// What every member has said of the keys of a round.
struct Round {
    topology: Arc<Topology>,
    said: Vec<(NodeNumber, Option<Said>)>,
}

/// What one has said of each key.
struct Said {
    asked: Instant,
    answered: Instant,
    sights: Vec<Sight>,
}

/// Draws from the changes that are offered and looks at them, for as long as this node is the keeper.
pub async fn measure(node: Arc<Node>) -> Infallible {
    let mut waiting: [VecDeque<Sample>; AGES.len()] = Default::default();
    let mut rounds = FuturesUnordered::new();
    let mut alarm = Alarm::default();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut period_ends = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let now = Instant::now();
                if now >= period_ends {
                    period_ends = now + PERIOD;
                    let rate = node.settings.freshness_samples.load(Relaxed);
                    let drawn = node.freshness.meter.drawn(rate);
                    waiting[0].extend(drawn.into_iter().map(|drawn| Sample { drawn, age: 0, fresh: None }));
                }
                while rounds.len() < MAX_ROUNDS {
                    let due = take_due(&mut waiting, now);
                    if due.is_empty() {
                        break;
                    }
                    rounds.push(look(&node, due));
                }
            }
            Some((looked_at, stale)) = rounds.next(), if !rounds.is_empty() => {
                stale.iter().for_each(|stale| alarm.raise(stale));
                for sample in looked_at {
                    if let Some(further) = waiting.get_mut(sample.age) {
                        further.push_back(sample);
                    }
                }
            }
        }
    }
}

/// Some of those that are old enough.
fn take_due(waiting: &mut [VecDeque<Sample>], now: Instant) -> Vec<Sample> {
    let mut due = Vec::new();
    for (samples, (age, _)) in waiting.iter_mut().zip(AGES) {
        while due.len() < KEYS_OF_ROUND {
            let is_due = |sample: &Sample| now.duration_since(sample.drawn.known) >= age;
            if !samples.front().is_some_and(is_due) {
                break;
            }
            due.extend(samples.pop_front());
        }
    }
    due
}

/// Looks at some, counts what is found, and gives them back to be looked at when they are of the next age; and what was stale.
async fn look(node: &Node, due: Vec<Sample>) -> (Vec<Sample>, Vec<Stale>) {
    let (mut left, mut looked_at, mut stale) = (due, Vec::new(), Vec::new());
    for tries_left in (0..TRIES).rev() {
        let round = Round::ask(node, &left).await;
        let mut differing = Vec::new();
        for (index, mut sample) in left.into_iter().enumerate() {
            let Some(found) = round.judge(index, &mut sample, tries_left == 0) else {
                differing.push(sample);
                continue;
            };
            for (place, number, verdict) in found {
                node.freshness.meter.count(sample.age, place, verdict);
                if verdict == Verdict::Stale {
                    let (drawn, age, is_told) =
                        (sample.drawn.clone(), AGES[sample.age].1, round.is_told(index, &sample));
                    stale.push(Stale { drawn, age, place, number, is_told });
                }
            }
            sample.age += 1;
            looked_at.push(sample);
        }
        left = differing;
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    (looked_at, stale)
}

impl Round {
    async fn ask(node: &Node, samples: &[Sample]) -> Round {
        let topology = node.topology.load_full();
        let asked = question(&node.freshness.meter.totals(), samples.iter().map(|sample| &sample.drawn));
        let members = topology.nodes().iter().filter(|member| answers(member));
        let said = join_all(members.map(|member| ask(node, &topology, member, &asked, samples))).await;
        Round { topology, said }
    }

    /// What was found of a sample: `None` if it has to be looked at once more, since two nodes differ.
    fn judge(
        &self,
        index: usize,
        sample: &mut Sample,
        is_last: bool,
    ) -> Option<Vec<(Place, Option<NodeNumber>, Verdict)>> {
        let slot = forebay_cluster::slot_of(&sample.drawn.key);
        let owner = self.topology.owner_of(slot).map(|owner| owner.number);
        let at_owner = owner.and_then(|owner| self.said_by(owner, index));
        let of_owner = of_owner(at_owner.as_ref().map(|said| &said.sight), sample.fresh);
        let mut found = vec![(Place::Owner, owner, of_owner)];
        let owner_sight = at_owner.as_ref().map(|said| &said.sight);
        for replica in self.topology.replicas(slot) {
            let said = self.said_by(replica.number, index);
            let sight = said.as_ref().map(|said| &said.sight);
            let verdict = match of_replica(sight, (owner_sight, of_owner), sample.fresh) {
                Some(verdict) => verdict,
                None if is_last => of_differing(sight, owner_sight),
                None => return None,
            };
            found.push((Place::Replica, Some(replica.number), verdict));
        }
        for (number, _) in self.said.iter().filter(|(number, _)| Some(*number) != owner) {
            let holder = self.said_by(*number, index);
            let verdict = holder.and_then(|holder| of_copies(&holder, at_owner.as_ref(), of_owner));
            found.extend(verdict.map(|verdict| (Place::HotCopy, Some(*number), verdict)));
        }
        if of_owner == Verdict::Fresh {
            sample.fresh = owner_sight.and_then(|sight| sight.entry?.identity);
        }
        Some(found)
    }

    /// Whether the owner has been told of the change, as far as it is the last one of its key.
    fn is_told(&self, index: usize, sample: &Sample) -> bool {
        let owner = self.topology.owner_of(forebay_cluster::slot_of(&sample.drawn.key));
        owner.and_then(|owner| self.said_by(owner.number, index)).is_some_and(|said| said.sight.changed.is_some())
    }

    fn said_by(&self, number: NodeNumber, index: usize) -> Option<Answered> {
        let (_, said) = self.said.iter().find(|(known, _)| *known == number)?;
        let Said { asked, answered, sights } = said.as_ref()?;
        Some(Answered { asked: *asked, answered: *answered, sight: *sights.get(index)? })
    }
}

/// Not one that is down, which serves nothing. What it had a copy of is unknown.
fn answers(member: &Member) -> bool {
    !matches!(member.standing, MemberStanding::Down | MemberStanding::Lost)
}

async fn ask(
    node: &Node,
    topology: &Topology,
    member: &Member,
    question: &Bytes,
    samples: &[Sample],
) -> (NodeNumber, Option<Said>) {
    let asked = Instant::now();
    let sights = match &node.cluster {
        Some(cluster) if topology.number_here() != Some(member.number) => {
            let call = cluster.peers.call(&member.peer_address, topology.epoch(), question);
            let answer = tokio::time::timeout(ANSWER, call).await.ok().and_then(Result::ok);
            answer.and_then(|answer| sights(answer, samples.len()))
        }
        _ => Some(samples.iter().map(|sample| Sight::of(node, &sample.drawn.key, sample.drawn.xid)).collect()),
    };
    (member.number, sights.map(|sights| Said { asked, answered: Instant::now(), sights }))
}

/// Something that the database had replaced, and where it was found.
struct Stale {
    drawn: Drawn,
    age: &'static str,
    place: Place,
    number: Option<NodeNumber>,
    /// If not, the change is on its way to the key's owner, or was lost on it.
    is_told: bool,
}

/// Tells of what is stale, but not of everything.
#[derive(Default)]
struct Alarm {
    told: Option<Instant>,
    untold: u64,
}

impl Alarm {
    fn raise(&mut self, stale: &Stale) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now.duration_since(told) < TELL) {
            self.untold += 1;
            return;
        }
        self.told = Some(now);
        let Stale { drawn: Drawn { key, xid, .. }, age, place, number, is_told } = stale;
        warn!(
            key = %String::from_utf8_lossy(key),
            transaction = %xid,
            age,
            place = place.as_str(),
            node = number.map(|number| number.0),
            owner_was_told = is_told,
            others = std::mem::take(&mut self.untold),
            "the database has replaced what a node would still serve"
        );
    }
}

#[cfg(test)]
mod tests {
    use forebay_origin::Xid;

    use super::*;

    fn sample(xid: u64, known: Instant) -> Sample {
        Sample { drawn: Drawn { key: Bytes::from_static(b"k"), xid: Xid(xid), known }, age: 0, fresh: None }
    }

    #[test]
    fn what_is_due_is_taken_in_its_order_and_no_more_than_a_message_holds() {
        let known = Instant::now();
        let mut waiting: [VecDeque<Sample>; AGES.len()] = Default::default();
        waiting[0].extend((0..100).map(|xid| sample(xid, known + Duration::from_millis(xid))));
        waiting[1].push_back(sample(1000, known));
        let mut take = |after| {
            let due = take_due(&mut waiting, known + Duration::from_millis(after));
            due.into_iter().map(|sample| sample.drawn.xid.0).collect::<Vec<_>>()
        };
        assert!(take(99).is_empty());
        assert_eq!(take(102), [0, 1, 2]);
        assert_eq!(take(500), (3..3 + KEYS_OF_ROUND as u64).collect::<Vec<_>>());
        assert_eq!(take(999), (3 + KEYS_OF_ROUND as u64..100).collect::<Vec<_>>());
        assert_eq!(take(1000), [1000]);
    }
}
