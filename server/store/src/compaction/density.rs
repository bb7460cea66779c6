//! How much of each page of the allocator is in use.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::allocation::{LARGEST_SMALL_BLOCK, SMALL_PAGE};

/// Steps in which densities are told apart.
const STEPS: usize = 64;
const STEP: usize = SMALL_PAGE / STEPS;
/// Pages with more in use than this are never emptied: it would take more moving than it is worth.
const DENSEST: usize = SMALL_PAGE / 16 * 15;

/// Bytes in use of each page, by the page's number: its address without what lies within a page.
#[derive(Debug, Default)]
pub(super) struct Density {
    pages: HashMap<usize, u32, FixedState>,
    /// Pages with less in use than this are to be emptied.
    empties_below: u32,
}

impl Density {
    /// Counts a block in.
    pub(super) fn note(&mut self, block: *const u8, bytes: usize) {
        if bytes <= LARGEST_SMALL_BLOCK {
            *self.pages.entry(page_of(block)).or_default() += bytes as u32;
        }
    }

    /// Chooses the sparsest pages, as many as are needed to gain `goal` bytes. Says whether there are any.
    pub(super) fn choose(&mut self, goal: usize) -> bool {
        let mut gains = [0; STEPS];
        for used in self.pages.values().map(|used| *used as usize).filter(|used| *used < DENSEST) {
            gains[used / STEP] += SMALL_PAGE - used;
        }
        if goal == 0 {
            return false;
        }
        let mut gained = 0;
        let enough = gains.iter().position(|gain| {
            gained += gain;
            gained >= goal
        });
        self.empties_below = enough.map_or(DENSEST, |step| (step + 1) * STEP) as u32;
        gained > 0
    }

    /// Whether a block is in a page that is to be emptied. One that did not exist when the blocks were counted is not.
    pub(super) fn is_chosen(&self, block: *const u8, bytes: usize) -> bool {
        bytes <= LARGEST_SMALL_BLOCK && self.pages.get(&page_of(block)).is_some_and(|used| *used < self.empties_below)
    }
}

fn page_of(block: *const u8) -> usize {
    block.addr() / SMALL_PAGE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_in(page: usize, block: usize) -> *const u8 {
        std::ptr::without_provenance((1_000 + page) * SMALL_PAGE + 128 + block * 1024)
    }

    /// Pages 0 to 9, of which page n has 5 (n + 1) blocks of 1 KiB.
    fn surveyed() -> Density {
        let mut density = Density::default();
        for page in 0..10 {
            (0..5 * (page + 1)).for_each(|block| density.note(block_in(page, block), 1024));
        }
        density
    }

    fn chosen(density: &Density) -> Vec<usize> {
        (0..12).filter(|page| density.is_chosen(block_in(*page, 0), 1024)).collect()
    }

    #[test]
    fn the_sparsest_are_chosen_until_there_is_enough() {
        let mut density = surveyed();
        assert!(density.choose(1));
        assert_eq!(chosen(&density), [0]);
        // The first three gain 59, 54 and 49 KiB.
        assert!(density.choose(114 * 1024));
        assert_eq!(chosen(&density), [0, 1, 2]);
        assert!(density.choose(usize::MAX));
        assert_eq!(chosen(&density), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn dense_pages_and_large_blocks_are_left_alone() {
        let mut density = Density::default();
        (0..62).for_each(|block| density.note(block_in(3, block), 1024));
        density.note(block_in(4, 0), LARGEST_SMALL_BLOCK + 1);
        assert!(!density.choose(usize::MAX));
        assert_eq!(chosen(&density), []);
        density.note(block_in(5, 0), 16);
        assert!(density.choose(usize::MAX));
        assert_eq!(chosen(&density), [5]);
        assert!(!density.is_chosen(block_in(5, 1), LARGEST_SMALL_BLOCK + 1));
    }
}
