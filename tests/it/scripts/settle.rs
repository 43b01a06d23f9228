//! Deadlines that pass: chained, and by which policy.

use std::time::Duration;

use tokend::store::AssignRequest;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

fn idle(seconds: u64) -> PolicyPatch {
    PolicyPatch {
        idle_limit_ms: Some(seconds * 1_000),
        ..PolicyPatch::default()
    }
}

#[tokio::test]
async fn held_cooling_free_absent_in_one_go() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 20), &["a"]).await;
    f.grant(&p).await;
    f.pass(&p, secs(60 + 20 + 300 + 1)).await;
    assert_eq!(f.state(&p, "a").await, None);
    eventually("it is swept", async || f.lasting_records(&p).await == 0).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_chain_counts_from_deadlines_not_from_the_sweep() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 20), &["a"]).await;
    let grant = f.grant(&p).await;
    for (seconds, state, deadline) in [
        (70, State::Cooling, 60_000 + 20_000),
        (20, State::Free, 60_000 + 20_000 + 300_000),
    ] {
        f.pass(&p, secs(seconds)).await;
        let view = f.look(&p, "a").await.expect("there");
        assert_eq!(view.state, state);
        let granted = grant.expires_at_ms - 60_000;
        let passed: u64 = if state == State::Cooling {
            70_000
        } else {
            90_000
        };
        assert_eq!(
            view.expires_at_ms.map(|at| at + passed),
            Some(granted + deadline)
        );
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_lapsed_token_is_deleted_where_the_policy_says_so() {
    let f = Fixture::new().await;
    let delete = PolicyPatch {
        on_lapse: Some(OnLapse::Delete),
        ..policy(60, 0, 20)
    };
    let p = f.filled("seats", delete, &["a", "b"]).await;
    f.granted(&p, named("a")).await;
    f.granted(&p, named("b")).await;
    f.unblock(&p, "b", None).await;
    f.pass(&p, secs(61)).await;
    assert_eq!(f.state(&p, "a").await, None);
    // One that was unblocked cooled.
    assert_eq!(f.state(&p, "b").await, Some(State::Free));
    eventually("it is swept", async || f.counts(&p).await == (1, 0, 0)).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_idle_limit_that_is_lifted_deletes_nothing() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 0), &["a", "b"]).await;
    f.change(&p, idle(0)).await;
    f.pass(&p, secs(301)).await;
    assert_eq!(f.state(&p, "a").await, Some(State::Free));
    eventually("the sweeper has looked", async || {
        f.keys(&format!("{}*:ticks:{p}", f.config.key_prefix))
            .await
            .is_empty()
    })
    .await;
    assert_eq!(f.counts(&p).await, (2, 0, 0));
    assert_eq!(
        f.look(&p, "a").await.and_then(|view| view.expires_at_ms),
        None
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_idle_limit_that_is_raised_counts_from_when_the_token_became_free() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 0), &["a"]).await;
    f.change(&p, idle(500)).await;
    f.pass(&p, secs(301)).await;
    let view = f.look(&p, "a").await.expect("there");
    let left = view.expires_at_ms.expect("a limit") - f.now_ms().await;
    assert!((190_000..=199_000).contains(&left), "{left}");
    f.assert_consistent().await;
    f.pass(&p, secs(200)).await;
    assert_eq!(f.state(&p, "a").await, None);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_new_idle_limit_acts_from_the_next_transition() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    f.change(&p, idle(300)).await;
    f.pass(&p, secs(3_600)).await;
    assert_eq!(f.counts(&p).await, (2, 0, 0));
    // A keep-alive of a free token starts its clock.
    f.kept(&p, "a", None).await;
    f.pass(&p, secs(301)).await;
    assert_eq!(f.state(&p, "a").await, None);
    assert_eq!(f.state(&p, "b").await, Some(State::Free));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_new_policy_acts_from_each_tokens_next_transition() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a", "b"]).await;
    let grant = f.granted(&p, named("a")).await;
    f.granted(&p, named("b")).await;
    f.unblock(&p, "b", None).await;
    let cooling = f.look(&p, "b").await;
    f.change(&p, policy(600, 0, 100)).await;
    // Neither the lease nor the cooling that has begun moves.
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!(view.expires_at_ms, Some(grant.expires_at_ms));
    assert_eq!(f.look(&p, "b").await, cooling);
    f.pass(&p, secs(61)).await;
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!(view.state, State::Cooling);
    let left = view.expires_at_ms.expect("a deadline") - f.now_ms().await;
    assert!((90_000..=99_000).contains(&left), "{left}");
    assert_eq!(f.granted(&p, named("b")).await.expires_in_ms, 600_000);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_cooldown_set_to_zero_frees_at_the_next_release() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    f.grant(&p).await;
    f.change(&p, policy(60, 0, 0)).await;
    f.unblock(&p, "a", None).await;
    f.grant(&p).await;
    f.pass(&p, secs(61)).await;
    assert_eq!(f.state(&p, "a").await, Some(State::Free));
    f.assert_consistent().await;
}

#[tokio::test]
async fn far_deadlines_wait_in_buckets_of_a_minute_and_are_placed_finely_from_there() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(3_600, 0, 0)).await;
    f.generate(&p, 50).await;
    // Deadlines from 20 to 49 s into one minute.
    let minute = (f.now_ms().await / 60_000 + 60) * 60_000;
    for n in 0..30 {
        let request = AssignRequest {
            lifetime_ms: Some(minute + 20_000 + n * 1_000 - f.now_ms().await),
            ..any()
        };
        f.granted(&p, request).await;
    }
    let buckets = async || {
        f.keys(&format!("{}*:due:{p}:*", f.config.key_prefix))
            .await
            .len()
    };
    assert_eq!(buckets().await, 1);
    f.assert_consistent().await;
    // The minute begins: each finds its own tick; nothing is taken back early.
    f.pass(&p, Duration::from_millis(minute - f.now_ms().await + 100))
        .await;
    eventually("they are placed finely", async || buckets().await >= 20).await;
    f.assert_consistent().await;
    assert_eq!(f.counts(&p).await, (20, 30, 0));
    f.pass(&p, secs(60)).await;
    eventually("they are taken back", async || {
        f.stored_free(&p).await == 50
    })
    .await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_lease_is_never_taken_back_before_what_its_holder_was_told() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(1, 0, 0), &["a"]).await;
    for _ in 0..2 {
        let grant = f.grant(&p).await;
        // Real time: the sweeper acts by itself.
        eventually("it is taken back", async || f.stored_free(&p).await == 1).await;
        assert!(f.now_ms().await > grant.expires_at_ms);
    }
    f.assert_consistent().await;
}
