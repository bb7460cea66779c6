//! How much each seat is to hold.

/// Divides `total` by weights into whole parts: each is its exact share, rounded down or up (the method of largest remainders, by
/// Hamilton).
pub(super) fn shares(weights: &[u32], total: usize) -> Vec<usize> {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let product = |weight: u32| u64::from(weight) * total as u64;
    let mut shares: Vec<_> = weights.iter().map(|weight| (product(*weight) / sum) as usize).collect();
    let mut by_remainder: Vec<_> = (0..weights.len()).collect();
    by_remainder.sort_by_key(|seat| (std::cmp::Reverse(product(weights[*seat]) % sum), *seat));
    let left = total - shares.iter().sum::<usize>();
    by_remainder.into_iter().take(left).for_each(|seat| shares[seat] += 1);
    shares
}

/// What seats hold of one kind, slots or copies, beside what they are to hold.
pub(super) struct Loads {
    held: Vec<usize>,
    quotas: Vec<usize>,
}

impl Loads {
    pub(super) fn new(quotas: Vec<usize>) -> Self {
        Loads { held: vec![0; quotas.len()], quotas }
    }

    pub(super) fn add(&mut self, seat: usize) {
        self.held[seat] += 1;
    }

    pub(super) fn remove(&mut self, seat: usize) {
        self.held[seat] -= 1;
    }

    /// Whether it may be given one more without having too many.
    pub(super) fn has_room(&self, seat: usize) -> bool {
        self.quotas[seat] > 0 && self.held[seat] < self.quotas[seat] + tolerance(self.quotas[seat])
    }

    pub(super) fn is_below_quota(&self, seat: usize) -> bool {
        self.held[seat] < self.quotas[seat]
    }

    pub(super) fn is_above_quota(&self, seat: usize) -> bool {
        self.held[seat] > self.quotas[seat]
    }

    /// Whether it has so few that others are to give it some.
    pub(super) fn is_starving(&self, seat: usize) -> bool {
        self.held[seat] + tolerance(self.quotas[seat]) < self.quotas[seat]
    }

    /// Whether it has so many that it is to give some away.
    pub(super) fn is_overloaded(&self, seat: usize) -> bool {
        self.held[seat] > self.quotas[seat] + tolerance(self.quotas[seat])
    }

    pub(super) fn seats(&self) -> std::ops::Range<usize> {
        0..self.quotas.len()
    }
}

/// How far a seat may be off its quota before anything is moved for its sake: a hundredth, since to move costs more than it gives.
fn tolerance(quota: usize) -> usize {
    quota / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_are_exact_but_for_rounding(weights in prop::collection::vec(0u32..5_000, 1..40), total in 0usize..20_000) {
            let (shares, sum) = (shares(&weights, total), weights.iter().map(|weight| f64::from(*weight)).sum::<f64>());
            prop_assume!(sum > 0.0);
            prop_assert_eq!(shares.iter().sum::<usize>(), total);
            for (weight, share) in weights.iter().zip(&shares) {
                let exact = f64::from(*weight) / sum * total as f64;
                prop_assert!((*share as f64 - exact).abs() < 1.0 + 1e-6, "{} instead of {}", share, exact);
            }
        }
    }
}
