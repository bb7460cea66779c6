//! Whether changes are held by copies: for `min-acks`, WAIT and handing slots over.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use forebay_cluster::state::SlotSet;
use forebay_cluster::{NodeNumber, SLOT_COUNT};
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::Replication;
use super::peer::Peer;
use super::slot_log::Target;

/// What was told to the holders of copies that the cluster counts among the replicas.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    pub(super) marks: SmallVec<[Mark; 2]>,
    /// How many such copies that slot has, of those that were written, that has the fewest; one more than that, so that 0 is none written.
    fewest: u8,
}

/// Among so many of the newest marks one of the same slot and peer is looked for, to be replaced; one that is further back stays, and is
/// asked about in vain.
const LATELY: usize = 16;

/// So many marks are kept without asking whether they are still of use.
const KEPT: usize = 64;

/// Between two looks at whether a holder that does not answer is still counted among the replicas.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One slot's last record to one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// The slot; its bit [`COUNTED`] tells whether the cluster counted the peer among the replicas then. If not, it was about to
    /// ([`Target::must_hold`]), and counts for nobody who wants so many copies. In one, since every connection has room for two marks.
    slot_and_counted: u16,
    /// [`SlotLog::tenure`](super::slot_log::SlotLog::tenure) of then. If the slot has been another's since, whatever copies hold now may be
    /// without this.
    tenure: u16,
    peer: NodeNumber,
    /// 0 if it was not on its way: then the peer has it with whatever it is told next of the slot.
    ticket: u64,
}

/// Above the number of every slot.
const COUNTED: u16 = 0x8000;
const _: () = assert!(SLOT_COUNT <= COUNTED);

/// How a mark stands.
enum Held {
    /// The peer holds it, or cannot become owner without taking the slot anew.
    Holds,
    Waited,
    /// The slot is another node's, or was since.
    Lost,
}

/// What was told to each peer until a moment. There is always more to tell: digests go to peers without anybody's writing.
pub struct Told<'r> {
    replication: &'r Replication,
    peers: Vec<(Arc<Peer>, u64)>,
}

impl Told<'_> {
    /// Waits until all peers have dealt with it. The caller sets a limit.
    pub async fn dealt_with(&self) {
        for (peer, through) in &self.peers {
            let wake = Arc::new(Notify::new());
            while peer.dealt() < *through {
                peer.wake_after(*through, &wake);
                wake.notified().await;
            }
        }
    }

    /// How many copies hold it, in that slot of this node's that has the fewest: a peer that has dealt with all of it may hold no copy of a
    /// slot, or one that has gone astray.
    pub fn up_to_date(&self) -> usize {
        (0..SLOT_COUNT).filter_map(|slot| self.copies(slot)).min().unwrap_or_default()
    }

    /// How many copies of a slot hold what was told of it, if it is this node's.
    fn copies(&self, slot: u16) -> Option<usize> {
        let log = self.replication.log(slot).lock();
        let holds = |target: &&Target| {
            let told = self.peers.iter().find(|(peer, _)| Arc::ptr_eq(peer, &target.peer));
            // Who has become a peer since was told of all by that.
            target.in_sync && target.has_dealt_with(told.map_or(0, |(_, through)| *through))
        };
        log.is_owner().then(|| log.targets.iter().filter(holds).count())
    }
}

impl Recorded {
    /// Whether nothing was changed in slots with copies to keep.
    pub fn is_empty(&self) -> bool {
        self.fewest == 0
    }

    /// Adds what was recorded later, for one who waits for both.
    pub fn absorb(&mut self, later: &Recorded) {
        if later.is_empty() {
            return;
        }
        self.note_copies(usize::from(later.fewest) - 1);
        for mark in &later.marks {
            // A peer deals with records in their order, but what it holds of one slot tells nothing of another, which it may have refused.
            let lately = self.marks.len().saturating_sub(LATELY);
            match self.marks[lately..].iter_mut().find(|known| known.is_of_same(mark)) {
                Some(known) => known.replace(mark),
                None => self.marks.push(*mark),
            }
        }
    }

    /// Notes what was told to a peer, counted or not, in a tenure of the slot.
    pub(super) fn note(&mut self, (slot, tenure): (u16, u16), peer: (NodeNumber, bool), ticket: Option<u64>) {
        let mark = Mark::new((slot, tenure), peer, ticket.unwrap_or(0));
        match self.marks.iter_mut().find(|known| known.is_of_same(&mark)) {
            Some(known) => known.replace(&mark),
            None => self.marks.push(mark),
        }
    }

    /// Whether the next marks would need more room than there is.
    fn is_full(&self, more: usize) -> bool {
        self.marks.len() >= KEPT && self.marks.len() + more > self.marks.capacity()
    }

    /// Leaves out what is said twice: of several marks of a slot and a peer that one stays that asks for most.
    fn condense(&mut self) {
        self.marks.sort_unstable_by_key(|mark| (mark.slot(), mark.peer, mark.tenure, Reverse(mark.ticket)));
        self.marks.dedup_by(|other, first| {
            let is_same = first.is_of_same(other);
            first.slot_and_counted |= if is_same { other.slot_and_counted & COUNTED } else { 0 };
            is_same
        });
    }

    pub(super) fn note_copies(&mut self, copies: usize) {
        let copies = copies as u8 + 1;
        self.fewest = if self.fewest == 0 { copies } else { self.fewest.min(copies) };
    }
}

impl Mark {
    fn new((slot, tenure): (u16, u16), (peer, is_counted): (NodeNumber, bool), ticket: u64) -> Mark {
        Mark { slot_and_counted: if is_counted { slot | COUNTED } else { slot }, tenure, peer, ticket }
    }

    fn slot(&self) -> u16 {
        self.slot_and_counted & !COUNTED
    }

    fn is_counted(&self) -> bool {
        self.slot_and_counted & COUNTED != 0
    }

    fn is_of_same(&self, other: &Mark) -> bool {
        (self.slot(), self.peer) == (other.slot(), other.peer)
    }

    /// Makes this stand for a later one, too. What is lost stays lost, whatever comes later.
    fn replace(&mut self, later: &Mark) {
        let counted = (self.slot_and_counted | later.slot_and_counted) & COUNTED;
        if self.tenure == later.tenure && (later.ticket == 0 || self.ticket <= later.ticket) {
            *self = *later;
        }
        self.slot_and_counted |= counted;
    }
}

impl Replication {
    /// Adds what a reader of the slot may have seen, as if it had written it: what has been told so far to the holders of copies.
    pub fn seen(&self, slot: u16, recorded: &mut Recorded) {
        let log = self.log(slot).lock();
        let Some(tenure) = log.tenure() else { return };
        let mut copies = 0;
        for target in log.targets.iter().filter(|target| target.must_hold()) {
            copies += usize::from(target.in_sync);
            recorded.note((slot, tenure), target.counted(), Some(target.peer.outbox.pushed()));
        }
        drop(log);
        recorded.note_copies(copies);
    }

    /// As [`Self::seen`], of many slots: what each peer has been told by now, of whatever slot, stands for what it was told of each.
    pub(super) fn seen_in(&self, slots: &SlotSet) -> Recorded {
        let told = self.told();
        let through = |target: &Target| told.peers.iter().find(|(peer, _)| Arc::ptr_eq(peer, &target.peer));
        let mut recorded = Recorded::default();
        for slot in slots.iter() {
            let log = self.log(slot).lock();
            let Some(tenure) = log.tenure() else { continue };
            let holders = log.targets.iter().filter(|target| target.must_hold());
            recorded.marks.extend(holders.map(|target| {
                Mark::new((slot, tenure), target.counted(), through(target).map_or(0, |(_, through)| *through))
            }));
            recorded.note_copies(log.targets.iter().filter(|target| target.in_sync).count());
        }
        recorded
    }

    /// Adds to all that a session has written, for as long as it lives. Whenever that would take more room, what copies hold is left out,
    /// since they go on holding it, and room is made for twice as much as is left: so each mark is asked about once or twice, and there are
    /// never more of them than twice the slots and their holders.
    pub fn remember(&self, written: &mut Recorded, recorded: &Recorded) {
        if written.is_full(recorded.marks.len()) {
            written.marks.retain(|mark| !self.is_held(mark));
            written.condense();
            let left = written.marks.len();
            if left > written.marks.capacity() / 2 {
                written.marks.reserve(left + recorded.marks.len());
            }
        }
        written.absorb(recorded);
    }

    /// How many copies, besides the owner's, surely hold all of that.
    pub fn copies(&self, recorded: &Recorded) -> usize {
        let mut without = SmallVec::<[NodeNumber; 4]>::new();
        for mark in recorded.marks.iter().filter(|mark| mark.is_counted() && !self.is_held(mark)) {
            if !without.contains(&mark.peer) {
                without.push(mark.peer);
            }
        }
        usize::from(recorded.fewest.saturating_sub(1)).saturating_sub(without.len())
    }

    /// Waits until every copy that may become the owner's successor holds all of that. False if this node is no longer the owner, whose successor
    /// then may not hold it. The caller sets a limit: a holder that does not answer is waited for as long as the cluster counts it among
    /// the replicas.
    pub async fn held_by_all(&self, recorded: &Recorded) -> bool {
        let wake = Arc::new(Notify::new());
        for mark in &recorded.marks {
            loop {
                match self.state_of(mark) {
                    Held::Holds => break,
                    Held::Lost => return false,
                    Held::Waited => {
                        self.wake_after(mark, &wake);
                        // Who changes what is counted tells nobody, so it is looked at again now and then.
                        let _heard = tokio::time::timeout(LOOK_AGAIN, wake.notified()).await;
                    }
                }
            }
        }
        true
    }

    /// Waits until so many copies hold all of that. For ever, if there are not so many: the caller sets a limit, and may ask
    /// [`Self::copies`] then.
    pub async fn acknowledged(&self, recorded: &Recorded, copies: usize) {
        if recorded.is_empty() || self.copies(recorded) >= copies {
            return;
        }
        let wake = Arc::new(Notify::new());
        loop {
            recorded.marks.iter().filter(|mark| mark.is_counted()).for_each(|mark| self.wake_after(mark, &wake));
            if self.copies(recorded) >= copies {
                return;
            }
            wake.notified().await;
        }
    }

    /// Which of the slots a peer holds whole, or will when it has dealt with what is on its way.
    pub fn held_by(&self, slots: &SlotSet, peer: NodeNumber) -> SlotSet {
        slots.iter().filter(|slot| self.holds(*slot, peer)).collect()
    }

    /// Waits until `to` has dealt with everything recorded so far, or follows none of the slots, and tells which of them it holds whole. To be
    /// called when the slots are frozen, so that nothing more is recorded: then `to` may take those over. The caller sets a limit.
    pub async fn drained(&self, slots: &SlotSet, to: NodeNumber) -> SlotSet {
        let peers: Vec<_> = self.peers.read().values().map(Arc::clone).collect();
        let through: Vec<_> = peers.iter().map(|peer| (peer, peer.outbox.pushed())).collect();
        for (peer, through) in through.into_iter().filter(|(peer, _)| peer.number == to) {
            let wake = Arc::new(Notify::new());
            while peer.dealt() < through && !self.has_lost_all(slots, to) {
                peer.wake_after(through, &wake);
                wake.notified().await;
            }
        }
        self.held_by(slots, to)
    }

    /// As [`Self::drained`], of all peers that follow, whoever is to take the slots over: what is still on its way to a third holder when
    /// the owner changes is refused there, and has it ask for the whole slot. The caller sets a short limit, since a peer may be ill.
    pub async fn drained_everywhere(&self) {
        self.told().dealt_with().await;
    }

    /// All that was told to peers so far.
    pub fn told(&self) -> Told<'_> {
        let peers = self.peers.read().values().map(|peer| (Arc::clone(peer), peer.outbox.pushed())).collect();
        Told { replication: self, peers }
    }

    /// Whether none of the slots is even about to be held there.
    fn has_lost_all(&self, slots: &SlotSet, to: NodeNumber) -> bool {
        slots.iter().all(|slot| self.log(slot).lock().target(to).is_none_or(|target| !target.is_followed()))
    }

    /// Whether the peer holds all that has been recorded of the slot.
    fn holds(&self, slot: u16, peer: NodeNumber) -> bool {
        self.log(slot).lock().target(peer).is_some_and(|target| target.has_dealt_with(0))
    }

    fn is_held(&self, mark: &Mark) -> bool {
        let mut log = self.log(mark.slot()).lock();
        let is_same = log.tenure() == Some(mark.tenure);
        is_same && log.target(mark.peer).is_some_and(|target| target.in_sync && target.has_dealt_with(mark.ticket))
    }

    fn state_of(&self, mark: &Mark) -> Held {
        let mut log = self.log(mark.slot()).lock();
        if log.tenure() != Some(mark.tenure) {
            return Held::Lost;
        }
        match log.target(mark.peer) {
            Some(target) if target.must_hold() && !target.has_dealt_with(mark.ticket) => Held::Waited,
            _ => Held::Holds,
        }
    }

    /// Has somebody woken when the mark may have come to be held; not before something is heard of the peer.
    fn wake_after(&self, mark: &Mark, wake: &Arc<Notify>) {
        if self.is_held(mark) {
            return;
        }
        if let Some(peer) = self.peer(mark.peer) {
            let mut log = self.log(mark.slot()).lock();
            let target = log.target(mark.peer).filter(|target| target.must_hold());
            // One who has dealt with it and is not counted has nobody woken at once, or whoever waits would go round and round.
            let record = target.and_then(|target| target.expects(mark.ticket)).filter(|record| peer.dealt() < *record);
            drop(log);
            // What is not on its way may be so with the next that is heard.
            peer.wake_after(record.unwrap_or_else(|| peer.dealt() + 1), wake);
        }
    }
}
