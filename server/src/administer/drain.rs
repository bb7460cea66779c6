//! `forebay cluster drain`: has a node drained, and tells how far it has come until it holds nothing any more.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use forebay_cluster::NodeNumber;
use forebay_cluster::membership::admin::Admin;
use forebay_cluster::state::{Applied, ClusterState, Standing};

use super::{AdministerError, has_touch, held};

/// Between two looks at how far it has come.
const LOOK: Duration = Duration::from_millis(250);

/// How long a node may take to answer one look.
const ANSWER: Duration = Duration::from_secs(3);

/// How long nothing may be learnt of the cluster. An election takes half a second, a restart of the node that is asked some seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// So often it is told what is left, even if nothing has changed.
const TELL: Duration = Duration::from_secs(5);

/// Waits until the node holds nothing any more, and tells how far it has come.
pub(super) async fn drain(admin: &Admin, node: &str) -> Result<(), AdministerError> {
    let number = admin.find(node).await?.number;
    let applied = admin.drain(node).await?;
    let mut watch = Watch::new(number, applied, Instant::now());
    let mut out = io::stdout();
    loop {
        match look(admin).await {
            Ok(state) => {
                let told = watch.see(&state, Instant::now())?;
                told.iter().try_for_each(|line| writeln!(out, "{line}"))?;
                if watch.is_done {
                    return Ok(());
                }
            }
            Err(why) => watch.bear(&why, Instant::now())?,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The state of the cluster as the node that is asked knows it.
///
/// # Errors
/// In words, when it does not answer, or learns nothing of the others.
async fn look(admin: &Admin) -> Result<ClusterState, String> {
    match tokio::time::timeout(ANSWER, admin.status()).await {
        Err(_) => Err(format!("the node that is asked has not answered within {ANSWER:?}")),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(status)) if !has_touch(&status) => {
            Err(format!("the node that is asked has no touch with its cluster ({})", status.phase))
        }
        Ok(Ok(status)) => Ok(status.state),
    }
}

/// What has been seen of a drain.
struct Watch {
    number: NodeNumber,
    applied: Applied,
    has_begun: bool,
    is_done: bool,
    /// What the node was last said to hold, and when.
    told: Option<((usize, usize), Instant)>,
    heard: Instant,
}

impl Watch {
    fn new(number: NodeNumber, applied: Applied, now: Instant) -> Watch {
        Watch { number, applied, has_begun: false, is_done: false, told: None, heard: now }
    }

    /// Takes note of a state; the lines that are to be told of it.
    ///
    /// # Errors
    /// When the drain was called off.
    fn see(&mut self, state: &ClusterState, now: Instant) -> Result<Vec<String>, AdministerError> {
        let number = self.number;
        self.heard = now;
        self.has_begun |= has_begun(&self.applied, state, number);
        if self.has_begun && is_to_stay(state, number) {
            return Err(AdministerError::Refused(format!(
                "node {number} was undrained meanwhile, and keeps what it holds\n  hint: drain it again if it is to go"
            )));
        }
        let mut lines: Vec<_> = self.progress(held(state, number), now).into_iter().collect();
        self.is_done = state.member(number).is_none_or(|member| member.standing == Standing::Drained);
        if self.is_done {
            lines.push(format!("node {number} holds nothing any more: it may be stopped and removed"));
        }
        Ok(lines)
    }

    fn progress(&mut self, (owned, copied): (usize, usize), now: Instant) -> Option<String> {
        if self.told.is_some_and(|(before, at)| before == (owned, copied) && now < at + TELL) {
            return None;
        }
        self.told = Some(((owned, copied), now));
        Some(format!("node {} owns {owned} slots and has copies of {copied}", self.number))
    }

    /// Nothing was learnt.
    ///
    /// # Errors
    /// When that has been so for too long.
    fn bear(&self, why: &str, now: Instant) -> Result<(), AdministerError> {
        if now.saturating_duration_since(self.heard) < SILENCE {
            return Ok(());
        }
        Err(AdministerError::Refused(format!(
            "it is not known how far the drain of node {} has come: nothing was learnt for {SILENCE:?}, since {why}\n  hint: it goes on by \
             itself; look at it through another node (`forebay cluster status --node`), or run this again",
            self.number
        )))
    }
}

/// Whether the state of the node that is asked, which may be a little behind the leader's, has the drain.
fn has_begun(applied: &Applied, state: &ClusterState, number: NodeNumber) -> bool {
    let is_as_far = matches!(applied, Applied::Done { epoch } if state.epoch() >= *epoch);
    is_as_far || !is_to_stay(state, number)
}

/// Whether a member is neither drained nor on the way to it.
fn is_to_stay(state: &ClusterState, number: NodeNumber) -> bool {
    state.member(number).is_some_and(|member| !matches!(member.standing, Standing::Draining | Standing::Drained))
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_cluster::state::Change;
    use forebay_cluster::{ClusterId, Description, Incarnation, NodeId};

    #[test]
    fn a_drain_that_was_taken_back_is_told_from_one_that_is_not_seen_yet() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        let numbers: Vec<_> = (1..=2).map(|node| join(&mut state, node)).collect();
        let before = state.clone();
        let number = numbers[0];
        let applied = state.apply(Change::Drain { number });
        assert!(!has_begun(&applied, &before, number), "the node that is asked is behind");
        assert!(has_begun(&applied, &state, number) && !is_to_stay(&state, number));
        assert!(has_begun(&Applied::Unchanged, &state, number), "somebody else had it drained");
        state.apply(Change::Undrain { number });
        assert!(has_begun(&applied, &state, number) && is_to_stay(&state, number));
        assert!(!is_to_stay(&state, NodeNumber(9)), "it was removed");
    }

    #[test]
    fn what_is_left_is_told_when_it_changes_and_now_and_then() {
        let (mut state, mut watch) = being_drained();
        let (number, now) = (watch.number, watch.heard);
        let told = watch.see(&state, now).expect("it is being drained");
        assert_eq!(told, [format!("node {number} owns {} slots and has copies of 0", forebay_cluster::SLOT_COUNT)]);
        assert_eq!(watch.see(&state, now + TELL / 2).expect("still"), [""; 0], "nothing has changed");
        assert_eq!(watch.see(&state, now + TELL).expect("still"), told, "it is not silent for ever");
        state.apply(Change::Down { number, incarnation: Incarnation(1) });
        let told = watch.see(&state, now + TELL).expect("it holds nothing").join("\n");
        assert!(told.contains("owns 0 slots") && told.ends_with("it may be stopped and removed"), "{told}");
        assert!(watch.is_done);
    }

    #[test]
    fn a_node_that_does_not_answer_is_asked_again_for_a_while() {
        let (state, mut watch) = being_drained();
        let now = watch.heard;
        assert!(watch.bear("it rests", now + SILENCE / 2).is_ok());
        watch.see(&state, now + SILENCE / 2).expect("it is being drained");
        assert!(watch.bear("it rests", now + SILENCE).is_ok(), "it has answered meanwhile");
        let error = watch.bear("it rests", now + SILENCE * 3 / 2).expect_err("too long").to_string();
        assert!(error.contains("it rests") && error.contains("hint:"), "{error}");
    }

    /// The first of two nodes is.
    fn being_drained() -> (ClusterState, Watch) {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        let number = join(&mut state, 1);
        join(&mut state, 2);
        let applied = state.apply(Change::Drain { number });
        (state, Watch::new(number, applied, Instant::now()))
    }

    fn join(state: &mut ClusterState, node: u8) -> NodeNumber {
        let description = Description {
            id: NodeId::from_bytes([node; 20]),
            host: "127.0.0.1".to_owned(),
            open_port: 6379,
            direct_port: 0,
            http_port: 0,
            peer_port: 8001,
            raft_port: 7000,
            zone: None,
            weight: 1000,
            version: "test".to_owned(),
        };
        match state.apply(Change::Join { description, incarnation: Incarnation(1) }) {
            Applied::Joined { number, .. } => number,
            other => panic!("it may join: {other:?}"),
        }
    }
}
