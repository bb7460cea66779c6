//! How nodes that have no cluster find each other, and agree on who forms it.
//!
//! Each greets its seeds, and whom it hears of from others. Of those that do not only join, the one with the smallest id forms the cluster,
//! when it knows as many as are expected and each of them has told it that it knows exactly the same ones. What a node knows only grows (but for nodes that are gone),
//! and its decision to form is told from the same moment on; so of two that both could form a cluster with some node in common, one has
//! told the other that it knows it, and then neither decides without the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::book::peer_address;
use crate::slots::NodeNumber;
use crate::state::{ClusterId, Description, Incarnation};
use crate::topology::NodeId;

/// What nodes tell each other of themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    pub(super) description: Description,
    pub(super) incarnation: Incarnation,
    /// Its cluster, if it has one, and its number there.
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
    Form,
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
            needs_others: has_seeds,
            has_left_forming_to_others: false,
        }
    }

    /// A node has told of itself.
    pub(super) fn hear(&mut self, greeting: &Greeting, now: Instant) {
        let id = &greeting.description.id;
        if *id == self.me.id {
            return;
        }
        let address = peer_address(&greeting.description);
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

    /// This node and those that it has heard of itself.
    pub(super) fn known(&self) -> Vec<(NodeId, String)> {
        let others = self.heard.iter().map(|(id, candidate)| (id.clone(), candidate.address.clone()));
        std::iter::once((self.me.id.clone(), peer_address(&self.me))).chain(others).collect()
    }

    /// Where there may be somebody to greet.
    pub(super) fn addresses(&self) -> BTreeSet<String> {
        let heard = self.heard.values().map(|candidate| &candidate.address);
        heard.chain(self.rumoured.values()).cloned().collect()
    }

    pub(super) fn next(&self) -> Next {
        if let Some((cluster, address)) = &self.cluster {
            return Next::Join(*cluster, address.clone());
        }
        let known: BTreeSet<NodeId> = self.known().into_iter().map(|(id, _)| id).collect();
        let is_enough = known.len() >= self.expect && self.may_form();
        let is_first = self.heard.iter().all(|(id, candidate)| !candidate.may_form || *id > self.me.id);
        let agree = self.heard.values().all(|candidate| candidate.known == known);
        if is_enough && agree && is_first {
            return Next::Form;
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

    fn greeting(of: &Candidates) -> Greeting {
        Greeting {
            description: of.me.clone(),
            incarnation: Incarnation(1),
            seat: None,
            may_form: of.may_form(),
            known: of.known(),
        }
    }

    fn said_by(node: &Candidates, has_formed: bool) -> Greeting {
        Greeting { seat: has_formed.then_some((ClusterId([1; 16]), NodeNumber(1))), ..greeting(node) }
    }

    fn greet(one: &mut Candidates, other: &mut Candidates) {
        let now = Instant::now();
        let said = greeting(one);
        other.hear(&said, now);
        one.hear(&greeting(other), now);
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
        assert_eq!(a.next(), Next::Form);
        for other in [&b, &c] {
            assert!(matches!(other.next(), Next::Wait { missing: 0, .. }));
        }
    }

    #[test]
    fn a_cluster_that_is_there_is_joined() {
        let mut a = candidates(1, 2);
        let formed = Greeting { seat: Some((ClusterId([9; 16]), NodeNumber(1))), ..greeting(&candidates(2, 2)) };
        a.hear(&formed, Instant::now());
        assert_eq!(a.next(), Next::Join(ClusterId([9; 16]), "node-2:8002".to_owned()));
    }

    #[test]
    fn who_has_seeds_and_expects_one_joins_and_forms_nothing() {
        let mut a = candidates(1, 1);
        assert!(matches!(a.next(), Next::Wait { .. }));
        a.seeds_are_me();
        assert_eq!(a.next(), Next::Form);
        assert_eq!(Candidates::new(description(1), 1, false).next(), Next::Form);
    }

    /// With the smallest id it would be the one that forms.
    #[test]
    fn who_only_joins_is_counted_and_holds_nobody_up() {
        let (mut joins, mut forms) = (candidates(1, 1), candidates(2, 2));
        greet(&mut joins, &mut forms);
        greet(&mut joins, &mut forms);
        assert_eq!(forms.next(), Next::Form);
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

    /// In whatever order and however often they meet, at most one forms, if more than half are expected; and one does in the end.
    #[test]
    fn never_do_two_form() {
        use proptest::prelude::*;
        proptest!(|(meetings in proptest::collection::vec((0usize..5, 0usize..5), 0..60), expect in 3usize..=5)| {
            let mut nodes: Vec<Candidates> = (1..=5).map(|node| candidates(node, expect)).collect();
            let mut formed: Option<usize> = None;
            let last = (0..5).flat_map(|one| (0..5).map(move |other| (one, other)));
            for (one, other) in meetings.into_iter().chain(last.clone()).chain(last) {
                if one == other {
                    continue;
                }
                let (low, high) = (one.min(other), one.max(other));
                let (left, right) = nodes.split_at_mut(high);
                let (one, other) = (&mut left[low], &mut right[0]);
                let now = Instant::now();
                let told = said_by(one, formed == Some(low));
                other.hear(&told, now);
                one.hear(&said_by(other, formed == Some(high)), now);
                for index in [low, high] {
                    if formed != Some(index) && nodes[index].next() == Next::Form {
                        prop_assert_eq!(formed, None);
                        formed = Some(index);
                    }
                }
            }
            prop_assert!(formed.is_some());
        });
    }
}
