//! A feed as whoever follows it has it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::change::{FeedEvent, Position};
use super::outlet::Waiting;
use super::status::{Board, FeedState, FeedStatus};

/// A feed that is being followed. Dropping it ends it; what it told of and was not confirmed comes again to whoever follows next.
#[derive(Debug)]
pub struct ChangeFeed {
    pub(super) events: mpsc::Receiver<Waiting>,
    pub(super) confirmed: watch::Sender<Position>,
    pub(super) board: Arc<Board>,
    pub(super) closing: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

/// Looks at a feed from elsewhere.
#[derive(Debug, Clone)]
pub struct FeedView {
    board: Arc<Board>,
    confirmed: watch::Sender<Position>,
}

impl ChangeFeed {
    /// The next event, in the order of the commits; `None` once the feed is closed. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<FeedEvent> {
        self.events.recv().await.map(|waiting| waiting.event)
    }

    /// Everybody has dealt with all events up to the one with this position, so that the origin may forget them.
    pub fn confirm(&self, position: Position) {
        raise(&self.confirmed, position);
    }

    /// For status and confirmations from elsewhere.
    pub fn view(&self) -> FeedView {
        FeedView { board: Arc::clone(&self.board), confirmed: self.confirmed.clone() }
    }

    /// Health and counters as they are now.
    pub fn status(&self) -> FeedStatus {
        self.board.status()
    }

    /// Ends the feed, and waits for that. The slot stays, for the next keeper.
    pub async fn close(mut self) {
        self.closing.cancel();
        // Whoever waits for room to tell of something is to see that it is over.
        self.events.close();
        let _ended_by_a_panic = (&mut self.task).await;
        self.board.update(|status| status.state = FeedState::Closed);
    }
}

impl FeedView {
    /// As [`ChangeFeed::confirm`].
    pub fn confirm(&self, position: Position) {
        raise(&self.confirmed, position);
    }

    /// As [`ChangeFeed::status`].
    pub fn status(&self) -> FeedStatus {
        self.board.status()
    }
}

impl Drop for ChangeFeed {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

fn raise(confirmed: &watch::Sender<Position>, position: Position) {
    confirmed.send_if_modified(|now| {
        let rises = position > *now;
        *now = position.max(*now);
        rises
    });
}
