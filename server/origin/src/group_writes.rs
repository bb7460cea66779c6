//! What the writes of one group share: the statements, the plan that the database made of them, and how they are sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::group::GroupConfig;
use crate::placeholder::{Query, QueryError};
use crate::session::{Session, SessionError, Wanted};
use crate::target::Targets;
use crate::write::{Write, WriteChange, WriteError, Written};
use crate::write_plan::{Failure, Planned, WritePlan, WriteQueries};

/// The most writes that are sent as one statement.
const MAX_WRITES_OF_STATEMENT: usize = 500;

/// The most bytes of keys and values that are sent as one statement, unless a single write has more.
const MAX_BYTES_OF_STATEMENT: usize = 4 << 20;

/// A plan is made anew at this age, so that columns and labels that were added are seen.
const PLAN_LIFETIME: Duration = Duration::from_secs(60);

/// How much longer we wait than the database's own limit: its words say more than ours.
const GRACE: Duration = Duration::from_millis(100);

/// One group, as far as writing goes.
#[derive(Debug)]
pub(crate) struct GroupWrites {
    queries: WriteQueries,
    plan: Mutex<Option<(Instant, Arc<WritePlan>)>>,
}

/// What became of each write.
pub(crate) type Outcomes = Vec<Result<Written, WriteError>>;

impl GroupWrites {
    /// `None` for a group that has no statement for writes.
    pub(crate) fn of(group: &GroupConfig) -> Result<Option<Arc<Self>>, QueryError> {
        let captures = group.key.names().len();
        let read = |sql: &Option<String>| sql.as_deref().map(Query::parse).transpose();
        let (save, remove) = (read(&group.save)?, read(&group.remove)?);
        let queries = WriteQueries { save, remove, captures };
        let has_any = queries.save.is_some() || queries.remove.is_some();
        Ok(has_any.then(|| Arc::new(GroupWrites { queries, plan: Mutex::new(None) })))
    }

    pub(crate) fn is_like(&self, other: &GroupWrites) -> bool {
        self.queries == other.queries
    }

    /// Describes each statement by itself without remembering the plan; what is wrong, by its setting.
    pub(crate) async fn describe(&self, session: &mut Session) -> Vec<(&'static str, SessionError)> {
        let WriteQueries { save, remove, captures } = self.queries.clone();
        let alone = [WriteQueries { save, remove: None, captures }, WriteQueries { save: None, remove, captures }];
        let mut wrong = Vec::new();
        for queries in alone {
            wrong.extend(session.plan_writes(&queries).await.err());
        }
        wrong
    }

    /// Makes changes in the primary, in their order, and tells of each what became of it. Those that are sent together are committed
    /// together, but for the ones that the database refuses. Behind a failure that is none of a single write nothing is tried.
    pub(crate) async fn write(
        &self,
        targets: &Arc<Targets>,
        limit: Duration,
        writes: Vec<Result<(Wanted, WriteChange), WriteError>>,
    ) -> Outcomes {
        let mut outcomes: Vec<Option<Result<Written, WriteError>>> = Vec::with_capacity(writes.len());
        let mut planned = Vec::with_capacity(writes.len());
        for write in writes {
            match write.and_then(|(wanted, change)| self.prepare(wanted, change)) {
                Ok(write) => {
                    planned.push(write);
                    outcomes.push(None);
                }
                Err(error) => outcomes.push(Some(Err(error))),
            }
        }
        let mut done = self.write_planned(targets, limit, planned).await.into_iter();
        let missing = || Err(WriteError::try_again("it was not tried"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| done.next().unwrap_or_else(missing))).collect()
    }

    fn prepare(&self, wanted: Wanted, change: WriteChange) -> Result<Planned, WriteError> {
        let (statement, value) = match change {
            WriteChange::Save(value) => (&self.queries.save, Some(value.into_parameter()?)),
            WriteChange::Remove => (&self.queries.remove, None),
        };
        statement.as_ref().map(|_| Planned { wanted, value }).ok_or(WriteError::NoStatement)
    }

    async fn write_planned(&self, targets: &Arc<Targets>, limit: Duration, writes: Vec<Planned>) -> Outcomes {
        let mut outcomes = Vec::with_capacity(writes.len());
        while outcomes.len() < writes.len() {
            let rest = &writes[outcomes.len()..];
            let part = &rest[..first_part(rest)];
            let sent = self.write_part(targets, limit, part).await;
            outcomes.extend(sent.outcomes);
            if sent.failure.is_some() {
                outcomes.resize(writes.len(), Err(WriteError::try_again("it comes behind one that failed")));
            }
        }
        outcomes
    }

    async fn write_part(&self, targets: &Arc<Targets>, limit: Duration, part: &[Planned]) -> Sent {
        let leasing = tokio::time::timeout(limit, targets.lease_of_primary());
        let leased = leasing.await.unwrap_or_else(|_| Err(format!("the primary was busy for {limit:?}").into()));
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(reason) => return Sent::failed(part.len(), Failure::try_again(&reason)),
        };
        let mut connection = match lease.connection().await {
            Ok(connection) => connection,
            Err(error) => return Sent::failed(part.len(), Failure::before(error)),
        };
        let began = Instant::now();
        let deadline = began + limit;
        let writing = self.write_by(&mut connection.session, part, deadline);
        let late = |_| Sent::failed(part.len(), Failure::unknown(format!("no answer within {limit:?}")));
        let sent = tokio::time::timeout_at((deadline + GRACE).into(), writing).await.unwrap_or_else(late);
        match &sent.failure {
            Some(Failure { error, is_broken: true }) => lease.failed(&SessionError::Unreachable(error.to_string())),
            _ => {
                lease.measured(began.elapsed(), 1);
                lease.answered(connection);
            }
        }
        sent
    }

    async fn write_by(&self, session: &mut Session, part: &[Planned], until: Instant) -> Sent {
        let plan = match self.plan(session).await {
            Ok(plan) => plan,
            Err(failure) => return Sent::failed(part.len(), failure),
        };
        let unfit: Vec<Option<WriteError>> = part.iter().map(|write| plan.refuses(write)).collect();
        let fit = part.iter().zip(&unfit).filter(|(_, unfit)| unfit.is_none()).map(|(write, _)| write.clone());
        let sent = write_all_or_parts(session, &plan, &fit.collect::<Vec<_>>(), until).await;
        if sent.failure.is_some() {
            // It may be that the schema is another one now.
            *self.plan.lock() = None;
        }
        let mut given = sent.outcomes.into_iter();
        let outcomes = unfit.into_iter().filter_map(|unfit| unfit.map(Err).or_else(|| given.next())).collect();
        Sent { outcomes, ..sent }
    }

    async fn plan(&self, session: &mut Session) -> Result<Arc<WritePlan>, Failure> {
        let known = self.plan.lock().clone();
        if let Some((_, plan)) = known.filter(|(made, _)| made.elapsed() < PLAN_LIFETIME) {
            return Ok(plan);
        }
        let plan = session.plan_writes(&self.queries).await.map_err(|(_, error)| Failure::before(error))?;
        let plan = Arc::new(plan);
        *self.plan.lock() = Some((Instant::now(), Arc::clone(&plan)));
        Ok(plan)
    }
}

/// What became of writes that were sent, each.
struct Sent {
    outcomes: Outcomes,
    /// Why those at the end were not written, if it is no matter of a single write.
    failure: Option<Failure>,
}

impl Sent {
    fn failed(writes: usize, failure: Failure) -> Self {
        Sent { outcomes: vec![Err(failure.error.clone()); writes], failure: Some(failure) }
    }
}

/// What is refused is tried again with each write by itself within the one transaction; and if even then all of it is refused, which is
/// when a constraint is looked at in the end, by halves.
async fn write_all_or_parts(session: &mut Session, plan: &WritePlan, writes: &[Planned], until: Instant) -> Sent {
    let mut outcomes = Vec::with_capacity(writes.len());
    let mut parts: Vec<(&[Planned], bool)> = vec![(writes, false)];
    while let Some((part, each_by_itself)) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match session.write(plan, part, each_by_itself, until).await {
            Ok(given) => outcomes.extend(given),
            Err(Failure { error: error @ WriteError::Refused { .. }, .. }) if part.len() == 1 => {
                outcomes.push(Err(error));
            }
            Err(Failure { error: WriteError::Refused { .. }, .. }) if !each_by_itself => parts.push((part, true)),
            Err(Failure { error: WriteError::Refused { .. }, .. }) => {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([(second, true), (first, true)]);
            }
            Err(failure) => {
                // What was written of earlier parts is committed.
                outcomes.resize(writes.len(), Err(failure.error.clone()));
                return Sent { outcomes, failure: Some(failure) };
            }
        }
    }
    Sent { outcomes, failure: None }
}

/// How many of the first writes go together; one at least.
fn first_part(writes: &[Planned]) -> usize {
    let mut bytes = 0;
    let fitting = writes.iter().take(MAX_WRITES_OF_STATEMENT).take_while(|write| {
        bytes += write.weight();
        bytes <= MAX_BYTES_OF_STATEMENT
    });
    fitting.count().max(1)
}

impl Planned {
    fn weight(&self) -> usize {
        self.wanted.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Writes with the places of the captures in their keys; what is no key of the group is refused.
pub(crate) fn with_captures(group: &GroupConfig, writes: Vec<Write>) -> Vec<Result<(Wanted, WriteChange), WriteError>> {
    let one = |Write { key, change }: Write| match group.key.matches(&key) {
        Some(captures) => Ok((Wanted { key, captures }, change)),
        None => Err(WriteError::refused("", "the key is none of the group")),
    };
    writes.into_iter().map(one).collect()
}
