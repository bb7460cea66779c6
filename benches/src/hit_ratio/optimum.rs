//! The most hits that are possible: L. Belady's MIN, which knows the future and drops what is used the furthest ahead, be it
//! the key that has just been asked for.

use std::collections::{BTreeSet, HashMap, HashSet};

pub(super) fn optimal_hits(requests: &[u64], capacity: usize, warm: usize) -> usize {
    let next_uses = next_uses(requests);
    let mut cached = HashSet::new();
    let mut by_next_use: BTreeSet<(usize, u64)> = BTreeSet::new();
    let mut hits = 0;
    for (now, (key, next)) in requests.iter().zip(&next_uses).enumerate() {
        let hit = cached.contains(key);
        hits += usize::from(hit && now >= warm);
        if hit {
            by_next_use.remove(&(now, *key));
        }
        cached.insert(*key);
        by_next_use.insert((*next, *key));
        if cached.len() > capacity {
            let furthest = by_next_use.pop_last();
            furthest.map(|(_, key)| cached.remove(&key));
        }
    }
    hits
}

/// For each request, when its key is asked for again.
fn next_uses(requests: &[u64]) -> Vec<usize> {
    let mut next_of = HashMap::new();
    let mut next_uses = vec![0; requests.len()];
    for (at, key) in requests.iter().enumerate().rev() {
        // Keys that never come again are told apart by their place, so that each stands for itself in an ordered set.
        next_uses[at] = next_of.insert(*key, at).unwrap_or(usize::MAX);
    }
    next_uses
}
