//! How loads become queries: one task per group gathers misses that arrive together and asks for all of them at once.
//!
//! A batch goes out when its window is over or it is full, and a connection is free; while none is, it goes on growing,
//! so the busier the database, the fewer and larger the queries. Requests that were sent together, such as those of one
//! MGET, are one message, so that they share a query however slowly their sender runs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::group_load::GroupLoad;
use crate::load::{LoadError, Loaded, TargetId};
use crate::session::{Answer, Found, KeyProblem, Plan, SessionError, Wanted};
use crate::target::{Choice, Connection, Lease, Targets};
use crate::waiting::Waiting;
use crate::window::WindowClock;

/// How much longer than the load timeout a query's connection is held, so that the database's own statement timeout ends
/// the query first: then nothing runs on for nobody and the connection stays usable.
const GRACE: Duration = Duration::from_millis(250);

/// The most additional queries that one batch may cost in search of the keys that make it fail.
const MAX_EXTRA_QUERIES: usize = 32;

/// A caller that waits for a key.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) wanted: Wanted,
    pub(crate) reply: oneshot::Sender<Result<Loaded, LoadError>>,
    /// Counts among the waiting loads until it is answered.
    pub(crate) _waiting: Waiting,
}

/// One group's requests in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Arrivals {
    queue: mpsc::Receiver<Vec<Request>>,
    /// What is left of the message that was received last.
    received: vec::IntoIter<Request>,
}

/// One group's gatherer.
#[derive(Debug)]
pub(crate) struct Batcher {
    pub(crate) group: Arc<GroupLoad>,
    pub(crate) targets: Arc<Targets>,
    pub(crate) clock: Arc<WindowClock>,
    pub(crate) arrivals: Arrivals,
    pub(crate) limits: BatchLimits,
    pub(crate) whom: Whom,
}

/// Who may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    Anybody,
    /// What a replica says may be older than what is wanted.
    Primary,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    pub(crate) window: Duration,
    pub(crate) max_keys: usize,
    pub(crate) load_timeout: Duration,
}

impl Arrivals {
    pub(crate) fn new(queue: mpsc::Receiver<Vec<Request>>) -> Self {
        Arrivals { queue, received: Vec::new().into_iter() }
    }

    /// The next request; `None` once there are no senders any more. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.received.next() {
                return Some(request);
            }
            self.received = self.queue.recv().await?.into_iter();
        }
    }

    /// The next request, if there is one now.
    fn next_now(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.received.next() {
                return Some(request);
            }
            self.received = self.queue.try_recv().ok()?.into_iter();
        }
    }
}

impl Batcher {
    /// Runs until the queue is closed, and then until the queries under way have ended.
    pub(crate) async fn run(mut self) {
        let mut queries = JoinSet::new();
        while let Some(first) = self.next_request(&mut queries).await {
            let mut batch = Batch::new(first);
            self.gather(&mut batch).await;
            match self.lease(&mut batch).await {
                Ok(lease) => {
                    self.add_arrived(&mut batch);
                    batch.forget_departed();
                    let query = BatchQuery {
                        group: Arc::clone(&self.group),
                        targets: Arc::clone(&self.targets),
                        limits: self.limits,
                        whom: self.whom,
                    };
                    queries.spawn(query.run(batch, lease));
                }
                Err(reason) => batch.fail(&LoadError::Down { reason }),
            }
        }
        while queries.join_next().await.is_some() {}
    }

    /// The request that begins the next batch; meanwhile queries that have ended are cleared away.
    async fn next_request(&mut self, queries: &mut JoinSet<()>) -> Option<Request> {
        loop {
            tokio::select! {
                request = self.arrivals.next() => return request,
                Some(_) = queries.join_next() => {}
            }
        }
    }

    /// Adds what arrives within the window.
    async fn gather(&mut self, batch: &mut Batch) {
        if self.limits.window.is_zero() {
            return;
        }
        let window = self.clock.open(Instant::now() + self.limits.window);
        let over = window.notified();
        tokio::pin!(over);
        while batch.len() < self.limits.max_keys {
            tokio::select! {
                () = &mut over => return,
                Some(request) = self.arrivals.next() => batch.add(request),
                else => return,
            }
        }
    }

    /// Adds what has arrived by now, so that what was sent together stays together.
    fn add_arrived(&mut self, batch: &mut Batch) {
        while batch.len() < self.limits.max_keys {
            match self.arrivals.next_now() {
                Some(request) => batch.add(request),
                None => return,
            }
        }
    }

    /// Waits for a target that may be asked; the batch grows meanwhile.
    async fn lease(&mut self, batch: &mut Batch) -> Result<Lease, Arc<str>> {
        let targets = Arc::clone(&self.targets);
        let lease = async {
            match self.whom {
                Whom::Anybody => targets.lease().await,
                Whom::Primary => targets.lease_of_primary().await,
            }
        };
        tokio::pin!(lease);
        loop {
            let has_room = batch.len() < self.limits.max_keys;
            tokio::select! {
                lease = &mut lease => return lease,
                Some(request) = self.arrivals.next(), if has_room => batch.add(request),
            }
        }
    }
}

/// Keys to ask for, each with everybody who waits for it.
#[derive(Debug)]
struct Batch {
    keys: Vec<Wanted>,
    waiters: Vec<Vec<Request>>,
    places: HashMap<Bytes, usize>,
}

impl Batch {
    fn new(first: Request) -> Self {
        let mut batch = Batch { keys: Vec::new(), waiters: Vec::new(), places: HashMap::new() };
        batch.add(first);
        batch
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    fn add(&mut self, request: Request) {
        match self.places.get(&request.wanted.key) {
            Some(place) => self.waiters[*place].push(request),
            None => {
                self.places.insert(request.wanted.key.clone(), self.keys.len());
                self.keys.push(request.wanted.clone());
                self.waiters.push(vec![request]);
            }
        }
    }

    /// Leaves out the keys that nobody waits for any more.
    fn forget_departed(&mut self) {
        let kept = std::mem::take(&mut self.waiters)
            .into_iter()
            .map(|waiters| waiters.into_iter().filter(|request| !request.reply.is_closed()).collect::<Vec<Request>>());
        let keys = std::mem::take(&mut self.keys).into_iter();
        (self.keys, self.waiters) = keys.zip(kept).filter(|(_, waiters)| !waiters.is_empty()).unzip();
        self.places.clear();
    }

    /// Answers and removes the keys whose captures the plan cannot take.
    fn answer_unfit(&mut self, is_fit: impl Fn(&Wanted) -> bool) {
        let keys = std::mem::take(&mut self.keys).into_iter();
        let all = keys.zip(std::mem::take(&mut self.waiters));
        let (fit, unfit): (Vec<_>, Vec<_>) = all.partition(|(wanted, _)| is_fit(wanted));
        unfit.into_iter().for_each(|(_, waiters)| answer(waiters, &Ok(Loaded::absent_unasked())));
        (self.keys, self.waiters) = fit.into_iter().unzip();
    }

    fn fail(self, error: &LoadError) {
        self.waiters.into_iter().for_each(|waiters| answer(waiters, &Err(error.clone())));
    }

    fn deliver(self, group: &GroupLoad, answers: Vec<Answer>, took: Duration, target: TargetId) {
        for (waiters, given) in self.waiters.into_iter().zip(answers) {
            let result = match given {
                Ok(Found { value, snapshot }) => Ok(Loaded { value, took, target: Some(target), snapshot }),
                Err(problem) => Err(group.key_error(problem)),
            };
            answer(waiters, &result);
        }
    }
}

fn answer(waiters: Vec<Request>, result: &Result<Loaded, LoadError>) {
    for request in waiters {
        // A caller that has left is not waiting for the answer.
        let _ = request.reply.send(result.clone());
    }
}

/// One batch on its way: to a target, and to another one if that cannot be asked.
#[derive(Debug)]
struct BatchQuery {
    group: Arc<GroupLoad>,
    targets: Arc<Targets>,
    limits: BatchLimits,
    whom: Whom,
}

/// What asking one target led to.
struct Asked {
    answers: Vec<Answer>,
    took: Duration,
}

impl BatchQuery {
    async fn run(self, mut batch: Batch, mut lease: Lease) {
        if batch.len() == 0 {
            return;
        }
        let deadline = Instant::now() + self.limits.load_timeout;
        let mut tried = Vec::new();
        loop {
            let target = lease.target();
            let result = self.ask(&mut batch, &mut lease, deadline).await;
            drop(lease);
            let error = match result {
                Ok(asked) => return batch.deliver(&self.group, asked.answers, asked.took, target),
                Err(error) => error,
            };
            let SessionError::Unreachable(reason) = error else {
                return batch.fail(&self.load_error(error));
            };
            tried.push(target);
            lease = match self.another_lease(&tried, deadline).await {
                Some(another) => another,
                None => {
                    return batch.fail(&LoadError::Down { reason: reason.into() });
                }
            };
        }
    }

    /// A lease on a target that was not tried yet, if there is one in time.
    async fn another_lease(&self, tried: &[TargetId], deadline: Instant) -> Option<Lease> {
        while self.whom == Whom::Anybody && tried.len() < self.targets.len() && Instant::now() < deadline {
            let freed = self.targets.freed();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.targets.choose(tried) {
                Choice::Granted(lease) => return Some(lease),
                Choice::Refused(_) => return None,
                Choice::Busy => {}
            }
            tokio::time::timeout_at(deadline.into(), freed).await.ok()?;
        }
        None
    }

    /// Asks one target, and tells its lease how that went.
    async fn ask(&self, batch: &mut Batch, lease: &mut Lease, deadline: Instant) -> Result<Asked, SessionError> {
        let mut connection = lease.connection().await?;
        let limit = deadline + GRACE;
        let asking = self.ask_on(batch, &mut connection, lease, deadline);
        let result = match tokio::time::timeout_at(limit.into(), asking).await {
            Ok(result) => result,
            Err(_) => Err(SessionError::Unreachable(format!("no answer within {:?}", self.limits.load_timeout))),
        };
        match &result {
            Err(error @ SessionError::Unreachable(_)) => lease.failed(error),
            _ => lease.answered(connection),
        }
        result
    }

    async fn ask_on(
        &self,
        batch: &mut Batch,
        connection: &mut Connection,
        lease: &Lease,
        deadline: Instant,
    ) -> Result<Asked, SessionError> {
        let (mut plan, mut is_new) = self.group.plan(&mut connection.session).await?;
        loop {
            batch.answer_unfit(|wanted| {
                let fits = plan.accepts(wanted);
                if !fits {
                    self.group.counters.count_unasked();
                }
                fits
            });
            if batch.len() == 0 {
                return Ok(Asked { answers: Vec::new(), took: Duration::ZERO });
            }
            let began = Instant::now();
            let result = self.ask_in_parts(&plan, &batch.keys, connection, deadline).await;
            let took = began.elapsed();
            lease.measured(took, plan.statements_for(batch.len()));
            match result {
                Err(error) if error.may_be_stale() && !is_new => {
                    self.group.forget_plan();
                    (plan, is_new) = self.group.plan(&mut connection.session).await?;
                }
                result => return result.map(|answers| Asked { answers, took }),
            }
        }
    }

    /// Asks for all keys at once. If that fails for a reason that may be one key's, asks for halves, so that a key that
    /// makes the query fail fails alone.
    async fn ask_in_parts(
        &self,
        plan: &Plan,
        keys: &[Wanted],
        connection: &mut Connection,
        deadline: Instant,
    ) -> Result<Vec<Answer>, SessionError> {
        let mut answers: Vec<Answer> = vec![Ok(Found::default()); keys.len()];
        let mut parts: Vec<Range<usize>> = std::iter::once(0..keys.len()).collect();
        let mut extra = 0;
        while let Some(part) = parts.pop() {
            self.group.counters.count_query(part.len(), plan.statements_for(part.len()));
            let result = connection.session.load(plan, &keys[part.clone()], deadline).await;
            match result {
                Ok(given) => answers[part].clone_from_slice(&given),
                Err(error) if !error.may_be_one_keys() => return Err(error),
                Err(_) if part.len() > 1 && extra < MAX_EXTRA_QUERIES => {
                    let middle = part.start + part.len() / 2;
                    parts.extend([middle..part.end, part.start..middle]);
                    extra += 2;
                }
                Err(error) => {
                    let problem = KeyProblem::Query(error.to_string().into());
                    answers[part].fill(Err(problem));
                }
            }
        }
        Ok(answers)
    }

    fn load_error(&self, error: SessionError) -> LoadError {
        match error {
            SessionError::TooSlow => LoadError::Timeout { limit: self.limits.load_timeout },
            other => self.group.load_error(&other),
        }
    }
}
