//! What the database has replaced is not served, whatever happens; and the checker that says so finds it when one guard is missing.

use std::time::Duration;

use forebay_redis_tests::checker::faults::Fault;
use forebay_redis_tests::checker::guard::{MUTATIONS, Mutation};
use forebay_redis_tests::checker::{self, Check, cache_aside};
use forebay_redis_tests::sizes;

/// Sessions that change rows, and how many transactions a second one is asked for when more are wanted: the others wait for their commits.
const WRITERS: u64 = 8;
const COMMITS_OF_A_WRITER: f64 = 10.0;

/// Time in which a missing guard must be found.
const MUST_SHOW: Duration = Duration::from_secs(120);

fn the_check() -> Check {
    Check {
        seed: sizes::seed(),
        lasts: sizes::check_time(),
        keys: 300,
        readers: sizes::check_readers(),
        writers: WRITERS.max((sizes::check_commits() / COMMITS_OF_A_WRITER) as u64),
        rate: sizes::check_commits(),
        faults: faults(),
        mutation: None,
    }
}

/// The faults that `FOREBAY_FAULTS` names, `all` of them, or else those of the database.
fn faults() -> Vec<Fault> {
    match std::env::var("FOREBAY_FAULTS").as_deref() {
        Err(_) => Fault::ALL.into_iter().filter(|fault| fault.is_of_the_database()).collect(),
        Ok("all") => Fault::ALL.to_vec(),
        Ok(named) => named.split(',').map(fault).collect(),
    }
}

/// A name that is none must not make a check of nothing.
fn fault(name: &str) -> Fault {
    let found = Fault::ALL.into_iter().find(|fault| name == format!("{fault:?}"));
    found.unwrap_or_else(|| panic!("FOREBAY_FAULTS names {name:?}, which is none of {:?}", Fault::ALL))
}

/// The guards that are taken away one after the other: the one that `FOREBAY_GUARD` names, or else all.
fn mutations() -> Vec<Mutation> {
    let Ok(name) = std::env::var("FOREBAY_GUARD") else { return MUTATIONS.to_vec() };
    let found = MUTATIONS.iter().find(|mutation| mutation.guard == name);
    let guards = || MUTATIONS.iter().map(|mutation| mutation.guard).collect::<Vec<_>>();
    vec![*found.unwrap_or_else(|| panic!("FOREBAY_GUARD names {name:?}, which is none of {:?}", guards()))]
}

#[test]
fn nothing_that_was_replaced_is_served() {
    let check = the_check();
    println!("seed {}", check.seed);
    let report = checker::check(&check);
    println!("Forebay: {report}");
    assert!(!report.is_red(), "seed {}", check.seed);
    assert!(report.reads > 1_000 && report.commits > 100, "there was too little to see");
}

#[test]
fn cache_aside_leaves_stale_keys_behind() {
    let check = the_check();
    println!("seed {}", check.seed);
    let report = cache_aside::check(&check);
    println!("redis-server with cache-aside: {report}");
    assert!(report.is_red(), "seed {}: it was right by chance", check.seed);
}

#[test]
fn each_guard_is_needed() {
    let mut green = Vec::new();
    println!("| without | what happened | found after | by |\n| --- | --- | ---: | --- |");
    for mutation in mutations() {
        let report = checker::check(&without(mutation));
        let found = report.faults.iter().chain(&report.different).next();
        let by = found.map_or("NOT FOUND", String::as_str);
        println!("| {} | {:?} | {:.0?} | {by} |", mutation.guard, mutation.faults, report.took);
        if found.is_none() {
            green.push(mutation.guard);
        }
    }
    assert!(green.is_empty(), "nobody noticed that these were missing: {green:?}");
}

fn without(mutation: Mutation) -> Check {
    // So many keys that what was not told of a key is not soon healed by its next change.
    Check { keys: 1000, faults: mutation.faults.to_vec(), mutation: Some(mutation), lasts: MUST_SHOW, ..the_check() }
}
