//! The leader's book of leases: whom it has heard of, whom it grants to, and whose time is over. The rules are argued in
//! [`lease`](super::lease).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use forebay_proto::raft::Verdict;
use openraft::{Instant as _, ServerState};

use super::raft::{Metrics, raft_id};
use super::timing::Timing;
use crate::slots::NodeNumber;
use crate::state::{ClusterState, Incarnation, Member, Standing};

/// What this node's Raft says of its leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leadership {
    /// `None`: it does not lead.
    pub(super) term: Option<u64>,
    /// A quorum has confirmed it a short while ago, and all entries of earlier terms are applied.
    pub(super) is_sure: bool,
    /// No other node has a vote.
    pub(super) votes_alone: bool,
}

impl Leadership {
    pub(super) fn of(metrics: &Metrics, timing: &Timing) -> Leadership {
        if metrics.state != ServerState::Leader || metrics.running_state.is_err() {
            return Leadership { term: None, is_sure: false, votes_alone: false };
        }
        let votes_alone = metrics.membership_config.voter_ids().eq([metrics.id]);
        let confirmed = metrics.last_quorum_acked.map(|at| at.into_inner().elapsed());
        let is_fresh = votes_alone || confirmed.is_some_and(|age| age < timing.quorum_fresh);
        let has_applied = metrics.last_applied.is_some_and(|applied| applied.leader_id.term == metrics.current_term);
        Leadership { term: Some(metrics.current_term), is_sure: is_fresh && has_applied, votes_alone }
    }
}

/// A member may be living still: its lease may not have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alive {
    /// It was heard of a short while ago.
    Heard,
    /// This node does not lead for long enough to know.
    Unknown,
}

/// The book. It is empty while the node does not lead.
pub(super) struct Grants {
    me: NodeNumber,
    timing: Timing,
    term: Option<u64>,
    heard: HashMap<NodeNumber, Contact>,
    /// The lives that are over, and when their end was last proposed. They get no lease, whatever becomes of that proposal: it may stand in
    /// the log unseen.
    condemned: HashMap<(NodeNumber, Incarnation), Instant>,
    down_since: HashMap<NodeNumber, Instant>,
    lost_since: HashMap<NodeNumber, Instant>,
    /// Since when nothing was heard of those that were drained: a node that was stopped then stays drained, and is neither down nor lost.
    drained_since: HashMap<NodeNumber, Instant>,
    looked: Instant,
    /// Another member may be there soon.
    expects_others: bool,
}

/// The last that was heard of a member in this term; when it was first seen, if nothing was.
struct Contact {
    incarnation: Incarnation,
    at: Instant,
    has_called: bool,
}

impl Grants {
    pub(super) fn new(me: NodeNumber, timing: Timing, now: Instant) -> Grants {
        Grants {
            me,
            timing,
            term: None,
            heard: HashMap::new(),
            condemned: HashMap::new(),
            down_since: HashMap::new(),
            lost_since: HashMap::new(),
            drained_since: HashMap::new(),
            looked: now,
            expects_others: false,
        }
    }

    /// Takes note of what is so now. To be called often.
    pub(super) fn look(&mut self, leadership: Leadership, state: &ClusterState, now: Instant) {
        if self.term != leadership.term {
            self.term = leadership.term;
            self.heard.clear();
            self.condemned.clear();
            self.down_since.clear();
            self.lost_since.clear();
            self.drained_since.clear();
            self.expects_others = false;
        }
        // A leader that was asleep has heard nobody, and knows nothing from that.
        if now.saturating_duration_since(self.looked) > self.timing.quorum_fresh {
            self.heard.values_mut().for_each(|contact| contact.at = now);
        }
        self.looked = now;
        if self.term.is_none() {
            return;
        }
        for member in state.members() {
            let is_known =
                self.heard.get(&member.number).is_some_and(|contact| contact.incarnation == member.incarnation);
            if !is_known {
                self.heard
                    .insert(member.number, Contact { incarnation: member.incarnation, at: now, has_called: false });
            }
        }
        note(&mut self.down_since, state, Standing::Down, now);
        note(&mut self.lost_since, state, Standing::Lost, now);
        note(&mut self.drained_since, state, Standing::Drained, now);
    }

    /// A member that serves by the state of `epoch` asks for a lease.
    pub(super) fn renew(
        &mut self,
        leadership: Leadership,
        state: &ClusterState,
        (number, incarnation): (NodeNumber, Incarnation),
        epoch: u64,
        now: Instant,
    ) -> Verdict {
        self.look(leadership, state, now);
        if self.term.is_none() || !leadership.is_sure {
            return Verdict::NotNow;
        }
        let Some(member) = state.member(number) else { return Verdict::Removed };
        if member.incarnation != incarnation {
            return Verdict::Replaced;
        }
        if has_ended(member) {
            return Verdict::Down;
        }
        if self.condemned.contains_key(&(number, incarnation)) {
            return Verdict::NotNow;
        }
        self.heard.insert(number, Contact { incarnation, at: now, has_called: true });
        self.drained_since.entry(number).and_modify(|since| *since = now);
        // What it serves by may be older than what took its slots.
        if epoch < member.since_epoch { Verdict::NotNow } else { Verdict::Granted }
    }

    /// Whether the leader's own lease needs no end, since nobody else can take its slots.
    pub(super) fn is_alone(&self, leadership: Leadership, state: &ClusterState) -> bool {
        leadership.votes_alone && !self.expects_others && state.members().count() == 1
    }

    /// From now on somebody else may take the leader's slots one day.
    pub(super) fn expect_others(&mut self) {
        self.expects_others = true;
    }

    /// The members whose end is to be proposed: their lease has surely ended, and they get none any more. Again after a while, if the state
    /// does not show it by then.
    pub(super) fn condemn_silent(&mut self, state: &ClusterState, now: Instant) -> Vec<(NodeNumber, Incarnation)> {
        let may_serve = |member: &&Member| !has_ended(member) && member.standing != Standing::Drained;
        let living = state.members().filter(|member| member.number != self.me).filter(may_serve);
        let lives: Vec<_> = living.map(|member| (member.number, member.incarnation)).collect();
        let wait = self.timing.down_after;
        lives.into_iter().filter(|life| self.is_due(*life, wait, now) && self.condemn(*life, now).is_ok()).collect()
    }

    /// Whether the end of a life was not proposed within `wait`.
    fn is_due(&self, life: (NodeNumber, Incarnation), wait: Duration, now: Instant) -> bool {
        self.condemned.get(&life).is_none_or(|proposed| now.saturating_duration_since(*proposed) >= wait)
    }

    /// Ends a life if its lease has surely ended: it gets no lease any more.
    ///
    /// # Errors
    /// When it may have a lease.
    pub(super) fn condemn(
        &mut self,
        (number, incarnation): (NodeNumber, Incarnation),
        now: Instant,
    ) -> Result<(), Alive> {
        if self.term.is_none() {
            return Err(Alive::Unknown);
        }
        if let Some(proposed) = self.condemned.get_mut(&(number, incarnation)) {
            *proposed = now;
            return Ok(());
        }
        let contact =
            self.heard.get(&number).filter(|contact| contact.incarnation == incarnation).ok_or(Alive::Unknown)?;
        let silence = now.saturating_duration_since(contact.at);
        if silence < self.timing.down_after {
            return Err(if contact.has_called { Alive::Heard } else { Alive::Unknown });
        }
        self.condemned.insert((number, incarnation), now);
        Ok(())
    }

    /// The members that were down for so long that others are to take their seats.
    pub(super) fn lost(&self, now: Instant) -> Vec<NodeNumber> {
        older(&self.down_since, self.timing.lose_after, now)
    }

    /// The members that were lost, or drained and silent, for so long that nobody is to count on them any more.
    pub(super) fn forgotten(&self, now: Instant) -> Vec<NodeNumber> {
        let away = [&self.lost_since, &self.drained_since];
        away.into_iter().flat_map(|since| older(since, self.timing.remove_after, now)).collect()
    }

    /// How long ago each member called.
    pub(super) fn silence(&self, now: Instant) -> Vec<(NodeNumber, Duration)> {
        let called = self.heard.iter().filter(|(_, contact)| contact.has_called);
        let mut silence: Vec<_> =
            called.map(|(number, contact)| (*number, now.saturating_duration_since(contact.at))).collect();
        silence.sort_unstable();
        silence
    }
}

/// Whether the member's life is over by the state: it has no lease, and needs none.
pub(super) fn has_ended(member: &Member) -> bool {
    matches!(member.standing, Standing::Down | Standing::Lost)
}

/// Whether `metrics` count the node among the voters.
pub(super) fn is_voter(metrics: &Metrics, number: NodeNumber) -> bool {
    metrics.membership_config.voter_ids().any(|id| id == raft_id(number))
}

/// Takes note of who stands so, from when on, and of nobody else.
fn note(since: &mut HashMap<NodeNumber, Instant>, state: &ClusterState, standing: Standing, now: Instant) {
    since.retain(|number, _| state.member(*number).is_some_and(|member| member.standing == standing));
    for member in state.members().filter(|member| member.standing == standing) {
        since.entry(member.number).or_insert(now);
    }
}

fn older(since: &HashMap<NodeNumber, Instant>, age: Duration, now: Instant) -> Vec<NodeNumber> {
    let is_over = |since: &Instant| now.saturating_duration_since(*since) >= age;
    since.iter().filter(|(_, since)| is_over(since)).map(|(number, _)| *number).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::description;
    use super::*;
    use crate::state::{Applied, Change, ClusterId};

    const LEADS: Leadership = Leadership { term: Some(1), is_sure: true, votes_alone: false };
    const FIRST: Incarnation = Incarnation(1);

    struct Scene {
        grants: Grants,
        state: ClusterState,
        now: Instant,
    }

    impl Scene {
        /// Members 1, which leads, and 2.
        fn new() -> Scene {
            let mut state = ClusterState::new(ClusterId([1; 16]), 2);
            for node in 1..=2 {
                let joined = state.apply(Change::Join { description: description(node), incarnation: FIRST });
                assert!(matches!(joined, Applied::Joined { .. }), "{joined:?}");
            }
            let now = Instant::now();
            let mut scene = Scene { grants: Grants::new(NodeNumber(1), Timing::default(), now), state, now };
            scene.grants.look(LEADS, &scene.state, now);
            scene
        }

        /// Time passes as the leader's task sees it, in small steps.
        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += Duration::from_millis(50).min(end - self.now);
                self.grants.look(LEADS, &self.state, self.now);
            }
        }

        fn renew(&mut self, leadership: Leadership) -> Verdict {
            self.grants.renew(leadership, &self.state, (NodeNumber(2), FIRST), self.state.epoch(), self.now)
        }
    }

    #[test]
    fn who_is_silent_is_condemned_after_the_wait_and_granted_nothing_any_more() {
        let timing = Timing::default();
        let mut scene = Scene::new();
        assert_eq!(scene.renew(LEADS), Verdict::Granted);
        scene.pass(timing.down_after - Duration::from_millis(1));
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), []);
        scene.pass(Duration::from_millis(1));
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), [(NodeNumber(2), FIRST)]);
        assert_eq!(scene.renew(LEADS), Verdict::NotNow);
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), [], "once");
        scene.pass(timing.down_after);
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), [(NodeNumber(2), FIRST)], "and again");
        assert_eq!(scene.renew(LEADS), Verdict::NotNow);
    }

    #[test]
    fn a_new_leader_waits_although_it_has_heard_nothing() {
        let mut scene = Scene::new();
        scene.pass(Timing::default().down_after);
        let next = Leadership { term: Some(2), ..LEADS };
        scene.grants.look(next, &scene.state, scene.now);
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), []);
        assert_eq!(scene.grants.condemn((NodeNumber(2), FIRST), scene.now), Err(Alive::Unknown));
    }

    #[test]
    fn a_leader_that_slept_declares_nobody_down() {
        let mut scene = Scene::new();
        assert_eq!(scene.renew(LEADS), Verdict::Granted);
        scene.now += Timing::default().down_after * 3;
        scene.grants.look(LEADS, &scene.state, scene.now);
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), []);
    }

    #[test]
    fn who_is_not_sure_to_lead_grants_nothing() {
        let mut scene = Scene::new();
        assert_eq!(scene.renew(Leadership { is_sure: false, ..LEADS }), Verdict::NotNow);
        assert_eq!(scene.renew(Leadership { term: None, is_sure: false, votes_alone: false }), Verdict::NotNow);
    }

    #[test]
    fn another_life_is_told_so() {
        let mut scene = Scene::new();
        let refused = scene.grants.renew(LEADS, &scene.state, (NodeNumber(2), Incarnation(9)), 9, scene.now);
        assert_eq!(refused, Verdict::Replaced);
        let refused = scene.grants.renew(LEADS, &scene.state, (NodeNumber(7), FIRST), 9, scene.now);
        assert_eq!(refused, Verdict::Removed);
        scene.state.apply(Change::Down { number: NodeNumber(2), incarnation: FIRST });
        assert_eq!(scene.renew(LEADS), Verdict::Down);
    }

    #[test]
    fn who_serves_by_a_state_from_before_it_was_down_gets_nothing() {
        let mut scene = Scene::new();
        let before = scene.state.epoch();
        scene.state.apply(Change::Down { number: NodeNumber(2), incarnation: FIRST });
        let description = description(2);
        scene.state.apply(Change::Join { description, incarnation: FIRST });
        let refused = scene.grants.renew(LEADS, &scene.state, (NodeNumber(2), FIRST), before, scene.now);
        assert_eq!(refused, Verdict::NotNow);
        assert_eq!(scene.renew(LEADS), Verdict::Granted);
    }

    #[test]
    fn who_was_drained_is_not_declared_down_again_and_again() {
        let mut scene = Scene::new();
        scene.state.apply(Change::Drain { number: NodeNumber(2) });
        scene.state.apply(Change::Down { number: NodeNumber(2), incarnation: FIRST });
        assert_eq!(scene.state.member(NodeNumber(2)).map(|member| member.standing), Some(Standing::Drained));
        scene.pass(Timing::default().down_after * 3);
        assert_eq!(scene.grants.condemn_silent(&scene.state, scene.now), []);
    }

    #[test]
    fn who_is_down_for_long_is_lost() {
        let timing = Timing::default();
        let mut scene = Scene::new();
        scene.state.apply(Change::Down { number: NodeNumber(2), incarnation: FIRST });
        scene.pass(timing.lose_after);
        assert_eq!(scene.grants.lost(scene.now), []);
        scene.pass(Duration::from_millis(50));
        assert_eq!(scene.grants.lost(scene.now), [NodeNumber(2)]);
    }

    #[test]
    fn who_is_lost_for_long_is_forgotten_unless_it_comes_back() {
        let mut scene = Scene::new();
        let wait = Duration::from_secs(2);
        scene.grants.timing.remove_after = wait;
        let lose = |scene: &mut Scene| {
            scene.state.apply(Change::Down { number: NodeNumber(2), incarnation: FIRST });
            scene.state.apply(Change::Lose { number: NodeNumber(2) });
        };
        lose(&mut scene);
        scene.pass(wait);
        assert_eq!(scene.grants.forgotten(scene.now), []);
        scene.state.apply(Change::Join { description: description(2), incarnation: FIRST });
        scene.pass(wait);
        assert_eq!(scene.grants.forgotten(scene.now), [], "it came back");
        lose(&mut scene);
        scene.pass(wait);
        assert_eq!(scene.grants.forgotten(scene.now), []);
        scene.pass(Duration::from_millis(50));
        assert_eq!(scene.grants.forgotten(scene.now), [NodeNumber(2)]);
    }

    #[test]
    fn who_was_drained_and_stopped_is_forgotten_and_who_runs_on_is_not() {
        let mut scene = Scene::new();
        let wait = Duration::from_secs(2);
        scene.grants.timing.remove_after = wait;
        scene.state.apply(Change::Drain { number: NodeNumber(2) });
        scene.state.apply(Change::Down { number: NodeNumber(2), incarnation: FIRST });
        scene.pass(wait);
        assert_eq!(scene.renew(LEADS), Verdict::Granted, "it runs still");
        scene.pass(wait - Duration::from_millis(50));
        assert_eq!(scene.grants.forgotten(scene.now), []);
        scene.pass(Duration::from_millis(50));
        assert_eq!(scene.grants.forgotten(scene.now), [NodeNumber(2)]);
        scene.state.apply(Change::Undrain { number: NodeNumber(2) });
        scene.pass(Duration::from_millis(50));
        assert_eq!(scene.grants.forgotten(scene.now), [], "it is wanted again");
    }

    #[test]
    fn a_lone_member_is_alone_until_it_lets_another_in() {
        let mut state = ClusterState::new(ClusterId([1; 16]), 2);
        state.apply(Change::Join { description: description(1), incarnation: FIRST });
        let alone = Leadership { votes_alone: true, ..LEADS };
        let mut grants = Grants::new(NodeNumber(1), Timing::default(), Instant::now());
        grants.look(alone, &state, Instant::now());
        assert!(grants.is_alone(alone, &state));
        grants.expect_others();
        assert!(!grants.is_alone(alone, &state));
    }
}
