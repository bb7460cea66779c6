//! What an allocation really costs.
//!
//! Memory is accounted by what the allocator hands out, not by what was asked for. The server runs on mimalloc, whose
//! bins are modelled here; the source is `mi_bin` and `mi_good_size` in mimalloc 3's `src/page-queue.c`.

const WORD: usize = 8;
/// Below this, bins are two words apart (mimalloc keeps every block aligned to 16 bytes).
const FINE_BINS_END: usize = 8 * WORD;
/// Above this (`MI_LARGE_MAX_OBJ_SIZE`), an allocation gets its own run of operating system pages.
const BINS_END: usize = 512 * 1024;
const PAGE: usize = 4096;

/// The bytes that the allocator sets aside for a request of `size` bytes; 0 for 0, which allocates nothing.
pub const fn allocated_size(size: usize) -> usize {
    if size == 0 {
        0
    } else if size <= WORD {
        WORD
    } else if size <= FINE_BINS_END {
        size.next_multiple_of(2 * WORD)
    } else if size <= BINS_END {
        size.next_multiple_of(coarse_step(size))
    } else {
        size.next_multiple_of(PAGE)
    }
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
            (17, 32),
            (32, 32),
            (33, 48),
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
    fn a_bin_holds_itself() {
        for size in 1..100_000 {
            let bin = allocated_size(size);
            assert!(bin >= size);
            assert_eq!(allocated_size(bin), bin);
        }
    }
}
