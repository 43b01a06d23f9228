//! One idempotency key is one grant, and one addition, over however many shards, calls and replicas.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use fred::prelude::*;
use futures_util::future::join_all;
use tokend::store::{AssignRequest, NewTokens};
use tokend::token::*;

use super::{SHARDS, lasting_keyed, of_shard, sharded, total, two};
use crate::harness::*;
use crate::model::audit::audit;
use crate::verbs::*;

fn grants(answers: &[AssignOutcome]) -> BTreeSet<(String, Fence)> {
    let granted = answers.iter().filter_map(|answer| match answer {
        AssignOutcome::Granted(grant) => Some((grant.token.to_string(), grant.fence)),
        AssignOutcome::Empty { .. } => None,
        other => panic!("{other:?}"),
    });
    granted.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_grant_however_many_walk_at_once() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    f.generate(&p, 40).await;
    for round in 0..20 {
        let request = keyed(&format!("k{round}"));
        let calls = (0..30).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            fixture.assign(&p, request.clone())
        });
        let answers = join_all(calls).await;
        assert_eq!(grants(&answers).len(), 1, "{answers:?}");
        assert!(
            answers
                .iter()
                .all(|a| matches!(a, AssignOutcome::Granted(_)))
        );
        assert_eq!(f.counts(&p).await, (39 - round, round + 1, 0));
    }
    audit(&f, &p).await;
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_grant_while_tokens_come_into_every_shard() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(1_000)).await;
    for round in 0..30 {
        let request = keyed(&format!("k{round}"));
        let done = AtomicBool::new(false);
        let (done, request, f, g, p) = (&done, &request, &f, &g, &p);
        // Callers that come again until one is told of a grant.
        let callers = (0..12).map(|n| async move {
            let fixture = if n % 2 == 0 { f } else { g };
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let answer = fixture.assign(p, request.clone()).await;
                let granted = matches!(answer, AssignOutcome::Granted(_));
                done.fetch_or(granted, Ordering::Relaxed);
                answers.push(answer);
            }
            answers
        });
        let fill = async {
            let values: Vec<_> = (0..SHARDS).map(|n| of_shard(n, 1)[0].clone()).collect();
            join_all(values.chunks(1).map(|value| g.add(p, value))).await;
        };
        let (answers, ()) = tokio::join!(join_all(callers), fill);
        let answers: Vec<_> = answers.into_iter().flatten().collect();
        let told = grants(&answers);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(f.counts(p).await, (u64::from(SHARDS) - 1, 1, 0));
        // And whoever comes later finds it too.
        let late = g.assign(p, request.clone()).await;
        assert_eq!(grants(&[late]), told);
        let all: Vec<_> = (0..SHARDS).map(|n| of_shard(n, 1)[0].clone()).collect();
        join_all(all.iter().map(|value| f.delete(p, value))).await;
    }
    audit(&f, &p).await;
}

#[tokio::test]
async fn an_empty_pool_is_not_remembered_for_ever() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    for number in 0..SHARDS {
        // However often it was found empty, and though some shards were passed only half-way.
        for _ in 0..=number {
            let none = g.assign(&p, keyed("k")).await;
            assert!(matches!(none, AssignOutcome::Empty { .. }), "{none:?}");
        }
        f.add(&p, &of_shard(number, 1)).await;
        let grant = f.granted(&p, keyed("k")).await;
        assert_eq!(g.granted(&p, keyed("k")).await.fence, grant.fence);
        let other = g.assign(
            &p,
            AssignRequest {
                holder: holder("h"),
                ..keyed("k")
            },
        );
        assert_eq!(other.await, AssignOutcome::IdempotencyMismatch);
        g.delete(&p, grant.token.as_str()).await;
        assert_eq!(f.assign(&p, keyed("k")).await, AssignOutcome::LeaseLost);
        // Forgotten with its pool.
        assert!(f.store.delete_pool(&p).await.expect("delete"));
        f.pool("seats", sharded(100)).await;
    }
}

#[tokio::test]
async fn what_was_passed_lasts_as_long_as_the_grant_behind_it() {
    let (f, _) = two().await;
    for round in 0..8 {
        let p = f.pool(&format!("p{round}"), sharded(100)).await;
        let key = format!("k{round}");
        // All shards are passed; a window later a walk finds something in one of them; another window later
        // there is something in all.
        f.assign(&p, keyed(&key)).await;
        f.pass(&p, secs(600)).await;
        f.add(&p, &of_shard(round % SHARDS, 1)).await;
        let grant = f.granted(&p, lasting_keyed(&key, 3_600)).await;
        f.generate(&p, 40).await;
        f.pass(&p, secs(600)).await;
        let again = f.granted(&p, lasting_keyed(&key, 3_600)).await;
        assert_eq!((again.token, again.fence), (grant.token, grant.fence));
        assert_eq!(f.counts(&p).await, (40, 1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_this_very_token_and_one_for_any_are_one_key() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    for number in 0..SHARDS {
        let value = &of_shard(number, 1)[0];
        f.import(&p, &[value]).await;
        let this = |key: &str| AssignRequest {
            key: keyed(key).key,
            ..named(value)
        };
        let grant = f.granted(&p, this(&format!("this{number}"))).await;
        let again = g.granted(&p, this(&format!("this{number}"))).await;
        assert_eq!(again.fence, grant.fence);
        let any = g.assign(&p, keyed(&format!("this{number}"))).await;
        assert_eq!(any, AssignOutcome::IdempotencyMismatch);
        let taken = g.assign(&p, this("taken")).await;
        assert!(matches!(taken, AssignOutcome::NotFree { .. }), "{taken:?}");
        g.unblock(&p, value, None).await;
        // And the other way round, wherever the grant lies.
        let key = format!("any{number}");
        f.granted(&p, keyed(&key)).await;
        for other in 0..SHARDS {
            let named = named(&of_shard(other, 2)[1]);
            let named = AssignRequest {
                key: keyed(&key).key,
                ..named
            };
            f.add(&p, &of_shard(other, 2)[1..]).await;
            assert_eq!(
                g.assign(&p, named).await,
                AssignOutcome::IdempotencyMismatch
            );
            f.delete(&p, &of_shard(other, 2)[1]).await;
        }
        f.delete(&p, value).await;
    }
    audit(&f, &p).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_is_one_addition() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(60)).await;
    for round in 0..3_u64 {
        // Together they would not fit, and the last fills the pool to its cap.
        let calls = (0..20).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            let key = format!("k{round}");
            let p = &p;
            async move {
                fixture
                    .generate_keyed(p, NewTokens::Generate(20), &key)
                    .await
            }
        });
        let answers = join_all(calls).await;
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "{answers:?}"
        );
        assert!(matches!(&answers[0], GenerateOutcome::Added { tokens, .. } if tokens.len() == 20));
        assert_eq!(f.counts(&p).await, (20 * (round + 1), 0, 0));
    }
    let other = f.generate_keyed(&p, NewTokens::Generate(21), "k0").await;
    assert_eq!(other, GenerateOutcome::IdempotencyMismatch);
    let full = f.generate_keyed(&p, NewTokens::Generate(1), "full").await;
    assert_eq!(
        full,
        GenerateOutcome::PoolFull {
            max_tokens: 60,
            total: 60
        }
    );
    f.unreserved().await;
    audit(&f, &p).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_retry_adds_what_is_missing_and_nothing_that_was_deleted() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    let prefixes = f.shard_prefixes(&p).await;
    let first = f.generate_keyed(&p, NewTokens::Generate(40), "k").await;
    let GenerateOutcome::Added { tokens, .. } = &first else {
        panic!("{first:?}")
    };
    // Deleted: a retry is told of it, and it stays deleted.
    let deleted = tokens
        .iter()
        .find(|token| token.shard(SHARDS) != 1)
        .expect("one");
    f.delete(&p, deleted.as_str()).await;
    assert_eq!(
        g.generate_keyed(&p, NewTokens::Generate(40), "k").await,
        first
    );
    assert_eq!(f.counts(&p).await, (39, 0, 0));
    // As if the first call had died before this shard was told.
    let keys = f.keys(&format!("{}:*", prefixes[1])).await;
    let of_tokens = keys.iter().filter(|key| {
        ["free:seats", "records:seats"]
            .iter()
            .any(|kind| key.ends_with(kind))
    });
    let forgotten = f.keys(&format!("{}:idem:*:seats", prefixes[1])).await;
    for key in of_tokens {
        let _: u64 = f.redis.del(key).await.expect("del");
    }
    for key in &forgotten {
        let fields: Vec<String> = f.redis.hkeys(key).await.expect("hkeys");
        for field in fields.iter().filter(|field| field.starts_with("generate:")) {
            let _: u64 = f.redis.hdel(key, field).await.expect("hdel");
        }
    }
    let lost = tokens
        .iter()
        .filter(|token| token.shard(SHARDS) == 1)
        .count() as u64;
    assert_eq!(total(f.counts(&p).await), 39 - lost);
    assert_eq!(
        g.generate_keyed(&p, NewTokens::Generate(40), "k").await,
        first
    );
    assert_eq!(f.counts(&p).await, (39, 0, 0));
    assert_eq!(f.state(&p, deleted.as_str()).await, None);
    // Long after, a shard still knows what it did, or the key is forgotten: nothing comes back.
    f.pass(&p, secs(900)).await;
    g.generate_keyed(&p, NewTokens::Generate(40), "k").await;
    assert_eq!(f.state(&p, deleted.as_str()).await, None);
    f.assert_consistent().await;
}

#[tokio::test]
async fn under_a_key_a_shard_that_does_not_answer_ends_the_walk() {
    let (f, _) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    let prefixes = f.shard_prefixes(&p).await;
    for (number, prefix) in (0..).zip(&prefixes) {
        f.add(&p, &of_shard((number + 1) % SHARDS, 3)).await;
        let broken = format!("{prefix}:free:seats");
        let _: () = f
            .redis
            .set(&broken, "broken", None, None, false)
            .await
            .expect("set");
        let mut told = Vec::new();
        for n in 0..8 {
            let key = format!("k{number}-{n}");
            told.push((key.clone(), f.store.assign(&p, keyed(&key)).await.is_ok()));
        }
        let _: u64 = f.redis.del(&broken).await.expect("del");
        // Whoever was told nothing comes again, and there is one grant per key.
        f.generate(&p, 20).await;
        let held = f.counts(&p).await.1;
        assert_eq!(
            held,
            told.iter().filter(|(_, granted)| *granted).count() as u64
        );
        for (key, _) in &told {
            f.granted(&p, keyed(key)).await;
        }
        assert_eq!(f.counts(&p).await.1, 8);
        assert!(f.store.delete_pool(&p).await.expect("delete"));
        f.pool("seats", sharded(100)).await;
    }
}
