use crate::harness::*;
use crate::verbs::*;

const LOOK: &[&str] = &["k", "f", "", "0", "0"];
const OURS: &[&str] = &["k", "f", "op-1", "2", "2", "a", "b\u{a0}ö"];

#[tokio::test]
async fn the_first_decides_and_all_others_find_it() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let theirs: &[&str] = &["k", "f", "op-2", "0", "1", "z"];
    let replies = f.raw("commit", &p, &[LOOK, OURS, theirs, LOOK]).await;
    let tags: Vec<_> = replies.iter().map(|reply| reply.tag.as_str()).collect();
    assert_eq!(tags, ["none", "committed", "found", "found"]);
    assert_eq!(replies[2], replies[3]);
    assert_eq!(
        (replies[2].text(0), replies[2].int(1)),
        ("op-1".to_owned(), 2)
    );
    assert_eq!(replies[2].text(2), "a\nb\u{a0}ö");
    // And in the next call.
    let again = f.raw("commit", &p, &[theirs]).await;
    assert_eq!(again[0], replies[2]);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_decision_of_no_tokens_is_one() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let nothing: &[&str] = &["k", "f", "op-1", "3", "0"];
    let replies = f.raw("commit", &p, &[nothing, LOOK]).await;
    assert_eq!(replies[0].tag, "committed");
    assert_eq!((replies[1].int(1), replies[1].text(2)), (3, String::new()));
}

#[tokio::test]
async fn another_request_under_the_key_is_a_mismatch() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let other: &[&str] = &["k", "g", "", "0", "0"];
    let replies = f.raw("commit", &p, &[OURS, other]).await;
    assert_eq!(replies[1].tag, "mismatch");
}

#[tokio::test]
async fn it_is_found_for_ten_minutes() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.raw("commit", &p, &[OURS]).await;
    f.pass(&p, secs(600)).await;
    assert_eq!(f.raw("commit", &p, &[LOOK]).await[0].tag, "found");
    f.pass(&p, secs(1_200)).await;
    assert_eq!(f.raw("commit", &p, &[LOOK]).await[0].tag, "none");
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    assert_eq!(f.raw_at("commit", &p, 1, 0, &[LOOK]).await[0].tag, "stale");
}
