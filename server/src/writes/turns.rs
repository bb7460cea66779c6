//! Turns: writes of one key, one after the other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_cluster::state::SlotSet;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Writes that may wait for the turn of one key, and of all keys.
const MAX_OF_KEY: usize = 4096;
const MAX_WAITING: usize = 100_000;

/// The turns of all keys of this node.
#[derive(Clone, Default)]
pub struct Turns {
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    keys: Mutex<Keys>,
    /// A key has nobody in line any more.
    emptied: Notify,
}

#[derive(Default)]
struct Keys {
    by_key: HashMap<Bytes, Queue>,
    waiting: usize,
}

/// Who wants to write one key; the semaphore is fair.
struct Queue {
    turn: Arc<Semaphore>,
    waiting: usize,
}

/// The turn of a key. Its drop gives it to the next in line.
pub struct Turn {
    // The drop of the permit comes first, so that whoever comes next finds the same semaphore or a new one that nobody else has.
    _permit: OwnedSemaphorePermit,
    _place: Place,
}

/// A place in the line, or at its head.
struct Place {
    line: Arc<Line>,
    key: Bytes,
}

impl Turns {
    /// Waits for the turn of a key. `None` if it does not come in time, or too many wait already.
    pub async fn take(&self, key: &[u8], limit: Duration) -> Option<Turn> {
        let (place, turn) = self.line_up(key)?;
        let permit = tokio::time::timeout(limit, turn.acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _permit: permit, _place: place })
    }

    fn line_up(&self, key: &[u8]) -> Option<(Place, Arc<Semaphore>)> {
        let mut keys = self.line.keys.lock();
        if keys.waiting >= MAX_WAITING {
            return None;
        }
        let key = Bytes::copy_from_slice(key);
        let new = || Queue { turn: Arc::new(Semaphore::new(1)), waiting: 0 };
        let queue = keys.by_key.entry(key.clone()).or_insert_with(new);
        if queue.waiting >= MAX_OF_KEY {
            return None;
        }
        queue.waiting += 1;
        let turn = Arc::clone(&queue.turn);
        keys.waiting += 1;
        Some((Place { line: Arc::clone(&self.line), key }, turn))
    }

    /// Writes that have their turn or wait for it.
    pub fn waiting(&self) -> usize {
        self.line.keys.lock().waiting
    }

    /// The slots of the keys that are being written.
    pub fn busy(&self) -> SlotSet {
        self.line.keys.lock().by_key.keys().map(|key| forebay_cluster::slot_of(key)).collect()
    }

    /// Waits until no key of these slots is being written. The caller sees to it that those who come do not write, and sets a limit.
    pub async fn quiet(&self, is_meant: impl Fn(u16) -> bool) {
        loop {
            let emptied = self.line.emptied.notified();
            let mut emptied = std::pin::pin!(emptied);
            // Before the look, so that what ends behind it is heard of.
            emptied.as_mut().enable();
            let is_busy = |key: &Bytes| is_meant(forebay_cluster::slot_of(key));
            if !self.line.keys.lock().by_key.keys().any(is_busy) {
                return;
            }
            emptied.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut keys = self.line.keys.lock();
        keys.waiting -= 1;
        let Some(queue) = keys.by_key.get_mut(&self.key) else { return };
        queue.waiting -= 1;
        if queue.waiting == 0 {
            keys.by_key.remove(&self.key);
            self.line.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn turns_come_in_the_order_of_asking_and_keys_do_not_wait_for_each_other() {
        let turns = Turns::default();
        let first = turns.take(b"a", LONG).await.unwrap();
        let other = turns.take(b"b", LONG).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting: Vec<_> = (0..5)
            .map(|number| {
                let (turns, order) = (turns.clone(), Arc::clone(&order));
                tokio::spawn(async move {
                    let turn = turns.take(b"a", LONG).await.unwrap();
                    order.lock().push(number);
                    drop(turn);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!((turns.waiting(), order.lock().len()), (7, 0));
        drop(first);
        for task in waiting.drain(..) {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
        drop(other);
        assert_eq!((turns.waiting(), turns.line.keys.lock().by_key.len()), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_too_long_or_comes_as_one_too_many_gets_no_turn() {
        let turns = Turns::default();
        let turn = turns.take(b"a", LONG).await.unwrap();
        assert!(turns.take(b"a", Duration::from_millis(10)).await.is_none());
        let places: Vec<_> = (1..MAX_OF_KEY).map(|_| turns.line_up(b"a").unwrap()).collect();
        assert!(turns.take(b"a", LONG).await.is_none());
        drop(places);
        drop(turn);
        assert!(turns.take(b"a", LONG).await.is_some());
    }

    #[tokio::test]
    async fn it_is_quiet_when_the_last_turn_of_the_slots_is_over() {
        let turns = Turns::default();
        let (here, elsewhere) = (forebay_cluster::slot_of(b"a"), forebay_cluster::slot_of(b"b"));
        let turn = turns.take(b"a", LONG).await.unwrap();
        turns.quiet(|slot| slot == elsewhere).await;
        assert_eq!(turns.busy(), [here].into_iter().collect());
        let quiet = turns.quiet(|slot| slot == here);
        assert!(tokio::time::timeout(Duration::from_millis(20), quiet).await.is_err());
        let (waiting, ended) = (turns.clone(), tokio::spawn(async move { drop(turn) }));
        waiting.quiet(|slot| slot == here).await;
        ended.await.unwrap();
    }
}
