//! The databases: which one is asked, how many queries run there at once, and the connections they run on.
//!
//! A query needs a [`Lease`]. Leases are what bounds connections: a lease uses an idle connection or opens one, so idle
//! connections and leases together never exceed the cap, also while a database recovers.
//!
//! sqlx's own pool is not used: it goes on dialling a database that refuses connections until the acquire timeout ends,
//! which would make every miss of an outage wait, and hide from the breaker what happened.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::breaker::{Admission, Breaker, BreakerState, Outcome, Pass};
use crate::config::OriginConfig;
use crate::latency::Latency;
use crate::load::TargetId;
use crate::session::{Connector, Session, SessionError, without_password};
use crate::status::{Role, TargetStatus};

/// A connection that was idle for longer is asked for a sign of life before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// How often idle connections are looked through.
const REAP_EVERY: Duration = Duration::from_secs(10);

/// All databases of an origin, the primary first.
#[derive(Debug)]
pub(crate) struct Targets {
    all: Vec<Target>,
    /// Signals that a lease ended or that a target was taken back.
    freed: Notify,
    /// Held by whoever is next to be granted a lease; the others wait for it in the order in which they came. Without it
    /// the group that asked last would most often be granted the lease that ended, and others wait until their loads
    /// time out.
    turn: tokio::sync::Mutex<()>,
    /// The same for the primary alone, which writes wait for.
    turn_of_primary: tokio::sync::Mutex<()>,
}

/// One database.
#[derive(Debug)]
pub(crate) struct Target {
    id: TargetId,
    shown_url: String,
    connector: Connector,
    limits: Limits,
    state: Mutex<State>,
    /// Signals that the breaker opened, so that a probe is due in time.
    opened: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    max_connections: u32,
    /// On connecting and on a sign of life: half of the load timeout, so that there is time for another target.
    timeout: Duration,
    idle_timeout: Duration,
    max_lifetime: Duration,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// The one used last is used next, so that a small load keeps few connections open.
    idle: Vec<Connection>,
    latency: Latency,
    queries: u64,
    failures: u64,
    last_failure: Arc<str>,
}

/// A session with its age.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) session: Session,
    born: Instant,
    idle_since: Instant,
}

/// Who may be asked now.
#[derive(Debug)]
pub(crate) enum Choice {
    Granted(Lease),
    /// Nobody yet: those that can answer have as much to do as they may.
    Busy,
    /// Nobody: all are ill, or were tried already. The reason is what the last one said.
    Refused(Arc<str>),
}

/// The right to run queries on a target, with at most one connection.
#[derive(Debug)]
pub(crate) struct Lease {
    targets: Arc<Targets>,
    index: usize,
    pass: Pass,
    idle: Option<Connection>,
    outcome: Outcome,
}

impl Targets {
    pub(crate) fn new(config: &OriginConfig, connectors: Vec<Connector>) -> Self {
        let limits = Limits {
            max_connections: config.max_connections,
            timeout: config.load_timeout / 2,
            idle_timeout: config.idle_timeout,
            max_lifetime: config.max_lifetime,
        };
        let all = (0..).zip(config.targets()).zip(connectors).map(|((id, url), connector)| Target {
            id: TargetId(id),
            shown_url: without_password(url),
            connector,
            limits,
            state: Mutex::new(State::new(Breaker::new(config.breaker, config.max_connections))),
            opened: Notify::new(),
        });
        Targets {
            all: all.collect(),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
            turn_of_primary: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn target(&self, id: TargetId) -> &Target {
        &self.all[usize::from(id.0)]
    }

    /// Resolves when somebody may be asked who could not be asked before. Make it before [`Targets::choose`] and enable
    /// it, or a change between the two is missed.
    pub(crate) fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }

    /// Waits until somebody may be asked, behind those who came before.
    ///
    /// # Errors
    /// When all targets are ill: what the last one said.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease, Arc<str>> {
        let _turn = self.turn.lock().await;
        self.lease_besides(&[]).await
    }

    /// The same for the primary alone.
    ///
    /// # Errors
    /// When it is ill: what it said.
    pub(crate) async fn lease_of_primary(self: &Arc<Self>) -> Result<Lease, Arc<str>> {
        let _turn = self.turn_of_primary.lock().await;
        let replicas: Vec<TargetId> = self.all.iter().skip(1).map(|target| target.id).collect();
        self.lease_besides(&replicas).await
    }

    async fn lease_besides(self: &Arc<Self>, tried: &[TargetId]) -> Result<Lease, Arc<str>> {
        loop {
            let freed = self.freed();
            tokio::pin!(freed);
            freed.as_mut().enable();
            match self.choose(tried) {
                Choice::Granted(lease) => return Ok(lease),
                Choice::Refused(reason) => return Err(reason),
                Choice::Busy => freed.await,
            }
        }
    }

    /// Chooses whom to ask, leaving out those of `tried`: the better of two replicas drawn at random, and the primary if
    /// no replica is in health. A healthy replica that is merely busy is waited for.
    pub(crate) fn choose(self: &Arc<Self>, tried: &[TargetId]) -> Choice {
        let now = Instant::now();
        let untried = |index: &usize| !tried.contains(&self.all[*index].id);
        let mut replicas: Vec<usize> = (1..self.all.len()).filter(untried).collect();
        self.order(&mut replicas, now);
        let mut busy = false;
        let primary = Some(0).filter(untried);
        for index in replicas.into_iter().chain(primary) {
            if index == 0 && busy {
                break;
            }
            let mut state = self.all[index].state.lock();
            match state.breaker.admit() {
                Admission::Granted(pass) => {
                    let idle = state.idle.pop();
                    drop(state);
                    return Choice::Granted(self.grant(index, pass, idle));
                }
                // One that is just being taken back is no reason to wait while another can answer.
                Admission::Busy if state.breaker.state() == BreakerState::Closed => busy = true,
                Admission::Busy | Admission::Refused => {}
            }
        }
        if busy || self.can_be_waited_for(tried) { Choice::Busy } else { Choice::Refused(self.last_failure()) }
    }

    /// Puts the better of two replicas, drawn at random, first.
    fn order(&self, replicas: &mut [usize], now: Instant) {
        if replicas.len() < 2 {
            return;
        }
        for place in 0..2 {
            let drawn = rand::random_range(place..replicas.len());
            replicas.swap(place, drawn);
        }
        let burden = |index: usize| {
            let state = self.all[index].state.lock();
            state.latency.estimate(now) * f64::from(state.breaker.running() + 1)
        };
        if burden(replicas[1]) < burden(replicas[0]) {
            replicas.swap(0, 1);
        }
    }

    /// Whether any of them is merely busy.
    fn can_be_waited_for(&self, tried: &[TargetId]) -> bool {
        self.all
            .iter()
            .filter(|target| !tried.contains(&target.id))
            .any(|target| matches!(target.state.lock().breaker.state(), BreakerState::Ramping | BreakerState::Closed))
    }

    fn last_failure(&self) -> Arc<str> {
        let said = self.all.iter().map(|target| Arc::clone(&target.state.lock().last_failure));
        said.filter(|words| !words.is_empty()).last().unwrap_or_else(|| "no target is left".into())
    }

    fn grant(self: &Arc<Self>, index: usize, pass: Pass, idle: Option<Connection>) -> Lease {
        Lease { targets: Arc::clone(self), index, pass, idle, outcome: Outcome::Unknown }
    }

    /// Looks after one target for as long as the origin lives: probes it while its breaker is open, and closes
    /// connections that nobody uses.
    pub(crate) async fn look_after(self: Arc<Self>, id: TargetId) {
        let target = self.target(id);
        loop {
            let opened = target.opened.notified();
            let due = target.state.lock().breaker.probe_due();
            let wake = due.unwrap_or_else(|| Instant::now() + REAP_EVERY);
            tokio::select! {
                () = tokio::time::sleep_until(wake.into()) => {}
                () = opened => continue,
            }
            if due.is_some() {
                self.probe(id).await;
            } else {
                target.reap().await;
            }
        }
    }

    async fn probe(self: &Arc<Self>, id: TargetId) {
        let index = usize::from(id.0);
        let pass = self.all[index].state.lock().breaker.admit_probe(Instant::now());
        let Some(pass) = pass else { return };
        let mut lease = self.grant(index, pass, None);
        if let Ok(mut connection) = lease.connect().await {
            match within(self.all[index].limits.timeout, connection.session.ping()).await {
                Ok(()) => lease.answered(connection),
                Err(error) => lease.failed(&error),
            }
        }
    }

    /// Closes the idle connections of all targets.
    pub(crate) async fn close(&self) {
        for target in &self.all {
            let idle = std::mem::take(&mut target.state.lock().idle);
            close_all(idle).await;
        }
    }

    pub(crate) fn status(&self) -> Vec<TargetStatus> {
        self.all.iter().map(Target::status).collect()
    }
}

impl Target {
    pub(crate) fn role(&self) -> Role {
        if self.id.0 == 0 { Role::Primary } else { Role::Replica }
    }

    /// The URL without its password.
    pub(crate) fn shown_url(&self) -> &str {
        &self.shown_url
    }

    /// Opens a connection outside the limits of leases, for `check`.
    pub(crate) async fn connect(&self) -> Result<Session, SessionError> {
        within(self.limits.timeout, self.connector.connect()).await
    }

    async fn reap(&self) {
        let now = Instant::now();
        let (kept, old) = {
            let mut state = self.state.lock();
            std::mem::take(&mut state.idle).into_iter().partition(|connection| self.may_live(connection, now))
        };
        self.take_back(kept);
        close_all(old).await;
    }

    /// Puts idle connections back below those that came in the meantime.
    fn take_back(&self, mut connections: Vec<Connection>) {
        let mut state = self.state.lock();
        connections.append(&mut state.idle);
        state.idle = connections;
    }

    fn may_live(&self, connection: &Connection, now: Instant) -> bool {
        now.duration_since(connection.idle_since) < self.limits.idle_timeout
            && now.duration_since(connection.born) < self.limits.max_lifetime
    }

    fn status(&self) -> TargetStatus {
        let state = self.state.lock();
        TargetStatus {
            id: self.id,
            url: self.shown_url.clone(),
            role: self.role(),
            breaker: state.breaker.state(),
            in_use: state.breaker.running(),
            idle: u32::try_from(state.idle.len()).unwrap_or(u32::MAX),
            max_connections: self.limits.max_connections,
            latency: state.latency.average(),
            queries: state.queries,
            failures: state.failures,
            openings: state.breaker.openings(),
            last_failure: state.last_failure.to_string(),
        }
    }
}

impl State {
    fn new(breaker: Breaker) -> Self {
        State {
            breaker,
            idle: Vec::new(),
            latency: Latency::default(),
            queries: 0,
            failures: 0,
            last_failure: "".into(),
        }
    }
}

impl Lease {
    pub(crate) fn target(&self) -> TargetId {
        self.of().id
    }

    /// A connection that is alive as far as one can know: an idle one, or a new one.
    pub(crate) async fn connection(&mut self) -> Result<Connection, SessionError> {
        let now = Instant::now();
        let Some(mut idle) = self.idle.take() else {
            return self.connect().await;
        };
        let is_fresh = now.duration_since(idle.idle_since) < TRUSTED_IDLE;
        if is_fresh || within(self.of().limits.timeout, idle.session.ping()).await.is_ok() {
            return Ok(idle);
        }
        self.connect().await
    }

    /// Opens a connection; what goes wrong is the target's failure.
    async fn connect(&mut self) -> Result<Connection, SessionError> {
        let now = Instant::now();
        match self.of().connect().await {
            Ok(session) => Ok(Connection { session, born: now, idle_since: now }),
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// The target answered; the connection can be used again.
    pub(crate) fn answered(&mut self, mut connection: Connection) {
        let now = Instant::now();
        self.outcome = Outcome::Answered;
        connection.idle_since = now;
        if self.of().may_live(&connection, now) {
            self.idle = Some(connection);
        }
    }

    /// The target answered `statements` statements, which together took this long.
    pub(crate) fn measured(&self, took: Duration, statements: usize) {
        let mut state = self.of().state.lock();
        state.latency.renew(Instant::now(), took);
        state.queries += statements as u64;
    }

    /// The target cannot be asked. Its idle connections most likely share the fate of this one, so they go too.
    pub(crate) fn failed(&mut self, error: &SessionError) {
        self.outcome = Outcome::Failed;
        let broken = {
            let mut state = self.of().state.lock();
            state.failures += 1;
            state.last_failure = error.to_string().into();
            std::mem::take(&mut state.idle)
        };
        drop(broken);
    }

    fn of(&self) -> &Target {
        &self.targets.all[self.index]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let target = &self.targets.all[self.index];
        let mut state = target.state.lock();
        let before = state.breaker.state();
        // The connection is put back first: idle connections and running leases never exceed the cap together.
        state.idle.extend(self.idle.take());
        state.breaker.finish(self.pass, self.outcome, Instant::now(), rand::random());
        let after = state.breaker.state();
        drop(state);
        if before != after {
            report(target, after);
        }
        if after == BreakerState::Open {
            target.opened.notify_one();
        }
        self.targets.freed.notify_waiters();
    }
}

fn report(target: &Target, state: BreakerState) {
    let reason = Arc::clone(&target.state.lock().last_failure);
    match state {
        BreakerState::Open => {
            tracing::warn!(target = target.shown_url, %reason, "the origin is not asked for now")
        }
        BreakerState::Closed => tracing::info!(target = target.shown_url, "the origin is back"),
        BreakerState::HalfOpen | BreakerState::Ramping => {
            tracing::info!(target = target.shown_url, ?state, "the origin is being taken back");
        }
    }
}

async fn close_all(connections: Vec<Connection>) {
    for connection in connections {
        // A database that does not answer a goodbye must not hold up the rest.
        let _ = tokio::time::timeout(TRUSTED_IDLE, connection.session.close()).await;
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, SessionError>>) -> Result<T, SessionError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(SessionError::Unreachable(format!("no answer within {limit:?}"))),
    }
}
