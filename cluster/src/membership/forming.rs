//! How nodes that have no cluster find each other, and agree on who forms it.
//!
//! Each greets its seeds, and whom it hears of from others. Of those that do not only join, the one with the smallest id forms the cluster,
//! when it knows as many as are expected and each of them has told it that it knows exactly the same ones.
//!
//! # Why only one does
//!
//! What a node knows only grows (but for nodes that are gone). It draws the cluster's id in the moment in which it decides, and tells it
//! with all that it says from then on ([`Candidates::next`] and [`Candidates::greeting`] are under one lock), though it takes a while until it
//! has its seat. Let two form a cluster with some node in common. That one has told both what it knew, so what one of them, P, knew is part of what
//! the other, Q, knew: Q knew P, and P had told Q that it knows exactly what Q did. If P knew Q when it decided, then only the one with the smaller id
//! of them did decide. If not, P said so later, and has told Q of its cluster in the same breath, which Q joins.
//!
//! # Whose cluster is joined
//!
//! One that this node has found: by its seeds, or by nodes that had none themselves when it heard of them. Who has a cluster and greets unasked may
//! be another cluster's, and take this node for one that had its address before: it is answered, and not listened to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::slots::NodeNumber;
use crate::state::{ClusterId, Description, Incarnation};
use crate::topology::NodeId;

/// The number of the node that forms a cluster: the first that is given.
pub(super) const FIRST: NodeNumber = NodeNumber(1);

/// What nodes tell each other of themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub(super) description: Description,
    pub(super) incarnation: Incarnation,
    /// Its cluster, if it has one or has decided to form one, and its number there.
    pub(super) seat: Option<(ClusterId, NodeNumber)>,
    /// Whether it forms a cluster if that falls to it. Who only joins is waited for like the others, but nobody waits for it to form.
    pub(super) may_form: bool,
    /// Itself and whom it has heard of itself, with their peer ports, as long as it has no cluster.
    pub(super) known: Vec<(NodeId, String)>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// This node forms the cluster.
    Form(ClusterId),
    /// One of these nodes does; or not all know each other yet.
    Wait { missing: usize, known: Vec<String> },
    /// There is a cluster: it is joined through this address.
    Join(ClusterId, String),
}

/// The nodes without a cluster that are known.
pub(super) struct Candidates {
    me: Description,
    expect: usize,
    heard: BTreeMap<NodeId, Candidate>,
    /// Those that others know, and where they are said to be.
    rumoured: BTreeMap<NodeId, String>,
    cluster: Option<(ClusterId, String)>,
    /// The cluster that this node forms, from its decision on.
    forms: Option<ClusterId>,
    /// This node is to join what others form, and may form nothing alone.
    needs_others: bool,
    /// It was told so to a node that may form one: that cannot be taken back.
    has_left_forming_to_others: bool,
}

struct Candidate {
    address: String,
    may_form: bool,
    known: BTreeSet<NodeId>,
    heard: Instant,
}

impl Candidates {
    pub(super) fn new(me: Description, expect: usize, has_seeds: bool) -> Candidates {
        Candidates {
            me,
            expect: expect.max(1),
            heard: BTreeMap::new(),
            rumoured: BTreeMap::new(),
            cluster: None,
            forms: None,
            needs_others: has_seeds,
            has_left_forming_to_others: false,
        }
    }

    /// A node has greeted this one.
    pub(super) fn hear_caller(&mut self, greeting: &Greeting, now: Instant) {
        let id = &greeting.description.id;
        let was_found = self.heard.contains_key(id) || self.rumoured.contains_key(id);
        if greeting.seat.is_none() || was_found {
            self.hear(greeting, now);
        }
    }

    /// A node has told of itself, since this one has greeted it.
    pub(super) fn hear(&mut self, greeting: &Greeting, now: Instant) {
        let id = &greeting.description.id;
        if *id == self.me.id {
            return;
        }
        let address = greeting.description.peer_address();
        self.has_left_forming_to_others |= greeting.may_form && !self.may_form();
        self.rumoured.remove(id);
        if let Some((cluster, _)) = greeting.seat {
            self.cluster.get_or_insert_with(|| (cluster, address.clone()));
            // It stays known, and agrees to nothing: whoever hears of it from here must not form a second cluster.
            self.heard.insert(id.clone(), Candidate { address, may_form: false, known: BTreeSet::new(), heard: now });
            return;
        }
        for (other, address) in &greeting.known {
            if *other != self.me.id && !self.heard.contains_key(other) {
                self.rumoured.insert(other.clone(), address.clone());
            }
        }
        let known = greeting.known.iter().map(|(id, _)| id.clone()).collect();
        self.heard.insert(id.clone(), Candidate { address, may_form: greeting.may_form, known, heard: now });
    }

    /// All of the seeds turned out to be this node: it waits for nobody but those that are expected.
    pub(super) fn seeds_are_me(&mut self) {
        // Who is known by rumour only may have been told that this node forms nothing, without an answer coming back.
        self.needs_others &= self.has_left_forming_to_others || !self.rumoured.is_empty();
    }

    /// Whether this node forms a cluster if that falls to it.
    pub(super) fn may_form(&self) -> bool {
        !(self.needs_others && self.expect == 1)
    }

    /// The way to the cluster was none.
    pub(super) fn forget_cluster(&mut self) {
        self.cluster = None;
    }

    /// Nodes that were not heard of since `since` are gone.
    pub(super) fn forget_silent(&mut self, since: Instant) {
        self.heard.retain(|_, candidate| candidate.heard >= since);
    }

    /// What this node tells of itself; `seat` is what it has.
    pub(super) fn greeting(&self, incarnation: Incarnation, seat: Option<(ClusterId, NodeNumber)>) -> Greeting {
        Greeting {
            description: self.me.clone(),
            incarnation,
            seat: seat.or(self.forms.map(|cluster| (cluster, FIRST))),
            may_form: self.may_form(),
            known: self.known(),
        }
    }

    /// This node and those that it has heard of itself.
    fn known(&self) -> Vec<(NodeId, String)> {
        let others = self.heard.iter().map(|(id, candidate)| (id.clone(), candidate.address.clone()));
        std::iter::once((self.me.id.clone(), self.me.peer_address())).chain(others).collect()
    }

    /// Where there may be somebody to greet.
    pub(super) fn addresses(&self) -> BTreeSet<String> {
        let heard = self.heard.values().map(|candidate| &candidate.address);
        heard.chain(self.rumoured.values()).cloned().collect()
    }

    /// What is to be done. A decision to form is told from now on, and not taken back.
    pub(super) fn next(&mut self) -> Next {
        if let Some(cluster) = self.forms {
            return Next::Form(cluster);
        }
        if let Some((cluster, address)) = &self.cluster {
            return Next::Join(*cluster, address.clone());
        }
        let known: BTreeSet<NodeId> = self.known().into_iter().map(|(id, _)| id).collect();
        let is_enough = known.len() >= self.expect && self.may_form();
        let is_first = self.heard.iter().all(|(id, candidate)| !candidate.may_form || *id > self.me.id);
        let agree = self.heard.values().all(|candidate| candidate.known == known);
        if is_enough && agree && is_first {
            return Next::Form(*self.forms.insert(ClusterId(rand::random())));
        }
        let addresses = self.heard.values().map(|candidate| candidate.address.clone()).collect();
        Next::Wait { missing: self.expect.saturating_sub(known.len()), known: addresses }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::description;
    use super::*;

    fn candidates(node: u8, expect: usize) -> Candidates {
        Candidates::new(description(node), expect, true)
    }

    /// What a node says that has no seat yet.
    fn greeting(of: &Candidates) -> Greeting {
        of.greeting(Incarnation(1), None)
    }

    fn with_seat(greeting: Greeting) -> Greeting {
        Greeting { seat: Some((ClusterId([9; 16]), FIRST)), ..greeting }
    }

    fn greet(one: &mut Candidates, other: &mut Candidates) {
        let now = Instant::now();
        let said = greeting(one);
        other.hear_caller(&said, now);
        one.hear(&greeting(other), now);
    }

    fn forms(node: &mut Candidates) -> bool {
        matches!(node.next(), Next::Form(_))
    }

    #[test]
    fn the_smallest_forms_when_all_know_the_same() {
        let [mut a, mut b, mut c] = [1, 2, 3].map(|node| candidates(node, 3));
        greet(&mut a, &mut b);
        assert_eq!(a.next(), Next::Wait { missing: 1, known: vec!["node-2:8002".to_owned()] });
        greet(&mut b, &mut c);
        greet(&mut a, &mut b);
        assert!(a.addresses().contains("node-3:8003"), "by rumour: {:?}", a.addresses());
        assert!(matches!(a.next(), Next::Wait { missing: 1, .. }), "it has not heard of c itself: {:?}", a.next());
        greet(&mut a, &mut c);
        assert!(forms(&mut a));
        for other in [&mut b, &mut c] {
            assert!(matches!(other.next(), Next::Wait { missing: 0, .. }));
        }
    }

    #[test]
    fn a_cluster_that_is_there_is_joined() {
        let mut a = candidates(1, 2);
        a.hear(&with_seat(greeting(&candidates(2, 2))), Instant::now());
        assert_eq!(a.next(), Next::Join(ClusterId([9; 16]), "node-2:8002".to_owned()));
    }

    #[test]
    fn who_calls_unasked_from_a_cluster_is_not_joined_unless_it_was_found_before() {
        let [mut a, mut b, c] = [1, 2, 3].map(|node| candidates(node, 2));
        let now = Instant::now();
        a.hear_caller(&with_seat(greeting(&c)), now);
        assert_eq!(a.next(), Next::Wait { missing: 1, known: Vec::new() });
        assert_eq!(a.addresses(), BTreeSet::new(), "nor greeted, since it would answer the same");
        greet(&mut b, &mut a);
        a.hear_caller(&with_seat(greeting(&b)), now);
        assert_eq!(a.next(), Next::Join(ClusterId([9; 16]), "node-2:8002".to_owned()));
    }

    /// It needs a while until it has a seat, in which others look for each other.
    #[test]
    fn a_decision_to_form_is_told_before_there_is_a_seat() {
        let [mut a, mut b] = [1, 2].map(|node| candidates(node, 2));
        greet(&mut a, &mut b);
        greet(&mut a, &mut b);
        let Next::Form(cluster) = a.next() else { panic!("both know both") };
        assert_eq!(greeting(&a).seat, Some((cluster, FIRST)));
        assert_eq!(a.next(), Next::Form(cluster), "it is not decided anew");
        let mut late = candidates(3, 2);
        greet(&mut late, &mut a);
        assert_eq!(late.next(), Next::Join(cluster, "node-1:8001".to_owned()));
    }

    #[test]
    fn who_has_seeds_and_expects_one_joins_and_forms_nothing() {
        let mut a = candidates(1, 1);
        assert!(matches!(a.next(), Next::Wait { .. }));
        a.seeds_are_me();
        assert!(forms(&mut a));
        assert!(forms(&mut Candidates::new(description(1), 1, false)));
    }

    /// With the smallest id it would be the one that forms.
    #[test]
    fn who_only_joins_is_counted_and_holds_nobody_up() {
        let (mut joins, mut forms) = (candidates(1, 1), candidates(2, 2));
        greet(&mut joins, &mut forms);
        greet(&mut joins, &mut forms);
        assert!(matches!(forms.next(), Next::Form(_)));
        assert!(matches!(joins.next(), Next::Wait { .. }));
        joins.seeds_are_me();
        assert!(matches!(joins.next(), Next::Wait { .. }), "it has left it to the other");
    }

    #[test]
    fn who_is_gone_is_not_waited_for() {
        let [mut a, mut b] = [1, 2].map(|node| candidates(node, 2));
        greet(&mut a, &mut b);
        a.forget_silent(Instant::now());
        assert!(matches!(a.next(), Next::Wait { missing: 1, .. }));
    }

    /// In whatever order and however often they meet, at most one forms, if more than half are expected; and one does in the end. None gets
    /// its seat meanwhile, and answers may be lost.
    #[test]
    fn never_do_two_form() {
        use proptest::prelude::*;
        proptest!(|(meetings in proptest::collection::vec((0usize..5, 0usize..5, any::<bool>()), 0..60), expect in 3usize..=5)| {
            let mut nodes: Vec<Candidates> = (1..=5).map(|node| candidates(node, expect)).collect();
            let mut formed: Option<usize> = None;
            let last = (0..5).flat_map(|one| (0..5).map(move |other| (one, other, true)));
            for (one, other, is_answered) in meetings.into_iter().chain(last.clone()).chain(last) {
                if one == other {
                    continue;
                }
                let now = Instant::now();
                let asked = greeting(&nodes[one]);
                nodes[other].hear_caller(&asked, now);
                let answer = greeting(&nodes[other]);
                if is_answered {
                    nodes[one].hear(&answer, now);
                }
                for index in [one, other] {
                    if formed != Some(index) && forms(&mut nodes[index]) {
                        prop_assert_eq!(formed, None);
                        formed = Some(index);
                    }
                }
            }
            prop_assert!(formed.is_some());
        });
    }
}
