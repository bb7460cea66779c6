//! What a request and a key may cost: counts that repeat on any machine, held to budgets in every test run.
//!
//! They are taken from the binary that the tests use, of the dev profile, so they are no figures of a release; but what makes a
//! request dearer there makes it dearer here. When a change is worth what it costs, raise the budget and say why; when one has
//! made requests cheaper, lower it, so that the gain is kept.

use crate::callgrind::{Asked, Cost, Counter};
use crate::contender::{Contender, Groups, Kind};
use crate::load::workload::{self, Dataset, Workload};
use crate::memory::Footprint;
use forebay_redis_tests::server::forebay_binary;

/// Instructions of a GET that hits and of a SET, 16 of them a batch, values of 64 bytes: what was counted, and an eighth for other
/// compilers and processors.
const GET_INSTRUCTIONS: f64 = 15_790.0 * 1.125;
const SET_INSTRUCTIONS: f64 = 16_940.0 * 1.125;

/// Bytes that a key of 15 bytes with a value of 8 may take beyond those.
const KEY_OVERHEAD: f64 = 32.0;

/// Keys that [`KEY_OVERHEAD`] is the average of.
const KEYS: usize = 1_000_000;

/// What a hit may cost with groups configured, of what it costs without.
const GROUPS_RATIO: f64 = 1.05;

/// Allocations of a hit: none, but for one of a whole run.
const ALLOCATIONS: f64 = 0.001;

const REQUESTS: usize = 2000;

fn asked(workload: Workload) -> Asked {
    Asked { workload, pipeline: 16, value_bytes: 64, requests: REQUESTS }
}

fn forebay(groups: Groups) -> Kind {
    Kind::Forebay { binary: forebay_binary(), threads: 1, groups }
}

/// The cost of each workload; none where valgrind cannot run.
fn costs<const N: usize>(groups: Groups, workloads: [Workload; N]) -> Option<[Cost; N]> {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("NOT TESTED: valgrind is missing; redis-tests/scripts/setup installs it");
        return None;
    }
    let mut counter = Counter::start(&forebay(groups)).unwrap_or_else(|failure| panic!("{failure}"));
    Some(workloads.map(|workload| {
        let cost = counter.cost(&asked(workload)).unwrap_or_else(|failure| panic!("{failure}"));
        println!("{workload}, {groups:?}: {cost:?}");
        cost
    }))
}

#[test]
fn a_request_keeps_to_its_budget_and_a_hit_allocates_nothing() {
    let Some([get, set]) = costs(Groups::None, [Workload::Get, Workload::Set]) else {
        return;
    };
    assert!(get.allocations < ALLOCATIONS, "a hit makes {} allocations", get.allocations);
    for (cost, budget) in [(get, GET_INSTRUCTIONS), (set, SET_INSTRUCTIONS)] {
        assert!(cost.instructions <= budget, "{} instructions are more than {budget}", cost.instructions);
    }
}

#[test]
fn groups_cost_a_hit_next_to_nothing() {
    const WORKLOADS: [Workload; 3] = [Workload::Get, Workload::Incr, Workload::Hset];
    let counted = [Groups::None, Groups::Matching].map(|groups| costs(groups, WORKLOADS));
    let [Some(plain), Some(grouped)] = counted else {
        return;
    };
    for ((workload, plain), grouped) in WORKLOADS.into_iter().zip(plain).zip(grouped) {
        let ratio = grouped.instructions / plain.instructions;
        println!("{workload}: {ratio:.3} of what it costs without groups");
        assert!(ratio <= GROUPS_RATIO, "a hit of {workload} costs {ratio:.3} of what it costs without groups");
    }
}

#[test]
fn a_key_keeps_to_its_budget_of_bytes() {
    let dataset = Dataset { kind: workload::Kind::Strings, value_bytes: 8, keys: KEYS };
    let mut server = Contender::start("forebay", &forebay(Groups::None)).unwrap_or_else(|error| panic!("{error}"));
    let before = Footprint::of(&server).unwrap_or_else(|failure| panic!("{failure}"));
    server.hold(&dataset).unwrap_or_else(|error| panic!("{error}"));
    let after = Footprint::of(&server).unwrap_or_else(|failure| panic!("{failure}"));
    let over = (after.used - before.used) as f64 / KEYS as f64 - dataset.bytes_each() as f64;
    println!("{over:.1} bytes over those of key and value");
    assert!(over <= KEY_OVERHEAD, "a key takes {over:.1} bytes over its own");
}
