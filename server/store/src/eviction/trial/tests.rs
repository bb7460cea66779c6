use super::*;
use crate::random::Random;
use crate::settings::Settings;

const KEYS: usize = 256;

/// Runs a trial of a shard of [`KEYS`] entries and tells the rule that is in force then.
fn rule_after(requests: usize, key_at: impl Fn(usize) -> u64) -> Rule {
    let settings = Settings::default();
    settings.learned().note_turnover(1_000);
    let mut trial = Trial::new(KEYS);
    for at in 0..requests {
        let moment = Moment { now: 1_000_000_000 + at as i64 * 4, settings: &settings, number: 0 };
        if at % KEYS == 0 {
            trial.fit(KEYS, &moment);
        }
        trial.read(Random::new(key_at(at)).next(), &moment);
    }
    settings.learned().rule()
}

#[test]
fn a_loop_is_for_frequency_and_a_moving_set_for_recency() {
    let drifting = |at: usize| (at / 4 + Random::new(at as u64).next() as usize % KEYS) as u64;
    assert_eq!(rule_after(40_000, drifting), Rule::Recency);
    assert_eq!(rule_after(40_000, |at| (at % (KEYS + KEYS / 10)) as u64), Rule::Frequency);
}

#[test]
fn the_rule_changes_with_the_requests() {
    let change = 40_000;
    let looping = |at: usize| 1_000_000 + (at % (KEYS + KEYS / 10)) as u64;
    let drifting = |at: usize| (at / 4 + Random::new(at as u64).next() as usize % KEYS) as u64;
    let key_at = |at: usize| if at < change { drifting(at) } else { looping(at) };
    assert_eq!(rule_after(2 * change, key_at), Rule::Frequency);
}

#[test]
fn models_hold_what_they_may_and_no_more() {
    let settings = Settings::default();
    let moment = Moment { now: 1_000_000_000, settings: &settings, number: 0 };
    let mut trial = Trial::new(100 * MOST_KEYS);
    trial.fit(100 * MOST_KEYS, &moment);
    let mut random = Random::new(1);
    (0..500_000).for_each(|_| trial.read(random.next(), &moment));
    for model in [&trial.by_frequency, &trial.by_recency] {
        assert!((MOST_KEYS / 2..=2 * MOST_KEYS).contains(&model.keys.len()), "{}", model.keys.len());
        assert!(model.keys.len() <= model.capacity);
    }
    trial.fit(50 * MOST_KEYS, &moment);
    assert!(trial.by_recency.keys.len() <= trial.by_recency.capacity);
}

#[test]
fn a_trial_is_made_anew_when_the_shard_has_outgrown_it() {
    let trial = Trial::new(MOST_KEYS);
    assert!(trial.fits(FEWEST_KEYS) && trial.fits(2 * MOST_KEYS) && !trial.fits(3 * MOST_KEYS));
    let trial = Trial::new(64 * MOST_KEYS);
    assert!(trial.fits(64 * MOST_KEYS) && trial.fits(40 * MOST_KEYS) && !trial.fits(8 * MOST_KEYS));
}
