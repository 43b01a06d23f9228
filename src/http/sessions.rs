//! Logins: a short-lived access token for the services, and a refresh token that rotates for the client alone.
//!
//! A session is a family of the flow `_session`. It ends `SESSION_LIFETIME` after its login, by logout or revoke,
//! with its user's password, or when a spent refresh token comes back.

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::answer::NO_STORE;
use super::client::ClientAddress;
use super::fields::{Fields, text};
use super::foreign::Revocations;
use super::input::{JsonBody, NoQuery};
use super::live::{Tokens, current_login, refresh_token, unknown_key};
use super::problem::{Problem, Slug};
use crate::auth::jwt::Claims;
use crate::auth::password::{Busy, Verdict};
use crate::auth::session::{Login, SessionId};
use crate::auth::user::{AttemptKey, Throttle, User, UserName};
use crate::flows::{Flows, Sessions};
use crate::store::{ExchangeRequest, Store};
use crate::token::rotating::Rotating;
use crate::token::{ExchangeOutcome, Flow, Metadata};

type Answer = Result<HttpResponse, Problem>;

/// When to come back where too many logins are waiting: one takes less than a second.
const OVERLOADED_RETRY_MS: u64 = 1_000;

#[derive(Serialize)]
struct Granted {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    refresh_token: String,
    refresh_expires_in: u64,
}

#[derive(Serialize)]
struct Validated {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Claims>,
}

#[derive(Serialize)]
struct Revoked {
    revoked: bool,
}

/// What a login brings. Debug is not derived: nobody shall print it.
struct Credentials {
    username: String,
    password: String,
}

/// `POST /auth/login`: begins a session.
///
/// # Errors
/// `invalid-request`, `invalid-credentials`, `rate-limited`, `overloaded`, `flow-full`, `flow-off`, and the store's.
pub async fn log_in(
    _: NoQuery,
    address: ClientAddress,
    body: JsonBody,
    store: web::Data<Store>,
    flows: web::Data<Flows>,
) -> Answer {
    let sessions = sessions(&flows)?;
    let Credentials { username, password } = credentials(body.0)?;
    let who = AttemptKey::new(&username, address.0);
    within_limit(store.login_attempts(&who).await?)?;
    // A name that nobody can have is an unknown user: the same work, the same answer.
    let user = match UserName::parse(&username) {
        Ok(name) => Box::pin(store.find_user(&name)).await?,
        Err(_) => None,
    };
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let verdict = sessions.passwords.verify(password, hash).await;
    let verdict = verdict.map_err(overloaded)?;
    let (Some(user), Verdict::Right { rehash }) = (user, verdict) else {
        within_limit(store.login_failed(&who).await?)?;
        return Err(invalid_credentials());
    };
    within_limit(store.login_passed(&who).await?)?;
    let answer = begin(&store, sessions, &user).await;
    if let Some(hash) = rehash {
        tokio::spawn(keep_better_hash(store, user, hash));
    }
    answer
}

fn credentials(mut fields: Fields) -> Result<Credentials, Problem> {
    let any = || text(|it: &str| Ok(it.to_owned()));
    let username = fields.required("username", any());
    let password = fields.required("password", any());
    let credentials = username
        .zip(password)
        .map(|(username, password)| Credentials { username, password });
    fields.finish(credentials)
}

async fn begin(store: &Store, sessions: &Sessions, user: &User) -> Answer {
    let login = Login::of(user);
    let family = store.create_family(Flow::Session, Some(login.label()), Metadata::default());
    let Some((token, created)) = family.await? else {
        return Err(Problem::flow_full("SESSION_MAX"));
    };
    let (from_ms, until_ms) = (created.created_at_ms, created.expires_at_ms);
    Ok(granted(sessions, &token, &login, from_ms, until_ms))
}

fn granted(
    sessions: &Sessions,
    token: &Rotating,
    login: &Login,
    now_ms: u64,
    until_ms: u64,
) -> HttpResponse {
    let session = SessionId::from(token).to_string();
    let jwt = &sessions.jwt;
    let access = jwt.issue(login.name.as_str(), &session, now_ms, until_ms);
    HttpResponse::Ok().insert_header(NO_STORE).json(Granted {
        access_token: access.token,
        token_type: "Bearer",
        expires_in: access.expires_in_s,
        refresh_token: sessions.refresh.sign(token),
        refresh_expires_in: until_ms.saturating_sub(now_ms) / 1_000,
    })
}

/// Beside the answer: that one is made, and the login holds whether this succeeds or not.
async fn keep_better_hash(store: web::Data<Store>, user: User, hash: String) {
    if let Err(error) = store.rehash_user(&user, &hash).await {
        tracing::warn!("a password's older hash stays until the next login: {error}");
    }
}

/// `POST /auth/refresh`: rotates the refresh token, and makes a new access token.
///
/// # Errors
/// `invalid-request`, `invalid-grant`, `token-reused`, `flow-off`, and the store's.
pub async fn refresh_session(
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
    flows: web::Data<Flows>,
) -> Answer {
    let sessions = sessions(&flows)?;
    let given = refresh_token(sessions, &refresh_field(body.0)?).ok_or_else(invalid_grant)?;
    let request = ExchangeRequest {
        token: given,
        metadata: Metadata::default(),
        retry: flows.settings.rotation_retry,
        renew: false,
        revoke_on_reuse: true,
    };
    let done = match store.exchange(Flow::Session, &request).await? {
        ExchangeOutcome::Exchanged(done) => done,
        ExchangeOutcome::Reused => return Err(token_reused()),
        // Too large it can't be: nothing is merged.
        ExchangeOutcome::Spent | ExchangeOutcome::Absent | ExchangeOutcome::TooLarge => {
            return Err(invalid_grant());
        }
    };
    let token = Rotating {
        number: done.number,
        ..request.token
    };
    let Some(login) = current_login(&store, done.subject.as_ref()).await? else {
        let (partition, family) = (token.partition, &token.family);
        store
            .delete_family(Flow::Session, partition, family)
            .await?;
        return Err(invalid_grant());
    };
    let (now_ms, until_ms) = (done.now_ms, done.expires_at_ms);
    Ok(granted(sessions, &token, &login, now_ms, until_ms))
}

/// `POST /auth/logout`: ends the session of a refresh token, a spent one included. What was never one is as gone
/// as it should be.
///
/// # Errors
/// `invalid-request`, `flow-off`, and the store's.
pub async fn log_out(
    _: NoQuery,
    body: JsonBody,
    store: web::Data<Store>,
    flows: web::Data<Flows>,
    done: Revocations,
) -> Answer {
    let sessions = sessions(&flows)?;
    let token = refresh_field(body.0)?;
    if let Some(token) = refresh_token(sessions, &token) {
        store
            .delete_family(Flow::Session, token.partition, &token.family)
            .await?;
    } else if let Some(why) = unknown_key(&token, [&sessions.refresh].into_iter()) {
        done.did_nothing(&why);
    }
    Ok(HttpResponse::NoContent().insert_header(NO_STORE).finish())
}

/// `POST /token/validate`: whether an access token is good at this moment, and what it says.
///
/// # Errors
/// `invalid-request`, `flow-off`, and the store's.
pub async fn validate_token(
    _: NoQuery,
    body: JsonBody,
    tokens: Tokens,
    flows: web::Data<Flows>,
) -> Answer {
    sessions(&flows)?;
    let token = token_field(body.0)?;
    let claims = tokens.find_access(&token).await?;
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(Validated {
        valid: claims.is_some(),
        claims,
    }))
}

/// `POST /token/revoke`: ends the session of a refresh token, or of an access token that is good.
///
/// # Errors
/// `invalid-request`, `flow-off`, and the store's.
pub async fn revoke_token(
    _: NoQuery,
    body: JsonBody,
    tokens: Tokens,
    flows: web::Data<Flows>,
    done: Revocations,
) -> Answer {
    sessions(&flows)?;
    let token = token_field(body.0)?;
    let revoked = tokens.revoke_session(&token, &done).await?;
    Ok(HttpResponse::Ok()
        .insert_header(NO_STORE)
        .json(Revoked { revoked }))
}

fn sessions(flows: &Flows) -> Result<&Sessions, Problem> {
    let sessions = flows.sessions.as_ref();
    sessions.map_err(|off| Problem::flow_off(*off))
}

fn token_field(mut fields: Fields) -> Result<String, Problem> {
    let token = fields.required("token", text(|it| Ok(it.to_owned())));
    fields.finish(token)
}

/// `refresh_token`, or as clients of older services spell it.
fn refresh_field(mut fields: Fields) -> Result<String, Problem> {
    let older = fields.has("refreshToken");
    if older && fields.has("refresh_token") {
        fields.refuse("refreshToken", "must not be given along with refresh_token");
        // Read even where it is refused, or it would also be told as unknown.
        fields.optional("refresh_token", |_| Ok(()));
    }
    let name = if older {
        "refreshToken"
    } else {
        "refresh_token"
    };
    let token = fields.required(name, text(|it| Ok(it.to_owned())));
    fields.finish(token)
}

/// `rate-limited`, with the headers that most clients know, where the limit is passed.
fn within_limit(throttle: Throttle) -> Result<(), Problem> {
    let Some(retry_after_ms) = throttle.retry_after_ms else {
        return Ok(());
    };
    let reset_s = retry_after_ms.div_ceil(1_000).max(1);
    let told = "too many failed logins of this user from this address";
    let headers = [
        ("ratelimit-limit", throttle.limit),
        ("ratelimit-remaining", throttle.remaining),
        ("ratelimit-reset", reset_s),
    ];
    let problem = Problem::new(Slug::RateLimited, told).with_retry_after_ms(retry_after_ms);
    Err(headers.into_iter().fold(problem, |problem, (name, value)| {
        problem.with_header(HeaderName::from_static(name), value.into())
    }))
}

fn overloaded(_: Busy) -> Problem {
    let detail = "too many logins are waiting";
    Problem::new(Slug::Overloaded, detail)
        .with_retry_after_ms(OVERLOADED_RETRY_MS)
        .caused_by(detail)
}

fn invalid_credentials() -> Problem {
    challenge(
        Problem::new(Slug::InvalidCredentials, "wrong user name or password"),
        // No token was sent, so there is no error code to tell (RFC 6750, section 3.1).
        "Bearer realm=\"tokend\"",
    )
}

fn invalid_grant() -> Problem {
    challenge(
        Problem::new(
            Slug::InvalidGrant,
            "the refresh token is unknown, expired or revoked",
        ),
        "Bearer realm=\"tokend\", error=\"invalid_token\", \
         error_description=\"the refresh token is unknown, expired or revoked\"",
    )
}

fn token_reused() -> Problem {
    challenge(
        Problem::new(
            Slug::TokenReused,
            "the refresh token was used before; its session is revoked",
        ),
        "Bearer realm=\"tokend\", error=\"invalid_token\", \
         error_description=\"the refresh token was used before\"",
    )
}

fn challenge(problem: Problem, challenge: &'static str) -> Problem {
    problem
        .with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        )
        .with_header(NO_STORE.0, HeaderValue::from_static(NO_STORE.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_that_finds_no_place_is_told_when_to_come_back() {
        let answer = overloaded(Busy).respond("a");
        assert_eq!(answer.status(), 503);
        let told = answer.headers().get(header::RETRY_AFTER);
        assert!(told.is_some_and(|it| it == "1"), "{told:?}");
    }

    #[test]
    fn only_what_is_over_the_limit_is_refused() {
        let throttle = |retry_after_ms| Throttle {
            limit: 10,
            remaining: 0,
            retry_after_ms,
        };
        assert!(within_limit(throttle(None)).is_ok());
        let answer = within_limit(throttle(Some(1_001)))
            .expect_err("over")
            .respond("a");
        assert_eq!(answer.status(), 429);
        for (name, value) in [
            ("retry-after", "2"),
            ("ratelimit-limit", "10"),
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", "2"),
        ] {
            let told = answer.headers().get(name);
            assert!(told.is_some_and(|it| it == value), "{name}: {told:?}");
        }
    }
}
