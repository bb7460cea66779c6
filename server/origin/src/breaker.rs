//! A circuit breaker with a slow reopening, as a pure state machine: time and chance are arguments.
//!
//! ```text
//!            failures in a row                  pause over, a probe goes out
//!  Closed ────────────────────▶ Open ────────────────────────────────────▶ HalfOpen
//!    ▲                           ▲ ▲                                         │  │
//!    │ the limit is the cap      │ └────────────────── failure ──────────────┘  │
//!    │                           │ failure, with a longer pause                 │ success
//!    └──────────────────────── Ramping ◀────────────────────────────────────────┘
//!                       the limit doubles, once per step
//! ```

use std::time::{Duration, Instant};

/// When a target counts as ill, and how it is taken back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerConfig {
    /// So many failures in a row, with no success between them, open the breaker.
    pub failures_to_open: u32,
    /// The pause before the first probe; it doubles with every probe that fails.
    pub first_pause: Duration,
    /// The pause never gets longer than this.
    pub longest_pause: Duration,
    /// While a target is taken back, the number of queries that may run at once doubles at most this often.
    pub ramp_step: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            failures_to_open: 5,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            ramp_step: Duration::from_millis(200),
        }
    }
}

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything, up to the cap on connections.
    Closed,
    /// Nothing.
    Open,
    /// One probe, which is under way.
    HalfOpen,
    /// A number of queries at once that grows step by step.
    Ramping,
}

/// The answer to a query that wants to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may; give the pass back with the outcome.
    Granted(Pass),
    /// Not now: as many as may are running.
    Busy,
    /// Not at all: the target is ill.
    Refused,
}

/// The right to run one query. It says in which of the breaker's states it was given, so that an outcome that
/// arrives late is not held against, or credited to, another state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pass {
    era: u64,
}

/// How a query ended, as far as the target's health goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target answered, be it with an error of SQL.
    Answered,
    /// The target could not be asked, or did not answer.
    Failed,
    /// It says nothing about the target.
    Unknown,
}

/// One target's breaker, which also counts what runs there.
#[derive(Debug)]
pub(crate) struct Breaker {
    config: BreakerConfig,
    /// The most queries at once, in any state.
    cap: u32,
    phase: Phase,
    /// Rises with every change of phase.
    era: u64,
    /// Queries that run now, whatever era their passes are from.
    running: u32,
    /// How many pauses have followed each other without a return to `Closed`.
    pauses: u32,
    openings: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
    Ramping { limit: u32, running: u32, raise_at: Instant },
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig, cap: u32) -> Self {
        Breaker { config, cap, phase: Phase::Closed { failures: 0 }, era: 0, running: 0, pauses: 0, openings: 0 }
    }

    /// Asks to run a query.
    pub(crate) fn admit(&mut self) -> Admission {
        let free = self.running < self.cap;
        match &mut self.phase {
            Phase::Open { .. } | Phase::HalfOpen => return Admission::Refused,
            Phase::Closed { .. } if free => {}
            Phase::Ramping { limit, running, .. } if free && *running < *limit => *running += 1,
            Phase::Closed { .. } | Phase::Ramping { .. } => return Admission::Busy,
        }
        self.running += 1;
        Admission::Granted(Pass { era: self.era })
    }

    /// Asks to probe a target whose pause is over.
    pub(crate) fn admit_probe(&mut self, now: Instant) -> Option<Pass> {
        let due = matches!(self.phase, Phase::Open { until } if until <= now);
        if !due || self.running >= self.cap {
            return None;
        }
        self.enter(Phase::HalfOpen);
        self.running += 1;
        Some(Pass { era: self.era })
    }

    /// When the next probe is due; `None` unless the breaker is open.
    pub(crate) fn probe_due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Open { until } => Some(until),
            _ => None,
        }
    }

    /// Takes a pass back. `chance`, from 0 to 1, spreads the pauses of several nodes.
    pub(crate) fn finish(&mut self, pass: Pass, outcome: Outcome, now: Instant, chance: f64) {
        self.running -= 1;
        if pass.era != self.era {
            return;
        }
        match (&mut self.phase, outcome) {
            (Phase::Closed { failures }, Outcome::Answered) => *failures = 0,
            (Phase::Closed { failures }, Outcome::Failed) => {
                *failures += 1;
                if *failures >= self.config.failures_to_open {
                    self.open(now, chance);
                }
            }
            (Phase::HalfOpen, Outcome::Answered) => {
                self.enter(Phase::Ramping { limit: 1, running: 0, raise_at: now + self.config.ramp_step });
                self.close_at_the_cap();
            }
            (Phase::Ramping { running, .. }, Outcome::Answered) => {
                *running -= 1;
                self.raise_limit(now);
            }
            (Phase::Ramping { running, .. }, Outcome::Unknown) => *running -= 1,
            (Phase::HalfOpen | Phase::Ramping { .. }, _) => self.open(now, chance),
            (Phase::Closed { .. } | Phase::Open { .. }, _) => {}
        }
    }

    /// What it lets through at present.
    pub(crate) fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen => BreakerState::HalfOpen,
            Phase::Ramping { .. } => BreakerState::Ramping,
        }
    }

    /// Queries that run now.
    pub(crate) fn running(&self) -> u32 {
        self.running
    }

    /// Times that it opened.
    pub(crate) fn openings(&self) -> u64 {
        self.openings
    }

    fn open(&mut self, now: Instant, chance: f64) {
        let pause = self.pause(chance);
        self.pauses = self.pauses.saturating_add(1);
        self.openings += 1;
        self.enter(Phase::Open { until: now + pause });
    }

    /// The pause doubles up to the longest one, and lies between a half and the whole of that.
    fn pause(&self, chance: f64) -> Duration {
        let doubled = self.config.first_pause.saturating_mul(2_u32.saturating_pow(self.pauses));
        doubled.min(self.config.longest_pause).mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }

    fn raise_limit(&mut self, now: Instant) {
        if let Phase::Ramping { limit, raise_at, .. } = &mut self.phase {
            if now >= *raise_at {
                *limit = limit.saturating_mul(2);
                *raise_at = now + self.config.ramp_step;
            }
        }
        self.close_at_the_cap();
    }

    fn close_at_the_cap(&mut self) {
        if matches!(self.phase, Phase::Ramping { limit, .. } if limit >= self.cap) {
            self.pauses = 0;
            self.enter(Phase::Closed { failures: 0 });
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BreakerConfig = BreakerConfig {
        failures_to_open: 3,
        first_pause: Duration::from_millis(100),
        longest_pause: Duration::from_millis(1000),
        ramp_step: Duration::from_millis(50),
    };

    fn granted(breaker: &mut Breaker) -> Pass {
        match breaker.admit() {
            Admission::Granted(pass) => pass,
            other => panic!("{other:?} in {breaker:?}"),
        }
    }

    fn run(breaker: &mut Breaker, outcome: Outcome, now: Instant) {
        let pass = granted(breaker);
        breaker.finish(pass, outcome, now, 1.0);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(CONFIG, 4);
        (0..3).for_each(|_| run(&mut breaker, Outcome::Failed, now));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG, 4);
        for outcome in [Outcome::Failed, Outcome::Failed, Outcome::Answered, Outcome::Failed, Outcome::Failed] {
            run(&mut breaker, outcome, now);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        run(&mut breaker, Outcome::Unknown, now);
        run(&mut breaker, Outcome::Failed, now);
        assert_eq!((breaker.state(), breaker.admit()), (BreakerState::Open, Admission::Refused));
        assert_eq!(breaker.probe_due(), Some(now + CONFIG.first_pause));
    }

    #[test]
    fn one_probe_goes_out_when_the_pause_is_over() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit_probe(now + Duration::from_millis(99)), None);
        let due = now + CONFIG.first_pause;
        assert!(breaker.admit_probe(due).is_some());
        assert_eq!((breaker.state(), breaker.admit()), (BreakerState::HalfOpen, Admission::Refused));
        assert_eq!(breaker.admit_probe(due), None);
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let due = breaker.probe_due().unwrap();
            pauses.push((due - now).as_millis());
            now = due;
            let probe = breaker.admit_probe(now).unwrap();
            breaker.finish(probe, Outcome::Failed, now, 1.0);
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_recovered_target_is_taken_back_step_by_step() {
        let mut now = Instant::now() + CONFIG.first_pause;
        let mut breaker = opened(now - CONFIG.first_pause);
        let probe = breaker.admit_probe(now).unwrap();
        breaker.finish(probe, Outcome::Answered, now, 1.0);
        for limit in [1, 2] {
            assert_eq!(breaker.state(), BreakerState::Ramping);
            let passes: Vec<Pass> = (0..limit).map(|_| granted(&mut breaker)).collect();
            assert_eq!(breaker.admit(), Admission::Busy);
            now += CONFIG.ramp_step;
            passes.into_iter().for_each(|pass| breaker.finish(pass, Outcome::Answered, now, 1.0));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn a_late_failure_of_an_earlier_era_changes_nothing() {
        let now = Instant::now();
        let mut breaker = Breaker::new(CONFIG, 4);
        let late = granted(&mut breaker);
        (0..3).for_each(|_| run(&mut breaker, Outcome::Failed, now));
        let due = breaker.probe_due().unwrap();
        breaker.finish(late, Outcome::Failed, due, 1.0);
        assert_eq!(breaker.probe_due(), Some(due));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit,
        Probe,
        Finish(usize, Outcome),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![Just(Outcome::Answered), Just(Outcome::Failed), Just(Outcome::Unknown)];
        prop_oneof![
            3 => Just(Step::Admit),
            1 => Just(Step::Probe),
            4 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Finish(which, outcome)),
            1 => (0_u64..300).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_cap_holds_and_it_can_always_heal(
            cap in 1_u32..6, steps in proptest::collection::vec(step(), 0..300), chance in 0.0..1.0_f64
        ) {
            let mut now = Instant::now();
            let mut breaker = Breaker::new(CONFIG, cap);
            let mut passes = Vec::new();
            for step in steps {
                match step {
                    Step::Admit => if let Admission::Granted(pass) = breaker.admit() { passes.push(pass) },
                    Step::Probe => passes.extend(breaker.admit_probe(now)),
                    Step::Finish(_, _) if passes.is_empty() => {}
                    Step::Finish(which, outcome) => {
                        let pass = passes.swap_remove(which % passes.len());
                        breaker.finish(pass, outcome, now, chance);
                    }
                    Step::Wait(millis) => now += Duration::from_millis(millis),
                }
                prop_assert_eq!(breaker.running() as usize, passes.len());
                prop_assert!(breaker.running() <= cap);
                if let Some(due) = breaker.probe_due() {
                    prop_assert!(due <= now + CONFIG.longest_pause);
                }
            }
            passes.drain(..).for_each(|pass| breaker.finish(pass, Outcome::Answered, now, chance));
            for _ in 0..20 {
                now += CONFIG.longest_pause;
                let probe = breaker.admit_probe(now);
                let query = match breaker.admit() { Admission::Granted(pass) => Some(pass), _ => None };
                probe.into_iter().chain(query).for_each(|pass| breaker.finish(pass, Outcome::Answered, now, chance));
            }
            prop_assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }
}
