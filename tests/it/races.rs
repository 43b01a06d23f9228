//! Two replicas, many tasks, few tokens: whatever happens at once, what is seen can be explained.

use std::collections::BTreeSet;
use std::time::Duration;

use fred::interfaces::KeysInterface;
use futures_util::future::join_all;
use rand::RngExt;
use tokend::store::{AssignRequest, GenerateRequest, NewTokens};
use tokend::token::*;
use tokio::task::JoinSet;

use crate::harness::*;
use crate::history::Recorder;
use crate::model::audit::audit;

/// Cap of a pool in which tasks generate.
const CAP: u64 = 8;

fn named(value: &TokenValue) -> AssignRequest {
    AssignRequest {
        token: Some(value.clone()),
        ..any()
    }
}

fn values(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("t{n}")).collect()
}

/// What one task does with a token that it got.
async fn use_grant(recorder: &Recorder, replica: usize, grant: &Grant) {
    let other = 1 - replica;
    let fence = Some(grant.fence);
    let choice = rand::rng().random_range(0..10);
    match choice {
        0..4 => drop(recorder.unblock(other, &grant.token, fence).await),
        4 => drop(recorder.unblock(replica, &grant.token, None).await),
        5..7 => {
            let _ = recorder.keep_alive(other, grant, None).await;
            drop(recorder.unblock(replica, &grant.token, fence).await);
        }
        7 => {
            let _ = recorder.delete(other, &grant.token).await;
            drop(recorder.keep_alive(replica, grant, None).await);
        }
        8 => {
            // Goes on under a lease that may be over, twice at once.
            let _ = tokio::join!(
                recorder.keep_alive(replica, grant, Some(1_000)),
                recorder.keep_alive(other, grant, Some(2_000)),
            );
        }
        _ => {} // it lapses
    }
}

async fn be_a_client(recorder: Recorder, replica: usize, rounds: usize) {
    let mut grants: Vec<Grant> = Vec::new();
    for _ in 0..rounds {
        // The pace of a client, so that leases of a second lapse while others are taken.
        let pace = rand::rng().random_range(0..80);
        tokio::time::sleep(Duration::from_millis(pace)).await;
        let choice = rand::rng().random_range(0..10);
        match choice {
            0 => drop(recorder.generate(replica, NewTokens::Generate(1)).await),
            1 if !grants.is_empty() => {
                // A grant of long ago.
                let at = rand::rng().random_range(0..grants.len());
                drop(
                    recorder
                        .unblock(replica, &grants[at].token, Some(grants[at].fence))
                        .await,
                );
            }
            _ => {
                // Half of them wait in line if there is no token.
                let wait = Duration::from_millis(rand::rng().random_range(0..400));
                let wait = if choice % 2 == 0 {
                    wait
                } else {
                    Duration::ZERO
                };
                let granted = recorder.assign_within(replica, any(), wait).await;
                if let Ok(Some(grant)) = granted {
                    use_grant(&recorder, replica, &grant).await;
                    grants.push(grant);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_hundreds_of_tasks_do_the_history_is_right() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let mut tasks = JoinSet::new();
    let mut recorders = Vec::new();
    // Four pools in two partitions: at least two of them share one. And two that lie in both.
    for (n, cooldown_ms) in [0, 0, 1_000, 0, 0, 1_000].into_iter().enumerate() {
        let shards = if n < 4 { 1 } else { 2 };
        let patch = PolicyPatch {
            lifetime_ms: Some(1_000),
            cooldown_ms: Some(cooldown_ms),
            max_tokens: Some(CAP),
            max_hold_ms: (n == 3).then_some(1_500),
            shards: Some(shards),
            ..PolicyPatch::default()
        };
        let pool = f.pool(&format!("chaos-{n}"), patch).await;
        let stores = vec![f.store.clone(), g.store.clone()];
        let recorder = Recorder::new(pool, stores).over(shards);
        recorder
            .generate(0, NewTokens::Generate(5))
            .await
            .expect("generate");
        for client in 0..60 {
            tasks.spawn(be_a_client(recorder.clone(), client % 2, 50));
        }
        recorders.push(recorder);
    }
    tasks.join_all().await;
    for recorder in recorders {
        recorder.count(0).await.expect("count");
        let history = recorder.history();
        assert!(history.grants() > 10, "{} grants", history.grants());
        history.check(CAP);
        audit(&f, &recorder.pool).await;
        eventually("all are free again", async || {
            let (_, held, cooling) = g.counts(&recorder.pool).await;
            (held, cooling) == (0, 0)
        })
        .await;
        recorder.count(1).await.expect("count");
        recorder.history().check(CAP);
        audit(&f, &recorder.pool).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_deleted_while_it_is_swept_stays_deleted() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let names = values(30);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    for round in 0..25 {
        let pool = f
            .filled(&format!("p{round}"), PolicyPatch::default(), &names)
            .await;
        join_all(names.iter().map(|_| f.grant(&pool))).await;
        let deletions = names.iter().enumerate().map(|(n, name)| {
            let store = if n % 2 == 0 { &f.store } else { &g.store };
            let (pool, token) = (&pool, token(name));
            async move { store.delete(pool, &token).await }
        });
        let (deleted, ()) =
            tokio::join!(join_all(deletions), f.pass(&pool, Duration::from_secs(60)));
        assert!(
            deleted.iter().all(|d| *d == Ok(DeleteOutcome::Deleted)),
            "{deleted:?}"
        );
        f.pass(&pool, Duration::from_secs(60)).await;
        assert_eq!(g.counts(&pool).await, (0, 0, 0));
        assert_eq!(
            f.assign(&pool, any()).await,
            AssignOutcome::Empty {
                retry_after_ms: None
            }
        );
        audit(&f, &pool).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_deleted_while_it_is_kept_alive_stays_deleted() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let pool = f.pool("p", PolicyPatch::default()).await;
    for round in 0..200 {
        let name = format!("t{round}");
        f.import(&pool, &[&name]).await;
        let grant = f.grant(&pool).await;
        let (deleted, kept) = tokio::join!(
            f.store.delete(&pool, &grant.token),
            g.store
                .keep_alive(&pool, &grant.token, Some(grant.fence), None),
        );
        assert_eq!(deleted, Ok(DeleteOutcome::Deleted));
        assert!(
            matches!(
                kept,
                Ok(KeepAliveOutcome::Kept { .. } | KeepAliveOutcome::TokenNotFound)
            ),
            "{kept:?}"
        );
        assert_eq!(g.counts(&pool).await, (0, 0, 0));
    }
    f.pass(&pool, Duration::from_secs(61)).await;
    assert_eq!(f.counts(&pool).await, (0, 0, 0));
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unblock_that_meets_the_lapse_frees_nobody_elses_lease() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let pool = f.filled("p", PolicyPatch::default(), &["a"]).await;
    for _ in 0..100 {
        let first = f.grant(&pool).await;
        let fence = Some(first.fence);
        let (unblocked, (), second) = tokio::join!(
            g.store.unblock(&pool, &first.token, fence),
            f.pass(&pool, Duration::from_secs(60)),
            async {
                loop {
                    if let AssignOutcome::Granted(grant) = g.assign(&pool, any()).await {
                        return grant;
                    }
                }
            },
        );
        assert!(
            matches!(
                unblocked,
                Ok(UnblockOutcome::Released { .. } | UnblockOutcome::LeaseLost)
            ),
            "{unblocked:?}"
        );
        assert!(second.fence > first.fence);
        let again = f.store.unblock(&pool, &first.token, fence).await;
        assert_eq!(again, Ok(UnblockOutcome::LeaseLost));
        // The shift may have come behind the second grant: then that one has lapsed.
        let ended = f
            .store
            .unblock(&pool, &second.token, Some(second.fence))
            .await;
        assert!(
            matches!(
                ended,
                Ok(UnblockOutcome::Released { .. } | UnblockOutcome::LeaseLost)
            ),
            "{ended:?}"
        );
        assert_eq!(f.counts(&pool).await, (1, 0, 0));
    }
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sweeps_at_once_free_each_token_once() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let names = values(100);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let pool = f.filled("p", PolicyPatch::default(), &names).await;
    for _ in 0..15 {
        let grants = join_all(names.iter().map(|_| f.grant(&pool))).await;
        let fences: BTreeSet<_> = grants.iter().map(|grant| grant.fence).collect();
        assert_eq!(fences.len(), names.len());
        // Both replicas' sweepers hear the alarm; both replicas' calls settle besides.
        f.pass(&pool, Duration::from_secs(60)).await;
        let again = names.iter().enumerate().map(|(n, _)| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            let pool = &pool;
            async move { fixture.grant(pool).await }
        });
        let again = join_all(again).await;
        let tokens: BTreeSet<_> = again.iter().map(|grant| &grant.token).collect();
        assert_eq!(tokens.len(), names.len());
        assert_eq!(f.counts(&pool).await, (0, names.len() as u64, 0));
        f.pass(&pool, Duration::from_secs(60)).await;
        eventually("all are free", async || {
            g.counts(&pool).await == (names.len() as u64, 0, 0)
        })
        .await;
        audit(&f, &pool).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cap_holds_however_many_generate_at_once() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    for round in 0..10 {
        let patch = PolicyPatch {
            max_tokens: Some(50),
            ..PolicyPatch::default()
        };
        let pool = f.pool(&format!("p{round}"), patch).await;
        let calls = (0..120).map(|n| {
            let store = if n % 2 == 0 { &f.store } else { &g.store };
            let request = GenerateRequest {
                tokens: NewTokens::Generate(1 + n % 3),
                key: None,
            };
            store.generate(&pool, request)
        });
        let mut added = 0;
        for answer in join_all(calls).await {
            match answer.expect("generate") {
                GenerateOutcome::Added { tokens, .. } => added += tokens.len() as u64,
                GenerateOutcome::PoolFull { total, max_tokens } => {
                    assert!(total <= 50 && max_tokens == 50, "{total} of {max_tokens}");
                }
                other => panic!("{other:?}"),
            }
        }
        // Calls of one token fill what larger ones could not.
        assert_eq!(added, 50);
        assert_eq!(g.counts(&pool).await, (50, 0, 0));
        audit(&f, &pool).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_idempotency_key_is_one_grant() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let names = values(60);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let pool = f.filled("p", PolicyPatch::default(), &names).await;
    for round in 0..10 {
        let request = AssignRequest {
            key: key(&format!("k{round}")),
            ..any()
        };
        let calls = (0..50).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            fixture.assign(&pool, request.clone())
        });
        let granted = join_all(calls)
            .await
            .into_iter()
            .map(|answer| match answer {
                AssignOutcome::Granted(grant) => (grant.token, grant.fence, grant.expires_at_ms),
                other => panic!("not granted: {other:?}"),
            });
        let grants: BTreeSet<_> = granted.collect();
        assert_eq!(grants.len(), 1, "{grants:?}");
        assert_eq!(f.counts(&pool).await, (59 - round, round + 1, 0));
    }
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_named_by_all_has_one_winner() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let pool = f.filled("p", PolicyPatch::default(), &["a", "b"]).await;
    for _ in 0..20 {
        let calls = (0..50).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            fixture.assign(&pool, named(&token("a")))
        });
        let answers = join_all(calls).await;
        let winners: Vec<_> = answers
            .iter()
            .filter_map(|answer| match answer {
                AssignOutcome::Granted(grant) => Some(grant),
                AssignOutcome::NotFree { state, .. } => {
                    assert_eq!(*state, State::Held);
                    None
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let fence = Some(winners[0].fence);
        let released = g.store.unblock(&pool, &token("a"), fence).await;
        assert!(
            matches!(released, Ok(UnblockOutcome::Released { .. })),
            "{released:?}"
        );
    }
    audit(&f, &pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_pool_tells_a_thousand_callers_at_once() {
    let f = Fixture::new().await;
    let pool = f
        .filled("p", PolicyPatch::default(), &["a", "b", "c"])
        .await;
    let answers = join_all((0..1_000).map(|_| f.store.assign(&pool, any()))).await;
    let mut grants = Vec::new();
    for answer in answers {
        match answer.expect("an answer") {
            AssignOutcome::Granted(offer) => grants.push(offer.accept()),
            AssignOutcome::Empty { retry_after_ms } => assert!(retry_after_ms.is_some()),
            _ => panic!("neither a grant nor empty"),
        }
    }
    assert_eq!(grants.len(), 3);
    // A grant that is given back half-way may be found; a call is never asked again without need.
    let calls = f.metrics.batch_size.with_label_values(&["assign"]);
    assert!(
        calls.get_sample_count() <= 10,
        "{} calls",
        calls.get_sample_count()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_deleted_and_made_again_under_load_repeats_no_fence() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    let pool = f
        .filled("p", PolicyPatch::default(), &["a", "b", "c"])
        .await;
    let mut fences = BTreeSet::new();
    let mut old: Option<Grant> = None;
    for round in 0..15 {
        let work = (0..30).map(|n| {
            let fixture = if n % 2 == 0 { &f } else { &g };
            let pool = &pool;
            async move {
                if n % 5 == 0 {
                    let tokens = NewTokens::Import(["a", "b", "c"].map(new_token).into());
                    let request = GenerateRequest { tokens, key: None };
                    drop(
                        fixture
                            .store
                            .generate(pool, request)
                            .await
                            .expect("an answer"),
                    );
                }
                fixture.assign(pool, any()).await
            }
        });
        let change = async {
            let store = if round % 2 == 0 { &g.store } else { &f.store };
            store.delete_pool(&pool).await.expect("deleted");
            store
                .put_pool(&pool, PolicyPatch::default())
                .await
                .expect("made again");
        };
        let (answers, ()) = tokio::join!(join_all(work), change);
        for answer in answers {
            match answer {
                AssignOutcome::Granted(grant) => {
                    assert!(fences.insert(grant.fence), "twice: {grant:?}");
                }
                AssignOutcome::Empty { .. } | AssignOutcome::PoolNotFound => {}
                other => panic!("{other:?}"),
            }
        }
        f.import(&pool, &["a", "b", "c"]).await;
        audit(&f, &pool).await;
        // A fence of a pool that is gone frees nothing in the one that took its name.
        if let Some(old) = &old {
            let answer = g.store.unblock(&pool, &old.token, Some(old.fence)).await;
            assert_eq!(answer, Ok(UnblockOutcome::LeaseLost));
        }
        if let AssignOutcome::Granted(grant) = f.assign(&pool, any()).await {
            assert!(fences.insert(grant.fence), "twice: {grant:?}");
            old = Some(grant);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn put_and_delete_of_one_pool_by_all_end_in_one_of_the_two() {
    let f = Fixture::new().await;
    let g = f.replica().await;
    for round in 0..10 {
        let pool = f
            .filled(&format!("p{round}"), PolicyPatch::default(), &["a"])
            .await;
        let changes = (0..8).map(|n| {
            let store = if n % 2 == 0 { &f.store } else { &g.store };
            let patch = PolicyPatch {
                lifetime_ms: Some(1_000 * (1 + n)),
                ..PolicyPatch::default()
            };
            let pool = &pool;
            async move {
                if n % 3 == 0 {
                    store.delete_pool(pool).await.map(drop)
                } else {
                    store.put_pool(pool, patch).await.map(drop)
                }
            }
        });
        for changed in join_all(changes).await {
            assert_eq!(changed, Ok(()));
        }
        let (here, there) = (
            f.store.show_pool(&pool).await,
            g.store.show_pool(&pool).await,
        );
        assert_eq!(here, there);
        let found = f.assign(&pool, any()).await;
        match here.expect("an answer") {
            None => assert_eq!(found, AssignOutcome::PoolNotFound),
            Some(_) => assert!(
                matches!(
                    found,
                    AssignOutcome::Granted(_) | AssignOutcome::Empty { .. }
                ),
                "{found:?}"
            ),
        }
        audit(&f, &pool).await;
    }
}

#[tokio::test]
async fn a_crowd_at_a_flow_that_nobody_used_yet_makes_it_once_and_is_served() {
    let f = Fixture::new().await;
    let calls = (0..3_000).map(|_| {
        f.store
            .create_opaque(Flow::Temporary, bearer::temporary, None, None)
    });
    for made in join_all(calls).await {
        assert!(matches!(made, Ok(Some(_))), "{:?}", made.err());
    }
    // The same when all of it is lost: each call finds its shard stale.
    let keys = f.keys(&format!("{}:1:*", f.config.key_prefix)).await;
    for key in keys {
        let _: u64 = f.redis.del(key).await.expect("del"); // one by one: they lie in several slots
    }
    let calls = (0..3_000).map(|_| {
        f.store
            .create_opaque(Flow::Temporary, bearer::temporary, None, None)
    });
    for made in join_all(calls).await {
        assert!(matches!(made, Ok(Some(_))), "{:?}", made.err());
    }
    f.assert_consistent().await;
}
