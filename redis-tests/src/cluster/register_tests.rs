use std::collections::HashSet;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::*;

// ---- histories written by hand: `begin..end`, in microseconds ------------------------------------

fn at(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

fn event(times: std::ops::Range<u64>, call: Call, outcome: Outcome) -> Event {
    Event { client: 0, key: 0, call, outcome, began: at(times.start), ended: at(times.end) }
}

fn write(times: std::ops::Range<u64>, value: u64) -> Event {
    event(times, Call::Write(value), Outcome::Written)
}

fn lost(times: std::ops::Range<u64>, value: u64) -> Event {
    event(times, Call::Write(value), Outcome::Unknown("closed".to_owned()))
}

fn refused(times: std::ops::Range<u64>, value: u64) -> Event {
    event(times, Call::Write(value), Outcome::Refused("CLUSTERDOWN".to_owned()))
}

fn read(times: std::ops::Range<u64>, value: u64) -> Event {
    event(times, Call::Read, Outcome::Seen(Some(value)))
}

fn nothing(times: std::ops::Range<u64>) -> Event {
    event(times, Call::Read, Outcome::Seen(None))
}

fn verdict(events: Vec<Event>) -> Option<Violation> {
    violations(&History { events }).pop()
}

#[test]
fn good_histories_are_accepted() {
    let good = [
        vec![],
        vec![nothing(1..2), write(3..4, 1), read(5..6, 1)],
        // While a write is under way a read may see it or not, and then another one may have to.
        vec![write(1..10, 1), nothing(2..3), read(4..5, 1), read(6..12, 1)],
        // Two writes at the same time may take effect in either order.
        vec![write(1..10, 1), write(2..9, 2), read(11..12, 1), read(13..14, 1)],
        vec![write(1..10, 1), write(2..9, 2), read(11..12, 2)],
        // A lost write may take effect late, or never.
        vec![lost(1..2, 1), write(3..4, 2), read(5..6, 2), read(7..8, 1)],
        vec![lost(1..2, 1), write(3..4, 2), read(5..6, 2)],
        vec![refused(1..2, 1), nothing(3..4)],
    ];
    for events in good {
        assert!(is_linearizable_by_search(&events), "the search: {events:#?}");
        assert!(verdict(events).is_none());
    }
}

#[test]
fn bad_histories_are_refused() {
    let bad: [(Vec<Event>, Kind); 9] = [
        // A stale read.
        (vec![write(1..2, 1), write(3..4, 2), read(5..6, 1)], Kind::Circle),
        // An acknowledged write is gone.
        (vec![write(1..2, 1), nothing(3..4)], Kind::Circle),
        // Seen, and then not seen.
        (vec![write(1..10, 1), read(2..3, 1), nothing(4..5)], Kind::Circle),
        // Two readers disagree about the order of two writes.
        (vec![write(1..20, 1), write(1..20, 2), read(2..3, 1), read(4..5, 2), read(6..7, 1)], Kind::Circle),
        // A lost write that took effect, and then did not.
        (vec![write(1..2, 1), lost(3..4, 2), read(5..6, 2), read(7..8, 1)], Kind::Circle),
        // A write that began and ended while another value was to be seen before and after.
        (vec![write(1..2, 1), read(3..4, 1), write(5..6, 2), read(7..8, 1)], Kind::Circle),
        (vec![read(1..2, 7)], Kind::Invented),
        (vec![read(1..2, 1), write(3..4, 1)], Kind::FromTheFuture),
        (vec![refused(1..2, 1), read(3..4, 1)], Kind::RefusedSeen),
    ];
    for (events, kind) in bad {
        let violation = verdict(events.clone()).unwrap_or_else(|| panic!("accepted: {events:#?}"));
        assert_eq!(violation.kind, kind, "{violation}");
    }
}

#[test]
fn keys_do_not_mix() {
    let elsewhere = Event { key: 1, ..write(3..4, 2) };
    assert!(verdict(vec![write(1..2, 1), elsewhere.clone(), read(5..6, 1)]).is_none());
    assert!(verdict(vec![write(1..2, 1), elsewhere, read(5..6, 2)]).is_some());
}

// ---- histories of a real register ----------------------------------------------------------------

/// Calls to one atomic register: each takes effect at one moment between its begin and its end, or, when its outcome is unknown, later or never.
fn simulated(random: &mut StdRng, clients: u32, calls: u32) -> Vec<Event> {
    let mut planned = Vec::new();
    for client in 0..clients {
        let mut now = random.random_range(1..50);
        for number in 0..calls {
            let (began, effect) = (now, now + random.random_range(0..40));
            let ended = effect + random.random_range(0..40);
            now = ended + random.random_range(1..30);
            planned.push((effect, client, number, began..ended));
        }
    }
    let mut effects: Vec<(u64, Event)> = Vec::new();
    for (effect, client, number, times) in planned {
        let value = (u64::from(client) << 32) | u64::from(number);
        let (effect, one) = match random.random_range(0..10) {
            0 => (u64::MAX, lost(times, value)),
            1 => (effect + random.random_range(0..200), lost(times, value)),
            2..5 => (effect, write(times, value)),
            _ => (effect, nothing(times)),
        };
        effects.push((effect, Event { client, ..one }));
    }
    effects.sort_by_key(|(effect, event)| (*effect, event.client));
    let mut register = None;
    for (effect, event) in &mut effects {
        match event.call {
            Call::Write(value) if *effect < u64::MAX => register = Some(value),
            Call::Write(_) => {}
            Call::Read => event.outcome = Outcome::Seen(register),
        }
    }
    effects.into_iter().map(|(_, event)| event).collect()
}

/// Reads, each with a value that had surely been replaced when the read began.
fn stale_values(events: &[Event]) -> Vec<(usize, u64)> {
    let acknowledged = || events.iter().filter(|event| event.outcome == Outcome::Written);
    let reads = events.iter().enumerate().filter(|(_, event)| event.call == Call::Read);
    let mut stale = Vec::new();
    for (place, read) in reads {
        for newer in acknowledged().filter(|newer| newer.ended < read.began) {
            let older = acknowledged().filter(|older| older.ended < newer.began);
            stale.extend(older.filter_map(|older| match older.call {
                Call::Write(value) => Some((place, value)),
                Call::Read => None,
            }));
        }
    }
    stale
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_a_real_register_did_is_accepted(seed: u64, clients in 1..12u32, calls in 1..80u32) {
        let events = simulated(&mut StdRng::seed_from_u64(seed), clients, calls);
        let violation = verdict(events);
        prop_assert!(violation.is_none(), "{}", violation.expect("there is one"));
    }

    #[test]
    fn one_read_of_an_older_value_is_found(seed: u64, clients in 1..8u32, calls in 8..30u32) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut events = simulated(&mut random, clients, calls);
        if let Some((place, value)) = stale_values(&events).choose(&mut random) {
            events[*place].outcome = Outcome::Seen(Some(*value));
            prop_assert!(verdict(events).is_some());
        }
    }

    /// Whatever one read is made to have seen, the search over all orders comes to the same verdict.
    #[test]
    fn the_search_agrees(seed: u64, clients in 1..5u32, calls in 1..5u32) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut events = simulated(&mut random, clients, calls);
        let values: Vec<Option<u64>> = events.iter().map(|event| match event.call {
            Call::Write(value) => Some(value),
            Call::Read => None,
        }).collect();
        let reads: Vec<usize> = (0..events.len()).filter(|place| events[*place].call == Call::Read).collect();
        if let Some(place) = reads.choose(&mut random) {
            events[*place].outcome = Outcome::Seen(*values.choose(&mut random).expect("there are events"));
        }
        prop_assert_eq!(is_linearizable_by_search(&events), verdict(events.clone()).is_none(), "{:#?}", events);
    }
}

// ---- the search ----------------------------------------------------------------------------------

/// The search of Wing and Gong with the memory of Lowe: which sets of calls, leaving which value, have been tried already.
fn is_linearizable_by_search(events: &[Event]) -> bool {
    let events: Vec<&Event> = events.iter().filter(|event| !matches!(event.outcome, Outcome::Refused(_))).collect();
    assert!(events.len() <= 64, "a set of calls is the bits of one number");
    let is_definite = |event: &Event| !matches!(event.outcome, Outcome::Unknown(_));
    let definite: u64 = (0..events.len()).filter(|place| is_definite(events[*place])).map(|place| 1 << place).sum();
    let end = |event: &Event| if is_definite(event) { event.ended } else { Duration::MAX };
    let mut tried = HashSet::new();
    let mut open = vec![(0u64, None)];
    while let Some((done, value)) = open.pop() {
        if done & definite == definite {
            return true;
        }
        if !tried.insert((done, value)) {
            continue;
        }
        let left = || (0..events.len()).filter(|place| done & (1 << place) == 0);
        let earliest_end = left().map(|place| end(events[place])).min().expect("something is left");
        for place in left().filter(|place| events[*place].began <= earliest_end) {
            match (events[place].call, &events[place].outcome) {
                (Call::Write(written), _) => open.push((done | 1 << place, Some(written))),
                (Call::Read, Outcome::Seen(seen)) if *seen == value => open.push((done | 1 << place, value)),
                (Call::Read, _) => {}
            }
        }
    }
    false
}
