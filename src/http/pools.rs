//! Pools: list, show, create or change, delete; and who holds what in one.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Seconds;
use super::fields::{Fields, duration, duration_or_none, text, whole, whole_text};
use super::input::{JsonBody, NewPoolPath, NoQuery, PoolPath, Query};
use super::problem::{Problem, Slug};
use super::tokens::Inspected;
use crate::store::Store;
use crate::token::{
    Invalid, OnLapse, PAGE_TOKENS_MAX, PARTITIONS_MAX, Policy, PolicyPatch, PoolName, PoolView,
    PutPoolOutcome, State,
};

/// Tokens on a page where the caller does not say: a screenful or two for a human.
const PAGE_TOKENS_DEFAULT: u64 = 100;

type Answer = Result<HttpResponse, Problem>;

#[derive(Serialize, ToSchema)]
pub(super) struct Pool {
    name: PoolName,
    free: u64,
    held: u64,
    cooling: u64,
    total: u64,
    lifetime: Seconds,
    idle_limit: Seconds,
    cooldown: Seconds,
    max_tokens: u64,
    max_hold: Seconds,
    on_lapse: OnLapse,
    shards: u32,
}

impl From<PoolView> for Pool {
    fn from(view: PoolView) -> Self {
        let PoolView {
            name,
            policy,
            counts,
        } = view;
        Self {
            name,
            free: counts.free,
            held: counts.held,
            cooling: counts.cooling,
            total: counts.total(),
            lifetime: Seconds(policy.lifetime_ms),
            idle_limit: Seconds(policy.idle_limit_ms),
            cooldown: Seconds(policy.cooldown_ms),
            max_tokens: policy.max_tokens,
            max_hold: Seconds(policy.max_hold_ms),
            on_lapse: policy.on_lapse,
            shards: policy.shards,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Pools {
    pools: Vec<Pool>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct TokenPage {
    tokens: Vec<Inspected>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// `GET /v1/pools`: every pool with its counts and its policy.
///
/// # Errors
/// The store's.
pub async fn list_pools(_: NoQuery, store: web::Data<Store>) -> Answer {
    let pools = store.list_pools().await?;
    let pools = pools.into_iter().map(Pool::from).collect();
    Ok(HttpResponse::Ok().json(Pools { pools }))
}

/// `GET /v1/pools/{pool}`.
///
/// # Errors
/// `pool-not-found`, and the store's.
pub async fn show_pool(pool: PoolPath, _: NoQuery, store: web::Data<Store>) -> Answer {
    let view = store.show_pool(&pool.0).await?;
    let view = view.ok_or_else(Problem::pool_not_found)?;
    Ok(HttpResponse::Ok().json(Pool::from(view)))
}

/// `PUT /v1/pools/{pool}`: creates a pool, or changes the policy fields that are given.
///
/// # Errors
/// `invalid-request`, `pool-fixed`, and the store's.
pub async fn put_pool(
    pool: NewPoolPath,
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    refuse_default(&pool.0)?;
    let patch = policy_patch(body.0)?;
    match store.put_pool(&pool.0, patch).await? {
        PutPoolOutcome::Created(view) => Ok(HttpResponse::Created().json(Pool::from(view))),
        PutPoolOutcome::Changed(view) => Ok(HttpResponse::Ok().json(Pool::from(view))),
        PutPoolOutcome::ShardsFixed { shards } => Err(Problem::field(
            "shards",
            format!("is fixed at {shards} since the pool was created"),
        )),
        PutPoolOutcome::TooManyShards { partitions } => Err(Problem::field(
            "shards",
            format!("must be at most {partitions}, the number of partitions of this service"),
        )),
        PutPoolOutcome::TooFewTokens { shards } => {
            Err(Problem::field("max_tokens", Policy::too_few_tokens(shards)))
        }
    }
}

fn policy_patch(mut fields: Fields) -> Result<PolicyPatch, Problem> {
    let patch = PolicyPatch {
        lifetime_ms: fields.optional("lifetime", duration),
        idle_limit_ms: fields.optional("idle_limit", duration_or_none),
        cooldown_ms: fields.optional("cooldown", duration_or_none),
        max_tokens: fields.optional("max_tokens", whole(1, Policy::MAX_TOKENS_MAX)),
        max_hold_ms: fields.optional("max_hold", duration_or_none),
        on_lapse: fields.optional("on_lapse", text(on_lapse)),
        shards: fields
            .optional("shards", whole(1, u64::from(PARTITIONS_MAX)))
            .and_then(|shards| u32::try_from(shards).ok()),
    };
    // The readers above know the same ranges; this is the domain's own word on them.
    for (name, Invalid(detail)) in Policy::FOR_NEW_POOL.with(&patch).mistakes() {
        fields.refuse(name, detail);
    }
    fields.finish(Some(patch))
}

fn on_lapse(value: &str) -> Result<OnLapse, Invalid> {
    match value {
        "recycle" => Ok(OnLapse::Recycle),
        "delete" => Ok(OnLapse::Delete),
        _ => Err(Invalid("must be recycle or delete".to_owned())),
    }
}

fn refuse_default(pool: &PoolName) -> Result<(), Problem> {
    if pool.is_default() {
        return Err(Problem::new(
            Slug::PoolFixed,
            "the environment decides the pool default; it can't be changed or deleted here",
        ));
    }
    Ok(())
}

/// `DELETE /v1/pools/{pool}`: the pool with all its tokens.
///
/// # Errors
/// `pool-fixed`, `pool-not-found`, and the store's.
pub async fn delete_pool(
    pool: PoolPath,
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    refuse_default(&pool.0)?;
    // Whoever sends a member here may mean to delete one token.
    body.0.finish(Some(()))?;
    if store.delete_pool(&pool.0).await? {
        Ok(HttpResponse::NoContent().finish())
    } else {
        Err(Problem::pool_not_found())
    }
}

/// What the listing asks for.
#[derive(Debug)]
struct Listing {
    state: Option<State>,
    cursor: Option<String>,
    limit: usize,
}

/// `GET /v1/pools/{pool}/tokens`: who holds what, page by page.
///
/// # Errors
/// `invalid-request`, `pool-not-found`, and the store's.
pub async fn list_tokens(pool: PoolPath, query: Query, store: web::Data<Store>) -> Answer {
    let asked = listing(query.0)?;
    let page = store
        .list_tokens(&pool.0, asked.state, asked.cursor.as_deref(), asked.limit)
        .await?
        .ok_or_else(Problem::pool_not_found)?
        .map_err(|invalid| Problem::field("cursor", invalid))?;
    Ok(HttpResponse::Ok().json(TokenPage {
        tokens: page.tokens.into_iter().map(Inspected::from).collect(),
        cursor: page.cursor,
    }))
}

fn listing(mut query: Fields) -> Result<Listing, Problem> {
    let state = query.optional("state", text(State::parse));
    let cursor = query.optional("cursor", text(|cursor| Ok(cursor.to_owned())));
    let limit = query.optional("limit", whole_text(1, PAGE_TOKENS_MAX as u64));
    let limit = usize::try_from(limit.unwrap_or(PAGE_TOKENS_DEFAULT)).ok();
    query.finish(limit.map(|limit| Listing {
        state,
        cursor,
        limit,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::token::PoolCounts;

    fn patch(value: Value) -> Result<PolicyPatch, Problem> {
        match value {
            Value::Object(members) => policy_patch(Fields::new(members)),
            other => panic!("not an object: {other}"),
        }
    }

    fn named<T>(result: Result<T, Problem>) -> Vec<String> {
        let problem = result.err().expect("a problem");
        problem.errors().iter().map(|e| e.field.clone()).collect()
    }

    #[test]
    fn a_patch_has_only_what_is_given() {
        assert_eq!(patch(json!({})).expect("valid"), PolicyPatch::default());
        let all = patch(json!({
            "lifetime": 1.5, "idle_limit": 0, "cooldown": 2, "max_tokens": 5, "max_hold": 3600,
            "on_lapse": "delete", "shards": 4,
        }));
        let expected = PolicyPatch {
            lifetime_ms: Some(1_500),
            idle_limit_ms: Some(0),
            cooldown_ms: Some(2_000),
            max_tokens: Some(5),
            max_hold_ms: Some(3_600_000),
            on_lapse: Some(OnLapse::Delete),
            shards: Some(4),
        };
        assert_eq!(all.expect("valid"), expected);
    }

    #[test]
    fn a_patch_out_of_range_is_refused_by_name() {
        let cases = [
            ("lifetime", json!(0)),
            ("lifetime", json!(null)),
            ("lifetime", json!("60")),
            ("idle_limit", json!(0.5)),
            ("cooldown", json!(2_592_001)),
            ("max_tokens", json!(0)),
            ("max_tokens", json!(100_000_001)),
            ("max_hold", json!(-1)),
            ("on_lapse", json!("keep")),
            ("shards", json!(1.5)),
            ("shards", json!(1_025)),
            ("shards", json!(0)),
            ("lifetme", json!(60)),
        ];
        for (name, value) in cases {
            let told = named(patch(json!({ name: value.clone() })));
            assert_eq!(told, [name], "{value}");
        }
    }

    #[test]
    fn default_is_fixed() {
        let problem = refuse_default(&PoolName::default_pool()).expect_err("fixed");
        assert_eq!(problem.slug(), Slug::PoolFixed);
        assert!(refuse_default(&PoolName::parse("seats").expect("valid")).is_ok());
    }

    #[test]
    fn a_page_has_a_limit() {
        let asked = listing(Fields::from_query("")).expect("valid");
        assert_eq!((asked.limit, asked.state), (100, None));
        let asked = listing(Fields::from_query("limit=1000&state=held&cursor=x")).expect("valid");
        assert_eq!((asked.limit, asked.state), (1_000, Some(State::Held)));
        let wrong = Fields::from_query("limit=1001&state=gone&page=2");
        assert_eq!(named(listing(wrong)), ["state", "limit", "page"]);
    }

    #[test]
    fn a_pool_is_told_in_seconds() {
        let pool = Pool::from(PoolView {
            name: PoolName::parse("seats").expect("valid"),
            policy: Policy {
                cooldown_ms: 1_500,
                ..Policy::FOR_NEW_POOL
            },
            counts: PoolCounts {
                free: 3,
                held: 2,
                cooling: 1,
            },
        });
        let expected = json!({
            "name": "seats", "free": 3, "held": 2, "cooling": 1, "total": 6, "lifetime": 60,
            "idle_limit": 0, "cooldown": 1.5, "max_tokens": 10_000, "max_hold": 0,
            "on_lapse": "recycle", "shards": 1,
        });
        assert_eq!(serde_json::to_value(pool).expect("serializes"), expected);
    }
}
