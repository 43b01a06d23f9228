//! The pool's verbs. Each is there twice: `/tokens/VERB` for the pool `default`, `/v1/pools/{pool}/VERB` for any.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::{HttpMethod, Required};

use super::entry::{Entry, Tag};
use super::schemas::Shape;
use super::values::{Duration, Key, Waiting};
use crate::http::problem::Slug;
use crate::http::tokens::{Assigned, Deleted, Generated, Inspected, Kept, Released};
use crate::token::{Fence, Holder, NewToken, PoolName, TokenValue};

/// How many tokens to make.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct GenerateCount {
    #[schema(minimum = 1, maximum = 10_000)]
    count: u32,
}

/// Values of the caller's own. Those that the pool has already are left as they are.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct GenerateImport {
    #[schema(min_items = 1, max_items = 10_000)]
    tokens: Vec<NewToken>,
}

/// What to assign; everything may be absent.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct AssignRequest {
    /// A label for who holds it.
    holder: Option<Holder>,
    /// Instead of the pool's.
    #[schema(value_type = Option<Duration>)]
    lifetime: Option<f64>,
    /// This one, instead of a random free one.
    token: Option<TokenValue>,
    /// How long to wait, in order, if no token is free. Not for a `token` that is named.
    #[schema(value_type = Option<Waiting>)]
    wait_seconds: Option<f64>,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct KeepAliveRequest {
    token: TokenValue,
    /// Act on this grant alone.
    fence: Option<Fence>,
    /// Instead of the pool's.
    #[schema(value_type = Option<Duration>)]
    lifetime: Option<f64>,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct UnblockRequest {
    token: TokenValue,
    /// Act on this grant alone.
    fence: Option<Fence>,
}

/// A request about one token.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct OneToken {
    token: TokenValue,
}

/// A token, unless the query names it.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct DeleteRequest {
    token: Option<TokenValue>,
}

/// Where a verb stands: its path, the name of its operation, and whether the path names a pool.
struct Place {
    method: HttpMethod,
    path: &'static str,
    id: &'static str,
}

impl Place {
    fn post(path: &'static str, id: &'static str) -> Self {
        Self {
            method: HttpMethod::Post,
            path,
            id,
        }
    }

    fn delete(path: &'static str, id: &'static str) -> Self {
        Self {
            method: HttpMethod::Delete,
            ..Self::post(path, id)
        }
    }

    /// What all verbs have in common.
    fn verb(self, summary: &'static str) -> Entry {
        let entry = Entry::new(Tag::Tokens, self.method, self.path, self.id, summary);
        let entry = entry.strict_query().asks_store();
        let entry = entry.problems(&[Slug::PoolNotFound]);
        match self.path.contains("{pool}") {
            true => entry
                .in_path::<PoolName>("pool", "The pool to act on.", "seats")
                .problems(&[Slug::NotFound]),
            false => entry,
        }
    }
}

pub fn entries() -> Vec<Entry> {
    let post = Place::post;
    vec![
        generate(post("/tokens/generate", "generate_tokens")),
        assign(post("/tokens/assign", "assign_token")),
        keep_alive(post("/tokens/keep-alive", "keep_alive_token")),
        unblock(post("/tokens/unblock", "unblock_token")),
        delete(Place::delete("/tokens/delete", "delete_token")),
        inspect(post("/tokens/inspect", "inspect_token")),
        generate(post("/v1/pools/{pool}/generate", "generate_tokens_in_pool")),
        assign(post("/v1/pools/{pool}/assign", "assign_token_in_pool")),
        keep_alive(post(
            "/v1/pools/{pool}/keep-alive",
            "keep_alive_token_in_pool",
        )),
        unblock(post("/v1/pools/{pool}/unblock", "unblock_token_in_pool")),
        delete(Place::delete(
            "/v1/pools/{pool}/delete",
            "delete_token_in_pool",
        )),
        delete(post(
            "/v1/pools/{pool}/delete",
            "delete_token_in_pool_by_post",
        )),
        inspect(post("/v1/pools/{pool}/inspect", "inspect_token_in_pool")),
    ]
}

fn with_key(entry: Entry) -> Entry {
    entry
        .in_header::<Key>(
            "Idempotency-Key",
            "For 10 minutes a retry with the same key finds the first call's tokens.",
            "order-4711",
        )
        .problems(&[Slug::IdempotencyMismatch])
}

fn generate(place: Place) -> Entry {
    with_key(place.verb("Add tokens to the pool"))
        .describe(
            "Either `count` new ones, or `tokens` of the caller's own. All or nothing: where they would pass \
             the pool's `max_tokens`, none is added.",
        )
        .takes(
            Shape::of::<GenerateCount>().or::<GenerateImport>(),
            Required::True,
            json!({"count": 2}),
        )
        .answers::<Generated>(
            201,
            "The tokens that were added.",
            json!({"tokens": [
                "0b6f9f1c-5f0e-4f2e-9c1b-6f5f8c1d2e3a", "7d1d8f5a-30a4-4f0c-8d57-2f0f4f3b9c10",
            ]}),
        )
        .problems(&[Slug::PoolFull])
}

fn assign(place: Place) -> Entry {
    with_key(place.verb("Take a token"))
        .describe(
            "Grants a random free token, or the one asked for, to this caller alone, until `expires_at` or \
             until it lets go. The body may be empty. With `wait_seconds` a caller waits if no token is free: whoever \
             came first, to whatever replica, is served first, and who does not wait does not overtake. With an `Idempotency-Key` a retry is told the first \
             call's grant as it is then. \
             `expires_in` counts from the grant. A request that waited was sent long before that: to learn how much of \
             the lease is left, send it again under the same `Idempotency-Key` without `wait_seconds`.",
        )
        .takes(
            Shape::of::<AssignRequest>(),
            Required::False,
            json!({"holder": "worker-7", "lifetime": 60}),
        )
        .answers::<Assigned>(
            200,
            "The grant.",
            json!({
                "token": "seat-1", "fence": 1_769_903_939_000_000_u64,
                "expires_at": "2026-01-31T23:59:59.999Z", "expires_in": 60, "holder": "worker-7",
            }),
        )
        .problems(&[
            Slug::NoTokenAvailable,
            Slug::NotFree,
            Slug::TokenNotFound,
            Slug::LeaseLost,
        ])
}

fn keep_alive(place: Place) -> Entry {
    place
        .verb("Keep a token")
        .describe(
            "A held token's lease starts again with the pool's lifetime or the one given, never past the \
             pool's `max_hold`. Send the `fence` of your grant: if that lease has ended, the answer is 409 \
             `lease-lost`. Without a `fence` read `state` before you go on: a free token answers 200 with \
             `\"state\": \"free\"`. Its idle clock starts again, but nobody holds it, so your lease is lost.",
        )
        .takes(
            Shape::of::<KeepAliveRequest>(),
            Required::True,
            json!({"token": "seat-1", "fence": 1_769_903_939_000_000_u64}),
        )
        .answers::<Kept>(
            200,
            "`held`: the lease goes on until `expires_at`. `free`: there is no lease.",
            json!({
                "token": "seat-1", "state": "held", "expires_at": "2026-01-31T23:59:59.999Z",
                "expires_in": 60,
            }),
        )
        .problems(&[Slug::NotHeld, Slug::LeaseLost, Slug::TokenNotFound])
}

fn unblock(place: Place) -> Entry {
    place
        .verb("Let a token go")
        .describe("It cools for the pool's `cooldown`, then it is free again.")
        .takes(
            Shape::of::<UnblockRequest>(),
            Required::True,
            json!({"token": "seat-1", "fence": 1_769_903_939_000_000_u64}),
        )
        .answers::<Released>(
            200,
            "When it is free again.",
            json!({
                "token": "seat-1", "state": "cooling", "available_at": "2026-01-31T23:59:59.999Z",
            }),
        )
        .problems(&[Slug::NotHeld, Slug::LeaseLost, Slug::TokenNotFound])
}

fn delete(place: Place) -> Entry {
    place
        .verb("Delete a token, whatever its state")
        .describe("Named in the body or in the query, not in both.")
        .in_query::<TokenValue>(
            "token",
            "For clients that cannot send a body along.",
            "seat-1",
        )
        .takes(
            Shape::of::<DeleteRequest>(),
            Required::False,
            json!({"token": "seat-1"}),
        )
        .answers::<Deleted>(
            200,
            "It is gone and will not come back.",
            json!({"token": "seat-1", "state": "deleted"}),
        )
        .problems(&[Slug::TokenNotFound])
}

fn inspect(place: Place) -> Entry {
    place
        .verb("Look at a token")
        .takes(
            Shape::of::<OneToken>(),
            Required::True,
            json!({"token": "seat-1"}),
        )
        .answers::<Inspected>(
            200,
            "The token as it stands now.",
            json!({
                "token": "seat-1", "state": "held", "fence": 1_769_903_939_000_000_u64,
                "holder": "worker-7", "expires_at": "2026-01-31T23:59:59.999Z",
                "granted_at": "2026-01-31T23:58:59.999Z",
            }),
        )
        .problems(&[Slug::TokenNotFound])
}
