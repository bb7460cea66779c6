//! Active compaction: when much more memory is resident than is in use, values are moved out of the allocator's sparse pages.
//!
//! The housekeeping sees when that is so; the first worker does it, between the requests that it answers. The first alone, since a
//! page may have blocks of all shards in it: who empties pages must know what lies in all of them.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use forebay_store::Compaction;
use tokio::sync::Notify;

use crate::memory;
use crate::node::Node;
use crate::turns::{FIRST_LANE, Rests, TURN};

/// Entries looked at between two looks at the clock.
const STEP: usize = 128;

/// The time from one compaction to the next: the allocator gives empty pages back after a second. Where a compaction gains little,
/// the time is doubled again and again, up to the longest.
const SHORTEST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What is known of the compactions of a node.
#[derive(Default)]
pub struct Compactions {
    /// Bytes that the next one is to gain; 0 where none is needed.
    goal: AtomicU64,
    needed: Notify,
    running: AtomicBool,
    looked_at: AtomicU64,
    moved: AtomicU64,
    nanos: AtomicU64,
}

impl Compactions {
    /// Asks for a compaction if too much is wasted.
    pub fn follow(&self, goal: u64) {
        self.goal.store(goal, Relaxed);
        if goal > 0 {
            self.needed.notify_one();
        }
    }

    /// Whether one is under way.
    pub fn running(&self) -> bool {
        self.running.load(Relaxed)
    }

    /// Entries looked at since the start.
    pub fn looked_at(&self) -> u64 {
        self.looked_at.load(Relaxed)
    }

    /// Blocks of memory moved since the start.
    pub fn moved(&self) -> u64 {
        self.moved.load(Relaxed)
    }

    /// Time spent since the start.
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

/// How many bytes a compaction is to gain. None, if no more is wasted than is to be expected: a part of what is in use, or what is
/// too little to care about.
pub fn goal(node: &Node, resident: u64) -> u64 {
    if !node.settings.active_defrag.load(Relaxed) {
        return 0;
    }
    let used = memory::used();
    let wasted = resident.saturating_sub(used + node.telemetry.program_size);
    let by_share = used / 100 * node.settings.active_defrag_threshold_lower.load(Relaxed);
    let tolerated = by_share.max(node.settings.active_defrag_ignore_bytes.load(Relaxed));
    if wasted > tolerated { wasted - tolerated / 2 } else { 0 }
}

/// Compacts whenever it is needed, for ever.
pub async fn compact(node: &Node) -> Infallible {
    let state = &node.compactions;
    let mut pause = SHORTEST_PAUSE;
    loop {
        state.needed.notified().await;
        let before = state.goal.load(Relaxed);
        if before == 0 {
            continue;
        }
        state.running.store(true, Relaxed);
        run(node, before).await;
        state.running.store(false, Relaxed);
        tokio::time::sleep(pause).await;
        let gained_little = state.goal.load(Relaxed) > before / 8 * 7;
        pause = if gained_little { (pause * 2).min(LONGEST_PAUSE) } else { SHORTEST_PAUSE };
    }
}

async fn run(node: &Node, goal: u64) {
    let mut rests = Rests::new(node, FIRST_LANE);
    let mut compaction = Compaction::new(usize::try_from(goal).unwrap_or(usize::MAX));
    while turn(node, &mut compaction) {
        rests.rest().await;
    }
}

/// Tells whether there is more to do.
fn turn(node: &Node, compaction: &mut Compaction) -> bool {
    let state = &node.compactions;
    let began = node.clock.instant();
    loop {
        let step = node.store.compact_step(compaction, STEP);
        state.looked_at.fetch_add(step.looked_at as u64, Relaxed);
        state.moved.fetch_add(step.moved as u64, Relaxed);
        let took = node.clock.between(began, node.clock.instant());
        if !step.more || took >= TURN {
            state.nanos.fetch_add(took.as_nanos() as u64, Relaxed);
            node.note_latency("active-defrag-cycle", took, node.clock.unix_millis());
            return step.more;
        }
    }
}
