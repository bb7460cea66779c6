//! Queries that fail, and databases that do not answer.

use std::time::Duration;

use forebay_origin::{BreakerState, LoadError, Origin, OriginConfig};

use crate::shop::{self, group, heals, load, text};

#[tokio::test]
async fn errors_of_sql_name_the_group_and_do_not_open_the_breaker() {
    let postgres = shop::postgres().await;
    let groups = vec![
        group("gone", "gone:{id}", "SELECT x FROM missing WHERE id = $1", "string"),
        group("zero", "zero:{id}", "SELECT 1 / ($1::int - 1)", "string"),
        shop::names(),
    ];
    let origin = shop::origin(shop::patient(&postgres), groups).await;
    for _ in 0..10 {
        let gone = load(&origin, "gone:1").await.unwrap_err();
        assert_eq!(gone.reply(), "ORIGINERR group 'gone': relation \"missing\" does not exist");
        let zero = load(&origin, "zero:1").await.unwrap_err();
        assert_eq!(zero.reply(), "ORIGINERR group 'zero': division by zero");
    }
    assert_eq!(text(&origin, "name:1").await.as_deref(), Some("product 1"));
    assert_eq!(origin.status().targets[0].breaker, BreakerState::Closed);
    origin.close().await;
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_ended_by_the_database_too() {
    let postgres = shop::postgres().await;
    let slow = group("slow", "slow:{n}", "SELECT pg_sleep($1::float8 * 0 + 600)", "string");
    let config = OriginConfig { load_timeout: Duration::from_millis(500), ..shop::config(&postgres) };
    let origin = shop::origin(config, vec![slow]).await;
    let error = load(&origin, "slow:1").await.unwrap_err();
    assert_eq!(error, LoadError::Timeout { limit: Duration::from_millis(500) });
    assert!(error.reply().starts_with("ORIGINDOWN "), "{}", error.reply());
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND application_name = 'forebay'";
    let ended = async {
        while postgres.sql("postgres", running).await != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the database ends the query");
    origin.close().await;
}

#[tokio::test]
async fn a_database_that_is_down_at_the_start_is_used_once_it_is_up() {
    let mut postgres = shop::postgres().await;
    postgres.stop().await;
    let origin = shop::origin(shop::config(&postgres), vec![shop::names()]).await;
    let error = load(&origin, "name:1").await.unwrap_err();
    assert!(matches!(error, LoadError::Down { .. }), "{error:?}");
    assert!(error.reply().starts_with("ORIGINDOWN no origin can be reached: "), "{}", error.reply());
    postgres.start_again().await;
    heals(&origin, "name:1").await;
    origin.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_under_load_heals_and_the_cap_on_connections_holds_throughout() {
    let mut postgres = shop::postgres().await;
    let slow = group("slow", "slow:{id}", "SELECT name, pg_sleep(0.002) FROM products WHERE id = $1", "json");
    let config = OriginConfig { max_connections: 4, batch_max: 5, ..shop::config(&postgres) };
    let origin = std::sync::Arc::new(shop::origin(config, vec![slow]).await);
    let loading = load_for_ever(&origin, 50);
    most_connections(&postgres, &origin, 4).await;
    postgres.stop().await;
    forebay_test_postgres::wait_until("the breaker is open", || state(&origin) == BreakerState::Open).await;
    let refused = load(&origin, "slow:3000").await.unwrap_err();
    assert!(refused.is_origin_ill(), "{refused:?}");
    postgres.start_again().await;
    most_connections(&postgres, &origin, 4).await;
    forebay_test_postgres::wait_until("the breaker is closed", || state(&origin) == BreakerState::Closed).await;
    heals(&origin, "slow:1").await;
    most_connections(&postgres, &origin, 4).await;
    drop(loading);
    origin.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_loads_at_once_stay_within_the_cap() {
    let postgres = shop::postgres().await;
    let slow = group("slow", "slow:{id}", "SELECT pg_sleep(0.01), $1::int", "json");
    let config = OriginConfig { max_connections: 6, batch_max: 1, ..shop::patient(&postgres) };
    let origin = std::sync::Arc::new(shop::origin(config, vec![slow]).await);
    let mut loads = tokio::task::JoinSet::new();
    for id in 0..500 {
        let origin = std::sync::Arc::clone(&origin);
        loads.spawn(async move { load(&origin, format!("slow:{id}")).await.map(drop) });
    }
    let mut most = 0;
    while !loads.is_empty() {
        most = most.max(connections(&postgres).await);
        while let Some(loaded) = loads.try_join_next() {
            assert_eq!(loaded.unwrap(), Ok(()));
        }
    }
    assert!((1..=6).contains(&most), "{most} connections");
    origin.close().await;
    let none = async {
        while connections(&postgres).await != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), none).await.expect("closing closes the connections");
}

#[tokio::test]
async fn a_database_that_hangs_is_given_up_in_time_and_taken_back() {
    let postgres = shop::postgres().await;
    let config = OriginConfig { load_timeout: Duration::from_millis(300), ..shop::config(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    heals(&origin, "name:1").await;
    postgres.freeze(true).await;
    let mut loads = 0;
    while state(&origin) != BreakerState::Open {
        let error = load(&origin, format!("name:{loads}")).await.unwrap_err();
        assert!(error.is_origin_ill(), "{error:?}");
        loads += 1;
        assert!(loads < 200, "{:?}", origin.status());
    }
    postgres.freeze(false).await;
    heals(&origin, "name:1").await;
    forebay_test_postgres::wait_until("the breaker is closed", || state(&origin) != BreakerState::Open).await;
    origin.close().await;
}

fn state(origin: &Origin) -> BreakerState {
    origin.status().targets[0].breaker
}

async fn connections(postgres: &forebay_test_postgres::TestPostgres) -> u32 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'forebay'";
    postgres.sql("postgres", sql).await.parse().expect("a count is a number")
}

/// Looks a number of times that the database and the origin agree about the cap.
async fn most_connections(postgres: &forebay_test_postgres::TestPostgres, origin: &Origin, cap: u32) {
    for _ in 0..20 {
        let target = origin.status().targets.remove(0);
        assert!(target.in_use + target.idle <= cap, "{target:?}");
        assert!(connections(postgres).await <= cap);
    }
}

/// Tasks that load all the time, each another key; they end when the answer is dropped.
fn load_for_ever(origin: &std::sync::Arc<Origin>, tasks: usize) -> tokio::task::JoinSet<()> {
    let mut loading = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let origin = std::sync::Arc::clone(origin);
        loading.spawn(async move {
            let mut id = task;
            loop {
                id = (id + tasks) % 2000;
                // Whether it succeeds depends on whether the database is up.
                let _ = load(&origin, format!("slow:{id}")).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    loading
}
