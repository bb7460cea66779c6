//! Where a feed's task puts its events, and what it looks at between them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::change::{FeedEvent, Gap, Position};
use super::config::FeedConfig;
use super::handle::ChangeFeed;
use super::lasting::lasting_fault;
use super::said::Said;
use super::status::{Board, FeedState, count};
use crate::fault::Fault;
use crate::group::{Feed, GroupConfig};
use crate::postgres::session_error;
use crate::session::SessionError;

/// The groups of an origin, whenever they are replaced.
pub(crate) type GroupsWatch = watch::Receiver<Arc<Vec<GroupConfig>>>;

/// How long a lock on a table may keep us from publishing it, or from making its triggers.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The most that events which wait to be taken may take in memory, in bytes; while there is as much, no more is read.
const MAX_WAITING: usize = 64 << 20;

/// After so many looks at the server, the groups' tables are looked at as well: somebody may have altered them.
pub(super) const LOOK_EVERY: u32 = 10;

/// Why there is a gap where nothing was lost.
pub(super) const FURTHER_TABLES: &str = "the feed tells of further tables, or of such as were altered";

/// In what the memory of events is counted.
const PIECE: usize = 1024;

/// Whether any group learns of changes by `feed`.
pub(super) fn is_wanted(groups: &[GroupConfig], feed: Feed) -> bool {
    groups.iter().any(|group| group.change_feed() == Some(feed))
}

/// A feed's end at which events go in.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) config: FeedConfig,
    pub(super) groups: GroupsWatch,
    pub(super) places: Places,
    pub(super) confirmed: watch::Receiver<Position>,
    pub(super) board: Arc<Board>,
    pub(super) closing: CancellationToken,
    /// Failures that followed each other.
    failures: u32,
    following_since: Option<Instant>,
    said: Mutex<Said>,
}

/// An event that waits to be taken, and its share of the memory for that.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: FeedEvent,
    _memory: OwnedSemaphorePermit,
}

/// Where events wait to be taken.
#[derive(Debug, Clone)]
pub(super) struct Places {
    events: mpsc::Sender<Waiting>,
    memory: Arc<Semaphore>,
}

/// Room for one event.
pub(super) struct Room {
    place: mpsc::OwnedPermit<Waiting>,
    memory: OwnedSemaphorePermit,
}

impl Places {
    /// Waits for room for an event of this weight. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When nobody takes events any more.
    pub(super) async fn room_for(&self, weight: usize) -> Result<Room, End> {
        let pieces = weight.div_ceil(PIECE).min(MAX_WAITING / PIECE);
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let place = self.events.clone().reserve_owned().await.map_err(|_| End::Closed)?;
        let memory = Arc::clone(&self.memory).acquire_many_owned(pieces).await.map_err(|_| End::Closed)?;
        Ok(Room { place, memory })
    }
}

impl Room {
    pub(super) fn take(self, event: FeedEvent) {
        self.place.send(Waiting { event, _memory: self.memory });
    }
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
            places: Places { events, memory: Arc::new(Semaphore::new(MAX_WAITING / PIECE)) },
            confirmed,
            board: Arc::clone(&board),
            closing: closing.clone(),
            failures: 0,
            following_since: None,
            said: Mutex::default(),
        };
        ChangeFeed { events: received, confirmed: confirming, board, closing, task: tokio::spawn(run(outlet)) }
    }

    /// Counts a gap that is to be told of.
    pub(super) fn note_gap(&self, gap: &Gap) {
        tracing::warn!(reason = gap.reason, groups = gap.groups.len(), "changes may have been missed");
        count(&self.board.counters.gaps);
    }

    /// Waits before the next try: longer with each failure.
    ///
    /// # Errors
    /// When the feed is closed meanwhile.
    pub(super) async fn pause(&mut self) -> Result<(), End> {
        count(&self.board.counters.interruptions);
        // What is cut off as soon as it has begun goes on being a failure.
        if self.following_since.take().is_some_and(|since| since.elapsed() > self.config.longest_pause) {
            self.failures = 0;
        }
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
        self.following_since = Some(Instant::now());
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
        format!("{}{}", self.connection_prefix(), self.config.term)
    }

    /// What stands before the term.
    pub(super) fn connection_prefix(&self) -> String {
        format!("{} feed ", self.config.name)
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

    /// Tells what the database says of the tables, in place of what it said before.
    pub(super) fn tell_faults(&self, told: Vec<Fault>) {
        let mut said = self.said.lock();
        for fault in told.iter().filter(|fault| said.is_news("fault", fault)) {
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
        if self.said.lock().is_news("fault", &fault) {
            tracing::error!(%fault, "the change feed cannot be followed");
        }
        self.board.update(|status| {
            if !status.faults.contains(&fault) {
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
