//! From a key to its group, in nanoseconds also when there is none.

use crate::group::GroupId;
use crate::pattern::{Captures, KeyPattern};

/// A group that has a key, and where in the key its captures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMatch<'k> {
    /// The group.
    pub group: GroupId,
    /// The captures, as ranges of the key.
    pub captures: Captures,
    key: &'k [u8],
}

impl<'k> GroupMatch<'k> {
    /// The bytes of the capture at `index`, from 0.
    pub fn capture(&self, index: usize) -> Option<&'k [u8]> {
        self.key.get(self.captures.range(index)?)
    }
}

/// A trie of the patterns' literal prefixes.
///
/// A key walks it byte by byte and leaves at the first byte that no pattern begins with, so a key of no group costs as
/// many steps as it shares bytes with a pattern, and usually one. Where several groups have a key, the first one in
/// the file wins.
#[derive(Debug)]
pub(crate) struct Dispatch {
    /// In the order of the file.
    patterns: Vec<(GroupId, KeyPattern)>,
    /// `nodes[0]` is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    children: Vec<(u8, u32)>,
    /// The patterns whose prefix ends here, in the order of the file.
    ending: Vec<u16>,
}

impl Dispatch {
    /// Indexes the patterns of groups.
    pub(crate) fn new(patterns: impl IntoIterator<Item = (GroupId, KeyPattern)>) -> Self {
        let mut dispatch = Dispatch { patterns: Vec::new(), nodes: vec![Node::default()] };
        let patterns: Vec<_> = patterns.into_iter().collect();
        for (place, (_, pattern)) in (0..).zip(&patterns) {
            let node = dispatch.grow(pattern.prefix());
            dispatch.nodes[node].ending.push(place);
        }
        dispatch.patterns = patterns;
        dispatch
    }

    /// The first group that has `key`.
    pub(crate) fn find<'k>(&self, key: &'k [u8]) -> Option<GroupMatch<'k>> {
        let mut best: Option<(u16, Captures)> = None;
        let mut node = &self.nodes[0];
        let mut rest = key.iter();
        loop {
            let limit = best.map_or(u16::MAX, |(place, _)| place);
            best = self.first_of(node, key, limit).or(best);
            let next = rest.next().and_then(|byte| node.child(*byte));
            match next {
                Some(child) => node = &self.nodes[child],
                None => break,
            }
        }
        best.map(|(place, captures)| GroupMatch { group: self.patterns[usize::from(place)].0, captures, key })
    }

    fn first_of(&self, node: &Node, key: &[u8], below: u16) -> Option<(u16, Captures)> {
        node.ending
            .iter()
            .take_while(|place| **place < below)
            .find_map(|place| Some((*place, self.patterns[usize::from(*place)].1.matches(key)?)))
    }

    /// The node at the end of `prefix`, made where it is missing.
    fn grow(&mut self, prefix: &[u8]) -> usize {
        prefix.iter().fold(0, |at, byte| match self.nodes[at].child(*byte) {
            Some(child) => child,
            None => {
                let child = self.nodes.len();
                self.nodes.push(Node::default());
                self.nodes[at].children.push((*byte, child as u32));
                child
            }
        })
    }
}

impl Node {
    fn child(&self, byte: u8) -> Option<usize> {
        self.children.iter().find(|(b, _)| *b == byte).map(|(_, child)| *child as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The groups' ids are their places.
    fn indexed(patterns: Vec<KeyPattern>) -> Dispatch {
        Dispatch::new((0..).map(GroupId).zip(patterns))
    }

    fn dispatch(patterns: &[&str]) -> Dispatch {
        indexed(patterns.iter().map(|text| KeyPattern::parse(text).unwrap()).collect())
    }

    #[test]
    fn the_first_group_in_the_file_has_the_key() {
        let dispatch = dispatch(&["user:{id}:cart", "user:{rest*}", "user:me", "{any}"]);
        let group = |key: &'static str| dispatch.find(key.as_bytes()).map(|found| found.group.0);
        assert_eq!(group("user:7:cart"), Some(0));
        assert_eq!(group("user:7"), Some(1));
        assert_eq!(group("user:me"), Some(1));
        assert_eq!(group("x"), Some(3));
        assert_eq!(group("x:y"), None);
        assert_eq!(group(""), None);
    }

    #[test]
    fn a_match_gives_its_captures() {
        let dispatch = dispatch(&["a:{x}:{y}"]);
        let found = dispatch.find(b"a:1:22").unwrap();
        assert_eq!((found.capture(0), found.capture(1), found.capture(2)), (Some(&b"1"[..]), Some(&b"22"[..]), None));
    }

    proptest! {
        #[test]
        fn it_finds_what_trying_all_patterns_in_turn_finds(
            texts in proptest::collection::vec("[ab]{0,3}(\\{x\\}|\\{x\\}:|\\{x\\*\\}|)", 0..8), key in "[ab:]{0,6}"
        ) {
            let patterns: Vec<KeyPattern> = texts.iter().filter_map(|text| KeyPattern::parse(text).ok()).collect();
            let first = patterns.iter().position(|pattern| pattern.matches(key.as_bytes()).is_some());
            let found = indexed(patterns).find(key.as_bytes()).map(|found| found.group.0 as usize);
            prop_assert_eq!(found, first);
        }
    }
}
