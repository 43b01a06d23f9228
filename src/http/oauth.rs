//! The standards by which everybody else's clients check and revoke our tokens, of every kind.

use actix_web::http::header::{self, HeaderName};
use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::answer::NO_STORE;
use super::foreign::Revocations;
use super::form::TokenForm;
use super::live::{Live, Tokens};
use super::problem::Problem;
use crate::flows::Flows;
use crate::token::Kind;

type Answer = Result<HttpResponse, Problem>;

/// The keys and the metadata are public and change with a rollout alone. Long enough that a resource server asks
/// no more than a few hundred times a day; short enough that each step of a key's rollout has to wait five
/// minutes only, until whoever keeps the answer knows the new key.
const PUBLIC: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// RFC 7662, section 2.2. A dead token has `active` alone.
#[derive(Serialize, Default)]
struct Introspection<'a> {
    active: bool,
    /// Ours: which of this service's kinds it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
}

impl<'a> Introspection<'a> {
    fn of(live: &'a Live) -> Self {
        let claims = live.claims.as_ref();
        let (view, sub) = (&live.view, live.subject.as_deref());
        Self {
            active: true,
            kind: Some(live.kind),
            token_type: claims.map(|_| "Bearer"),
            exp: Some(claims.map_or(view.expires_at_ms / 1_000, |it| it.exp)),
            iat: Some(claims.map_or(view.since_ms / 1_000, |it| it.iat)),
            sub,
            aud: claims.map(|it| it.aud.as_str()),
            iss: claims.map(|it| it.iss.as_str()),
            jti: claims.map(|it| it.jti.as_str()),
        }
    }
}

/// RFC 8414, section 2. There is no authorization and no token endpoint: a login is `/auth/login`.
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    jwks_uri: String,
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: [&'static str; 1],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: [&'static str; 1],
    /// Not of the RFC: by what access tokens are signed. Absent while logins are off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    access_token_signing_alg_values_supported: Vec<&'static str>,
    service_documentation: String,
    /// Required even where there are none.
    response_types_supported: [&'static str; 0],
    /// Told although empty: where it is absent, clients assume the authorization code and the implicit grant.
    grant_types_supported: [&'static str; 0],
}

/// `GET /.well-known/jwks.json`: the public keys that access tokens can be verified with (RFC 7517).
///
/// # Errors
/// None.
pub async fn show_jwks(flows: web::Data<Flows>) -> Answer {
    let (jwks, caching) = match &flows.sessions {
        Ok(sessions) => (sessions.jwt.jwks(), PUBLIC),
        // No key signs, so there is none to verify with; and nobody shall remember that once there is.
        Err(_) => (serde_json::json!({ "keys": [] }), NO_STORE),
    };
    Ok(HttpResponse::Ok().insert_header(caching).json(jwks))
}

/// `GET /.well-known/oauth-authorization-server`: where everything is (RFC 8414).
///
/// # Errors
/// None.
pub async fn show_metadata(flows: web::Data<Flows>) -> Answer {
    let at = |path: &str| format!("{}{path}", flows.public_url);
    let signing = flows.sessions.as_ref().map(|it| it.jwt.algorithms());
    Ok(HttpResponse::Ok().insert_header(PUBLIC).json(Metadata {
        issuer: &flows.public_url,
        jwks_uri: at("/.well-known/jwks.json"),
        introspection_endpoint: at("/oauth/introspect"),
        introspection_endpoint_auth_methods_supported: ["none"],
        revocation_endpoint: at("/oauth/revoke"),
        revocation_endpoint_auth_methods_supported: ["none"],
        access_token_signing_alg_values_supported: signing.unwrap_or_default(),
        service_documentation: at("/reference"),
        response_types_supported: [],
        grant_types_supported: [],
    }))
}

/// `POST /oauth/introspect`: whether a token is good at this moment, and what is known of it (RFC 7662). The hint of a
/// resource server says which kind of token it means; that kind is then introspected as well.
///
/// # Errors
/// `invalid-request`, `unsupported-media-type`, and the store's.
pub async fn introspect_token(form: TokenForm, tokens: Tokens) -> Answer {
    let live = tokens.introspect(&form.token, form.hint).await?;
    let told = live.as_ref().map(Introspection::of).unwrap_or_default();
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(told))
}

/// `POST /oauth/revoke`: ends a token (RFC 7009). What was none is revoked as it is.
///
/// # Errors
/// `invalid-request`, `unsupported-media-type`, and the store's.
pub async fn revoke_token(form: TokenForm, tokens: Tokens, done: Revocations) -> Answer {
    tokens.revoke(&form.token, &done).await?;
    Ok(HttpResponse::Ok().insert_header(NO_STORE).finish())
}
