//! Pools over several partitions: wherever a token lies it is found, counted and never handed out twice.

mod pools;
mod rounds;

use std::collections::BTreeSet;

use fred::prelude::*;
use futures_util::future::join_all;
use tokend::store::{GenerateRequest, NewTokens};
use tokend::token::*;

use crate::harness::*;
use crate::model::audit::audit;
use crate::verbs::*;

/// More than shards, so that some partitions have none.
const PARTITIONS: u32 = 6;
const SHARDS: u32 = 4;

/// A data set of its own with two replicas on it.
async fn two() -> (Fixture, Fixture) {
    let f = Fixture::of_partitions(redis_url().await, PARTITIONS).await;
    let g = f.replica().await;
    (f, g)
}

fn sharded(max_tokens: u64) -> PolicyPatch {
    PolicyPatch {
        shards: Some(SHARDS),
        max_tokens: Some(max_tokens),
        ..policy(60, 0, 0)
    }
}

/// So many values that lie in that shard.
fn of_shard(number: u32, count: usize) -> Vec<String> {
    let values = (0..).map(|n| format!("v{n}"));
    let here = values.filter(|value| token(value).shard(SHARDS) == number);
    here.take(count).collect()
}

impl Fixture {
    async fn add(&self, pool: &PoolName, values: &[String]) -> GenerateOutcome {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        self.import(pool, &values).await
    }

    async fn try_generate(&self, pool: &PoolName, count: usize) -> GenerateOutcome {
        let request = GenerateRequest {
            tokens: NewTokens::Generate(count),
            key: None,
        };
        self.store.generate(pool, request).await.expect("generate")
    }

    /// Nothing is reserved any more.
    async fn unreserved(&self) {
        eventually("reservations are let go of", async || {
            let pattern = format!("{}:1:*:reserved:*", self.config.key_prefix);
            self.keys(&pattern).await.is_empty()
        })
        .await;
    }

    /// The partitions of a pool's shards, by the shards' numbers.
    async fn shard_prefixes(&self, pool: &PoolName) -> Vec<String> {
        let mut prefixes = Vec::new();
        for number in 0..SHARDS {
            let value = &of_shard(number, 1)[0];
            self.import(pool, &[value]).await;
            let mut found = Vec::new();
            for prefix in self.prefixes().await {
                let key = format!("{prefix}:records:{pool}");
                let here: bool = self
                    .redis
                    .hexists(key, value.as_str())
                    .await
                    .expect("hexists");
                found.extend(here.then_some(prefix));
            }
            assert_eq!(found.len(), 1, "{found:?}");
            prefixes.append(&mut found);
            self.delete(pool, value).await;
        }
        prefixes
    }
}

/// Any token for so many seconds, under a key.
fn lasting_keyed(key: &str, seconds: u64) -> tokend::store::AssignRequest {
    tokend::store::AssignRequest {
        lifetime_ms: Some(seconds * 1_000),
        ..keyed(key)
    }
}

fn total((free, held, cooling): (u64, u64, u64)) -> u64 {
    free + held + cooling
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_finds_its_token_in_whichever_shard() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    let values: Vec<_> = (0..40).map(|n| format!("{{same}}-{n}")).collect();
    let names: Vec<_> = values.iter().map(String::as_str).collect();
    let added = f.import(&p, &names).await;
    assert!(
        matches!(&added, GenerateOutcome::Added { tokens, existing: 0, .. }
        if tokens.iter().map(TokenValue::as_str).eq(names.iter().copied()))
    );
    assert_eq!(g.counts(&p).await, (40, 0, 0));
    // Every one of them, each once, from a pool that lies in four places.
    let grants = join_all(names.iter().map(|_| f.grant(&p))).await;
    let tokens: BTreeSet<_> = grants.iter().map(|grant| &grant.token).collect();
    assert_eq!(tokens.len(), 40);
    for grant in &grants {
        let value = grant.token.as_str();
        assert_eq!(g.state(&p, value).await, Some(State::Held));
        let kept = g.keep(&p, value, Some(grant.fence), None).await;
        assert!(matches!(kept, KeepAliveOutcome::Kept { .. }), "{kept:?}");
        let taken = g.assign(&p, named(value)).await;
        assert!(matches!(taken, AssignOutcome::NotFree { .. }), "{taken:?}");
        g.unblock(&p, value, Some(grant.fence)).await;
        g.granted(&p, named(value)).await;
    }
    for value in &names[..10] {
        assert_eq!(g.delete(&p, value).await, DeleteOutcome::Deleted);
    }
    assert_eq!(f.counts(&p).await, (0, 30, 0));
    f.pass(&p, secs(61)).await;
    eventually("all have lapsed", async || f.counts(&p).await == (30, 0, 0)).await;
    audit(&f, &p).await;
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_free_token_is_found_wherever_it_is() {
    let (f, g) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    for number in 0..SHARDS {
        let value = &of_shard(number, 1)[0];
        f.import(&p, &[value]).await;
        let calls = (0..20).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            fixture.assign(&p, any())
        });
        let answers = join_all(calls).await;
        let granted = answers
            .iter()
            .filter(|a| matches!(a, AssignOutcome::Granted(_)));
        assert_eq!(granted.count(), 1, "{answers:?}");
        let empty = answers.iter().filter(
            |a| matches!(a, AssignOutcome::Empty { retry_after_ms: Some(ms) } if *ms <= 60_000),
        );
        assert_eq!(empty.count(), 19, "{answers:?}");
        f.delete(&p, value).await;
    }
    let none = AssignOutcome::Empty {
        retry_after_ms: None,
    };
    assert_eq!(f.assign(&p, any()).await, none);
    audit(&f, &p).await;
}

#[tokio::test]
async fn the_hint_is_the_whole_pools() {
    let (f, _) = two().await;
    let p = f
        .pool(
            "seats",
            PolicyPatch {
                cooldown_ms: Some(90_000),
                ..sharded(100)
            },
        )
        .await;
    for number in 0..SHARDS {
        f.add(&p, &of_shard(number, 1)).await;
        f.granted(&p, lasting(10 + u64::from(number))).await;
    }
    let hint = async || match f.assign(&p, any()).await {
        AssignOutcome::Empty {
            retry_after_ms: Some(ms),
        } => ms.div_ceil(1_000),
        other => panic!("{other:?}"),
    };
    // The first that lapses, whichever shard is asked last.
    for _ in 0..8 {
        let hint = hint().await;
        assert!((9..=10).contains(&hint), "{hint}");
    }
    // What cools goes before what is held, though it comes later.
    f.unblock(&p, &of_shard(2, 1)[0], None).await;
    for _ in 0..8 {
        let hint = hint().await;
        assert!((80..=90).contains(&hint), "{hint}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_holds_and_is_reached_however_many_add_at_once() {
    let (f, g) = two().await;
    for round in 0..6 {
        let p = f.pool(&format!("p{round}"), sharded(50)).await;
        let calls = (0..60).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            let p = &p;
            async move {
                if n % 5 == 0 {
                    let values: Vec<_> = (0..3).map(|m| format!("{n}-{m}")).collect();
                    return fixture.add(p, &values).await;
                }
                fixture.try_generate(p, 1 + n % 4).await
            }
        });
        let mut added = 0;
        for answer in join_all(calls).await {
            match answer {
                GenerateOutcome::Added {
                    tokens,
                    existing: 0,
                    ..
                } => added += tokens.len() as u64,
                GenerateOutcome::PoolFull {
                    total,
                    max_tokens: 50,
                } => assert!(total <= 50),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(total(g.counts(&p).await), added);
        while added < 50 {
            let one = f.try_generate(&p, 1).await;
            assert!(
                matches!(one, GenerateOutcome::Added { .. }),
                "{added}: {one:?}"
            );
            added += 1;
        }
        let full = GenerateOutcome::PoolFull {
            max_tokens: 50,
            total: 50,
        };
        assert_eq!(f.try_generate(&p, 1).await, full);
        assert_eq!(total(g.counts(&p).await), 50);
        audit(&f, &p).await;
    }
    f.unreserved().await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn generated_tokens_are_made_for_shards_with_room() {
    let (f, _) = two().await;
    let p = f.pool("seats", sharded(40)).await;
    let mine = of_shard(0, 11);
    f.add(&p, &mine[..10]).await;
    // An import's lie where they lie: this share is full, and the other value is not added either.
    let told = f
        .add(&p, &[mine[10].clone(), of_shard(1, 1)[0].clone()])
        .await;
    let full = GenerateOutcome::PoolFull {
        max_tokens: 40,
        total: 10,
    };
    assert_eq!(told, full);
    assert_eq!(f.add(&p, &mine[10..]).await, full);
    assert_eq!(f.counts(&p).await, (10, 0, 0));
    let over = f.try_generate(&p, 31).await;
    assert_eq!(over, full);
    assert_eq!(f.counts(&p).await, (10, 0, 0));
    let tokens = f.generate(&p, 30).await;
    assert!(tokens.iter().all(|token| token.shard(SHARDS) != 0));
    assert_eq!(f.counts(&p).await, (40, 0, 0));
    f.unreserved().await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_import_over_all_shards_tells_what_was_there() {
    let (f, _) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    f.import(&p, &["a", "b", "c"]).await;
    let told = f.import(&p, &["x", "a", "y", "x", "b", "z"]).await;
    let added = GenerateOutcome::Added {
        tokens: ["x", "y", "z"].map(token).to_vec(),
        existing: 3,
        born: None,
    };
    assert_eq!(told, added);
    let weird = weird_values();
    assert!(
        matches!(f.add(&p, &weird).await, GenerateOutcome::Added { tokens, .. }
        if values(&tokens) == weird)
    );
    for value in &weird {
        assert_eq!(f.state(&p, value).await, Some(State::Free), "{value}");
    }
    f.unreserved().await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn ten_thousand_in_one_call() {
    let (f, _) = two().await;
    let p = f.pool("seats", sharded(10_000)).await;
    // To the last place: the shards' shares are filled exactly.
    assert_eq!(
        f.generate(&p, TOKENS_PER_CALL_MAX).await.len(),
        TOKENS_PER_CALL_MAX
    );
    assert_eq!(f.counts(&p).await, (10_000, 0, 0));
    f.assert_consistent().await;
}

/// A shard that fails in the middle of its script, as one whose primary is frozen: nobody knows what it did.
#[tokio::test]
async fn one_shard_that_does_not_answer_is_passed_over_without_a_key() {
    let (f, _) = two().await;
    let p = f.pool("seats", sharded(100)).await;
    let prefixes = f.shard_prefixes(&p).await;
    f.add(&p, &of_shard(0, 8)).await;
    let broken = format!("{}:free:seats", prefixes[1]);
    let _: () = f
        .redis
        .set(&broken, "broken", None, None, false)
        .await
        .expect("set");
    for _ in 0..8 {
        f.grant(&p).await;
    }
    // Not every shard was seen empty.
    for _ in 0..8 {
        let told = f.store.assign(&p, any()).await;
        assert!(
            matches!(told, Err(StoreError::OutcomeUnknown(_))),
            "{:?}",
            told.err()
        );
    }
    // Over several shards it is all or nothing, as far as anybody can know.
    let told = f.store.generate(
        &p,
        GenerateRequest {
            tokens: NewTokens::Generate(40),
            key: None,
        },
    );
    assert!(matches!(told.await, Err(StoreError::OutcomeUnknown(_))));
    let _: u64 = f.redis.del(&broken).await.expect("del");
    f.unreserved().await;
}
