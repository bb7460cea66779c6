//! Which members have a vote in Raft: up to five, always an odd number, in as many zones as there are.
//!
//! An even number tolerates no more failures than the odd one below it, and needs one more confirmation. A member that is down keeps its
//! vote for as long as nobody can take its place and it is not given up for lost: without it a cluster of three that has one node left to
//! lose would depend on which of the two that is.

use std::collections::{BTreeSet, HashMap};

use crate::slots::NodeNumber;
use crate::state::{Member, Standing};

/// The most voters there are: each change waits for a majority of them.
const MAX_VOTERS: usize = 5;

/// A member, as a voter.
#[derive(Clone, Debug)]
pub(super) struct Elector {
    pub(super) number: NodeNumber,
    pub(super) zone: Option<String>,
    pub(super) standing: Standing,
    pub(super) votes: bool,
    pub(super) leads: bool,
    /// It has nearly all of the log, so that its vote holds nothing up.
    pub(super) is_abreast: bool,
}

impl Elector {
    pub(super) fn new(member: &Member, votes: bool, leads: bool, is_abreast: bool) -> Elector {
        let zone = member.description.zone.clone();
        Elector { number: member.number, zone, standing: member.standing, votes, leads, is_abreast }
    }

    /// Who is better kept, or taken: the smaller, the better.
    fn rank(&self) -> Option<u8> {
        match (self.standing, self.votes) {
            (Standing::Up, true) => Some(if self.leads { 0 } else { 1 }),
            (Standing::Up, false) => self.is_abreast.then_some(2),
            (Standing::Leaving | Standing::Draining, true) => Some(3),
            (Standing::Down, true) => Some(4),
            _ => None,
        }
    }

    fn counts(&self) -> bool {
        !matches!(self.standing, Standing::Lost | Standing::Drained)
    }
}

/// Who should vote, given who does. The present voters, if there is nothing better.
pub(super) fn choose(electors: &[Elector]) -> BTreeSet<NodeNumber> {
    let present: BTreeSet<NodeNumber> =
        electors.iter().filter(|elector| elector.votes).map(|elector| elector.number).collect();
    let wanted = odd(electors.iter().filter(|elector| elector.counts()).count().min(MAX_VOTERS));
    let mut room: Vec<&Elector> = electors.iter().filter(|elector| elector.rank().is_some()).collect();
    let mut chosen: Vec<&Elector> = Vec::new();
    while chosen.len() < wanted && !room.is_empty() {
        let best = best(&room, &chosen);
        chosen.push(room.swap_remove(best));
    }
    chosen.truncate(odd(chosen.len()));
    swap_for_zones(&mut chosen, &room);
    let alive = chosen.iter().filter(|elector| elector.standing != Standing::Down).count();
    match alive * 2 > chosen.len() {
        true => chosen.into_iter().map(|elector| elector.number).collect(),
        false => present,
    }
}

/// The largest odd number up to `count`.
fn odd(count: usize) -> usize {
    if count.is_multiple_of(2) { count.saturating_sub(1) } else { count }
}

/// The next one: by rank, then from the zone that has the fewest, then the oldest.
fn best(room: &[&Elector], chosen: &[&Elector]) -> usize {
    let in_zone = zones(chosen);
    let cost = |elector: &Elector| (elector.rank(), in_zone.get(&elector.zone).copied().unwrap_or(0), elector.number);
    let (index, _) = room.iter().enumerate().min_by_key(|(_, elector)| cost(elector)).expect("there is room");
    index
}

/// One exchange, if a zone that could have a voter lacks two against another. One is enough: it is looked again soon.
fn swap_for_zones<'e>(chosen: &mut [&'e Elector], room: &[&'e Elector]) {
    let in_zone = zones(chosen);
    let count = |elector: &Elector| in_zone.get(&elector.zone).copied().unwrap_or(0);
    let newcomers = room.iter().filter(|elector| elector.standing == Standing::Up);
    let Some(newcomer) = newcomers.min_by_key(|elector| (count(elector), elector.number)) else { return };
    let surplus = chosen.iter().enumerate().filter(|(_, elector)| !elector.leads);
    let Some((index, fullest)) = surplus.max_by_key(|(_, elector)| (count(elector), elector.number)) else { return };
    if count(fullest) >= count(newcomer) + 2 {
        chosen[index] = newcomer;
    }
}

fn zones<'e>(electors: &[&'e Elector]) -> HashMap<&'e Option<String>, usize> {
    let mut in_zone = HashMap::new();
    for elector in electors {
        *in_zone.entry(&elector.zone).or_default() += 1;
    }
    in_zone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elector(number: u32, standing: Standing, votes: bool) -> Elector {
        Elector {
            number: NodeNumber(number),
            zone: None,
            standing,
            votes,
            leads: votes && number == 1,
            is_abreast: true,
        }
    }

    fn chosen(electors: &[Elector]) -> Vec<u32> {
        choose(electors).into_iter().map(|number| number.0).collect()
    }

    #[test]
    fn the_number_is_odd_and_at_most_five() {
        for (members, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (12, 5)] {
            let electors: Vec<_> = (1..=members).map(|number| elector(number, Standing::Up, number == 1)).collect();
            assert_eq!(chosen(&electors).len(), voters, "{members} members");
        }
    }

    #[test]
    fn who_is_down_is_replaced_and_otherwise_keeps_its_vote() {
        let three = [elector(1, Standing::Up, true), elector(2, Standing::Down, true), elector(3, Standing::Up, true)];
        assert_eq!(chosen(&three), [1, 2, 3]);
        let four = [&three[..], &[elector(4, Standing::Up, false)]].concat();
        assert_eq!(chosen(&four), [1, 3, 4]);
        let lost = [elector(1, Standing::Up, true), elector(2, Standing::Lost, true), elector(3, Standing::Up, true)];
        assert_eq!(chosen(&lost), [1]);
    }

    #[test]
    fn who_leaves_hands_its_vote_on() {
        let two = [elector(1, Standing::Leaving, true), elector(2, Standing::Up, false)];
        assert_eq!(chosen(&two), [2]);
        let alone = [elector(1, Standing::Leaving, true), elector(2, Standing::Down, false)];
        assert_eq!(chosen(&alone), [1]);
    }

    #[test]
    fn who_lags_behind_waits_for_its_vote() {
        let mut electors =
            [elector(1, Standing::Up, true), elector(2, Standing::Up, false), elector(3, Standing::Up, false)];
        electors[2].is_abreast = false;
        assert_eq!(chosen(&electors), [1]);
        electors[2].is_abreast = true;
        assert_eq!(chosen(&electors), [1, 2, 3]);
    }

    #[test]
    fn zones_are_shared_out() {
        let zone = |elector: Elector, zone: &str| Elector { zone: Some(zone.to_owned()), ..elector };
        let mut electors = vec![
            zone(elector(1, Standing::Up, true), "a"),
            zone(elector(2, Standing::Up, true), "a"),
            zone(elector(3, Standing::Up, true), "a"),
            zone(elector(4, Standing::Up, false), "b"),
        ];
        assert_eq!(chosen(&electors), [1, 2, 4], "one exchange; the leader stays");
        for elector in &mut electors {
            elector.votes = elector.number != NodeNumber(3);
        }
        assert_eq!(chosen(&electors), [1, 2, 4], "and then none");
    }
}
