use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn a_held_token_cools_and_then_is_free() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let grant = f.grant(&p).await;
    let before = f.now_ms().await;
    match f.unblock(&p, "a", Some(grant.fence)).await {
        UnblockOutcome::Released {
            state: State::Cooling,
            available_at_ms,
        } => assert!(available_at_ms >= before + 20_000),
        other => panic!("{other:?}"),
    }
    assert_eq!(f.counts(&p).await, (0, 0, 1));
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!((view.holder, view.granted_at_ms), (None, None));
    f.assert_consistent().await;
    f.pass(&p, secs(21)).await;
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn without_a_cooldown_it_is_free_at_once() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let grant = f.grant(&p).await;
    let released = f.unblock(&p, "a", Some(grant.fence)).await;
    let UnblockOutcome::Released { state, .. } = released else {
        panic!("{released:?}")
    };
    assert_eq!(state, State::Free);
    f.grant(&p).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_is_free_or_cooling_is_not_held() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let told = f.unblock(&p, "a", None).await;
    assert_eq!(told, UnblockOutcome::NotHeld { state: State::Free });
    f.grant(&p).await;
    f.unblock(&p, "a", None).await;
    let told = f.unblock(&p, "a", None).await;
    assert_eq!(
        told,
        UnblockOutcome::NotHeld {
            state: State::Cooling
        }
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_fence_that_is_not_the_leases_is_lease_lost_in_whatever_state() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let old = f.grant(&p).await;
    f.unblock(&p, "a", Some(old.fence)).await;
    let lost = UnblockOutcome::LeaseLost;
    // Cooling; also what a retry of the same unblock is told.
    assert_eq!(f.unblock(&p, "a", Some(old.fence)).await, lost);
    f.pass(&p, secs(21)).await;
    assert_eq!(f.unblock(&p, "a", Some(old.fence)).await, lost); // free
    let new = f.grant(&p).await;
    assert_eq!(f.unblock(&p, "a", Some(old.fence)).await, lost); // held by another
    assert_eq!(
        f.look(&p, "a").await.map(|v| v.fence),
        Some(new.fence.get())
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_is_not_there_is_absent_whatever_the_fence() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let grant = f.grant(&p).await;
    f.delete(&p, "a").await;
    for fence in [None, Some(grant.fence)] {
        assert_eq!(
            f.unblock(&p, "a", fence).await,
            UnblockOutcome::TokenNotFound
        );
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    f.grant(&p).await;
    let replies = f.raw_at("unblock", &p, 1, 0, &[&["a", "0", ""]]).await;
    assert_eq!(replies[0].tag, "stale");
    assert_eq!(f.counts(&p).await, (0, 1, 0));
}

#[tokio::test]
async fn one_that_nobody_used_goes_straight_to_free() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let fence = f.grant(&p).await.fence.get().to_string();
    let replies = f.raw("unblock", &p, &[&["a", &fence, "direct"]]).await;
    assert_eq!(replies[0].tag, "free");
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_lease_that_has_lapsed_unswept_is_not_held_any_more() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 600), &["a"]).await;
    let fence = f.grant(&p).await.fence;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(61)).await;
    let fence = fence.get().to_string();
    let replies = f
        .raw("unblock", &p, &[&["a", "0", ""], &["a", &fence, ""]])
        .await;
    assert_eq!(replies[0].tag, "not_held");
    assert_eq!(replies[0].text(0), "cooling");
    assert_eq!(replies[1].tag, "lease_lost");
    f.assert_structure().await;
}

#[tokio::test]
async fn the_same_token_twice_in_one_call_is_released_once() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a"]).await;
    let fence = f.grant(&p).await.fence.get().to_string();
    let item: &[&str] = &["a", &fence, ""];
    let replies = f.raw("unblock", &p, &[item, item, &["a", "0", ""]]).await;
    let tags: Vec<_> = replies.iter().map(|reply| reply.tag.as_str()).collect();
    assert_eq!(tags, ["cooling", "lease_lost", "not_held"]);
    f.assert_consistent().await;
}
