//! A Redis that forgets the scripts, on a server of its own: SCRIPT FLUSH hits everybody.

use std::sync::atomic::{AtomicBool, Ordering};

use fred::prelude::*;
use futures_util::future::join_all;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn every_verb_heals_between_calls() {
    let Some(own) = OwnRedis::start(&[]).await else {
        return skip("every_verb_heals_between_calls", "no redis-server");
    };
    let f = Fixture::on(&own.url).await;
    let flush = async || f.redis.script_flush(false).await.expect("flush");
    flush().await;
    let p = f.pool("seats", policy(60, 300, 20)).await;
    flush().await;
    f.import(&p, &["a", "b"]).await;
    flush().await;
    let grant = f.granted(&p, named("a")).await;
    flush().await;
    assert_eq!(f.kept(&p, "a", None).await, (State::Held, 60));
    flush().await;
    assert_eq!(f.state(&p, "a").await, Some(State::Held));
    flush().await;
    let released = f.unblock(&p, "a", Some(grant.fence)).await;
    assert!(matches!(released, UnblockOutcome::Released { .. }));
    flush().await;
    assert_eq!(f.delete(&p, "a").await, DeleteOutcome::Deleted);
    flush().await;
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    flush().await;
    let page = f.store.list_tokens(&p, None, None, 10).await;
    let page = page.expect("list").expect("the pool").expect("the cursor");
    assert_eq!(page.tokens.len(), 1);
    flush().await;
    f.pass(&p, secs(301)).await;
    eventually("the sweeper heals", async || {
        f.lasting_records(&p).await == 0
    })
    .await;
    flush().await;
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    f.assert_consistent().await;
}

#[tokio::test]
async fn calls_in_flight_while_scripts_are_flushed_all_answer() {
    let Some(own) = OwnRedis::start(&[]).await else {
        return skip(
            "calls_in_flight_while_scripts_are_flushed_all_answer",
            "no redis-server",
        );
    };
    let f = Fixture::on(&own.url).await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 20).await;
    let done = AtomicBool::new(false);
    let flushing = async {
        let mut flushes = 0;
        while !done.load(Ordering::Relaxed) || flushes < 20 {
            f.redis.script_flush(false).await.expect("flush");
            flushes += 1;
            // Not at each instant: a call loads the scripts a bounded number of times.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let working = async {
        let one = async || {
            for _ in 0..20 {
                let grant = f.grant(&p).await;
                let value = grant.token.as_str();
                assert_eq!(f.state(&p, value).await, Some(State::Held));
                let released = f.unblock(&p, value, Some(grant.fence)).await;
                assert!(matches!(released, UnblockOutcome::Released { .. }));
            }
        };
        join_all((0..10).map(|_| one())).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(flushing, working);
    assert_eq!(f.counts(&p).await, (20, 0, 0));
    f.assert_consistent().await;
}
