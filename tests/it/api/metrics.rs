//! What a scrape tells besides traffic: Redis and the replicas at that moment, refusals, and counters that begin at 0.

use serde_json::json;
use tokend::http::problem::Slug;

use super::Server;
use crate::harness::{Fixture, OwnRedis, eventually, skip};

/// The value of a series, by its full name.
async fn value(server: &Server, series: &str) -> Option<f64> {
    let body = server.get("/metrics").await.body;
    let mut lines = body.lines();
    let told = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    told.map(|value| value.parse().expect("a number"))
}

async fn refusals(server: &Server, pool: &str, verb: &str) -> Option<f64> {
    let series = format!("tokend_refusals_total{{pool=\"{pool}\",verb=\"{verb}\"}}");
    value(server, &series).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_counted_is_there_before_anything_happens() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("counters begin at 0", "no redis-server");
    };
    // Its own: on a Redis that is busy with others' tests a call may fail.
    let server = Server::on(Fixture::on(&redis.url).await).await;
    let mut series: Vec<String> = Slug::ALL
        .iter()
        .map(|slug| {
            format!(
                "tokend_http_problems_total{{problem=\"{}\"}}",
                slug.as_str()
            )
        })
        .collect();
    series.extend(
        ["unavailable", "unknown", "protocol"]
            .map(|kind| format!("tokend_store_errors_total{{kind=\"{kind}\"}}")),
    );
    series.extend(
        ["assign", "generate"]
            .map(|verb| format!("tokend_refusals_total{{pool=\"default\",verb=\"{verb}\"}}")),
    );
    series.push("tokend_redis_primaries{state=\"down\"}".to_owned());
    for series in series {
        assert_eq!(value(&server, &series).await, Some(0.0), "{series}");
    }
    for trigger in ["event", "timer"] {
        let series = format!("tokend_sweeps_total{{trigger=\"{trigger}\"}}");
        assert!(value(&server, &series).await.is_some(), "{series}");
    }
    let most = "tokend_pool_tokens_max{pool=\"default\"}";
    assert_eq!(value(&server, most).await, Some(10_000.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_counted_once_for_the_whole_pool() {
    let server =
        Server::with_seats(json!({"shards": 2, "max_tokens": 4, "lifetime": 600}), &[]).await;
    assert_eq!(refusals(&server, "seats", "assign").await, Some(0.0));
    // Shards are asked one after the other: that one of them is empty is no refusal.
    let seat = json!({"tokens": ["seat-1"]});
    server.seats("generate", seat).await.json(201);
    server.grant().await;
    assert_eq!(refusals(&server, "seats", "assign").await, Some(0.0));
    let refused = server.seats("assign", json!({})).await;
    refused.problem("no-token-available", 404);
    assert_eq!(refusals(&server, "seats", "assign").await, Some(1.0));
    // One that waits is asked for many times.
    let waits = server.seats("assign", json!({"wait_seconds": 0.1})).await;
    waits.problem("no-token-available", 404);
    assert_eq!(refusals(&server, "seats", "assign").await, Some(2.0));

    assert_eq!(refusals(&server, "seats", "generate").await, Some(0.0));
    let more = server.seats("generate", json!({"count": 4})).await;
    more.problem("pool-full", 409);
    assert_eq!(refusals(&server, "seats", "generate").await, Some(1.0));

    let series = |slug| format!("tokend_http_problems_total{{problem=\"{slug}\"}}");
    let none = value(&server, &series("no-token-available")).await;
    assert_eq!(none, Some(2.0));
    assert_eq!(value(&server, &series("pool-full")).await, Some(1.0));

    assert_eq!(server.delete("/v1/pools/seats").await.status, 204);
    assert_eq!(refusals(&server, "seats", "assign").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_and_the_replicas_are_told_of_as_they_are() {
    let Some(mut redis) = OwnRedis::start(&[]).await else {
        return skip("the gauges of Redis and the replicas", "no redis-server");
    };
    let server = Server::on(Fixture::on(&redis.url).await).await;
    let told = async || {
        let up = value(&server, "tokend_redis_primaries{state=\"up\"}").await;
        let down = value(&server, "tokend_redis_primaries{state=\"down\"}").await;
        let ready = value(&server, "tokend_ready").await;
        let replicas = value(&server, "tokend_replicas").await;
        [up, down, ready, replicas].map(|value| value.expect("a gauge"))
    };
    eventually("one replica", async || told().await == [1.0, 0.0, 1.0, 1.0]).await;
    let other = server.fixture.replica().await;
    eventually("two", async || told().await == [1.0, 0.0, 1.0, 2.0]).await;
    other.store.stop().await;
    eventually("one again", async || told().await == [1.0, 0.0, 1.0, 1.0]).await;
    redis.kill().await;
    eventually("Redis away", async || told().await == [0.0, 1.0, 0.0, 0.0]).await;
    redis.start_again().await;
    eventually("all again", async || told().await == [1.0, 0.0, 1.0, 1.0]).await;
    server.shutting_down.begin();
    assert_eq!(told().await, [1.0, 0.0, 0.0, 1.0]);
}
