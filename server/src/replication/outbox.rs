//! What is on its way to one peer: records in the order in which they are to be carried out.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that may wait for a peer. One that is further behind than that is cut off, and compared anew when it is back.
pub(super) const LIMIT: usize = 64 * 1024 * 1024;

/// With more bytes than this waiting, what can be had again is not sent: see [`Outbox::is_pressed`].
const PRESSED: usize = 8 * 1024 * 1024;

/// Bytes of a frame, about.
const FRAME: usize = 64 * 1024;

/// Bytes from which on a record is not copied for each peer, but shared.
const SHARED_FROM: usize = 16 * 1024;

/// A longer record is cut into frames of this many bytes.
const LARGEST_FRAME: usize = 1024 * 1024;

// And frames of many records, and of the answers to those of one, are not much larger.
const _: () = assert!(4 * LARGEST_FRAME <= forebay_cluster::peer::MAX_CONTENT);

/// Records for one peer.
pub(super) struct Outbox {
    state: Mutex<State>,
    /// There is something to send, or another thing for the sender to look at.
    wake: Notify,
}

struct State {
    /// Rises whenever what was in it is lost. What is pushed for an earlier one is not taken: its beginning is missing.
    generation: u64,
    /// How many records had ever been pushed when the generation began.
    base: u64,
    /// How many have ever been pushed.
    pushed: u64,
    open: BytesMut,
    closed: VecDeque<Bytes>,
    queued: usize,
    is_cut: bool,
    sender_waits: bool,
}

/// A record that is pushed to several peers, or several records.
pub(super) struct Shared<'r> {
    records: u64,
    bytes: &'r mut Vec<u8>,
    shared: Option<Bytes>,
}

impl<'r> Shared<'r> {
    /// Of so many records with their lengths. The buffer may be taken.
    pub(super) fn new(bytes: &'r mut Vec<u8>, records: u64) -> Self {
        let shared = (bytes.len() >= SHARED_FROM).then(|| Bytes::from(std::mem::take(bytes)));
        Shared { records, bytes, shared }
    }

    fn len(&self) -> usize {
        self.shared.as_ref().map_or(self.bytes.len(), Bytes::len)
    }
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        let state = State {
            generation: 0,
            base: 0,
            pushed: 0,
            open: BytesMut::new(),
            closed: VecDeque::new(),
            queued: 0,
            is_cut: false,
            sender_waits: false,
        };
        Outbox { state: Mutex::new(state), wake: Notify::new() }
    }

    /// Adds a record or several. The last one's number among all that were ever pushed; `None` if it is of an earlier generation, or the peer is too far behind.
    pub(super) fn push(&self, generation: u64, record: &Shared<'_>) -> Option<u64> {
        let mut state = self.state.lock();
        if state.generation != generation {
            return None;
        }
        // Not by what it would come to: an entry larger than the limit must get through, too.
        if state.queued > LIMIT {
            state.restart();
            state.is_cut = true;
            self.wake.notify_one();
            return None;
        }
        state.add(record);
        if std::mem::take(&mut state.sender_waits) {
            self.wake.notify_one();
        }
        Some(state.pushed)
    }

    /// The generation that is being filled.
    pub(super) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Throws away what is there and begins a new generation.
    pub(super) fn restart(&self) -> u64 {
        let mut state = self.state.lock();
        state.restart();
        state.is_cut = false;
        state.generation
    }

    /// How many records have ever been pushed.
    pub(super) fn pushed(&self) -> u64 {
        self.state.lock().pushed
    }

    /// How many records had ever been pushed when the present generation began.
    pub(super) fn base(&self) -> u64 {
        self.state.lock().base
    }

    pub(super) fn queued(&self) -> usize {
        self.state.lock().queued
    }

    /// Whether the peer is behind, so that fills should go without their values: what is only a copy of the origin's can be loaded again.
    pub(super) fn is_pressed(&self) -> bool {
        self.queued() > PRESSED
    }

    /// Whether the peer was too far behind: the present generation is not to be sent.
    pub(super) fn is_cut(&self) -> bool {
        self.state.lock().is_cut
    }

    /// The next frame, if there is anything. If not, the sender is woken when there is. What is filled in once the peer was cut off is for
    /// the next feed: the present one counts what it sends from another beginning.
    pub(super) fn take(&self) -> Option<Bytes> {
        let mut state = self.state.lock();
        let frame = if state.is_cut { None } else { state.take() };
        state.sender_waits = frame.is_none();
        frame
    }

    /// Has the sender look again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`Self::wake`].
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl State {
    fn add(&mut self, record: &Shared<'_>) {
        self.pushed += record.records;
        self.queued += record.len();
        match &record.shared {
            None => {
                self.open.extend_from_slice(record.bytes);
                if self.open.len() >= FRAME {
                    self.close();
                }
            }
            Some(shared) => {
                self.close();
                let mut rest = shared.clone();
                while !rest.is_empty() {
                    self.closed.push_back(rest.split_to(rest.len().min(LARGEST_FRAME)));
                }
            }
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed.push_back(self.open.split().freeze());
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        if self.closed.is_empty() {
            self.close();
        }
        let frame = self.closed.pop_front()?;
        self.queued -= frame.len();
        Some(frame)
    }

    fn restart(&mut self) {
        self.generation += 1;
        self.base = self.pushed;
        self.open.clear();
        self.closed.clear();
        self.queued = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(outbox: &Outbox, generation: u64, bytes: &[u8]) -> Option<u64> {
        let mut bytes = bytes.to_vec();
        outbox.push(generation, &Shared::new(&mut bytes, 1))
    }

    fn drain(outbox: &Outbox) -> Vec<u8> {
        std::iter::from_fn(|| outbox.take()).flatten().collect()
    }

    #[test]
    fn records_come_out_in_order_whatever_their_size() {
        let (outbox, mut sent) = (Outbox::new(), Vec::new());
        for (number, size) in (1..).zip([10, 20_000, 5, 70_000, 3_000_000, 1, 40_000]) {
            let record = vec![number as u8; size];
            sent.extend_from_slice(&record);
            assert_eq!(push(&outbox, 0, &record), Some(number));
        }
        assert_eq!(outbox.queued(), sent.len());
        assert!(drain(&outbox) == sent);
        assert_eq!((outbox.queued(), outbox.take()), (0, None));
    }

    #[test]
    fn a_peer_too_far_behind_is_cut_off_until_it_is_restarted() {
        let outbox = Outbox::new();
        let large = vec![0; 1 << 20];
        let taken = (0..).take_while(|_| push(&outbox, 0, &large).is_some()).count();
        assert_eq!(taken, LIMIT / large.len() + 1);
        assert!(outbox.is_cut());
        assert_eq!((outbox.queued(), push(&outbox, 0, b"late")), (0, None));
        assert!(push(&outbox, outbox.generation(), b"for the next feed").is_some());
        assert_eq!(outbox.take(), None);
        let generation = outbox.restart();
        assert!(!outbox.is_cut());
        assert_eq!(push(&outbox, generation, b"x"), Some(taken as u64 + 2));
        assert_eq!((outbox.base(), drain(&outbox)), (taken as u64 + 1, b"x".to_vec()));
    }

    #[test]
    fn an_entry_larger_than_the_limit_gets_through() {
        let outbox = Outbox::new();
        assert_eq!(push(&outbox, 0, &vec![7; LIMIT + 1]), Some(1));
        assert_eq!(drain(&outbox).len(), LIMIT + 1);
        assert_eq!(push(&outbox, 0, b"next"), Some(2));
    }

    #[test]
    fn what_is_of_an_earlier_generation_is_not_taken() {
        let outbox = Outbox::new();
        let generation = outbox.restart();
        assert_eq!(push(&outbox, generation - 1, b"old"), None);
        assert_eq!(push(&outbox, generation, b"new"), Some(1));
        assert!(!outbox.is_pressed());
        assert_eq!(drain(&outbox), b"new");
    }
}
