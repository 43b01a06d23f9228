use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

fn max_hold(seconds: u64) -> PolicyPatch {
    PolicyPatch {
        max_hold_ms: Some(seconds * 1_000),
        ..PolicyPatch::default()
    }
}

#[tokio::test]
async fn a_lease_restarts_with_the_pools_lifetime_or_the_one_given() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let grant = f.grant(&p).await;
    f.pass(&p, secs(50)).await;
    assert_eq!(f.kept(&p, "a", None).await, (State::Held, 60));
    f.pass(&p, secs(50)).await;
    assert_eq!(f.kept(&p, "a", Some(500)).await, (State::Held, 500));
    // Retried, it restarts the same clock once more.
    assert_eq!(f.kept(&p, "a", Some(500)).await, (State::Held, 500));
    f.pass(&p, secs(450)).await;
    let view = f.look(&p, "a").await.expect("still there");
    assert_eq!((view.state, view.fence), (State::Held, grant.fence.get()));
    f.assert_consistent().await;
    f.pass(&p, secs(51)).await;
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_free_tokens_idle_clock_restarts() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 0), &["a", "b"]).await;
    f.pass(&p, secs(200)).await;
    assert_eq!(f.kept(&p, "a", None).await, (State::Free, 300));
    f.pass(&p, secs(101)).await;
    assert_eq!(f.state(&p, "a").await, Some(State::Free));
    assert_eq!(f.state(&p, "b").await, None);
    eventually("b is swept", async || f.counts(&p).await == (1, 0, 0)).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_free_token_without_an_idle_limit_has_no_deadline() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let kept = KeepAliveOutcome::Kept {
        state: State::Free,
        expires_at_ms: None,
        expires_in_ms: None,
    };
    assert_eq!(f.keep(&p, "a", None, None).await, kept);
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_is_cooling_is_not_held() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let grant = f.grant(&p).await;
    f.unblock(&p, "a", None).await;
    let not_held = KeepAliveOutcome::NotHeld {
        state: State::Cooling,
    };
    assert_eq!(f.keep(&p, "a", None, None).await, not_held);
    // Who names a fence is told about that fence.
    assert_eq!(
        f.keep(&p, "a", Some(grant.fence), None).await,
        KeepAliveOutcome::LeaseLost
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_fence_that_is_not_the_leases_is_lease_lost() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let old = f.grant(&p).await.fence;
    f.pass(&p, secs(61)).await;
    assert_eq!(
        f.keep(&p, "a", Some(old), None).await,
        KeepAliveOutcome::LeaseLost
    );
    let new = f.grant(&p).await;
    assert_eq!(
        f.keep(&p, "a", Some(old), Some(9)).await,
        KeepAliveOutcome::LeaseLost
    );
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!(view.expires_at_ms, Some(new.expires_at_ms));
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_is_not_there_is_absent() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let fence = Fence::parse(1).ok();
    for fence in [None, fence] {
        assert_eq!(
            f.keep(&p, "a", fence, None).await,
            KeepAliveOutcome::TokenNotFound
        );
    }
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let replies = f.raw_at("keep_alive", &p, 1, 0, &[&["a", "0", "0"]]).await;
    assert_eq!(replies[0].tag, "stale");
}

#[tokio::test]
async fn max_hold_clamps_what_is_asked() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    f.change(&p, max_hold(100)).await;
    f.grant(&p).await;
    f.pass(&p, secs(50)).await;
    assert_eq!(f.kept(&p, "a", None).await, (State::Held, 50));
    assert_eq!(f.kept(&p, "a", Some(500)).await, (State::Held, 50));
    assert_eq!(f.kept(&p, "a", Some(10)).await, (State::Held, 10));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_lowered_max_hold_never_shortens_what_the_holder_was_told() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(600, 0, 0), &["a"]).await;
    let grant = f.grant(&p).await;
    f.change(&p, max_hold(100)).await;
    match f.keep(&p, "a", None, None).await {
        KeepAliveOutcome::Kept { expires_at_ms, .. } => {
            assert_eq!(expires_at_ms, Some(grant.expires_at_ms));
        }
        other => panic!("{other:?}"),
    }
    f.pass(&p, secs(200)).await;
    assert_eq!(f.state(&p, "a").await, Some(State::Held));
    f.assert_consistent().await;
}

#[tokio::test]
async fn who_asks_for_less_under_a_lowered_max_hold_gets_no_more_than_asked() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(600, 0, 0), &["a"]).await;
    f.grant(&p).await;
    f.change(&p, max_hold(100)).await;
    assert_eq!(f.kept(&p, "a", Some(300)).await, (State::Held, 300));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_shorter_lifetime_moves_the_deadline_and_its_wheel_entry_earlier() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(86_400, 0, 0), &["a"]).await;
    f.grant(&p).await;
    f.assert_consistent().await;
    assert_eq!(f.kept(&p, "a", Some(1)).await, (State::Held, 1));
    f.assert_consistent().await;
    // Real time: the sweeper by itself, for nothing else is asked here.
    eventually("it is taken back", async || f.stored_free(&p).await == 1).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn kept_alive_for_longer_the_old_entry_takes_nothing_back() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(10, 0, 0), &["a"]).await;
    f.grant(&p).await;
    for _ in 0..5 {
        f.kept(&p, "a", Some(3_600)).await;
        f.pass(&p, secs(11)).await;
        assert_eq!(f.counts(&p).await, (0, 1, 0));
        f.assert_consistent().await;
    }
}

#[tokio::test]
async fn it_does_not_revive_a_lease_that_has_lapsed_unswept() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 100, 0), &["a", "b"]).await;
    f.granted(&p, named("a")).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(101)).await;
    // Held until 60 s, free since then; b has been idle for too long.
    let replies = f
        .raw("keep_alive", &p, &[&["a", "0", "0"], &["b", "0", "0"]])
        .await;
    assert_eq!(
        (replies[0].tag.as_str(), replies[0].text(0).as_str()),
        ("kept", "free")
    );
    assert_eq!(replies[1].tag, "absent");
    f.assert_structure().await;
}
