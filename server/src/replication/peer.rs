//! Another node, as the owner of slots that it holds copies of.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Weak};

use forebay_cluster::NodeNumber;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outbox::Outbox;

/// Waiters whose requests may have ended long ago are looked through when there are twice as many as were alive, and this many.
const MANY_WAITERS: usize = 1024;

/// A peer that is sent effects.
pub(super) struct Peer {
    pub(super) number: NodeNumber,
    pub(super) outbox: Outbox,
    /// The number of the last record that it has dealt with.
    dealt: AtomicU64,
    /// Slots that it has asked for.
    asked: Mutex<VecDeque<u16>>,
    /// Slots that it holds whole as soon as it has dealt with a record, in the records' order.
    completions: Mutex<VecDeque<(u64, u16)>>,
    waiters: Mutex<Waiters>,
    is_retired: AtomicBool,
}

#[derive(Default)]
struct Waiters {
    by_record: BinaryHeap<Waiter>,
    /// How many were alive when they were last looked through.
    alive: usize,
}

/// Somebody who is to be told when a record has been dealt with.
struct Waiter {
    record: u64,
    wake: Weak<Notify>,
}

impl Peer {
    pub(super) fn new(number: NodeNumber) -> Peer {
        Peer {
            number,
            outbox: Outbox::new(),
            dealt: AtomicU64::new(0),
            asked: Mutex::default(),
            completions: Mutex::default(),
            waiters: Mutex::default(),
            is_retired: AtomicBool::new(false),
        }
    }

    /// The number of the last record that it has dealt with.
    pub(super) fn dealt(&self) -> u64 {
        self.dealt.load(Acquire)
    }

    /// It has dealt with all up to a record. Gives the slots that may be complete by that.
    pub(super) fn has_dealt(&self, through: u64) -> Vec<u16> {
        let through = through.min(self.outbox.pushed());
        self.dealt.fetch_max(through, Release);
        self.waiters.lock().wake(through);
        let mut completions = self.completions.lock();
        let complete = completions.partition_point(|(record, _)| *record <= through);
        completions.drain(..complete).map(|(_, slot)| slot).collect()
    }

    /// Notes that it is complete with that record.
    pub(super) fn will_be_complete(&self, record: u64, slot: u16) {
        self.completions.lock().push_back((record, slot));
    }

    /// Has a slot sent whole.
    pub(super) fn ask(&self, slot: u16) {
        self.asked.lock().push_back(slot);
        self.outbox.wake();
    }

    /// The slot that is to be sent next.
    pub(super) fn next_asked(&self) -> Option<u16> {
        self.asked.lock().pop_front()
    }

    pub(super) fn has_asked(&self) -> bool {
        !self.asked.lock().is_empty()
    }

    /// Begins a new generation of the outbox; what was asked for is forgotten with the old one.
    pub(super) fn restart(&self) {
        self.asked.lock().clear();
        self.completions.lock().clear();
        self.outbox.restart();
    }

    /// It holds nothing of ours any more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Relaxed);
        self.outbox.wake();
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed)
    }

    /// Has somebody woken when a record has been dealt with.
    pub(super) fn wake_after(&self, record: u64, wake: &Arc<Notify>) {
        self.waiters.lock().add(Waiter { record, wake: Arc::downgrade(wake) });
        if self.dealt() >= record {
            wake.notify_one();
        }
    }
}

impl Waiters {
    fn add(&mut self, waiter: Waiter) {
        if self.by_record.len() > 2 * self.alive + MANY_WAITERS {
            self.by_record.retain(|waiter| waiter.wake.strong_count() > 0);
            self.alive = self.by_record.len();
        }
        self.by_record.push(waiter);
    }

    fn wake(&mut self, through: u64) {
        while self.by_record.peek().is_some_and(|waiter| waiter.record <= through) {
            if let Some(wake) = self.by_record.pop().and_then(|waiter| waiter.wake.upgrade()) {
                wake.notify_one();
            }
        }
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.record == other.record
    }
}

impl Eq for Waiter {}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The lowest record is the greatest: a heap gives it first.
impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> Ordering {
        other.record.cmp(&self.record)
    }
}
