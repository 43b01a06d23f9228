//! The pool's verbs: generate, assign, keep-alive, unblock, delete, inspect. Each parses, calls the
//! store and answers; `/tokens/VERB` and `/v1/pools/{pool}/VERB` are the same handler.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Seconds, Timestamp};
use super::fields::{Fields, duration, fence, text, waiting, whole};
use super::input::{IdempotencyHeader, JsonBody, NoQuery, PoolPath, Query};
use super::problem::{Problem, Slug};
use crate::store::{AssignRequest, GenerateRequest, NewTokens, Store};
use crate::token::{
    AssignOutcome, DeleteOutcome, Fence, GenerateOutcome, Grant, Holder, IdempotencyKey,
    InspectOutcome, KeepAliveOutcome, State, TOKENS_PER_CALL_MAX, TokenValue, TokenView,
    UnblockOutcome,
};

type Answer = Result<HttpResponse, Problem>;

#[derive(Serialize, ToSchema)]
pub(super) struct Generated {
    tokens: Vec<TokenValue>,
    /// How many of the caller's values the pool had already; for imports alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing: Option<u64>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Assigned {
    token: TokenValue,
    fence: Fence,
    expires_at: Timestamp,
    /// For callers whose clock is off.
    expires_in: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Kept {
    token: TokenValue,
    /// `held`: the lease goes on. `free`: nobody holds the token, so the caller's lease is lost.
    state: State,
    /// When the lease ends. Only of a held token.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// The same in seconds from now, for callers whose clock is off. Only of a held token.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<Seconds>,
    /// When the token is deleted unless it is used. Only of a free token, in a pool with an idle limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_expires_at: Option<Timestamp>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Released {
    token: TokenValue,
    state: State,
    available_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    token: TokenValue,
    state: &'static str,
}

/// A token as inspect and the listing tell it.
#[derive(Serialize, ToSchema)]
pub struct Inspected {
    token: TokenValue,
    state: State,
    fence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<Holder>,
    /// Of a held token: when the lease ends. Of a cooling one: when it is free again. A free token has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    /// When the token is deleted unless it is used. Only of a free token, in a pool with an idle limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_at: Option<Timestamp>,
}

/// A deadline as `expires_at` and `idle_expires_at`. A free token has no `expires_at`, so that nobody takes its
/// idle limit for a lease.
fn deadline_of(state: State, at_ms: Option<u64>) -> (Option<Timestamp>, Option<Timestamp>) {
    let at = at_ms.map(Timestamp);
    match state {
        State::Free => (None, at),
        State::Held | State::Cooling => (at, None),
    }
}

impl From<TokenView> for Inspected {
    fn from(view: TokenView) -> Self {
        let (expires_at, idle_expires_at) = deadline_of(view.state, view.expires_at_ms);
        Self {
            token: view.token,
            state: view.state,
            fence: view.fence,
            holder: view.holder,
            expires_at,
            idle_expires_at,
            granted_at: view.granted_at_ms.map(Timestamp),
        }
    }
}

/// `POST …/generate`: adds tokens to the pool, generated ones or the caller's own values.
///
/// # Errors
/// `invalid-request`, `pool-full`, `pool-not-found`, `idempotency-mismatch`, and the store's.
pub async fn generate_tokens(
    pool: PoolPath,
    _: NoQuery,
    key: IdempotencyHeader,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let request = generate_request(body.0, key.0)?;
    let (imported, asked) = match &request.tokens {
        NewTokens::Import(tokens) => (true, tokens.len() as u64),
        NewTokens::Generate(count) => (false, *count as u64),
    };
    match store.generate(&pool.0, request).await? {
        GenerateOutcome::Added {
            tokens, existing, ..
        } => {
            let existing = imported.then_some(existing);
            Ok(HttpResponse::Created().json(Generated { tokens, existing }))
        }
        GenerateOutcome::PoolFull { max_tokens, total } => Err(Problem::new(
            Slug::PoolFull,
            full_detail(asked, max_tokens, total),
        )
        .with_member("max_tokens", max_tokens)
        .with_member("total", total)),
        GenerateOutcome::IdempotencyMismatch => Err(Problem::idempotency_mismatch()),
        GenerateOutcome::PoolNotFound => Err(Problem::pool_not_found()),
    }
}

fn full_detail(asked: u64, max_tokens: u64, total: u64) -> String {
    let has = format!("the pool has {total} of at most {max_tokens} tokens");
    if total + asked <= max_tokens {
        return format!("{has}, but one of its shards has its share; nothing was added");
    }
    format!("{has}; nothing was added")
}

fn generate_request(
    mut fields: Fields,
    key: Option<IdempotencyKey>,
) -> Result<GenerateRequest, Problem> {
    let tokens = if fields.has("tokens") {
        if fields.has("count") {
            fields.refuse("tokens", "must not be given along with count");
        }
        // Read even where it is refused, or it would also be told as unknown.
        fields.optional("count", |_| Ok(()));
        fields.new_tokens("tokens").map(NewTokens::Import)
    } else {
        let count = fields.required("count", whole(1, TOKENS_PER_CALL_MAX as u64));
        count
            .and_then(|count| usize::try_from(count).ok())
            .map(NewTokens::Generate)
    };
    fields.finish(tokens.map(|tokens| GenerateRequest { tokens, key }))
}

/// `POST …/assign`: grants a random free token, or the one asked for; with `wait_seconds` the caller waits for one
/// in line with all others who do.
///
/// # Errors
/// `invalid-request`, `no-token-available`, `not-free`, `token-not-found`, `pool-not-found`,
/// `lease-lost`, `idempotency-mismatch`, and the store's.
pub async fn assign_token(
    pool: PoolPath,
    _: NoQuery,
    key: IdempotencyHeader,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let (request, wait) = assign_request(body.0, key.0)?;
    match store.assign_within(&pool.0, request, wait).await? {
        // No await from here to the answer: a caller who leaves before this drops the offer, which
        // gives the token back.
        AssignOutcome::Granted(offer) => Ok(granted(offer.accept())),
        AssignOutcome::Empty { retry_after_ms } => Err(none_available(retry_after_ms)),
        AssignOutcome::NotFree {
            state,
            retry_after_ms,
        } => Err(Problem::new(
            Slug::NotFree,
            format!("the token is {}, not free", state.as_str()),
        )
        .with_retry_after_ms(retry_after_ms)),
        AssignOutcome::TokenNotFound => Err(Problem::token_not_found()),
        AssignOutcome::LeaseLost => Err(Problem::lease_lost()),
        AssignOutcome::IdempotencyMismatch => Err(Problem::idempotency_mismatch()),
        AssignOutcome::PoolNotFound => Err(Problem::pool_not_found()),
    }
}

fn assign_request(
    mut fields: Fields,
    key: Option<IdempotencyKey>,
) -> Result<(AssignRequest, Duration), Problem> {
    let wait = fields.optional("wait_seconds", waiting).unwrap_or_default();
    if !wait.is_zero() && fields.has("token") {
        fields.refuse("wait_seconds", "must not be given along with token");
    }
    let request = AssignRequest {
        holder: fields.optional("holder", text(Holder::parse)),
        lifetime_ms: fields.optional("lifetime", duration),
        token: fields.optional("token", text(TokenValue::parse)),
        key,
    };
    fields.finish(Some((request, wait)))
}

fn granted(grant: Grant) -> HttpResponse {
    HttpResponse::Ok().json(Assigned {
        token: grant.token,
        fence: grant.fence,
        expires_at: Timestamp(grant.expires_at_ms),
        expires_in: Seconds(grant.expires_in_ms),
        holder: grant.holder,
    })
}

fn none_available(retry_after_ms: Option<u64>) -> Problem {
    match retry_after_ms {
        Some(ms) => {
            Problem::new(Slug::NoTokenAvailable, "no token is free now").with_retry_after_ms(ms)
        }
        None => Problem::new(Slug::NoTokenAvailable, "the pool is empty"),
    }
}

/// What keep-alive asks for.
#[derive(Debug, PartialEq, Eq)]
struct KeepAlive {
    token: TokenValue,
    fence: Option<Fence>,
    lifetime_ms: Option<u64>,
}

/// `POST …/keep-alive`: a held token's lease restarts, a free one's idle clock.
///
/// # Errors
/// `invalid-request`, `not-held`, `lease-lost`, `token-not-found`, `pool-not-found`, and the
/// store's.
pub async fn keep_alive_token(
    pool: PoolPath,
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let asked = keep_alive_request(body.0)?;
    let kept = store
        .keep_alive(&pool.0, &asked.token, asked.fence, asked.lifetime_ms)
        .await?;
    match kept {
        KeepAliveOutcome::Kept {
            state,
            expires_at_ms,
            expires_in_ms,
        } => {
            let (expires_at, idle_expires_at) = deadline_of(state, expires_at_ms);
            Ok(HttpResponse::Ok().json(Kept {
                token: asked.token,
                state,
                expires_in: expires_at.and(expires_in_ms).map(Seconds),
                expires_at,
                idle_expires_at,
            }))
        }
        KeepAliveOutcome::NotHeld { state } => Err(Problem::not_held(state)),
        KeepAliveOutcome::LeaseLost => Err(Problem::lease_lost()),
        KeepAliveOutcome::TokenNotFound => Err(Problem::token_not_found()),
        KeepAliveOutcome::PoolNotFound => Err(Problem::pool_not_found()),
    }
}

fn keep_alive_request(mut fields: Fields) -> Result<KeepAlive, Problem> {
    let token = fields.required("token", text(TokenValue::parse));
    let fence = fields.optional("fence", fence);
    let lifetime_ms = fields.optional("lifetime", duration);
    fields.finish(token.map(|token| KeepAlive {
        token,
        fence,
        lifetime_ms,
    }))
}

/// `POST …/unblock`: the holder lets go.
///
/// # Errors
/// `invalid-request`, `not-held`, `lease-lost`, `token-not-found`, `pool-not-found`, and the
/// store's.
pub async fn unblock_token(
    pool: PoolPath,
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let mut fields = body.0;
    let token = fields.required("token", text(TokenValue::parse));
    let fence = fields.optional("fence", fence);
    let token = fields.finish(token)?;
    match store.unblock(&pool.0, &token, fence).await? {
        UnblockOutcome::Released {
            state,
            available_at_ms,
        } => Ok(HttpResponse::Ok().json(Released {
            token,
            state,
            available_at: Timestamp(available_at_ms),
        })),
        UnblockOutcome::NotHeld { state } => Err(Problem::not_held(state)),
        UnblockOutcome::LeaseLost => Err(Problem::lease_lost()),
        UnblockOutcome::TokenNotFound => Err(Problem::token_not_found()),
        UnblockOutcome::PoolNotFound => Err(Problem::pool_not_found()),
    }
}

/// `DELETE …/delete`: removes a token in whatever state; named in the body, or in the query for
/// clients that cannot send a body with DELETE.
///
/// # Errors
/// `invalid-request`, `token-not-found`, `pool-not-found`, and the store's.
pub async fn delete_token(
    pool: PoolPath,
    query: Query,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let token = delete_request(query.0, body.0)?;
    match store.delete(&pool.0, &token).await? {
        DeleteOutcome::Deleted => Ok(HttpResponse::Ok().json(Deleted {
            token,
            state: "deleted",
        })),
        DeleteOutcome::TokenNotFound => Err(Problem::token_not_found()),
        DeleteOutcome::PoolNotFound => Err(Problem::pool_not_found()),
    }
}

fn delete_request(mut query: Fields, mut body: Fields) -> Result<TokenValue, Problem> {
    let in_query = query.optional("token", text(TokenValue::parse));
    let in_query = query.finish(Some(in_query))?;
    let in_body = body.optional("token", text(TokenValue::parse));
    let in_body = body.finish(Some(in_body))?;
    match (in_query, in_body) {
        (Some(token), None) | (None, Some(token)) => Ok(token),
        (None, None) => Err(Problem::field("token", "is missing")),
        (Some(_), Some(_)) => Err(Problem::field(
            "token",
            "must be in the body or in the query, not in both",
        )),
    }
}

/// `POST …/inspect`: a token as it stands now.
///
/// # Errors
/// `invalid-request`, `token-not-found`, `pool-not-found`, and the store's.
pub async fn inspect_token(
    pool: PoolPath,
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let mut fields = body.0;
    let token = fields.required("token", text(TokenValue::parse));
    let token = fields.finish(token)?;
    match store.inspect(&pool.0, &token).await? {
        InspectOutcome::Found(view) => Ok(HttpResponse::Ok().json(Inspected::from(view))),
        InspectOutcome::TokenNotFound => Err(Problem::token_not_found()),
        InspectOutcome::PoolNotFound => Err(Problem::pool_not_found()),
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
