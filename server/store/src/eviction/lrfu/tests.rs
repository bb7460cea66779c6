use super::*;
use crate::settings::Settings;

const START: UnixMillis = 1_000_000_000;
/// Milliseconds of a half-life of 2^10 ticks.
const HALF_LIFE: i64 = 1 << (10 + TICK_BITS);

fn settings() -> Settings {
    let settings = Settings::default();
    // 64 turnovers are a half-life.
    settings.learned().note_turnover((HALF_LIFE / 64) as u64);
    assert_eq!(settings.learned().half_life_bits(), 10);
    settings
}

fn at(now: UnixMillis, settings: &Settings) -> Moment<'_> {
    Moment { now, settings, number: 0 }
}

#[test]
fn the_half_life_follows_the_mean_of_the_shards_and_not_each() {
    let settings = settings();
    let tell = |turnover: i64, times: usize| {
        (0..times).for_each(|_| settings.learned().note_turnover((turnover / 64) as u64));
        settings.learned().half_life_bits()
    };
    // One shard in ten is twice as fast, and all are at the end of the range.
    for _ in 0..20 {
        assert_eq!(tell(HALF_LIFE / 2, 1), 10);
        assert_eq!(tell(HALF_LIFE, 9), 10);
    }
    assert_eq!(tell(4 * HALF_LIFE, 100), 11, "twice as long would only just be right");
    assert_eq!(tell(HALF_LIFE / 8, 200), 7);
}

#[test]
fn uses_are_counted_and_halved_at_each_multiple_of_the_half_life() {
    let settings = settings();
    let start = START - START % HALF_LIFE;
    let mut access = Lrfu::admitted(&at(start, &settings));
    (0..7).for_each(|_| access = Lrfu::touched(access, &at(start, &settings)));
    let uses_at = |access, now| u32::from(Lrfu::legacy(access, &at(now, &settings)));
    assert_eq!(uses_at(access, start + HALF_LIFE - 1), 8);
    assert_eq!(uses_at(access, start + HALF_LIFE), 4);
    assert_eq!(uses_at(access, start + 3 * HALF_LIFE), 1);
    assert_eq!(uses_at(access, start + 4 * HALF_LIFE), 0);
    access = Lrfu::touched(access, &at(start + HALF_LIFE, &settings));
    assert_eq!(uses_at(access, start + HALF_LIFE), 5);
    (0..1_000).for_each(|_| access = Lrfu::touched(access, &at(start, &settings)));
    assert_eq!(uses_at(access, start), MOST_USES);
}

#[test]
fn uses_on_probation_are_one_use() {
    let settings = settings();
    let mut access = Lrfu::arrived(2, &at(START, &settings));
    assert!(Lrfu::is_on_probation(access, START, &at(START, &settings)));
    assert!(!Lrfu::is_on_probation(access, START + 60_000, &at(START + 120_000, &settings)), "forgotten by the queue");
    (0..9).for_each(|_| access = Lrfu::touched(access, &at(START, &settings)));
    assert_eq!(Lrfu::legacy(access, &at(START, &settings)), 3);
    access = Lrfu::touched(Lrfu::settled(access), &at(START, &settings));
    assert_eq!(Lrfu::legacy(access, &at(START, &settings)), 4);
}

#[test]
fn a_newcomer_stays_by_more_uses_or_by_recency() {
    let settings = settings();
    let [one, two] = [0, 1].map(|legacy| Lrfu::arrived(legacy, &at(START, &settings)));
    let member = Lrfu::settled(one);
    assert!(Lrfu::outranks(two, member, &at(START, &settings)));
    assert!(!Lrfu::outranks(one, member, &at(START, &settings)));
    settings.learned().note_trial(-1_000);
    assert!(Lrfu::outranks(one, member, &at(START, &settings)));
}

#[test]
fn worth_is_uses_before_recency_or_recency_alone() {
    let settings = settings();
    let old = Lrfu::touched(Lrfu::admitted(&at(START, &settings)), &at(START, &settings));
    let new = Lrfu::admitted(&at(START + 1_000, &settings));
    let now = at(START + 1_000, &settings);
    assert!(Lrfu::worth(old, None, &now) > Lrfu::worth(new, None, &now));
    settings.learned().note_trial(-1_000);
    assert!(Lrfu::worth(old, None, &now) < Lrfu::worth(new, None, &now));
}

#[test]
fn a_rule_takes_over_only_by_a_lead_that_lasts() {
    let learned = Learned::default();
    (0..50).for_each(|n| learned.note_trial(if n % 2 == 0 { -20 } else { 20 }));
    assert_eq!(learned.rule(), Rule::Frequency);
    (0..20).for_each(|_| learned.note_trial(-4));
    assert_eq!(learned.rule(), Rule::Recency);
    (0..5).for_each(|_| learned.note_trial(4));
    assert_eq!(learned.rule(), Rule::Recency);
    (0..40).for_each(|_| learned.note_trial(4));
    assert_eq!(learned.rule(), Rule::Frequency);
}

#[test]
fn the_clock_may_wrap_or_be_set_back() {
    let settings = settings();
    let wraps_at = (1i64 << TIME_BITS) << TICK_BITS;
    let access = Lrfu::admitted(&at(wraps_at - 5_000, &settings));
    assert_eq!(Lrfu::idle_seconds(access, wraps_at + 5_000), Some(10));
    let access = Lrfu::admitted(&at(wraps_at + 60_000, &settings));
    assert_eq!(Lrfu::idle_seconds(access, wraps_at - 60_000), Some(0));
    assert_eq!(Lrfu::legacy(access, &at(wraps_at - 60_000, &settings)), 1);
}

#[test]
fn metadata_of_other_policies_is_judged_and_does_no_harm() {
    let settings = settings();
    for access in [0, 1, u32::MAX, 0x8000_0000, 0x7fff_ffff, 0xdead_beef] {
        for now in [0, START, START << 10] {
            let moment = at(now, &settings);
            let touched = Lrfu::touched(access, &moment);
            assert!(Lrfu::worth(touched, None, &moment) >= Lrfu::worth(access, None, &moment));
            assert!(u32::from(Lrfu::legacy(access, &moment)) <= MOST_USES);
        }
    }
}
