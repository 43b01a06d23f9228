//! Pools: list, show, create or change, delete; and who holds what in one.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{HttpMethod, Required};

use super::entry::{Entry, Tag};
use super::schemas::Shape;
use super::values::{Duration, DurationOrNone, NewPoolName, PageLimit, Text};
use crate::http::pools::{Pool, Pools, TokenPage};
use crate::http::problem::Slug;
use crate::token::{OnLapse, PoolName, State};

const POOL: &str = "/v1/pools/{pool}";

/// A pool's policy. What is not given keeps its value, or gets the one of a new pool.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct PolicyRequest {
    /// A lease lapses after this, unless kept alive. New pools: 60.
    #[schema(value_type = Option<Duration>)]
    lifetime: Option<f64>,
    /// A free token that nobody kept alive for this long is deleted. New pools: 0, never.
    #[schema(value_type = Option<DurationOrNone>)]
    idle_limit: Option<f64>,
    /// A token that left its holder is free again after this. New pools: 0, at once.
    #[schema(value_type = Option<DurationOrNone>)]
    cooldown: Option<f64>,
    /// Most tokens that the pool may hold, over all states. New pools: 10000.
    #[schema(minimum = 1, maximum = 100_000_000)]
    max_tokens: Option<u64>,
    /// Keep-alive never extends a lease past this since its grant. New pools: 0, no limit.
    #[schema(value_type = Option<DurationOrNone>)]
    max_hold: Option<f64>,
    on_lapse: Option<OnLapse>,
    /// Over how many partitions the pool is spread: at most as many as the service has (`PARTITIONS`, 16 if not
    /// set otherwise) and as the pool may have tokens; fixed when it is made. New pools: 1.
    #[schema(minimum = 1, maximum = 1024)]
    shards: Option<u32>,
}

/// A request whose body, where there is one, has no members.
#[derive(ToSchema)]
struct Nothing {}

fn pool_example() -> Value {
    json!({
        "name": "seats", "free": 3, "held": 2, "cooling": 1, "total": 6, "lifetime": 60,
        "idle_limit": 0, "cooldown": 1.5, "max_tokens": 10_000, "max_hold": 0,
        "on_lapse": "recycle", "shards": 1,
    })
}

pub fn entries() -> Vec<Entry> {
    vec![list(), show(), put(), delete(), tokens()]
}

fn entry(method: HttpMethod, path: &'static str, id: &'static str, summary: &'static str) -> Entry {
    Entry::new(Tag::Pools, method, path, id, summary)
        .strict_query()
        .asks_store()
}

fn one(method: HttpMethod, path: &'static str, id: &'static str, summary: &'static str) -> Entry {
    entry(method, path, id, summary)
        .in_path::<PoolName>("pool", "The pool's name.", "seats")
        .problems(&[Slug::PoolNotFound, Slug::NotFound])
}

fn list() -> Entry {
    entry(HttpMethod::Get, "/v1/pools", "list_pools", "List the pools")
        .describe("Each with its counts and its policy.")
        .answers::<Pools>(200, "All pools.", json!({"pools": [pool_example()]}))
}

fn show() -> Entry {
    one(HttpMethod::Get, POOL, "show_pool", "Look at a pool").answers::<Pool>(
        200,
        "The pool.",
        pool_example(),
    )
}

fn put() -> Entry {
    entry(HttpMethod::Put, POOL, "put_pool", "Create or change a pool")
        .describe(
            "A new policy acts from each token's next transition. The environment decides the policy of the \
             pool `default`, so that can't be changed here.",
        )
        .in_path::<NewPoolName>("pool", "The pool's name.", "seats")
        .takes(
            Shape::of::<PolicyRequest>(),
            Required::False,
            json!({"lifetime": 60, "cooldown": 1.5}),
        )
        .answers::<Pool>(200, "The pool as it was changed.", pool_example())
        .answers::<Pool>(201, "The new pool.", pool_example())
        .problems(&[Slug::PoolFixed, Slug::NotFound])
}

fn delete() -> Entry {
    one(
        HttpMethod::Delete,
        POOL,
        "delete_pool",
        "Delete a pool with its tokens",
    )
    .takes(Shape::of::<Nothing>(), Required::False, json!({}))
    .answers_empty(204, "It is gone, and its tokens with it.")
    .problems(&[Slug::PoolFixed])
}

fn tokens() -> Entry {
    one(
        HttpMethod::Get,
        "/v1/pools/{pool}/tokens",
        "list_tokens",
        "List a pool's tokens, page by page",
    )
    .describe(
        "Who holds what. A token may be on two pages, and one that changes meanwhile on none.",
    )
    .in_query::<State>("state", "Only tokens in this state.", "held")
    .in_query::<Text>("cursor", "From the page before; absent for the first.", "")
    .in_query::<PageLimit>("limit", "Most tokens on the page.", 100)
    .answers::<TokenPage>(
        200,
        "A page; the last one has no `cursor`.",
        json!({
            "tokens": [
                {"token": "seat-2", "state": "free", "fence": 0},
                {
                    "token": "seat-1", "state": "held", "fence": 1_769_903_939_000_000_u64,
                    "holder": "worker-7", "expires_at": "2026-01-31T23:59:59.999Z",
                    "granted_at": "2026-01-31T23:58:59.999Z",
                },
            ],
        }),
    )
}
