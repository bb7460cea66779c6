//! Where a feed's task puts its events, and what it looks at between them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::change::{FeedEvent, Gap, Position};
use super::config::FeedConfig;
use super::handle::ChangeFeed;
use super::status::{Board, FeedState, count};
use crate::group::GroupConfig;
use crate::session::SessionError;

/// The groups of an origin, whenever they are replaced.
pub(crate) type GroupsWatch = watch::Receiver<Arc<Vec<GroupConfig>>>;

/// A feed's end at which events go in.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) config: FeedConfig,
    pub(super) groups: GroupsWatch,
    pub(super) events: mpsc::Sender<FeedEvent>,
    pub(super) confirmed: watch::Receiver<Position>,
    pub(super) board: Arc<Board>,
    pub(super) closing: CancellationToken,
    /// Failures that followed each other.
    failures: u32,
}

/// Why a feed is not followed any more.
#[derive(Debug)]
pub(super) enum End {
    /// It was closed.
    Closed,
    /// It was cut off, or could not be begun.
    Failed(SessionError),
    /// It has to be begun anew, and what was missed is to be taken for changed.
    Lost(String),
}

impl From<SessionError> for End {
    fn from(error: SessionError) -> Self {
        End::Failed(error)
    }
}

impl Outlet {
    /// Both ends of a feed; `run` is what follows it.
    pub(super) fn open<F>(config: FeedConfig, groups: GroupsWatch, run: impl FnOnce(Outlet) -> F) -> ChangeFeed
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (events, received) = mpsc::channel(config.max_events.max(1));
        let (confirming, confirmed) = watch::channel(Position::default());
        let (board, closing) = (Arc::new(Board::default()), CancellationToken::new());
        let outlet = Outlet {
            config,
            groups,
            events,
            confirmed,
            board: Arc::clone(&board),
            closing: closing.clone(),
            failures: 0,
        };
        ChangeFeed { events: received, confirmed: confirming, board, closing, task: tokio::spawn(run(outlet)) }
    }

    /// Tells of a gap.
    pub(super) async fn tell_gap(&self, gap: Gap) -> Result<(), End> {
        tracing::warn!(reason = gap.reason, groups = gap.groups.len(), "changes may have been missed");
        count(&self.board.counters.gaps);
        self.tell(FeedEvent::Gap(gap)).await
    }

    pub(super) async fn tell(&self, event: FeedEvent) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Closed)
    }

    /// Waits before the next try: longer with each failure.
    ///
    /// # Errors
    /// When the feed is closed meanwhile.
    pub(super) async fn pause(&mut self) -> Result<(), End> {
        count(&self.board.counters.interruptions);
        let doubled = self.config.first_pause.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(self.config.longest_pause).mul_f64(0.5 + 0.5 * rand::random::<f64>());
        tokio::select! {
            () = self.closing.cancelled() => Err(End::Closed),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// It is followed.
    pub(super) fn follows(&mut self) {
        self.failures = 0;
        self.board.update(|status| {
            status.state = FeedState::Following;
            status.last_error.clear();
        });
    }

    /// The delay of a change that was just told of.
    pub(super) fn note_delay(&self, committed_at: Option<SystemTime>) {
        if let Some(delay) = committed_at.and_then(|at| SystemTime::now().duration_since(at).ok()) {
            self.board.update(|status| status.delay = delay);
        }
    }

    /// Whoever has a limit of time, with what it says when that is over.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        asking: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        let late = || Err(SessionError::Unreachable(format!("the origin did not answer within {limit:?}")));
        tokio::time::timeout(limit, asking).await.unwrap_or_else(|_| late())
    }
}
