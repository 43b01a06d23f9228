//! The rows of the contract's table "Pool": what a success looks like, member by member.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, answer};
use crate::harness::{eventually, pool};

/// `default` as the environment's defaults make it.
fn default_pool(free: u64, held: u64, cooling: u64) -> Value {
    json!({
        "name": "default", "free": free, "held": held, "cooling": cooling,
        "total": free + held + cooling, "lifetime": 60, "idle_limit": 300, "cooldown": 120,
        "max_tokens": 10_000, "max_hold": 0, "on_lapse": "recycle", "shards": 1,
    })
}

fn seats(policy: &Value, free: u64, held: u64) -> Value {
    let mut all = json!({
        "name": "seats", "free": free, "held": held, "cooling": 0, "total": free + held,
        "lifetime": 60, "idle_limit": 0, "cooldown": 0, "max_tokens": 10_000, "max_hold": 0,
        "on_lapse": "recycle", "shards": 1,
    });
    for (name, value) in policy.as_object().expect("an object") {
        all[name] = value.clone();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_answers_the_new_tokens() {
    let server = Server::start().await;
    let made = server.post("/tokens/generate", json!({"count": 3})).await;
    let expected = json!({"tokens": ["<uuid>", "<uuid>", "<uuid>"]});
    assert_eq!(made.shape(201), expected);
    let most = server
        .post("/tokens/generate", json!({"count": 9_997}))
        .await;
    let most = most.json(201);
    let all: HashSet<_> = [&made.json(201), &most]
        .iter()
        .flat_map(|body| body["tokens"].as_array().expect("a list"))
        .map(|token| token.as_str().expect("text").to_owned())
        .collect();
    assert_eq!(all.len(), 10_000);
    let shown = server.get("/v1/pools/default").await.json(200);
    assert_eq!(shown, default_pool(10_000, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_answers_what_is_new_in_its_order() {
    let server = Server::with_seats(json!({}), &["b"]).await;
    let longest = "é".repeat(128);
    let values = json!({"tokens": ["c", "b", "a", "c", "a b", longest]});
    let added = server.seats("generate", values).await.json(201);
    let expected = json!({"tokens": ["c", "a", "a b", longest], "existing": 2});
    assert_eq!(added, expected);
    let again = server.seats("generate", json!({"tokens": ["a"]})).await;
    assert_eq!(again.json(201), json!({"tokens": [], "existing": 1}));
    let many: Vec<String> = (0..9_000).map(|n| format!("seat-{n}")).collect();
    let added = server.seats("generate", json!({ "tokens": many })).await;
    assert_eq!(added.json(201), json!({"tokens": many, "existing": 0}));
}

#[tokio::test(flavor = "multi_thread")]
async fn assign_answers_a_grant_and_an_empty_body_may_have_any_type() {
    let server = Server::with_seats(json!({}), &["a", "b", "c", "d", "e"]).await;
    let path = "/v1/pools/seats/assign";
    let mut taken = HashSet::new();
    let mut last_fence = 0;
    for kind in [
        None,
        Some("application/json"),
        Some("application/x-www-form-urlencoded"),
        Some("text/plain"),
    ] {
        let mut request = server.request(Method::POST, path);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let granted = answer(request).await;
        let mut body = granted.shape(200);
        let token = body["token"].take();
        taken.insert(token.as_str().expect("text").to_owned());
        let expected = json!({
            "token": null, "fence": "<fence>", "expires_at": "<time>", "expires_in": 60,
        });
        assert_eq!(body, expected, "{kind:?}");
        let fence = granted.json(200)["fence"].as_u64().expect("a number");
        assert!(fence > last_fence, "a later grant has a larger fence");
        last_fence = fence;
    }
    assert_eq!(taken.len(), 4, "nothing is granted twice");
    assert!(server.grant().await["token"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn assign_takes_a_holder_a_lifetime_and_a_token() {
    let server = Server::with_seats(json!({"max_hold": 100}), &["a", "b"]).await;
    let asked = json!({"holder": "pod-1", "lifetime": 1.5, "token": "b"});
    let granted = server.seats("assign", asked).await;
    let expected = json!({
        "token": "b", "fence": "<fence>", "expires_at": "<time>", "expires_in": 1.5,
        "holder": "pod-1",
    });
    assert_eq!(granted.shape(200), expected);
    let clamped = server.seats("assign", json!({"lifetime": 2_592_000})).await;
    assert_eq!(clamped.shape(200)["expires_in"], 100);
    let told = clamped.json(200);
    assert!(told.get("holder").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_alive_restarts_a_lease_or_an_idle_clock() {
    let server = Server::with_seats(json!({"lifetime": 30, "max_hold": 40}), &["a", "b"]).await;
    let asked = json!({"token": "a", "lifetime": 5});
    let granted = server.seats("assign", asked).await.json(200);
    let kept = |seconds: Value| json!({"token": "a", "state": "held", "expires_at": "<time>", "expires_in": seconds});

    let by_policy = server.seats("keep-alive", json!({"token": "a"})).await;
    assert_eq!(by_policy.shape(200), kept(json!(30)));
    let asked = json!({"token": "a", "fence": granted["fence"], "lifetime": 12.25});
    let by_request = server.seats("keep-alive", asked).await;
    assert_eq!(by_request.shape(200), kept(json!(12.25)));
    let clamped = server.seats("keep-alive", json!({"token": "a", "lifetime": 3_600}));
    let left = clamped.await.json(200)["expires_in"]
        .as_f64()
        .expect("seconds");
    assert!((30.0..=40.0).contains(&left), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_token_has_no_time_that_looks_like_a_lease() {
    let server = Server::with_seats(json!({"lifetime": 30}), &["b"]).await;
    let free = server.seats("keep-alive", json!({"token": "b"})).await;
    assert_eq!(free.json(200), json!({"token": "b", "state": "free"}));
    // The pool `default` has an idle limit.
    let imported = json!({"tokens": ["a"]});
    server.post("/tokens/generate", imported).await.json(201);
    let ask = async |verb: &str| {
        let path = format!("/tokens/{verb}");
        server.post(&path, json!({"token": "a"})).await.shape(200)
    };
    let idle = json!({"token": "a", "state": "free", "idle_expires_at": "<time>"});
    assert_eq!(ask("keep-alive").await, idle);
    let mut seen = idle;
    seen["fence"] = json!(0);
    assert_eq!(ask("inspect").await, seen);
    let listed = server.get("/v1/pools/default/tokens").await.shape(200);
    assert_eq!(listed, json!({"tokens": [seen]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn unblock_answers_when_the_token_is_available() {
    let server = Server::with_seats(json!({"cooldown": 2}), &["a"]).await;
    let fence = server.grant().await["fence"].clone();
    let back = server
        .seats("unblock", json!({"token": "a", "fence": fence}))
        .await;
    let expected = json!({"token": "a", "state": "cooling", "available_at": "<time>"});
    assert_eq!(back.shape(200), expected);
    server
        .fixture
        .pass(&pool("seats"), Duration::from_secs(2))
        .await;
    server
        .put("/v1/pools/seats", json!({"cooldown": 0}))
        .await
        .json(200);
    server.grant().await;
    let back = server.seats("unblock", json!({"token": "a"})).await;
    let expected = json!({"token": "a", "state": "free", "available_at": "<time>"});
    assert_eq!(back.shape(200), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_takes_a_token_in_any_state_from_body_or_query() {
    let server =
        Server::with_seats(json!({"cooldown": 60}), &["held", "cooling", "a b", "x"]).await;
    for token in ["held", "cooling"] {
        server
            .seats("assign", json!({ "token": token }))
            .await
            .json(200);
    }
    server
        .seats("unblock", json!({"token": "cooling"}))
        .await
        .json(200);
    let path = "/v1/pools/seats/delete";
    let in_body = |token: &str| {
        let request = server.request(Method::DELETE, path);
        answer(request.json(&json!({ "token": token })))
    };
    let deleted = |token: &str| json!({"token": token, "state": "deleted"});
    assert_eq!(in_body("held").await.json(200), deleted("held"));
    assert_eq!(in_body("cooling").await.json(200), deleted("cooling"));
    let in_query = server.delete(&format!("{path}?token=a%20b")).await;
    assert_eq!(in_query.json(200), deleted("a b"));
    let posted = server.seats("delete", json!({"token": "x"})).await;
    assert_eq!(posted.json(200), deleted("x"));
    let shown = server.get("/v1/pools/seats").await.json(200);
    assert_eq!(shown["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn inspect_tells_each_state() {
    let server = Server::with_seats(json!({"cooldown": 60}), &["a"]).await;
    let inspect = async || {
        server
            .seats("inspect", json!({"token": "a"}))
            .await
            .shape(200)
    };
    let free = json!({"token": "a", "state": "free", "fence": 0});
    assert_eq!(inspect().await, free);
    server
        .seats("assign", json!({"holder": "pod-1"}))
        .await
        .json(200);
    let held = json!({
        "token": "a", "state": "held", "fence": "<fence>", "holder": "pod-1",
        "expires_at": "<time>", "granted_at": "<time>",
    });
    assert_eq!(inspect().await, held);
    server
        .seats("unblock", json!({"token": "a"}))
        .await
        .json(200);
    let cooling = json!({
        "token": "a", "state": "cooling", "fence": "<fence>", "expires_at": "<time>",
    });
    assert_eq!(inspect().await, cooling);
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_made_changed_shown_listed_and_deleted() {
    let server = Server::start().await;
    let policy = json!({
        "lifetime": 1.5, "idle_limit": 2, "cooldown": 3, "max_tokens": 4, "max_hold": 5,
        "on_lapse": "delete", "shards": 2,
    });
    let made = server.put("/v1/pools/seats", policy.clone()).await;
    assert_eq!(made.json(201), seats(&policy, 0, 0));
    let changed = server
        .put("/v1/pools/seats", json!({"lifetime": 60, "idle_limit": 0}))
        .await;
    let mut policy = policy;
    policy["lifetime"] = json!(60);
    policy["idle_limit"] = json!(0);
    assert_eq!(
        changed.json(200),
        seats(&policy, 0, 0),
        "what is not named is kept"
    );

    server
        .seats("generate", json!({"count": 2}))
        .await
        .json(201);
    server
        .seats("assign", json!({"lifetime": 600}))
        .await
        .json(200);
    let shown = server.get("/v1/pools/seats").await;
    assert_eq!(shown.json(200), seats(&policy, 1, 1));
    let listed = server.get("/v1/pools").await.json(200);
    let expected = json!({"pools": [default_pool(0, 0, 0), seats(&policy, 1, 1)]});
    assert_eq!(listed, expected);

    let empty_put = answer(server.request(Method::PUT, "/v1/pools/plain")).await;
    assert_eq!(empty_put.json(201)["lifetime"], 60);
    let gone = server.delete("/v1/pools/seats").await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    server
        .get("/v1/pools/seats")
        .await
        .problem("pool-not-found", 404);
    let again = server.put("/v1/pools/seats", json!({})).await;
    assert_eq!(
        again.json(201),
        seats(&json!({}), 0, 0),
        "its tokens went with it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_paths_are_the_same_verbs_on_default() {
    let server = Server::start().await;
    let long = |verb: &str| format!("/v1/pools/default/{verb}");
    let short = |verb: &str| format!("/tokens/{verb}");
    for (first, second) in [
        (
            &long as &dyn Fn(&str) -> String,
            &short as &dyn Fn(&str) -> String,
        ),
        (&short, &long),
    ] {
        let token = json!({"token": "a"});
        server
            .post(&first("generate"), json!({"tokens": ["a"]}))
            .await
            .json(201);
        let granted = server
            .post(&second("assign"), token.clone())
            .await
            .json(200);
        let seen = server
            .post(&first("inspect"), token.clone())
            .await
            .json(200);
        assert_eq!(seen["fence"], granted["fence"]);
        let kept = server.post(&second("keep-alive"), token.clone()).await;
        assert_eq!(kept.shape(200)["state"], "held");
        let back = server.post(&first("unblock"), token.clone()).await;
        assert_eq!(back.shape(200)["state"], "cooling");
        server
            .delete(&format!("{}?token=a", second("delete")))
            .await
            .json(200);
        let gone = server.post(&first("inspect"), token).await;
        gone.problem("token-not-found", 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_lease_is_free_again_for_every_route() {
    let server = Server::with_seats(json!({"lifetime": 1}), &["a"]).await;
    let first = server.grant().await;
    server
        .fixture
        .pass(&pool("seats"), Duration::from_secs(1))
        .await;
    eventually("the lease lapses", async || {
        let seen = server
            .seats("inspect", json!({"token": "a"}))
            .await
            .json(200);
        seen["state"] == "free"
    })
    .await;
    let second = server.grant().await;
    assert!(second["fence"].as_u64() > first["fence"].as_u64());
}
