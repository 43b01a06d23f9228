use tokend::token::*;

use crate::harness::*;
use crate::raw::Tagged;
use crate::verbs::*;

fn cap(max_tokens: u64) -> PolicyPatch {
    PolicyPatch {
        max_tokens: Some(max_tokens),
        ..policy(60, 300, 0)
    }
}

/// Ten seconds' worth of so many.
fn some<'a>(id: &'a str, count: &'a str) -> Vec<&'a str> {
    vec![id, "10000", count, "0"]
}

/// How many it got, and what others have reserved.
fn got(reply: &Tagged) -> (u64, u64) {
    assert_eq!(reply.tag, "reserved", "{reply:?}");
    (reply.int(0), reply.int(1))
}

fn had(reply: &Tagged) -> Vec<Option<u64>> {
    let had = reply.fields[2].clone().into_array();
    had.iter().map(fred::types::Value::as_u64).collect()
}

#[tokio::test]
async fn a_reservation_counts_until_it_is_let_go_or_lapses() {
    let f = Fixture::new().await;
    let p = f.filled("seats", cap(5), &["a"]).await;
    let replies = f
        .raw("reserve", &p, &[&some("one", "3"), &some("two", "3")])
        .await;
    assert_eq!((got(&replies[0]), got(&replies[1])), ((3, 0), (1, 3)));
    let full = GenerateOutcome::PoolFull {
        max_tokens: 5,
        total: 1,
    };
    assert_eq!(f.import(&p, &["b"]).await, full);
    f.assert_consistent().await;
    let replies = f.raw("reserve", &p, &[&["one", "0", "0", "0"]]).await;
    assert_eq!(replies[0].tag, "let_go");
    f.import(&p, &["b", "c", "d"]).await;
    assert_eq!(
        f.import(&p, &["e"]).await,
        GenerateOutcome::PoolFull {
            max_tokens: 5,
            total: 4
        }
    );
    f.pass(&p, secs(11)).await;
    f.import(&p, &["e"]).await;
    assert_eq!(f.counts(&p).await, (5, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_second_one_of_the_same_id_takes_the_place_of_the_first() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(5)).await;
    for count in ["4", "5", "2"] {
        let replies = f.raw("reserve", &p, &[&some("one", count)]).await;
        assert_eq!(got(&replies[0]), (count.parse().expect("a number"), 0));
    }
    let replies = f.raw("reserve", &p, &[&some("two", "5")]).await;
    assert_eq!(got(&replies[0]), (3, 2));
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_import_reserves_for_what_is_new_all_or_none() {
    let f = Fixture::new().await;
    let p = f.filled("seats", cap(3), &["a"]).await;
    let item = ["one", "10000", "0", "4", "b", "a", "c", "b"];
    let replies = f.raw("reserve", &p, &[&item]).await;
    assert_eq!(got(&replies[0]), (2, 0));
    assert_eq!(had(&replies[0]), [Some(2), Some(4)]);
    let item = ["two", "10000", "0", "1", "d"];
    let replies = f.raw("reserve", &p, &[&item]).await;
    assert_eq!(got(&replies[0]), (0, 2));
    // What is there needs no room.
    let item = ["three", "10000", "0", "1", "a"];
    let replies = f.raw("reserve", &p, &[&item]).await;
    assert_eq!(
        (got(&replies[0]), had(&replies[0])),
        ((0, 2), vec![Some(1)])
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn what_is_reserved_is_added_under_it_and_the_rest_is_let_go() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(3)).await;
    f.raw("reserve", &p, &[&some("one", "3")]).await;
    let others = ["", "", "", "", "0", "0", "1", "x"];
    let ours = ["", "", "one", "", "0", "0", "2", "a", "b"];
    let replies = f.raw("generate", &p, &[&others, &ours, &others]).await;
    let tags: Vec<_> = replies.iter().map(|reply| reply.tag.as_str()).collect();
    assert_eq!(tags, ["full", "added", "added"]);
    assert_eq!((replies[0].int(1), replies[0].int(2)), (0, 3));
    assert_eq!(f.counts(&p).await, (3, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn room_that_is_only_due_is_found() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(1_500)).await;
    f.generate(&p, 1_500).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(301)).await;
    let mut tags = Vec::new();
    for _ in 0..2 {
        let replies = f.raw("reserve", &p, &[&some("one", "1500")]).await;
        tags.push(replies[0].tag.clone());
    }
    assert_eq!(tags, ["again", "reserved"]);
    f.assert_structure().await;
}

#[tokio::test]
async fn too_many_at_once_are_told_to_come_again() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(10_000)).await;
    let ids: Vec<_> = (0..1_001).map(|n| n.to_string()).collect();
    let items: Vec<_> = ids.iter().map(|id| some(id, "1")).collect();
    let items: Vec<_> = items.iter().map(Vec::as_slice).collect();
    let replies = f.raw("reserve", &p, &items).await;
    assert!(replies[..1_000].iter().all(|reply| reply.tag == "reserved"));
    assert_eq!(replies[1_000].tag, "again");
    f.assert_consistent().await;
}

#[tokio::test]
async fn reservations_go_with_their_pool() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(5)).await;
    f.raw("reserve", &p, &[&some("one", "5")]).await;
    assert!(f.store.delete_pool(&p).await.expect("delete"));
    f.assert_consistent().await;
    f.pool("seats", cap(5)).await;
    f.import(&p, &["a"]).await;
    assert_eq!(f.counts(&p).await, (1, 0, 0));
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(5)).await;
    let replies = f.raw_at("reserve", &p, 1, 0, &[&some("one", "5")]).await;
    assert_eq!(replies[0].tag, "stale");
}
