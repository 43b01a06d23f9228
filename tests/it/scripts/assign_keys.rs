//! Idempotency keys of `assign`.

use tokend::store::AssignRequest;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn a_retry_with_a_key_finds_the_grant_as_it_is_now() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    let request = AssignRequest {
        holder: holder("me"),
        ..keyed("k")
    };
    let first = f.granted(&p, request.clone()).await;
    f.pass(&p, secs(20)).await;
    let again = f.granted(&p, request.clone()).await;
    assert_eq!((&again.token, again.fence), (&first.token, first.fence));
    assert_eq!(again.holder, holder("me"));
    assert!(again.expires_in_ms <= 40_000, "recomputed: {again:?}");
    f.kept(&p, first.token.as_str(), Some(500)).await;
    let extended = f.granted(&p, request).await;
    assert!(
        extended.expires_in_ms > 490_000,
        "as it is now: {extended:?}"
    );
    assert_eq!(f.counts(&p).await, (1, 1, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_replay_after_the_lease_has_ended_is_lease_lost() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    f.granted(&p, keyed("lapses")).await;
    f.pass(&p, secs(61)).await;
    assert_eq!(
        f.assign(&p, keyed("lapses")).await,
        AssignOutcome::LeaseLost
    );

    f.granted(&p, keyed("is unblocked")).await;
    f.unblock(&p, "a", None).await;
    assert_eq!(
        f.assign(&p, keyed("is unblocked")).await,
        AssignOutcome::LeaseLost
    );

    f.granted(&p, keyed("goes on")).await;
    f.unblock(&p, "a", None).await;
    f.grant(&p).await;
    assert_eq!(
        f.assign(&p, keyed("goes on")).await,
        AssignOutcome::LeaseLost
    );

    f.unblock(&p, "a", None).await;
    f.granted(&p, keyed("is deleted")).await;
    f.delete(&p, "a").await;
    assert_eq!(
        f.assign(&p, keyed("is deleted")).await,
        AssignOutcome::LeaseLost
    );
    f.import(&p, &["a"]).await;
    assert_eq!(
        f.assign(&p, keyed("is deleted")).await,
        AssignOutcome::LeaseLost
    );
    assert_eq!(f.counts(&p).await, (1, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn another_request_under_the_same_key_is_a_mismatch() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    f.granted(&p, keyed("k")).await;
    for other in [
        AssignRequest {
            holder: holder("me"),
            ..keyed("k")
        },
        AssignRequest {
            lifetime_ms: Some(5_000),
            ..keyed("k")
        },
        AssignRequest {
            token: Some(token("b")),
            ..keyed("k")
        },
        // The same text in another place is another request.
        AssignRequest {
            token: Some(token("me")),
            ..keyed("k")
        },
    ] {
        let told = f.assign(&p, other).await;
        assert_eq!(told, AssignOutcome::IdempotencyMismatch);
    }
    assert_eq!(f.counts(&p).await, (1, 1, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn only_successes_are_remembered() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let empty = f.assign(&p, keyed("k")).await;
    assert!(matches!(empty, AssignOutcome::Empty { .. }));
    f.import(&p, &["a"]).await;
    f.granted(&p, keyed("k")).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_key_is_of_one_pool_and_one_verb() {
    let f = Fixture::new().await;
    let p = f.filled("a", policy(60, 0, 0), &["x"]).await;
    let q = f.filled("a-b", policy(60, 0, 0), &["x"]).await;
    let (one, other) = (
        f.granted(&p, keyed("k")).await,
        f.granted(&q, keyed("k")).await,
    );
    assert_ne!(one.fence, other.fence);
    let added = f.generate_keyed(&p, these(&["y"]), "k").await;
    assert!(matches!(added, GenerateOutcome::Added { existing: 0, .. }));
    // A key that looks like another verb's: `<verb>:<key>` must not meet `<verb>:<key>`.
    f.granted(&p, keyed("generate:k")).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_key_is_found_for_ten_minutes_and_not_for_ever() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(3_600, 0, 0), &["a", "b"]).await;
    let first = f.granted(&p, keyed("k")).await;
    f.pass(&p, secs(600)).await;
    assert_eq!(f.granted(&p, keyed("k")).await.fence, first.fence);
    f.pass(&p, secs(1_200)).await;
    assert_ne!(f.granted(&p, keyed("k")).await.fence, first.fence);
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_same_key_twice_in_one_call_is_one_grant() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b", "c"]).await;
    let k: &[&str] = &["k", "f", "", "0", "", "0", ""];
    let other: &[&str] = &["k", "g", "", "0", "", "0", ""];
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    let replies = f.raw("assign", &p, &[k, k, other, any]).await;
    let tags: Vec<_> = replies.iter().map(|reply| reply.tag.as_str()).collect();
    assert_eq!(tags, ["granted", "granted", "mismatch", "granted"]);
    assert_eq!(replies[0], replies[1]);
    assert_ne!(replies[0].text(0), replies[3].text(0));
    assert_eq!(f.counts(&p).await, (1, 2, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn keys_with_odd_characters_are_told_apart() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 10).await;
    let keys = ["k", "K", "k:1", "%s", "a b c", "a  b c", "\"", "{k}"];
    let mut fences = Vec::new();
    for name in keys {
        fences.push(f.granted(&p, keyed(name)).await.fence);
    }
    for (name, fence) in keys.iter().zip(&fences) {
        assert_eq!(f.granted(&p, keyed(name)).await.fence, *fence, "{name}");
    }
    f.assert_consistent().await;
}
