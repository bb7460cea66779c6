//! Random commands against Forebay and a real redis-server side by side.
//!
//! `FOREBAY_DIFF_COMMANDS` says how many (20,000 by default), `FOREBAY_DIFF_SEED` where to start (1).

use std::env;
use std::time::Duration;

use forebay_redis_tests::differential::{Pair, Plan, compare};
use forebay_redis_tests::server::Target;

#[test]
fn forebay_answers_as_redis_server_does() {
    compare_with(Target::Forebay);
}

/// What redis-server itself may answer in two ways would be a fault of the comparison.
#[test]
fn redis_server_agrees_with_itself() {
    compare_with(Target::Redis);
}

fn compare_with(target: Target) {
    let (redis, other) = (Target::Redis.start(), target.start());
    let plan = Plan {
        seed: number("FOREBAY_DIFF_SEED").unwrap_or(1),
        commands: number("FOREBAY_DIFF_COMMANDS").map_or(20_000, |count| usize::try_from(count).expect("a count")),
        limit: Duration::from_secs(60),
    };
    println!("seed {}", plan.seed);
    if let Err(difference) = compare(plan, &mut Pair::new(redis.connect(), other.connect())) {
        panic!("{difference}");
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not `{text}`")))
}
