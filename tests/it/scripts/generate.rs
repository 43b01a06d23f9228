use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokend::store::{GenerateRequest, NewTokens};
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

fn added(tokens: &[&str], existing: u64) -> GenerateOutcome {
    GenerateOutcome::Added {
        tokens: tokens.iter().map(|value| token(value)).collect(),
        existing,
        born: None,
    }
}

fn cap(max_tokens: u64) -> PolicyPatch {
    PolicyPatch {
        max_tokens: Some(max_tokens),
        ..policy(60, 0, 20)
    }
}

#[tokio::test]
async fn generated_tokens_are_free_and_all_different() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 300, 0)).await;
    let tokens = f.generate(&p, 100).await;
    assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), 100);
    assert_eq!(f.counts(&p).await, (100, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn ten_thousand_in_one_call() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 300, 0)).await;
    let tokens = f.generate(&p, TOKENS_PER_CALL_MAX).await;
    assert_eq!(tokens.len(), TOKENS_PER_CALL_MAX);
    let told = f.generate_keyed(&p, NewTokens::Generate(1), "k").await;
    let full = GenerateOutcome::PoolFull {
        max_tokens: 10_000,
        total: 10_000,
    };
    assert_eq!(told, full);
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_import_leaves_what_is_there_and_names_what_is_new() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    assert_eq!(f.import(&p, &["a", "b"]).await, added(&["a", "b"], 0));
    let grant = f.granted(&p, named("a")).await;
    // One that is held, one that is free, one that is named twice.
    assert_eq!(
        f.import(&p, &["c", "a", "b", "d", "c"]).await,
        added(&["c", "d"], 3)
    );
    assert_eq!(
        f.look(&p, "a").await.map(|v| v.fence),
        Some(grant.fence.get())
    );
    assert_eq!(f.counts(&p).await, (3, 1, 0));
    // A retry answers that they exist.
    assert_eq!(f.import(&p, &["c", "d"]).await, added(&[], 2));
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_value_in_two_items_of_a_call_is_added_once() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let one: &[&str] = &["", "", "", "", "0", "0", "2", "a", "b"];
    let two: &[&str] = &["", "", "", "", "0", "0", "2", "b", "c"];
    let replies = f.raw("generate", &p, &[one, two]).await;
    let had = replies[1].fields[0].clone().into_array();
    assert_eq!(
        had.iter()
            .map(fred::types::Value::as_u64)
            .collect::<Vec<_>>(),
        [Some(1)]
    );
    assert_eq!(f.counts(&p).await, (3, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_value_that_was_idle_for_too_long_is_new_again() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 0), &["a", "b"]).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(301)).await;
    let replies = f
        .raw("generate", &p, &[&["", "", "", "", "0", "0", "1", "a"]])
        .await;
    assert_eq!(replies[0].tag, "added");
    assert!(replies[0].fields[0].clone().into_array().is_empty());
    f.assert_structure().await;
    assert_eq!(
        f.raw("inspect", &p, &[&["a", ""], &["b", ""]]).await[1].tag,
        "absent"
    );
}

#[tokio::test]
async fn the_cap_counts_every_state_and_nothing_is_added_past_it() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(3)).await;
    f.import(&p, &["a", "b"]).await;
    f.grant(&p).await;
    let held = f.grant(&p).await;
    f.unblock(&p, held.token.as_str(), None).await;
    assert_eq!(f.counts(&p).await, (0, 1, 1));
    let full = GenerateOutcome::PoolFull {
        max_tokens: 3,
        total: 2,
    };
    assert_eq!(f.import(&p, &["c", "d"]).await, full);
    assert_eq!(f.state(&p, "c").await, None);
    assert_eq!(f.import(&p, &["c", "a"]).await, added(&["c"], 1));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_full_pool_counts_what_is_there_after_settling() {
    let f = Fixture::new().await;
    let p = f
        .pool(
            "seats",
            PolicyPatch {
                idle_limit_ms: Some(300_000),
                ..cap(2)
            },
        )
        .await;
    f.import(&p, &["a", "b"]).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(301)).await;
    let replies = f
        .raw(
            "generate",
            &p,
            &[&["", "", "", "", "0", "0", "2", "c", "d"]],
        )
        .await;
    assert_eq!(replies[0].tag, "added");
    f.assert_structure().await;
}

#[tokio::test]
async fn more_due_than_one_call_may_settle_answers_again() {
    let f = Fixture::new().await;
    let p = f
        .pool(
            "seats",
            PolicyPatch {
                idle_limit_ms: Some(300_000),
                ..cap(2_500)
            },
        )
        .await;
    f.generate(&p, 2_500).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(301)).await;
    let item: &[&str] = &["", "", "", "", "0", "0", "1501", "x"];
    let values: Vec<_> = (0..1_500).map(|n| format!("x{n}")).collect();
    let item: Vec<&str> = item
        .iter()
        .copied()
        .chain(values.iter().map(String::as_str))
        .collect();
    let mut tags = Vec::new();
    for _ in 0..3 {
        tags.push(f.raw("generate", &p, &[&item]).await[0].tag.clone());
    }
    assert_eq!(tags, ["again", "again", "added"]);
    f.assert_structure().await;
}

#[tokio::test]
async fn a_lowered_cap_deletes_nothing_and_an_import_that_adds_nothing_is_no_excess() {
    let f = Fixture::new().await;
    let p = f.filled("seats", cap(5), &["a", "b", "c", "d"]).await;
    f.change(&p, cap(2)).await;
    assert_eq!(f.counts(&p).await, (4, 0, 0));
    assert!(matches!(
        f.import(&p, &["e"]).await,
        GenerateOutcome::PoolFull { total: 4, .. }
    ));
    assert_eq!(f.import(&p, &["a", "b"]).await, added(&[], 2));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_retry_with_a_key_finds_the_first_calls_tokens() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let first = f.generate_keyed(&p, NewTokens::Generate(3), "k").await;
    assert_eq!(
        f.generate_keyed(&p, NewTokens::Generate(3), "k").await,
        first
    );
    f.import(&p, &["a"]).await;
    let import = f.generate_keyed(&p, these(&["a", "b"]), "import").await;
    assert_eq!(import, added(&["b"], 1));
    assert_eq!(
        f.generate_keyed(&p, these(&["a", "b"]), "import").await,
        import
    );
    let nothing = f.generate_keyed(&p, these(&["a"]), "nothing new").await;
    assert_eq!(nothing, added(&[], 1));
    assert_eq!(
        f.generate_keyed(&p, these(&["a"]), "nothing new").await,
        nothing
    );
    assert_eq!(f.counts(&p).await, (5, 0, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn another_request_under_the_same_key_is_a_mismatch() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate_keyed(&p, these(&["a", "b"]), "k").await;
    for other in [
        these(&["a"]),
        these(&["b", "a"]),
        these(&["ab"]),
        these(&["a", "b", "c"]),
        NewTokens::Generate(2),
    ] {
        let told = f.generate_keyed(&p, other, "k").await;
        assert_eq!(told, GenerateOutcome::IdempotencyMismatch);
    }
    assert_eq!(f.counts(&p).await, (2, 0, 0));
}

#[tokio::test]
async fn a_key_is_found_for_ten_minutes_and_a_full_pool_is_not_remembered() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(2)).await;
    let full = f.generate_keyed(&p, these(&["a", "b", "c"]), "k").await;
    assert!(matches!(full, GenerateOutcome::PoolFull { .. }));
    assert_eq!(
        f.generate_keyed(&p, these(&["a", "b"]), "k").await,
        added(&["a", "b"], 0)
    );
    f.pass(&p, secs(600)).await;
    assert_eq!(
        f.generate_keyed(&p, these(&["a", "b"]), "k").await,
        added(&["a", "b"], 0)
    );
    f.pass(&p, secs(1_200)).await;
    assert_eq!(
        f.generate_keyed(&p, these(&["a", "b"]), "k").await,
        added(&[], 2)
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_keyed_call_of_ten_thousand_is_replayed_whole() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let values: Vec<_> = (0..TOKENS_PER_CALL_MAX)
        .map(|n| format!("t {n}%"))
        .collect();
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    let first = f.generate_keyed(&p, these(&values), "k").await;
    assert_eq!(first, added(&values, 0));
    assert_eq!(f.generate_keyed(&p, these(&values), "k").await, first);
}

#[tokio::test]
async fn weird_values_are_told_apart_and_replayed() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 300, 0)).await;
    let weird = weird_values();
    let weird: Vec<_> = weird.iter().map(String::as_str).collect();
    let first = f.generate_keyed(&p, these(&weird), "k").await;
    assert_eq!(first, added(&weird, 0));
    assert_eq!(f.generate_keyed(&p, these(&weird), "k").await, first);
    for value in &weird {
        assert_eq!(f.state(&p, value).await, Some(State::Free), "{value}");
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let replies = f
        .raw_at(
            "generate",
            &p,
            1,
            0,
            &[&["", "", "", "", "0", "0", "1", "a"]],
        )
        .await;
    assert_eq!(replies[0].tag, "stale");
    assert_eq!(f.counts(&p).await, (0, 0, 0));
}

#[tokio::test]
async fn without_a_key_generate_adds_others_and_the_cap_holds_however_many_ask() {
    let f = Fixture::new().await;
    let p = f.pool("seats", cap(100)).await;
    let g = f.replica().await;
    let ask = |store: &tokend::store::Store| {
        let (store, p) = (store.clone(), p.clone());
        async move {
            let request = GenerateRequest {
                tokens: NewTokens::Generate(7),
                key: None,
            };
            store.generate(&p, request).await.expect("generate")
        }
    };
    let calls = (0..50).map(|n| ask(if n % 2 == 0 { &f.store } else { &g.store }));
    let done = join_all(calls).await;
    let whole = done
        .iter()
        .filter(|d| matches!(d, GenerateOutcome::Added { tokens, .. } if tokens.len() == 7));
    assert_eq!(whole.count(), 14);
    assert_eq!(f.counts(&p).await, (98, 0, 0));
    f.assert_consistent().await;
}
