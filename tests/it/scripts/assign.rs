use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokend::store::AssignRequest;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn grants_a_free_token_to_the_holder_until_the_deadline() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let request = AssignRequest {
        holder: holder("pod-7"),
        ..any()
    };
    let before = f.now_ms().await;
    let grant = f.granted(&p, request).await;
    let after = f.now_ms().await;
    assert_eq!(grant.token, token("a"));
    assert_eq!(grant.holder, holder("pod-7"));
    assert_eq!(grant.expires_in_ms, 60_000);
    assert!((before + 60_000..=after + 60_000).contains(&grant.expires_at_ms));
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!(view.state, State::Held);
    assert_eq!(view.fence, grant.fence.get());
    assert_eq!(view.expires_at_ms, Some(grant.expires_at_ms));
    assert_eq!(view.granted_at_ms, Some(grant.expires_at_ms - 60_000));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_lease_lasts_its_whole_lifetime_to_the_microsecond() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 20).await;
    for _ in 0..20 {
        let grant = f.grant(&p).await;
        // A fence is Redis's clock in µs: the moment of the grant. A deadline counted from the millisecond
        // before it would come up to 1 ms earlier than the holder was told.
        let lasts_us = grant.expires_at_ms * 1_000 - grant.fence.get();
        assert!(lasts_us >= grant.expires_in_ms * 1_000, "{lasts_us} µs");
    }
}

#[tokio::test]
async fn an_empty_pool_answers_empty_without_a_hint() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let empty = AssignOutcome::Empty {
        retry_after_ms: None,
    };
    assert_eq!(f.assign(&p, any()).await, empty);
    f.assert_consistent().await;
}

fn hint(outcome: &AssignOutcome) -> u64 {
    match outcome {
        AssignOutcome::Empty { retry_after_ms } => retry_after_ms.expect("a hint"),
        other => panic!("not empty: {other:?}"),
    }
}

#[tokio::test]
async fn the_hint_is_the_next_cooling_deadline_else_the_earliest_held_one() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a", "b", "c"]).await;
    f.granted(&p, lasting(50)).await;
    let second = f.granted(&p, lasting(40)).await;
    f.granted(&p, lasting(30)).await;
    let held = hint(&f.assign(&p, any()).await);
    assert!((25_000..=30_000).contains(&held), "{held}");
    f.unblock(&p, second.token.as_str(), None).await;
    let cooling = hint(&f.assign(&p, any()).await);
    assert!((15_000..=20_000).contains(&cooling), "{cooling}");
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_hint_survives_buckets_that_deletions_emptied() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    for second in 1..=12 {
        let value = format!("t{second}");
        f.import(&p, &[value.as_str()]).await;
        f.granted(&p, lasting(10 + second)).await;
    }
    for second in 1..=11 {
        f.delete(&p, &format!("t{second}")).await;
    }
    let held = hint(&f.assign(&p, any()).await);
    assert!((15_000..=22_000).contains(&held), "{held}");
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_named_token_that_is_held_or_cooling_is_not_free() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a", "b"]).await;
    let grant = f.granted(&p, named("a")).await;
    assert_eq!(grant.token, token("a"));
    match f.assign(&p, named("a")).await {
        AssignOutcome::NotFree {
            state: State::Held,
            retry_after_ms,
        } => assert!(
            (75_000..=80_000).contains(&retry_after_ms),
            "{retry_after_ms}"
        ),
        other => panic!("{other:?}"),
    }
    f.unblock(&p, "a", Some(grant.fence)).await;
    match f.assign(&p, named("a")).await {
        AssignOutcome::NotFree {
            state: State::Cooling,
            retry_after_ms,
        } => assert!(
            (15_000..=20_000).contains(&retry_after_ms),
            "{retry_after_ms}"
        ),
        other => panic!("{other:?}"),
    }
    assert_eq!(f.counts(&p).await, (1, 0, 1));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_named_token_that_is_not_there_is_not_found() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    assert_eq!(f.assign(&p, named("b")).await, AssignOutcome::TokenNotFound);
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_token_whose_deadlines_have_passed_is_granted_at_once() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(10, 0, 10), &["a", "b"]).await;
    let old = f.granted(&p, named("a")).await;
    f.granted(&p, named("b")).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(21)).await;
    let a: &[&str] = &["", "", "", "0", "a", "0", ""];
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    let replies = f.raw("assign", &p, &[a, any, any]).await;
    let tags: Vec<_> = replies.iter().map(|reply| reply.tag.as_str()).collect();
    assert_eq!(tags, ["granted", "granted", "empty"]);
    assert_eq!(replies[1].text(0), "b");
    assert!(replies[0].int(1) > old.fence.get());
    f.assert_structure().await;
}

#[tokio::test]
async fn an_idle_token_is_never_granted() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(10, 300, 0), &["a", "b", "c"])
        .await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(300)).await;
    let a: &[&str] = &["", "", "", "0", "a", "0", ""];
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    let replies = f.raw("assign", &p, &[any, a]).await;
    assert_eq!((replies[0].tag.as_str(), replies[0].int(0)), ("empty", 0));
    assert_eq!(replies[1].tag, "absent");
    assert_eq!(f.stored_free(&p).await, 0);
    f.assert_structure().await;
}

#[tokio::test]
async fn the_callers_lifetime_counts_and_max_hold_clamps_it() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b", "c"]).await;
    assert_eq!(f.granted(&p, lasting(5)).await.expires_in_ms, 5_000);
    let limit = PolicyPatch {
        max_hold_ms: Some(30_000),
        ..PolicyPatch::default()
    };
    f.change(&p, limit).await;
    assert_eq!(f.granted(&p, lasting(100)).await.expires_in_ms, 30_000);
    assert_eq!(f.granted(&p, any()).await.expires_in_ms, 30_000);
    f.assert_consistent().await;
}

#[tokio::test]
async fn fences_rise_over_grants_tokens_and_pools_of_a_partition() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    let mut last = 0;
    for _ in 0..20 {
        let grant = f.grant(&p).await;
        assert!(grant.fence.get() > last);
        last = grant.fence.get();
        f.unblock(&p, grant.token.as_str(), Some(grant.fence)).await;
    }
    // In one call too, and never one twice.
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    let replies = f.raw("assign", &p, &[any, any]).await;
    let fences: BTreeSet<_> = replies.iter().map(|reply| reply.int(1)).collect();
    assert_eq!(fences.len(), 2);
    assert!(fences.iter().all(|fence| *fence > last));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_token_named_twice_in_one_call_is_granted_once() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let a: &[&str] = &["", "", "", "0", "a", "0", ""];
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    let replies = f.raw("assign", &p, &[a, a, any]).await;
    let tags: Vec<_> = replies.iter().map(|reply| reply.tag.as_str()).collect();
    assert_eq!(tags, ["granted", "not_free", "empty"]);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_named_token_and_random_ones_in_one_call_never_meet() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 0, 0), &["a", "b", "c", "d"])
        .await;
    let a: &[&str] = &["", "", "", "0", "a", "0", ""];
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    for _ in 0..10 {
        let replies = f.raw("assign", &p, &[any, a, any, any, any]).await;
        let granted = replies.iter().filter(|reply| reply.tag == "granted");
        let tokens: BTreeSet<_> = granted.map(|reply| reply.text(0)).collect();
        assert_eq!(tokens.len(), 4, "each token once: {replies:?}");
        f.assert_consistent().await;
        let free = ["a", "b", "c", "d"].map(|value| f.unblock(&p, value, None));
        join_all(free).await;
    }
}

#[tokio::test]
async fn more_due_than_one_call_may_settle_answers_again() {
    let f = Fixture::new().await;
    let delete = PolicyPatch {
        on_lapse: Some(OnLapse::Delete),
        ..policy(60, 0, 0)
    };
    let p = f.pool("seats", delete).await;
    f.generate(&p, 2_500).await;
    let f = f.without_sweeper().await;
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    for _ in 0..5 {
        f.raw("assign", &p, &vec![any; 500]).await;
    }
    f.pass(&p, secs(61)).await;
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(f.raw("assign", &p, &[any]).await[0].tag.clone());
    }
    assert_eq!(tags, ["again", "again", "empty"]);
    f.assert_structure().await;
}

#[tokio::test]
async fn another_generation_or_a_newer_version_is_stale() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let generation = f.shard_field(&p, "generation").await;
    let version = f.shard_field(&p, "version").await;
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    for (generation, version, tag) in [
        (generation - 1, version, "stale"),
        (generation + 1, version, "stale"),
        (generation, version + 1, "stale"),
        (generation, version - 1, "granted"),
    ] {
        let replies = f.raw_at("assign", &p, generation, version, &[any]).await;
        assert_eq!(replies[0].tag, tag);
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn without_a_key_a_retry_is_another_grant() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    let (first, second) = (f.grant(&p).await, f.grant(&p).await);
    assert_ne!(first.token, second.token);
    f.assert_consistent().await;
}

#[tokio::test]
async fn every_one_of_a_thousand_who_ask_at_once_gets_an_answer() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b", "c"]).await;
    let ask = (0..1_500).map(|_| f.assign(&p, any()));
    let answers = join_all(ask).await;
    let granted = answers.iter().filter_map(|answer| match answer {
        AssignOutcome::Granted(grant) => Some(grant.token.clone()),
        AssignOutcome::Empty { .. } => None,
        other => panic!("{other:?}"),
    });
    let granted: Vec<_> = granted.collect();
    assert_eq!(granted.len(), 3);
    assert_eq!(granted.iter().collect::<BTreeSet<_>>().len(), 3);
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_abandoned_grant_without_a_key_goes_straight_back_to_free() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 60), &["a"]).await;
    drop(f.store.assign(&p, any()).await.expect("assign"));
    eventually("it is free", async || f.counts(&p).await == (1, 0, 0)).await;
    drop(f.store.assign(&p, keyed("k")).await.expect("assign"));
    assert_eq!(f.counts(&p).await, (0, 1, 0));
    let again = f.granted(&p, keyed("k")).await;
    assert_eq!(again.token, token("a"));
    f.assert_consistent().await;
}

#[tokio::test]
async fn weird_tokens_and_holders_come_back_byte_by_byte() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 5)).await;
    for value in weird_values() {
        f.import(&p, &[value.as_str()]).await;
        let label = holder(value.get(..HOLDER_BYTES_MAX).unwrap_or(&value));
        let request = AssignRequest {
            holder: label.clone(),
            ..named(&value)
        };
        let grant = f.granted(&p, request).await;
        assert_eq!(grant.token.as_str(), value);
        assert_eq!(grant.holder, label);
        assert_eq!(f.look(&p, &value).await.and_then(|view| view.holder), label);
        f.unblock(&p, &value, Some(grant.fence)).await;
    }
    let all = weird_values().len() as u64;
    assert_eq!(f.counts(&p).await, (0, 0, all));
    f.assert_consistent().await;
    f.pass(&p, secs(6)).await;
    assert_eq!(f.counts(&p).await, (all, 0, 0));
    for value in weird_values() {
        assert_eq!(
            f.delete(&p, &value).await,
            DeleteOutcome::Deleted,
            "{value}"
        );
    }
    f.assert_consistent().await;
}
