//! What the loads of one group share: the query, the plan that the database made of it, and the counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::group::GroupConfig;
use crate::load::LoadError;
use crate::placeholder::{Query, QueryError};
use crate::session::{KeyProblem, LoadQuery, ManyQuery, Plan, Session, SessionError, Wanted};
use crate::status::{BATCH_SIZE_BOUNDS, GroupStatus};

/// A plan is made anew at this age, so that columns and labels that were added are seen.
const PLAN_LIFETIME: Duration = Duration::from_secs(60);

/// One group, as far as loading goes.
#[derive(Debug)]
pub(crate) struct GroupLoad {
    pub(crate) name: Arc<str>,
    load: LoadQuery,
    plan: Mutex<Option<(Instant, Arc<Plan>)>>,
    said_unbatched: AtomicBool,
    pub(crate) waiting: Arc<AtomicUsize>,
    pub(crate) counters: Arc<Counters>,
}

impl GroupLoad {
    /// Goes on counting where `former` is, which had the group's name.
    pub(crate) fn new(group: &GroupConfig, former: Option<&GroupLoad>) -> Result<Self, QueryError> {
        Ok(GroupLoad {
            name: group.name.as_str().into(),
            load: load_query(group)?,
            plan: Mutex::new(None),
            said_unbatched: AtomicBool::new(false),
            waiting: former.map(|former| Arc::clone(&former.waiting)).unwrap_or_default(),
            counters: former.map(|former| Arc::clone(&former.counters)).unwrap_or_default(),
        })
    }

    /// The plan, and whether it was made just now.
    pub(crate) async fn plan(&self, session: &mut Session) -> Result<(Arc<Plan>, bool), SessionError> {
        if let Some(plan) = self.known_plan() {
            return Ok((plan, false));
        }
        let plan = session.plan(&self.load).await.map_err(|(setting, error)| match setting {
            "load" => error,
            _ => error.about(setting),
        });
        let plan = Arc::new(plan?);
        if !plan.is_batched() && self.load.query.highest() > 0 && !self.said_unbatched.swap(true, Ordering::Relaxed) {
            tracing::warn!(group = %self.name, "the query cannot be asked for many keys at once: one query for each key");
        }
        *self.plan.lock() = Some((Instant::now(), Arc::clone(&plan)));
        Ok((plan, true))
    }

    /// Describes the queries without remembering the plan; what is wrong, and with which setting.
    pub(crate) async fn describe(&self, session: &mut Session) -> Result<Plan, (&'static str, SessionError)> {
        session.plan(&self.load).await
    }

    pub(crate) fn forget_plan(&self) {
        *self.plan.lock() = None;
    }

    /// Whether it is known, without asking anybody, that the key cannot be there.
    pub(crate) fn is_surely_absent(&self, wanted: &Wanted) -> bool {
        self.known_plan().is_some_and(|plan| !plan.accepts(wanted))
    }

    fn known_plan(&self) -> Option<Arc<Plan>> {
        let plan = self.plan.lock();
        plan.as_ref().filter(|(made, _)| made.elapsed() < PLAN_LIFETIME).map(|(_, plan)| Arc::clone(plan))
    }

    pub(crate) fn load_error(&self, error: &SessionError) -> LoadError {
        let group = Arc::clone(&self.name);
        match error {
            SessionError::Unreachable(reason) => LoadError::Down { reason: reason.as_str().into() },
            SessionError::Unfit { problem, .. } => LoadError::Shape { group, problem: problem.as_str().into() },
            other => LoadError::Query { group, message: other.to_string().into() },
        }
    }

    pub(crate) fn key_error(&self, problem: KeyProblem) -> LoadError {
        let group = Arc::clone(&self.name);
        match problem {
            KeyProblem::Shape(problem) => LoadError::Shape { group, problem },
            KeyProblem::Query(message) => LoadError::Query { group, message },
        }
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        GroupStatus {
            name: self.name.to_string(),
            batched: self.plan.lock().as_ref().map(|(_, plan)| plan.is_batched()),
            loads: count(&counters.loads),
            waiting: self.waiting.load(Ordering::Relaxed),
            absent_unasked: count(&counters.absent_unasked),
            queries: count(&counters.queries),
            keys: count(&counters.keys),
            batch_sizes: std::array::from_fn(|size| count(&counters.batch_sizes[size])),
            errors: count(&counters.errors),
        }
    }
}

fn load_query(group: &GroupConfig) -> Result<LoadQuery, QueryError> {
    let captures = || group.key.names().map(str::to_owned).collect();
    let many = match &group.load_many {
        Some(many) => Some(ManyQuery { query: Query::parse(many)?, captures: captures() }),
        None => None,
    };
    Ok(LoadQuery { query: Query::parse(&group.load)?, many, shape: group.as_ })
}

/// What happened in a group since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    loads: AtomicU64,
    absent_unasked: AtomicU64,
    queries: AtomicU64,
    keys: AtomicU64,
    batch_sizes: [AtomicU64; BATCH_SIZE_BOUNDS.len()],
    errors: AtomicU64,
}

impl Counters {
    pub(crate) fn count_load(&self) {
        self.loads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_unasked(&self) {
        self.absent_unasked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_query(&self, keys: usize, statements: usize) {
        let size = BATCH_SIZE_BOUNDS.partition_point(|bound| *bound < keys).min(BATCH_SIZE_BOUNDS.len() - 1);
        self.batch_sizes[size].fetch_add(1, Ordering::Relaxed);
        self.queries.fetch_add(statements as u64, Ordering::Relaxed);
        self.keys.fetch_add(keys as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }
}
