use futures_util::future::join_all;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn a_token_is_deleted_in_any_state() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 300, 20), &["free", "held", "cooling"])
        .await;
    f.granted(&p, named("held")).await;
    f.granted(&p, named("cooling")).await;
    f.unblock(&p, "cooling", None).await;
    assert_eq!(f.counts(&p).await, (1, 1, 1));
    for value in ["free", "held", "cooling"] {
        assert_eq!(f.delete(&p, value).await, DeleteOutcome::Deleted);
        f.assert_consistent().await;
    }
    assert_eq!(f.counts(&p).await, (0, 0, 0));
}

#[tokio::test]
async fn a_second_delete_answers_absent() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    assert_eq!(f.delete(&p, "a").await, DeleteOutcome::Deleted);
    assert_eq!(f.delete(&p, "a").await, DeleteOutcome::TokenNotFound);
    assert_eq!(f.delete(&p, "never").await, DeleteOutcome::TokenNotFound);
    let replies = f.raw("delete", &p, &[&["a"]]).await;
    assert_eq!(replies[0].tag, "absent");
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let replies = f.raw_at("delete", &p, 1, 0, &[&["a"]]).await;
    assert_eq!(replies[0].tag, "stale");
    assert_eq!(f.counts(&p).await, (1, 0, 0));
}

#[tokio::test]
async fn one_that_has_been_idle_for_too_long_is_absent_already() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 0), &["a"]).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(301)).await;
    let replies = f.raw("delete", &p, &[&["a"]]).await;
    assert_eq!(replies[0].tag, "absent");
    assert_eq!(f.stored_free(&p).await, 0);
    f.assert_structure().await;
}

#[tokio::test]
async fn of_many_who_delete_one_token_at_once_one_does() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let all = join_all((0..50).map(|_| f.delete(&p, "a"))).await;
    let deleted = all.iter().filter(|done| **done == DeleteOutcome::Deleted);
    assert_eq!(deleted.count(), 1);
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_same_value_can_be_added_again_and_starts_anew() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let old = f.grant(&p).await;
    f.delete(&p, "a").await;
    f.import(&p, &["a"]).await;
    assert_eq!(f.look(&p, "a").await.map(|view| view.fence), Some(0));
    assert_eq!(
        f.unblock(&p, "a", Some(old.fence)).await,
        UnblockOutcome::LeaseLost
    );
    let new = f.grant(&p).await;
    assert!(new.fence > old.fence);
    assert_eq!(
        f.unblock(&p, "a", Some(old.fence)).await,
        UnblockOutcome::LeaseLost
    );
    f.assert_consistent().await;
}
