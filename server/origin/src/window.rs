//! A timer for batch windows.
//!
//! Tokio's timer ticks in whole milliseconds, and a batch window is shorter than one: on that timer every lone miss would
//! wait several times as long as its query takes. So one thread keeps the windows of all groups with the precision of
//! the operating system. Each group waits for at most one window, which bounds what is kept here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// The thread that ends windows. Stops when it is dropped.
#[derive(Debug)]
pub(crate) struct WindowClock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signals an earlier window, or the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    windows: BinaryHeap<Reverse<Window>>,
    stopped: bool,
}

#[derive(Debug)]
struct Window {
    until: Instant,
    over: Arc<Notify>,
}

impl WindowClock {
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("forebay-windows".into()).spawn(move || of_thread.run())?;
        Ok(WindowClock { shared, thread: Some(thread) })
    }

    /// Opens a window; the answer is notified once, when it is over.
    pub(crate) fn open(&self, until: Instant) -> Arc<Notify> {
        let over = Arc::new(Notify::new());
        let mut state = self.shared.state.lock();
        let is_next = state.windows.peek().is_none_or(|Reverse(next)| until < next.until);
        // A batch that was full went out before its window was over and waits for it no more.
        state.windows.retain(|Reverse(window)| Arc::strong_count(&window.over) > 1);
        state.windows.push(Reverse(Window { until, over: Arc::clone(&over) }));
        drop(state);
        if is_next {
            self.shared.changed.notify_one();
        }
        over
    }
}

impl Drop for WindowClock {
    fn drop(&mut self) {
        self.shared.state.lock().stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It holds nothing that a panic could have broken, and it is about to be gone.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.stopped {
            match state.windows.peek().map(|Reverse(next)| next.until) {
                None => self.changed.wait(&mut state),
                Some(until) if until <= Instant::now() => {
                    if let Some(Reverse(window)) = state.windows.pop() {
                        window.over.notify_one();
                    }
                }
                Some(until) => {
                    self.changed.wait_until(&mut state, until);
                }
            }
        }
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Window {}

impl PartialOrd for Window {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Window {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.until.cmp(&other.until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn windows_end_in_the_order_of_their_ends() {
        let clock = WindowClock::start().unwrap();
        let opened = Instant::now();
        let late = clock.open(opened + Duration::from_millis(30));
        let early = clock.open(opened + Duration::from_millis(3));
        early.notified().await;
        assert!(opened.elapsed() >= Duration::from_millis(3));
        late.notified().await;
        assert!(opened.elapsed() >= Duration::from_millis(30));
    }
}
