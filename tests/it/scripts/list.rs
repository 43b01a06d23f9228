use std::collections::BTreeSet;

use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

impl Fixture {
    async fn page(
        &self,
        pool: &PoolName,
        state: Option<State>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Page {
        let page = self.store.list_tokens(pool, state, cursor, limit).await;
        page.expect("list").expect("the pool").expect("the cursor")
    }

    /// All that a walk shows, `between` run after each page.
    async fn walk(
        &self,
        pool: &PoolName,
        state: Option<State>,
        limit: usize,
        mut between: impl AsyncFnMut(&Page),
    ) -> Vec<TokenView> {
        let (mut seen, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..10_000 {
            let page = self.page(pool, state, cursor.as_deref(), limit).await;
            assert!(page.tokens.len() <= limit);
            between(&page).await;
            seen.extend(page.tokens);
            cursor = page.cursor;
            if cursor.is_none() {
                return seen;
            }
        }
        panic!("a walk without an end");
    }
}

fn names(views: &[TokenView]) -> BTreeSet<String> {
    views.iter().map(|view| view.token.to_string()).collect()
}

#[tokio::test]
async fn a_page_tells_what_inspect_tells() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 300, 20), &["a", "b", "c"])
        .await;
    f.granted(&p, named("a")).await;
    f.granted(&p, named("b")).await;
    f.unblock(&p, "b", None).await;
    let page = f.page(&p, None, None, 10).await;
    assert_eq!(page.cursor, None);
    assert_eq!(page.tokens.len(), 3);
    for view in page.tokens {
        assert_eq!(f.look(&p, view.token.as_str()).await, Some(view));
    }
}

#[tokio::test]
async fn only_the_state_that_is_asked_for() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a", "b", "c"]).await;
    f.granted(&p, named("a")).await;
    f.granted(&p, named("b")).await;
    f.unblock(&p, "b", None).await;
    for (state, expected) in [
        (State::Held, "a"),
        (State::Cooling, "b"),
        (State::Free, "c"),
    ] {
        let page = f.page(&p, Some(state), None, 10).await;
        assert_eq!(names(&page.tokens), BTreeSet::from([expected.to_owned()]));
    }
}

#[tokio::test]
async fn a_walk_shows_every_token_whatever_the_limit() {
    let f = Fixture::new().await;
    for size in [100, 1_500] {
        let p = f.pool(&format!("pool-{size}"), policy(60, 0, 0)).await;
        let tokens = f.generate(&p, size).await;
        let all: BTreeSet<_> = tokens.iter().map(ToString::to_string).collect();
        for limit in [7, 100, 1_000] {
            let seen = f.walk(&p, None, limit, async |_| {}).await;
            // One may be shown twice while the hash grows; none is left out.
            assert!(names(&seen) == all, "limit {limit}");
        }
    }
}

#[tokio::test]
async fn a_rare_state_is_found_over_short_pages() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 2_000).await;
    f.import(&p, &["the one"]).await;
    f.granted(&p, named("the one")).await;
    let seen = f.walk(&p, Some(State::Held), 10, async |_| {}).await;
    assert_eq!(names(&seen), BTreeSet::from(["the one".to_owned()]));
    // Wherever it lies: one call never comes to the end of so many.
    let reply = f.raw("list", &p, &[&["held", "0", "", "", "10"]]).await;
    assert_ne!(reply[0].text(0), "", "one call walks a bounded part");
}

#[tokio::test]
async fn what_is_there_throughout_a_walk_is_shown_though_others_are_deleted() {
    let f = Fixture::new().await;
    // Pages smaller than what one step of Redis gives, and larger ones; the table shrinks on the way.
    for (size, limit) in [(60, 20), (200, 1), (500, 4), (1_000, 7), (1_000, 20)] {
        let p = f
            .pool(&format!("pool-{size}-{limit}"), policy(60, 0, 0))
            .await;
        let tokens = f.generate(&p, size).await;
        let seen = f
            .walk(&p, None, limit, async |page| {
                // What was just shown goes.
                for view in &page.tokens {
                    f.delete(&p, view.token.as_str()).await;
                }
            })
            .await;
        let all: BTreeSet<_> = tokens.iter().map(ToString::to_string).collect();
        assert!(names(&seen) == all, "{size} by {limit}");
        f.assert_consistent().await;
    }
}

#[tokio::test]
async fn deadlines_that_have_passed_have_happened() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 300, 500), &["held", "idle"])
        .await;
    f.granted(&p, named("held")).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(301)).await;
    let replies = f.raw("list", &p, &[&["", "0", "", "", "10"]]).await;
    let tokens = replies[0].fields[3..].iter().cloned();
    let tokens: Vec<_> = tokens
        .map(|entry| {
            entry
                .into_array()
                .into_iter()
                .take(2)
                .filter_map(|v| v.as_string())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(tokens, [["held", "cooling"]]);
    f.assert_structure().await;
}

#[tokio::test]
async fn weird_and_long_values_make_good_cursors() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let weird = weird_values();
    f.import(&p, &weird.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let cursor_is_short = async |page: &Page| {
        let length = page.cursor.as_ref().map_or(0, String::len);
        assert!(length <= 100, "a cursor of {length} characters");
    };
    let seen = f.walk(&p, None, 1, cursor_is_short).await;
    assert_eq!(names(&seen), weird.into_iter().collect());
}

#[tokio::test]
async fn a_cursor_that_no_page_gave_is_refused() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    for cursor in [
        "",
        "x",
        "0",
        ".",
        "-1.",
        "0.é",
        "0.61",
        "0.~da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "0.0~",
        "0.0~6",
        "0.0-61",
        "0.0~da39a3ee5e6b4b0d3255bfef95601890afd8070g",
        "1.0~da39a3ee5e6b4b0d3255bfef95601890afd80709.61.61",
        "99999999999999999999.",
        "0.99999999999999999999~da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ] {
        let page = f.store.list_tokens(&p, None, Some(cursor), 10).await;
        let refused = page.expect("list").expect("the pool").is_err();
        assert!(refused, "{cursor:?}");
    }
}

#[tokio::test]
async fn another_generation_is_stale_and_no_pool_is_none() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let replies = f
        .raw_at("list", &p, 1, 0, &[&["", "0", "", "", "10"]])
        .await;
    assert_eq!(replies[0].tag, "stale");
    let page = f.store.list_tokens(&pool("nowhere"), None, None, 10).await;
    assert!(page.expect("list").is_none());
}

#[tokio::test]
async fn a_rare_state_in_a_large_pool_is_found_on_the_first_page() {
    let f = Fixture::new().await;
    let p = f.pool("large", policy(600, 0, 0)).await;
    f.generate(&p, 5_000).await;
    let grant = f.grant(&p).await;
    let page = f.store.list_tokens(&p, Some(State::Held), None, 100).await;
    let page = page.expect("list").expect("a pool").expect("a page");
    let tokens: Vec<_> = page.tokens.iter().map(|view| &view.token).collect();
    assert_eq!(tokens, [&grant.token]);
}
