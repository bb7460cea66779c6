//! Where a feed's task puts its events, and what it looks at between them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::change::{FeedEvent, Gap, Position};
use super::config::FeedConfig;
use super::handle::ChangeFeed;
use super::lasting::lasting_fault;
use super::status::{Board, FeedState, count};
use super::tables::Survey;
use crate::fault::Fault;
use crate::group::{Feed, GroupConfig};
use crate::postgres::session_error;
use crate::session::SessionError;

/// The groups of an origin, whenever they are replaced.
pub(crate) type GroupsWatch = watch::Receiver<Arc<Vec<GroupConfig>>>;

/// How long a lock on a table may keep us from publishing it, or from making its triggers.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Whether any group learns of changes by `feed`.
pub(super) fn is_wanted(groups: &[GroupConfig], feed: Feed) -> bool {
    groups.iter().any(|group| group.change_feed() == Some(feed))
}

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

    /// Waits until a group wants `feed`.
    pub(super) async fn wait_until_wanted(&mut self, feed: Feed) -> Result<(), End> {
        loop {
            if is_wanted(&self.groups.borrow_and_update(), feed) {
                return Ok(());
            }
            self.board.update(|status| (status.state, status.faults) = (FeedState::Starting, Vec::new()));
            self.groups.changed().await.map_err(|_| End::Closed)?;
        }
    }

    /// What the database shows of the connections: a keeper knows by it whom it may take a slot from.
    pub(super) fn connection_name(&self) -> String {
        format!("{} feed {}", self.config.name, self.config.term)
    }

    /// An ordinary connection, beside the one that is told of changes.
    pub(super) async fn connect(&self, address: &Address) -> Result<PgConnection, SessionError> {
        let millis = |time: Duration| time.as_millis().to_string();
        let patience = self.config.patience;
        let options = address
            .options
            .clone()
            .application_name(&self.connection_name())
            .options([("statement_timeout", millis(patience)), ("lock_timeout", millis(LOCK_PATIENCE.min(patience)))]);
        self.within(patience, async { options.connect().await.map_err(session_error) }).await
    }

    /// Tells what the database says of the tables.
    pub(super) fn tell_survey(&self, survey: &Survey) {
        let told: Vec<Fault> = survey.faults.iter().chain(&survey.advice).cloned().collect();
        let known = self.board.status().faults;
        for fault in told.iter().filter(|fault| !known.contains(fault)) {
            tracing::warn!(%fault, "the change feed cannot tell of everything");
        }
        self.board.update(|status| status.faults = told);
    }

    /// Somebody has to do something.
    pub(super) fn refuse(&self, fault: Fault) -> End {
        let in_words = fault.problem.clone();
        self.tell_fault(fault);
        End::Failed(SessionError::unfit(in_words, ""))
    }

    fn tell_fault(&self, fault: Fault) {
        self.board.update(|status| {
            if !status.faults.contains(&fault) {
                tracing::error!(%fault, "the change feed cannot be followed");
                status.faults.push(fault);
            }
        });
    }

    /// It was cut off.
    pub(super) fn note(&self, error: &SessionError, user: &str) {
        if let Some(fault) = lasting_fault(error, user) {
            self.tell_fault(fault);
        }
        let words = error.to_string();
        self.board.update(|status| {
            if status.last_error != words {
                tracing::warn!(error = words, "the change feed is cut off and tries again");
            }
            (status.state, status.last_error) = (FeedState::Retrying, words);
        });
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
