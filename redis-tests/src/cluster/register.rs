//! Is a history of registers linearizable? Could every call have taken effect at one moment between its begin and its end, so that each read saw
//! the write just before it (Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects", 1990)?
//!
//! In general that is a search in which every order may have to be tried (Wing and Gong 1993, Lowe 2017; Knossos and Porcupine do it), and which
//! has to give up at some size. Here no value is written twice, so it is known which write each read saw, and then the question can be decided
//! by sorting (Gibbons and Korach, "Testing Shared Memories", 1997): always, and with the proof at hand when the answer is no. The search is
//! in the tests below, to check this one.
//!
//! Between a write and the reads that saw it no other write took effect, so the calls of one value are a block, and the blocks come one after
//! the other. Block `u` must come before block `v` if any call of `u` ended before any call of `v` began, that is, if
//! `first_end(u) < last_begin(v)`. There is an order of all blocks unless two must come before each other: in a longer circle the block
//! with the smallest `first_end` must come before *all* others, so it and the one before it are two such.
//!
//! A write of unknown outcome that no read saw may be left out: any order with it is one without it. One that was seen did take effect, at an
//! unknown time: it never ends.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::history::{Call, Event, History, Outcome};

/// Events of a value that a message shows; there may be thousands of reads.
const SHOWN_EVENTS: usize = 6;

/// Why a history is not linearizable, with the events that show it.
#[derive(Clone, Debug)]
pub struct Violation {
    pub kind: Kind,
    pub events: Vec<Event>,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read saw what nobody wrote.
    Invented,
    /// A read saw what the server had refused to write.
    RefusedSeen,
    /// A read saw a write that began after the read had ended.
    FromTheFuture,
    /// Each of two values must have come before the other.
    Circle,
}

/// All that contradicts linearizability, at most one violation of each kind per key. Every key is a register that begins with nothing in it.
pub fn violations(history: &History) -> Vec<Violation> {
    let mut of_keys: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        of_keys.entry(event.key).or_default().push(event);
    }
    of_keys.values().filter_map(|events| violation_of_key(events)).collect()
}

fn violation_of_key(events: &[&Event]) -> Option<Violation> {
    let blocks = match blocks(events) {
        Ok(blocks) => blocks,
        Err(violation) => return Some(violation),
    };
    let (u, v) = circle(&blocks)?;
    let mut shown = [u.witnesses(), v.witnesses()].concat();
    shown.sort_by_key(|event| event.began);
    Some(Violation { kind: Kind::Circle, events: shown })
}

/// The calls of one value.
struct Block<'a> {
    /// None for what was there in the beginning.
    write: Option<&'a Event>,
    reads: Vec<&'a Event>,
    first_end: Duration,
    last_begin: Duration,
}

fn blocks<'a>(events: &[&'a Event]) -> Result<Vec<Block<'a>>, Violation> {
    let mut blocks: BTreeMap<Option<u64>, Block<'a>> = BTreeMap::new();
    blocks.insert(None, Block::new(None));
    for event in events {
        if let Call::Write(value) = event.call {
            let before = blocks.insert(Some(value), Block::new(Some(event)));
            assert!(before.is_none(), "a value is written once: {event}");
        }
    }
    for event in events {
        if let Outcome::Seen(value) = &event.outcome {
            let block = blocks
                .get_mut(value)
                .ok_or_else(|| Violation { kind: Kind::Invented, events: vec![(*event).clone()] })?;
            block.add(event)?;
        }
    }
    Ok(blocks.into_values().filter(Block::is_certain).collect())
}

impl<'a> Block<'a> {
    fn new(write: Option<&'a Event>) -> Self {
        let (first_end, last_begin) = match write {
            None => (Duration::ZERO, Duration::ZERO),
            Some(write) if write.outcome == Outcome::Written => (write.ended, write.began),
            Some(write) => (Duration::MAX, write.began),
        };
        Self { write, reads: Vec::new(), first_end, last_begin }
    }

    fn add(&mut self, read: &'a Event) -> Result<(), Violation> {
        if let Some(write) = self.write {
            let fault = |kind| Violation { kind, events: vec![write.clone(), read.clone()] };
            if matches!(write.outcome, Outcome::Refused(_)) {
                return Err(fault(Kind::RefusedSeen));
            }
            if read.ended < write.began {
                return Err(fault(Kind::FromTheFuture));
            }
        }
        self.reads.push(read);
        self.first_end = self.first_end.min(read.ended);
        self.last_begin = self.last_begin.max(read.began);
        Ok(())
    }

    /// Whether the write surely took effect.
    fn is_certain(&self) -> bool {
        let is_acknowledged = self.write.is_none_or(|write| write.outcome == Outcome::Written);
        is_acknowledged || !self.reads.is_empty()
    }

    /// Whether one of the calls ended before another one began: the value was there all the time between.
    fn is_forward(&self) -> bool {
        self.first_end < self.last_begin
    }

    /// The events that fix its place in time, and a few more.
    fn witnesses(&self) -> Vec<Event> {
        let all: Vec<&Event> = self.write.into_iter().chain(self.reads.iter().copied()).collect();
        let first = all.iter().find(|event| event.ended == self.first_end);
        let last = all.iter().find(|event| event.began == self.last_begin);
        let mut shown: Vec<Event> = self.write.iter().chain(first).chain(last).map(|event| (*event).clone()).collect();
        shown.extend(self.reads.iter().take(SHOWN_EVENTS.saturating_sub(shown.len())).map(|event| (*event).clone()));
        shown.sort_by_key(|event| (event.began, event.client));
        shown.dedup();
        shown
    }
}

/// Two blocks that must come before each other, if there are any.
fn circle<'a, 'b>(blocks: &'b [Block<'a>]) -> Option<(&'b Block<'a>, &'b Block<'a>)> {
    let (mut forward, backward): (Vec<&Block>, Vec<&Block>) = blocks.iter().partition(|block| block.is_forward());
    forward.sort_by_key(|block| block.first_end);
    if let Some(pair) = forward.windows(2).find(|pair| pair[1].first_end < pair[0].last_begin) {
        return Some((pair[0], pair[1]));
    }
    // The forward blocks lie one after the other now, so only one can hold the moment in which a backward block begins.
    backward.into_iter().find_map(|block| {
        let at = forward.partition_point(|other| other.first_end < block.last_begin);
        let around = forward[..at].last()?;
        (block.first_end < around.last_begin).then_some((*around, block))
    })
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Invented => "nobody wrote what was read:",
            Kind::RefusedSeen => "a refused write was read:",
            Kind::FromTheFuture => "read before it was written:",
            Kind::Circle => "each of two values must have come before the other:",
        })?;
        self.events.iter().try_for_each(|event| write!(f, "\n{event}"))
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
