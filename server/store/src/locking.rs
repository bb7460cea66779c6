//! The locks of shards: one at a time, or several at once.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::RawMutex;
use parking_lot::lock_api::RawMutex as _;

use crate::UnixMillis;
use crate::database::NEVER;
use crate::shard::{Figures, Shard};

/// The most shards that a store can have.
pub(crate) const MAX_SHARDS: usize = 256;

/// A shard behind its lock, in cache lines of its own: the first holds the lock and what each lookup needs.
#[repr(C, align(128))]
pub(crate) struct ShardCell {
    lock: RawMutex,
    shard: UnsafeCell<Shard>,
    published: Published,
}

// SAFETY: the shard is reached only by who holds the lock (`LockedShard` and `LockedShards`), one thread at a time, and
// a shard may be sent to that thread. The rest is atomic.
unsafe impl Sync for ShardCell where Shard: Send {}

/// What is known of a shard without locking it: its [`Figures`] as they were when the lock was last released. In a line of
/// their own, so that reading them does not take the lock's line away from those who use the shard.
#[repr(align(64))]
struct Published {
    entries: AtomicUsize,
    mortal: AtomicUsize,
    next_death: AtomicI64,
    due: AtomicUsize,
    /// How often somebody found the lock taken.
    conflicts: AtomicU64,
}

impl ShardCell {
    pub(crate) fn new(shard: Shard) -> Self {
        ShardCell { lock: RawMutex::INIT, shard: UnsafeCell::new(shard), published: Published::new() }
    }

    #[inline]
    pub(crate) fn lock(&self) -> LockedShard<'_> {
        self.acquire();
        LockedShard { cell: self, unsendable: PhantomData }
    }

    /// `None` if somebody else has locked it.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<LockedShard<'_>> {
        // Made only with the lock: one that was made without it would release another's lock when it is dropped.
        self.lock.try_lock().then(|| LockedShard { cell: self, unsendable: PhantomData })
    }

    /// As [`Figures::entries`].
    pub(crate) fn entries(&self) -> usize {
        self.published.entries.load(Relaxed)
    }

    /// As [`Figures::mortal`].
    pub(crate) fn mortal(&self) -> usize {
        self.published.mortal.load(Relaxed)
    }

    /// As [`Figures::next_death`].
    pub(crate) fn next_death(&self) -> UnixMillis {
        self.published.next_death.load(Relaxed)
    }

    /// As [`Figures::due`].
    pub(crate) fn due(&self) -> usize {
        self.published.due.load(Relaxed)
    }

    /// How often somebody has had to wait for the lock.
    pub(crate) fn conflicts(&self) -> u64 {
        self.published.conflicts.load(Relaxed)
    }

    /// Starts counting [`Self::conflicts`] at 0 again.
    pub(crate) fn reset_conflicts(&self) {
        self.published.conflicts.store(0, Relaxed);
    }

    #[inline]
    fn acquire(&self) {
        if !self.lock.try_lock() {
            self.acquire_after_others();
        }
    }

    #[cold]
    fn acquire_after_others(&self) {
        self.published.conflicts.fetch_add(1, Relaxed);
        self.lock.lock();
    }

    /// # Safety
    /// The caller must hold the lock, and use the shard no more.
    #[inline]
    unsafe fn release(&self) {
        // SAFETY: the lock is still held, and the caller has given the shard up.
        let shard = unsafe { &mut *self.shard.get() };
        if shard.figures_have_changed() {
            self.published.store(shard.tell_figures());
        }
        // SAFETY: the caller's promise.
        unsafe { self.lock.unlock() };
    }
}

impl Published {
    fn new() -> Self {
        Published {
            entries: AtomicUsize::new(0),
            mortal: AtomicUsize::new(0),
            next_death: AtomicI64::new(NEVER),
            due: AtomicUsize::new(0),
            conflicts: AtomicU64::new(0),
        }
    }

    /// Apart from the path of those who change nothing.
    #[inline(never)]
    fn store(&self, figures: Figures) {
        self.entries.store(figures.entries, Relaxed);
        self.mortal.store(figures.mortal, Relaxed);
        self.next_death.store(figures.next_death, Relaxed);
        self.due.store(figures.due, Relaxed);
    }
}

/// A locked shard.
pub(crate) struct LockedShard<'s> {
    cell: &'s ShardCell,
    /// A lock is not to be held over an `await`, after which another thread might go on.
    unsendable: PhantomData<*const ()>,
}

impl Deref for LockedShard<'_> {
    type Target = Shard;

    #[inline]
    fn deref(&self) -> &Shard {
        // SAFETY: this holds the lock, and is borrowed for as long as the shard is.
        unsafe { &*self.cell.shard.get() }
    }
}

impl DerefMut for LockedShard<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Shard {
        // SAFETY: as above, and borrowed uniquely.
        unsafe { &mut *self.cell.shard.get() }
    }
}

impl Drop for LockedShard<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this holds the lock, and its borrows have ended.
        unsafe { self.cell.release() };
    }
}

/// One shard or several, locked, and found by their numbers.
pub(crate) struct LockedShards<'s> {
    locked: Locked<'s>,
    unsendable: PhantomData<*const ()>,
}

enum Locked<'s> {
    One { number: usize, cell: &'s ShardCell },
    Several { numbers: ShardSet, cells: &'s [ShardCell] },
}

impl<'s> LockedShards<'s> {
    #[inline]
    pub(crate) fn one(cells: &'s [ShardCell], number: usize) -> Self {
        let cell = &cells[number];
        cell.acquire();
        LockedShards { locked: Locked::One { number, cell }, unsendable: PhantomData }
    }

    /// Locks in ascending order: as everybody does, nobody waits in a circle.
    pub(crate) fn several(cells: &'s [ShardCell], numbers: ShardSet) -> Self {
        numbers.for_each(|number| cells[number].acquire());
        LockedShards { locked: Locked::Several { numbers, cells }, unsendable: PhantomData }
    }

    /// `None` if it is not among those that are locked.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<&Shard> {
        let shard = self.cell(number)?.shard.get();
        // SAFETY: `cell` says that this holds the lock, and this is borrowed for as long as the shard is.
        Some(unsafe { &*shard })
    }

    /// As [`Self::get`].
    #[inline]
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut Shard> {
        let shard = self.cell(number)?.shard.get();
        // SAFETY: as above, and borrowed uniquely, so that no other of the shards is lent at the same time.
        Some(unsafe { &mut *shard })
    }

    /// The shard's cell if it is locked by this.
    #[inline]
    fn cell(&self, number: usize) -> Option<&'s ShardCell> {
        match &self.locked {
            Locked::One { number: only, cell } => (*only == number).then_some(*cell),
            Locked::Several { numbers, cells } => numbers.contains(number).then(|| &cells[number]),
        }
    }
}

impl Drop for LockedShards<'_> {
    #[inline]
    fn drop(&mut self) {
        match self.locked {
            // SAFETY: this is the shard that `one` has locked, and its borrows have ended.
            Locked::One { cell, .. } => unsafe { cell.release() },
            Locked::Several { numbers, cells } => release_all(numbers, cells),
        }
    }
}

/// Releases what [`LockedShards::several`] has locked.
fn release_all(numbers: ShardSet, cells: &[ShardCell]) {
    // SAFETY: only dropping the locked shards leads here, when their borrows have ended.
    numbers.for_each(|number| unsafe { cells[number].release() });
}

/// A set of shards' numbers: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet {
    words: [u64; MAX_SHARDS / 64],
}

impl ShardSet {
    #[inline]
    pub(crate) fn insert(&mut self, number: usize) {
        self.words[number / 64] |= 1 << (number % 64);
    }

    #[inline]
    fn contains(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    /// In ascending order.
    #[inline]
    fn for_each(self, mut visit: impl FnMut(usize)) {
        for (index, mut word) in self.words.into_iter().enumerate() {
            while word != 0 {
                visit(index * 64 + word.trailing_zeros() as usize);
                // Without its lowest bit.
                word &= word - 1;
            }
        }
    }
}

impl FromIterator<usize> for ShardSet {
    #[inline]
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = ShardSet::default();
        numbers.into_iter().for_each(|number| set.insert(number));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::key::HashSeed;
    use crate::placement::Placement;

    const SHARDS: usize = 8;

    fn cells() -> Box<[ShardCell]> {
        let seed = HashSeed::new(0);
        (0..SHARDS)
            .map(|number| ShardCell::new(Shard::new(number, Placement::new(SHARDS), 1, seed, Default::default())))
            .collect()
    }

    proptest! {
        #[test]
        fn a_shard_set_is_a_set_in_order(numbers in prop::collection::vec(0..MAX_SHARDS, 0..40)) {
            let set: ShardSet = numbers.iter().copied().collect();
            let model: BTreeSet<usize> = numbers.into_iter().collect();
            let mut visited = Vec::new();
            set.for_each(|number| visited.push(number));
            prop_assert_eq!(visited, model.iter().copied().collect::<Vec<_>>());
            for number in 0..2 * MAX_SHARDS {
                prop_assert_eq!(set.contains(number), model.contains(&number));
            }
        }

        #[test]
        fn exactly_the_shards_asked_for_are_locked(numbers in prop::collection::vec(0..SHARDS, 0..SHARDS)) {
            let cells = cells();
            let mut shards = LockedShards::several(&cells, numbers.iter().copied().collect());
            for number in 0..SHARDS {
                let locked = numbers.contains(&number);
                prop_assert_eq!(shards.get(number).map(Shard::number), locked.then_some(number));
                prop_assert_eq!(shards.get_mut(number).is_some(), locked);
                prop_assert_eq!(cells[number].try_lock().is_none(), locked);
            }
            drop(shards);
            prop_assert!(cells.iter().all(|cell| cell.try_lock().is_some()));
        }
    }

    #[test]
    fn a_read_touches_one_line_of_the_cell() {
        let end_of_hits = std::mem::offset_of!(ShardCell, shard) + Shard::END_OF_WHAT_READS_TOUCH;
        assert!(end_of_hits <= 64, "what a read touches ends {end_of_hits} bytes from the lock");
    }

    #[test]
    fn who_does_not_get_a_lock_leaves_it_with_its_holder() {
        let cells = cells();
        let held = cells[0].lock();
        for _ in 0..3 {
            assert!(cells[0].try_lock().is_none());
        }
        drop(held);
        assert!(cells[0].try_lock().is_some());
    }

    #[test]
    fn one_shard_alone_is_locked() {
        let cells = cells();
        let mut shards = LockedShards::one(&cells, 3);
        assert_eq!(shards.get_mut(3).map(|shard| shard.number()), Some(3));
        assert!(shards.get(2).is_none() && shards.get(MAX_SHARDS).is_none());
        assert!(cells[3].try_lock().is_none() && cells[2].try_lock().is_some());
        drop(shards);
        assert!(cells[3].try_lock().is_some());
    }

    #[test]
    fn a_lock_keeps_others_out_and_counts_them() {
        let cells = cells();
        std::thread::scope(|threads| {
            let mut held = cells[0].lock();
            threads.spawn(|| assert_eq!(LockedShards::one(&cells, 0).get(0).map(|shard| shard.counters.hits), Some(1)));
            let deadline = Instant::now() + Duration::from_secs(20);
            while cells[0].conflicts() == 0 {
                assert!(Instant::now() < deadline, "nobody has met the lock");
                std::thread::yield_now();
            }
            held.counters.hits = 1;
        });
        cells[0].reset_conflicts();
        drop(cells[0].lock());
        assert_eq!(cells[0].conflicts(), 0);
    }

    #[test]
    fn figures_are_published_when_the_lock_is_released() {
        let cells = cells();
        let mut shard = cells[1].lock();
        shard.set_next_death(77);
        assert_eq!(cells[1].next_death(), NEVER);
        drop(shard);
        assert_eq!(cells[1].next_death(), 77);
    }
}
