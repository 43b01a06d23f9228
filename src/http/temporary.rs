//! Temporary tokens, `/app/*`: short-lived opaque ones, for callers who ask only "is it still good".

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;

use super::answer::NO_STORE;
use super::fields::{text, whole};
use super::input::{JsonBody, NoQuery};
use super::problem::Problem;
use super::raw::{RawBody, RawMembers};
use crate::store::Store;
use crate::token::bearer::{self, BEARER_BYTES_MAX};
use crate::token::{DURATION_MS_MAX, Flow};

/// What callers of older services look at instead of the status line.
const OK: u16 = 200;

type Answer = Result<HttpResponse, Problem>;

#[derive(Serialize)]
struct Made {
    status_code: u16,
    token: String,
}

#[derive(Serialize)]
struct Checked {
    status_code: u16,
    status: bool,
}

/// The member that says how long a token is to live.
const TTL: &str = "ttl_seconds";

/// No cache may keep it: neither a token, nor that it was good a while ago.
fn told(body: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().insert_header(NO_STORE).json(body)
}

fn checked(status: bool) -> HttpResponse {
    told(&Checked {
        status_code: OK,
        status,
    })
}

/// `POST /app/token`: a new token, which lives as long as asked for, or as long as the flow's do.
///
/// # Errors
/// `invalid-request`, `flow-full`, and the store's.
pub async fn create_temporary_token(_: NoQuery, body: RawBody, store: web::Data<Store>) -> Answer {
    let lifetime_ms = asked_lifetime_ms(&body.bytes)?;
    let made = store
        .create_opaque(Flow::Temporary, bearer::temporary, None, lifetime_ms)
        .await?;
    let (token, _) = made.ok_or_else(|| Problem::flow_full("TEMPORARY_MAX"))?;
    Ok(told(&Made {
        status_code: OK,
        token,
    }))
}

/// What stands beside it is not looked into: it may be no number that we know.
fn asked_lifetime_ms(body: &[u8]) -> Result<Option<u64>, Problem> {
    let Ok(members) = RawMembers::parse(body) else {
        return Ok(None);
    };
    let Some(asked) = members.get(TTL) else {
        return Ok(None);
    };
    if members.has_twice(TTL) {
        return Err(Problem::field(TTL, "is given more than once"));
    }
    let value = serde_json::from_str(asked).unwrap_or_default();
    let seconds = whole(1, DURATION_MS_MAX / 1_000)(&value);
    let seconds = seconds.map_err(|invalid| Problem::field(TTL, invalid))?;
    Ok(Some(seconds * 1_000))
}

/// `GET /app/valid/{token}`: whether it is alive. Whatever stands there instead of a token is simply not valid.
///
/// # Errors
/// The store's.
pub async fn validate_temporary_token_in_path(
    request: HttpRequest,
    store: web::Data<Store>,
) -> Answer {
    // The router has decoded all that a token of ours can have, and put other characters in place of what is
    // not UTF-8: that is no token either.
    let token = request.match_info().get("token").unwrap_or_default();
    Ok(checked(is_alive(&store, token).await?))
}

/// `POST /app/valid`: the same, for who keeps tokens out of URLs.
///
/// # Errors
/// `invalid-request`, and the store's.
pub async fn validate_temporary_token(
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
) -> Answer {
    let mut fields = body.0;
    let token = fields.required("token", text(|token| Ok(token.to_owned())));
    let token = fields.finish(token)?;
    Ok(checked(is_alive(&store, &token).await?))
}

async fn is_alive(store: &Store, token: &str) -> Result<bool, Problem> {
    if token.is_empty() || token.len() > BEARER_BYTES_MAX {
        return Ok(false);
    }
    let found = store.inspect_opaque(Flow::Temporary, token).await?;
    Ok(found.is_some())
}

/// `DELETE /app/clear/all/tokens`: removes what has expired, and nothing else, despite its name.
///
/// # Errors
/// The store's.
pub async fn clear_temporary_tokens(_: NoQuery, store: web::Data<Store>) -> Answer {
    store.clear_expired(Flow::Temporary).await?;
    Ok(checked(true))
}
