//! Sequences of keys asked for, made from a seed.

use super::Draws;

/// Keys that a cache of `capacity` is asked for.
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) requests: Vec<u64>,
}

/// Keys that can be popular, for each that fits.
const KEYS_PER_PLACE: usize = 10;
/// Keys that are used once or so are told apart from the popular ones by this.
const PASSING: u64 = 1 << 40;

pub(super) fn all(capacity: usize, requests: usize) -> Vec<Workload> {
    let zipf = |exponent| Zipf::new(capacity * KEYS_PER_PLACE, exponent);
    let from = |name, make: &mut dyn FnMut(&mut Draws, usize) -> u64| {
        let mut draws = Draws::new(2026);
        Workload { name, requests: (0..requests).map(|at| make(&mut draws, at)).collect() }
    };
    let (flat, medium, steep) = (zipf(0.8), zipf(1.0), zipf(1.2));
    vec![
        from("zipf 0.8", &mut |draws, _| flat.draw(draws)),
        from("zipf 1.0", &mut |draws, _| medium.draw(draws)),
        from("zipf 1.2", &mut |draws, _| steep.draw(draws)),
        from("scans", &mut |draws, at| scanned(&medium, capacity, draws, at)),
        from("shift", &mut |draws, at| medium.draw(draws) + (at / (20 * capacity)) as u64 * PASSING),
        from("drift", &mut |draws, at| (at / 4 + draws.below(capacity * 12 / 10)) as u64),
        from("loop 1.1", &mut |_, at| (at % (capacity * 11 / 10)) as u64),
        from("loop 1.5", &mut |_, at| (at % (capacity * 15 / 10)) as u64),
        from("once", &mut |draws, at| if draws.below(2) == 0 { medium.draw(draws) } else { PASSING + at as u64 }),
        from("bursts", &mut |draws, at| {
            if draws.below(2) == 0 { medium.draw(draws) } else { PASSING + burst(draws, at) }
        }),
    ]
}

/// Popular keys, and now and then a run through as many others as fit.
fn scanned(popular: &Zipf, capacity: usize, draws: &mut Draws, at: usize) -> u64 {
    if at % (4 * capacity) < capacity { PASSING + at as u64 } else { popular.draw(draws) }
}

/// A new key in every eighth place, and again a few times soon after.
fn burst(draws: &mut Draws, at: usize) -> u64 {
    (at.saturating_sub(draws.below(1000)) / 8) as u64
}

/// Zipf's law: the n-th key is asked for with a probability proportional to n^−exponent.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(keys: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut up_to = |rank: usize| {
            sum += (rank as f64).powf(-exponent);
            sum
        };
        Zipf { cumulative: (1..=keys).map(&mut up_to).collect() }
    }

    fn draw(&self, draws: &mut Draws) -> u64 {
        let total = self.cumulative.last().copied().unwrap_or(0.0);
        let point = draws.unit() * total;
        self.cumulative.partition_point(|sum| *sum < point) as u64
    }
}
