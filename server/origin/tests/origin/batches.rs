//! Misses that arrive together become one query.

use std::sync::Arc;
use std::time::Duration;

use forebay_origin::{LoadError, OriginConfig, PendingLoad, Value};
use futures_util::future::join_all;

use crate::shop::{self, calls, group, load, text};

/// Wide enough for a test's misses to arrive together, however busy the machine is.
const WINDOW: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_hundred_keys_are_one_query_and_two_groups_are_two() {
    let postgres = shop::postgres().await;
    let prices = group("price", "price:{id}", "SELECT price FROM products WHERE id = $1", "string");
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names(), prices]).await;
    let names = join_all((1..=100).map(|id| text(&origin, format!("name:{id}"))));
    let prices = join_all((1..=50).map(|id| text(&origin, format!("price:{id}"))));
    let (names, prices) = tokio::join!(names, prices);
    for (id, name) in (1..).zip(names) {
        assert_eq!(name, (id != 7).then(|| format!("product {id}")));
    }
    assert_eq!(prices[2].as_deref(), Some("4.50"));
    assert_eq!(calls(&postgres, "SELECT name FROM products").await, 1);
    assert_eq!(calls(&postgres, "SELECT price FROM products").await, 1);
    let status = &origin.status().groups[0];
    assert_eq!((status.queries, status.keys, status.batched, status.batch_sizes[7]), (1, 100, Some(true), 1));
    origin.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_that_are_begun_together_are_one_query_without_any_window() {
    let postgres = shop::postgres().await;
    let config = OriginConfig { batch_window: Duration::ZERO, batch_max: 100, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    let group = origin.group_of(b"name:1").expect("the group has the key");
    let keys = (101..=350).map(|id| (group, format!("name:{id}").into()));
    let loads = join_all(origin.begin(keys).into_iter().map(PendingLoad::result)).await;
    for (id, loaded) in (101..).zip(loads) {
        let value = Value::String(format!("product {id}").into());
        assert_eq!(loaded.expect("the key can be loaded").value, Some(value));
    }
    assert_eq!(calls(&postgres, "SELECT name FROM products").await, 3);
    origin.close().await;
}

/// With one connection for many groups, none waits while another is asked for again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_wait_for_a_connection_take_turns() {
    const GROUPS: usize = 8;
    const LOADS: usize = 60;
    let postgres = shop::postgres().await;
    let config = OriginConfig { max_connections: 1, batch_window: Duration::ZERO, ..shop::patient(&postgres) };
    let query = "SELECT name FROM products WHERE id = $1 AND (SELECT pg_sleep(0.002)) IS NOT NULL";
    let groups = (0..GROUPS).map(|n| group(&format!("g{n}"), &format!("g{n}:{{id}}"), query, "string")).collect();
    let origin = Arc::new(shop::origin(config, groups).await);
    let (done, mut order) = tokio::sync::mpsc::channel(GROUPS * LOADS);
    let clients = (0..GROUPS).map(|group| {
        let (origin, done) = (Arc::clone(&origin), done.clone());
        tokio::spawn(async move {
            for id in 1..=LOADS {
                load(&origin, format!("g{group}:{id}")).await.expect("the key can be loaded");
                done.send(group).await.expect("the test listens");
            }
        })
    });
    join_all(clients).await.into_iter().for_each(|client| client.expect("a client does not panic"));
    drop(done);
    let mut last = [None; GROUPS];
    let mut longest = 0;
    for place in 0..GROUPS * LOADS {
        let group = order.recv().await.expect("every load was told");
        let before = last[group].replace(place).unwrap_or(0);
        longest = longest.max(place - before);
    }
    assert!(longest <= 2 * GROUPS, "a group waited while {longest} loads of others were answered");
    origin.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_keys_of_ten_clients_are_few_queries() {
    let postgres = shop::postgres().await;
    let origin = Arc::new(shop::origin(shop::patient(&postgres), vec![shop::names()]).await);
    let clients = (0..10).map(|client| {
        let origin = Arc::clone(&origin);
        tokio::spawn(
            async move { join_all((1..=100).map(|n| text(&origin, format!("name:{}", client * 100 + n)))).await },
        )
    });
    for client in join_all(clients).await {
        assert!(client.unwrap().iter().filter(|name| name.is_some()).count() >= 99);
    }
    let queries = calls(&postgres, "FROM products").await;
    assert!(queries <= 20, "{queries} queries");
    origin.close().await;
}

#[tokio::test]
async fn a_full_batch_does_not_wait_for_its_window_and_a_key_is_asked_once() {
    let postgres = shop::postgres().await;
    let config = OriginConfig { batch_window: Duration::from_secs(20), batch_max: 10, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    // Every key is asked for twice, but for the tenth, with which the batch is full.
    let keys = (0..19).map(|n| format!("name:{}", n / 2 + 100));
    let loads = join_all(keys.map(|key| text(&origin, key)));
    let names = tokio::time::timeout(Duration::from_secs(15), loads).await.expect("the full batch goes out at once");
    assert!(names.iter().all(Option::is_some));
    let status = &origin.status().groups[0];
    assert_eq!((status.loads, status.keys), (19, 10));
    origin.close().await;
}

#[tokio::test]
async fn a_key_that_makes_the_query_fail_fails_alone() {
    let postgres = shop::postgres().await;
    let address = group("inet", "inet:{address*}", "SELECT host($1::text::inet)", "string");
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![address]).await;
    let keys = (0..64).map(|n| if n == 21 { "inet:bad".to_owned() } else { format!("inet:10.0.0.{n}") });
    let loads = join_all(keys.map(|key| {
        let origin = &origin;
        async move { load(origin, key).await }
    }))
    .await;
    for (n, loaded) in loads.iter().enumerate() {
        match loaded {
            Err(error @ LoadError::Query { .. }) => assert!(n == 21 && error.to_string().contains("inet"), "{error}"),
            loaded => assert!(n != 21 && loaded.is_ok(), "{n}: {loaded:?}"),
        }
    }
    origin.close().await;
}

#[tokio::test]
async fn a_query_that_cannot_be_wrapped_is_asked_key_by_key() {
    let postgres = shop::postgres().await;
    let groups = vec![
        group("touch", "touch:{id}", "UPDATE products SET sold = true WHERE id = $1 RETURNING name", "string"),
        group("nth", "nth:{n}", "SELECT id FROM products ORDER BY id LIMIT 1 OFFSET $1", "string"),
    ];
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, groups).await;
    let touched = join_all((1..=5).map(|id| text(&origin, format!("touch:{id}")))).await;
    assert_eq!(touched.into_iter().flatten().count(), 5);
    assert_eq!(text(&origin, "nth:8").await.as_deref(), Some("9"), "a row's number can be wrapped");
    let [touch, nth] = &origin.status().groups[..] else { panic!("there are two groups") };
    assert_eq!((touch.batched, touch.queries, nth.batched), (Some(false), 5, Some(true)));
    origin.close().await;
}

#[tokio::test]
async fn a_caller_that_leaves_costs_the_others_nothing() {
    let postgres = shop::postgres().await;
    let config = OriginConfig { batch_window: WINDOW, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    let leaves = tokio::time::timeout(Duration::from_millis(1), load(&origin, "name:1"));
    let (left, stays, other) = tokio::join!(leaves, text(&origin, "name:1"), text(&origin, "name:2"));
    assert!(left.is_err());
    assert_eq!((stays.as_deref(), other.as_deref()), (Some("product 1"), Some("product 2")));
    assert_eq!(origin.status().waiting_loads, 0);
    origin.close().await;
}

#[tokio::test]
async fn loads_beyond_the_cap_are_refused_and_after_closing_all_are() {
    let postgres = shop::postgres().await;
    let config = OriginConfig { batch_window: WINDOW, max_waiting_loads: 3, ..shop::patient(&postgres) };
    let origin = shop::origin(config, vec![shop::names()]).await;
    let loads = join_all((1..=5).map(|id| {
        let origin = &origin;
        async move { load(origin, format!("name:{id}")).await }
    }))
    .await;
    let refused = loads.iter().filter(|loaded| matches!(loaded, Err(LoadError::TooManyWaiting { limit: 3 }))).count();
    assert_eq!((refused, origin.status().refused_loads), (2, 2));
    origin.close().await;
    assert_eq!(load(&origin, "name:1").await, Err(LoadError::Closed));
}
