//! Replicas, and the primary as the fallback.

use std::time::Duration;

use forebay_origin::{BreakerState, OriginConfig, Role, TargetId};

use crate::shop::{self, heals, load};

const PRIMARY: Option<TargetId> = Some(TargetId(0));
const REPLICA: Option<TargetId> = Some(TargetId(1));

#[tokio::test]
async fn replicas_answer_and_the_primary_does_while_they_cannot() {
    let postgres = shop::postgres().await;
    let mut standby = postgres.standby().await;
    postgres.catch_up(&standby).await;
    let config = OriginConfig { replicas: vec![standby.url("postgres")], ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    for id in 1..=10 {
        assert_eq!(load(&origin, format!("name:{id}")).await.unwrap().target, REPLICA);
    }
    let status = origin.status();
    assert_eq!((status.targets[0].role, status.targets[1].role), (Role::Primary, Role::Replica));
    assert!(status.targets[1].latency.is_some() && status.targets[0].latency.is_none());

    standby.stop().await;
    for id in 1..=20 {
        assert_eq!(load(&origin, format!("name:{id}")).await.unwrap().target, PRIMARY, "no load fails meanwhile");
    }
    assert_ne!(origin.status().targets[1].breaker, BreakerState::Closed);

    standby.start_again().await;
    forebay_test_postgres::wait_until("the replica is probed", || {
        matches!(origin.status().targets[1].breaker, BreakerState::Ramping | BreakerState::Closed)
    })
    .await;
    let back = async {
        while load(&origin, "name:1").await.unwrap().target != REPLICA {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), back).await.expect("the replica is used again");
    origin.close().await;
}

#[tokio::test]
async fn of_two_replicas_the_faster_one_is_asked_more() {
    let postgres = shop::postgres().await;
    postgres.sql("postgres", "CREATE DATABASE slow TEMPLATE postgres").await;
    postgres.sql("postgres", "ALTER DATABASE slow SET forebay.delay = '0.02'").await;
    let config =
        OriginConfig { replicas: vec![postgres.url("postgres"), postgres.url("slow")], ..shop::patient(&postgres) };
    let delayed = shop::group(
        "delayed",
        "delayed:{id}",
        "SELECT name, pg_sleep(coalesce(current_setting('forebay.delay', true), '0')::float8) \
         FROM products WHERE id = $1",
        "json",
    );
    let origin = shop::origin(config, vec![delayed]).await;
    for id in 1..=60 {
        load(&origin, format!("delayed:{id}")).await.unwrap();
    }
    let status = origin.status();
    assert!(status.targets[1].queries > 2 * status.targets[2].queries, "{status:?}");
    assert!(status.targets[2].queries > 0, "the slower one is not forgotten either");
    origin.close().await;
}

#[tokio::test]
async fn a_replica_that_never_existed_is_no_hindrance() {
    let postgres = shop::postgres().await;
    let config =
        OriginConfig { replicas: vec!["postgres://postgres@127.0.0.1:1/postgres".into()], ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    heals(&origin, "name:1").await;
    for id in 1..=20 {
        assert_eq!(load(&origin, format!("name:{id}")).await.unwrap().target, PRIMARY);
    }
    let replica = &origin.status().targets[1];
    assert!(replica.openings > 0 && !replica.last_failure.is_empty(), "{replica:?}");
    origin.close().await;
}
