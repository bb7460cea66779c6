//! What an allocation really costs.
//!
//! Memory is accounted by what the allocator hands out, not by what was asked for. The server runs on mimalloc, built to align
//! blocks to a word (`.cargo/config.toml`), whose bins are modelled here; the source is `mi_bin` and `mi_good_size` in mimalloc
//! 3's `src/page-queue.c`, and `src/alloc-aligned.c` for what asks to be aligned.

use std::alloc::Layout;

const WORD: usize = 8;
/// Up to this, bins are a word apart.
const FINE_BINS_END: usize = 8 * WORD;
/// Above this (`MI_LARGE_MAX_OBJ_SIZE`), an allocation gets its own run of operating system pages.
const BINS_END: usize = 512 * 1024;
const PAGE: usize = 4096;
const CACHE_LINE: usize = 64;

/// Blocks of up to this many bytes lie in pages of [`SMALL_PAGE`] bytes, at multiples of that (`MI_SMALL_MAX_OBJ_SIZE` and
/// `MI_SMALL_PAGE_SIZE` in `include/mimalloc/types.h`).
pub(crate) const LARGEST_SMALL_BLOCK: usize = 10 * 1024;
pub(crate) const SMALL_PAGE: usize = 64 * 1024;

/// The bytes that the allocator sets aside for a request of `size` bytes; 0 for 0, which allocates nothing.
pub const fn allocated_size(size: usize) -> usize {
    if size == 0 {
        0
    } else if size <= FINE_BINS_END {
        size.next_multiple_of(WORD)
    } else if size <= BINS_END {
        size.next_multiple_of(coarse_step(size))
    } else {
        size.next_multiple_of(PAGE)
    }
}

/// As [`allocated_size`], for a layout that may ask for more than [`natural_alignment`]: then there is room to spare for it.
/// (mimalloc finds a smaller block now and then that happens to lie right; that is not counted.)
pub const fn allocated_layout(layout: Layout) -> usize {
    let (size, align) = (layout.size(), layout.align());
    if size == 0 || align <= natural_alignment(size) {
        return allocated_size(size);
    }
    let at_least = if size < WORD { WORD } else { size };
    allocated_size(at_least + align - 1)
}

/// The alignment that all blocks for a request of `size` bytes have, up to a cache line: they lie one behind the other, and the
/// first of them at the start of a cache line.
#[inline]
pub const fn natural_alignment(size: usize) -> usize {
    let alignment = 1 << allocated_size(size).trailing_zeros();
    if alignment < CACHE_LINE { alignment } else { CACHE_LINE }
}

/// Four bins to each power of two.
const fn coarse_step(size: usize) -> usize {
    let highest_bit = (size - 1).ilog2();
    1 << (highest_bit - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_bins_of_mimalloc() {
        let bins = [
            (0, 0),
            (1, 8),
            (9, 16),
            (17, 24),
            (32, 32),
            (33, 40),
            (64, 64),
            (65, 80),
            (81, 96),
            (128, 128),
            (129, 160),
            (1025, 1280),
            (512 * 1024, 512 * 1024),
            (512 * 1024 + 1, 516 * 1024),
        ];
        for (asked, given) in bins {
            assert_eq!(allocated_size(asked), given, "{asked} bytes");
        }
    }

    #[test]
    fn room_to_be_aligned_is_counted() {
        let layouts = [
            (86, 8, 96),
            (8, 16, 24),
            (90, 32, 96),
            (90, 64, 160),
            (64, 64, 64),
            (640, 64, 640),
            (8192, 64, 8192),
            (8192, 4096, 12_288),
        ];
        for (size, align, given) in layouts {
            let layout = Layout::from_size_align(size, align).unwrap();
            assert_eq!(allocated_layout(layout), given, "{size} bytes, aligned to {align}");
        }
    }

    #[test]
    fn a_bin_holds_itself() {
        for size in 1..100_000 {
            let bin = allocated_size(size);
            assert!(bin >= size);
            assert_eq!(allocated_size(bin), bin);
        }
    }
}
