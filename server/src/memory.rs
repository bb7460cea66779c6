//! The process's memory, counted where it is taken: a global allocator that adds up what is allocated.
//!
//! `maxmemory` is a promise about allocated bytes, so it is held against this count and not against an estimate that could drift.
//! Each thread keeps its own difference and adds it to the total once it is worth it, so that allocating touches no shared cache
//! line; the total is therefore off by at most [`SLACK`] per thread.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use forebay_store::{allocated_layout, allocated_size, natural_alignment};
use libmimalloc_sys::{
    mi_collect, mi_free, mi_good_size, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// Bytes that a thread may have allocated or freed without the total knowing.
pub const SLACK: i64 = 32 * 1024;

/// Counts around mimalloc.
pub struct CountingAllocator;

static TOTAL: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

thread_local! {
    // Constant initialiser and no destructor: usable from within the allocator, at any point of a thread's life.
    static DIFFERENCE: Cell<i64> = const { Cell::new(0) };
}

/// Bytes allocated by the process, within [`SLACK`] per thread.
#[inline]
pub fn used() -> u64 {
    let mine = DIFFERENCE.with(Cell::get);
    (TOTAL.load(Relaxed) + mine).max(0) as u64
}

/// The highest [`used`] since the start.
pub fn peak() -> u64 {
    (PEAK.load(Relaxed).max(0) as u64).max(used())
}

/// Bytes of physical memory that the process occupies (`VmRSS`), or 0 where the system does not tell.
pub fn resident() -> u64 {
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages * PAGE)
}

/// Has the allocator give back what has been free for its delay, a second. By itself it looks at that only when a page is taken or becomes
/// empty: without requests, what a compaction has emptied would stay resident for ever.
pub fn give_back() {
    // SAFETY: any thread may ask for it at any time.
    unsafe { mi_collect(false) }
}

/// How much of a limit is to stay unallocated so that resident memory keeps near the limit as well, when `before` was withheld until
/// now. The allocator holds more than it hands out: pages that are partly free, after sizes have changed or many small values
/// were replaced. What is withheld follows the excess in small steps, and in smaller ones when there is less: it would go on growing
/// if it were added up, since pages that are merely emptier are not given back before a compaction has seen to them.
pub fn withheld(limit: u64, resident: u64, before: u64) -> u64 {
    let bound = limit + (limit / 100 * RESIDENT_PERCENT_OVER).max(PROGRAM);
    let wanted = (resident.saturating_sub(bound) * EXCESS_TAKEN).min(limit / MOST_WITHHELD);
    let step = limit / SMOOTHING;
    wanted.clamp(before.saturating_sub(step / 4), before + step)
}

/// Resident memory may exceed the limit by so many hundredths …
const RESIDENT_PERCENT_OVER: u64 = 8;

/// … or, where that is less, by these bytes: the program itself, its stacks and buffers.
const PROGRAM: u64 = 20 << 20;

/// So many times what is resident beyond that is withheld: evicting leaves half of the memory in pages that are not empty.
const EXCESS_TAKEN: u64 = 2;

/// Each step is at most one part in so many of the limit, so that requests need not evict much at once for its sake.
const SMOOTHING: u64 = 32;

/// At most one part in so many of a limit is withheld: memory that the allocator does not give back however little is allocated must
/// not empty the store.
const MOST_WITHHELD: u64 = 4;

/// Bytes of physical memory of the machine, or 0 where the system does not tell.
pub fn of_machine() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|info| info.lines().next()?.split_whitespace().nth(1)?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

/// Checks that mimalloc's blocks are as large as they are counted, which they are only if it was built by this workspace's settings.
///
/// # Errors
/// When they are not: then `maxmemory` would be kept by wrong figures.
pub fn check_blocks() -> Result<(), ForeignBlocks> {
    // SAFETY: it computes a number from a number.
    let agrees = |size: usize| unsafe { mi_good_size(size) } == allocated_size(size);
    if (1..=1024).all(agrees) { Ok(()) } else { Err(ForeignBlocks) }
}

/// The allocator was built in another way than it is counted.
#[derive(Debug)]
pub struct ForeignBlocks;

impl fmt::Display for ForeignBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the allocator's blocks are not as large as they are counted: build with the settings of .cargo/config.toml")
    }
}

impl std::error::Error for ForeignBlocks {}

/// Bytes of a page on the systems that we run on (x86-64, and aarch64 as ECS has it).
const PAGE: u64 = 4096;

#[inline]
fn count(bytes: i64) {
    DIFFERENCE.with(|difference| {
        let now = difference.get() + bytes;
        match now.unsigned_abs() >= SLACK as u64 {
            true => {
                difference.set(0);
                settle(now);
            }
            false => difference.set(now),
        }
    });
}

#[cold]
fn settle(difference: i64) {
    let total = TOTAL.fetch_add(difference, Relaxed) + difference;
    PEAK.fetch_max(total, Relaxed);
}

/// Whether blocks of that size are aligned as the layout asks. mimalloc's functions for aligned memory do not look at that: they
/// take a block of the next bin, an eighth to a quarter more, so they are for the other layouts alone.
#[inline]
fn is_aligned_anyway(size: usize, layout: Layout) -> bool {
    layout.align() <= natural_alignment(size)
}

/// Beyond this mimalloc gives no promise about a block's alignment, so that it is looked at.
const PROMISED_ALIGNMENT: usize = 8;

#[inline]
fn is_misaligned(block: *mut c_void, layout: Layout) -> bool {
    layout.align() > PROMISED_ALIGNMENT && !block.addr().is_multiple_of(layout.align())
}

// SAFETY: blocks are mimalloc's, at least as large and as aligned as asked; counting touches a thread-local cell and atomics and
// never allocates.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(allocated_layout(layout) as i64);
        // SAFETY: any size and any power of two will do; what is freed was allocated here.
        unsafe {
            if is_aligned_anyway(layout.size(), layout) {
                let block = mi_malloc(layout.size());
                if !is_misaligned(block, layout) {
                    return block.cast();
                }
                mi_free(block);
            }
            mi_malloc_aligned(layout.size(), layout.align()).cast()
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(allocated_layout(layout) as i64);
        // SAFETY: as above.
        unsafe {
            if is_aligned_anyway(layout.size(), layout) {
                let block = mi_zalloc(layout.size());
                if !is_misaligned(block, layout) {
                    return block.cast();
                }
                mi_free(block);
            }
            mi_zalloc_aligned(layout.size(), layout.align()).cast()
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(allocated_layout(layout) as i64));
        // SAFETY: the block is one of the above, whichever.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment was good, and the caller promises that the size is.
        let resized = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        count(allocated_layout(resized) as i64 - allocated_layout(layout) as i64);
        // SAFETY: as in `dealloc`. What is moved once more is a block of the new size.
        unsafe {
            if is_aligned_anyway(size, layout) {
                let moved = mi_realloc(block.cast(), size);
                if !is_misaligned(moved, layout) {
                    return moved.cast();
                }
                return mi_realloc_aligned(moved, size, layout.align()).cast();
            }
            mi_realloc_aligned(block.cast(), size, layout.align()).cast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 256 << 20;

    #[test]
    fn what_is_withheld_follows_resident_memory_within_bounds() {
        assert_eq!(withheld(LIMIT, LIMIT, 0), 0);
        let over = LIMIT + LIMIT / 4;
        let first = withheld(LIMIT, over, 0);
        assert!(first > 0 && withheld(LIMIT, over, first) > first);
        let most = (0..100).fold(0, |before, _| withheld(LIMIT, over, before));
        assert_eq!(most, LIMIT / 4);
        let a_little_over = LIMIT + LIMIT / 100 * RESIDENT_PERCENT_OVER + (1 << 20);
        let little = (0..100).fold(0, |before, _| withheld(LIMIT, a_little_over, before));
        assert_eq!(little, 2 << 20);
        let none = (0..1_000).fold(most, |before, _| withheld(LIMIT, LIMIT, before));
        assert_eq!(none, 0);
    }

    #[test]
    fn the_allocator_is_built_as_it_is_counted() {
        assert!(check_blocks().is_ok());
    }

    #[test]
    fn blocks_are_as_large_and_as_aligned_as_is_counted() {
        // SAFETY: a block is written within its size, and freed with its layout.
        let usable = |layout| unsafe {
            let blocks: Vec<*mut u8> = (0..100).map(|_| CountingAllocator.alloc(layout)).collect();
            let sizes = blocks.iter().map(|block| libmimalloc_sys::mi_usable_size(block.cast()));
            let largest = sizes.max().unwrap();
            for block in blocks {
                assert_eq!(block as usize % layout.align(), 0, "{layout:?}");
                block.write_bytes(0xa5, layout.size());
                CountingAllocator.dealloc(block, layout);
            }
            largest
        };
        for size in (1..3_000).chain([8_192, 20_480, 65_536, 1 << 20]) {
            for align in [1, 8, 16, 32, 64, 4_096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                match is_aligned_anyway(size, layout) {
                    true => assert_eq!(usable(layout), allocated_layout(layout), "{layout:?}"),
                    false => assert!(usable(layout) <= allocated_layout(layout), "{layout:?}"),
                }
            }
        }
    }

    #[test]
    fn the_program_itself_is_not_held_against_a_small_limit() {
        assert_eq!(withheld(1 << 20, 18 << 20, 0), 0);
    }
}
