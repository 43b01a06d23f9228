//! Sessions, and the standards by which other services check tokens.

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{HttpMethod, Required};

use super::AnyObject;
use super::entry::{Entry, Tag};
use super::flows::BearerRequest;
use super::schemas::Shape;
use crate::http::problem::Slug;

const FORM: &str = "application/x-www-form-urlencoded";

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct Credentials {
    username: String,
    #[schema(format = Password)]
    password: String,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct RefreshRequest {
    refresh_token: String,
}

/// As clients of older services spell it.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct OlderRefreshRequest {
    #[schema(rename = "refreshToken")]
    refresh_token: String,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct SessionTokens {
    /// A JWT, for the services.
    access_token: String,
    #[schema(pattern = "^Bearer$")]
    token_type: String,
    /// Seconds that the access token is good for.
    expires_in: u64,
    /// For this client alone. It is good for one refresh.
    refresh_token: String,
    /// Seconds until the session ends.
    refresh_expires_in: u64,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct Validated {
    valid: bool,
    /// Of a token that is valid.
    claims: Option<AccessClaims>,
}

/// What an access token says.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct AccessClaims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    iat: u64,
    jti: String,
    /// The session.
    sid: String,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct Revoked {
    /// Whether there was something to revoke.
    revoked: bool,
}

/// Public keys (RFC 7517).
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct KeySet {
    keys: Vec<AnyObject>,
}

/// A form (RFC 6749, section 3.2); parameters of other names are ignored.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct TokenForm {
    #[schema(min_length = 1)]
    token: String,
    /// `access_token`, `refresh_token`, `one_time_token`, `temporary_token` or `unified_token`; others are ignored.
    /// Introspection then takes this kind as well; revocation takes every kind anyway.
    token_type_hint: Option<String>,
}

/// A dead token has `active` alone.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct Introspection {
    active: bool,
    /// Which of this service's kinds it is.
    #[schema(pattern = "^(temporary|one_time|unified|access|refresh)$")]
    kind: Option<String>,
    token_type: Option<String>,
    exp: Option<u64>,
    iat: Option<u64>,
    sub: Option<String>,
    aud: Option<String>,
    iss: Option<String>,
    jti: Option<String>,
}

/// Where everything is (RFC 8414).
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct ServerMetadata {
    issuer: String,
    jwks_uri: String,
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: Vec<String>,
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: Vec<String>,
    /// By what access tokens are signed; absent while logins are off.
    access_token_signing_alg_values_supported: Option<Vec<String>>,
    service_documentation: String,
    response_types_supported: Vec<String>,
    grant_types_supported: Vec<String>,
}

const ACCESS: &str = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
const REFRESH: &str = "3.k1.0w3eYb1mQ2Kq3Zb7d1mVtA.1.q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";

pub fn entries() -> Vec<Entry> {
    [sessions(), checks(), oauth(), well_known()]
        .into_iter()
        .flatten()
        .collect()
}

fn post(path: &'static str, id: &'static str, summary: &'static str) -> Entry {
    Entry::new(Tag::Sessions, HttpMethod::Post, path, id, summary)
        .strict_query()
        .asks_store()
        .problems(&[Slug::FlowOff])
}

fn tokens_example() -> Value {
    json!({
        "access_token": ACCESS, "token_type": "Bearer", "expires_in": 900,
        "refresh_token": REFRESH, "refresh_expires_in": 2_592_000,
    })
}

fn with_refresh_token(entry: Entry) -> Entry {
    entry.takes(
        Shape::of::<RefreshRequest>().or::<OlderRefreshRequest>(),
        Required::True,
        json!({"refresh_token": REFRESH}),
    )
}

fn sessions() -> Vec<Entry> {
    vec![
        post("/auth/login", "log_in", "Begin a session")
            .takes(
                Shape::of::<Credentials>(),
                Required::True,
                json!({"username": "ann", "password": "correct horse battery staple"}),
            )
            .describe(
                "Name and password are the same in every Unicode spelling (RFC 8265). Failed logins are counted over \
                 15 minutes: 10 of a user from an address, 20 of a user from addresses where that user has not \
                 logged in for 30 days, 50 from an address of users who have not logged in there. After that \
                 each login, right or wrong, is answered with 429 and Retry-After.",
            )
            .answers::<SessionTokens>(200, "Its tokens.", tokens_example())
            .problems(&[
                Slug::InvalidCredentials,
                Slug::RateLimited,
                Slug::Overloaded,
                Slug::FlowFull,
            ]),
        with_refresh_token(post("/auth/refresh", "refresh_session", "Renew a session's tokens"))
            .describe(
                "The refresh token rotates. A retry within `ROTATION_RETRY` (60 seconds unless it is set) \
                 gets the same successor, unless that successor was used meanwhile. Within 10 seconds of \
                 a refresh an older refresh token is only refused (`invalid-grant`). Any other use of an old one \
                 counts as theft and ends the session (`token-reused`).",
            )
            .answers::<SessionTokens>(200, "New tokens.", tokens_example())
            .problems(&[Slug::InvalidGrant, Slug::TokenReused]),
        with_refresh_token(post("/auth/logout", "log_out", "End a session"))
            .answers_empty(204, "It has ended, whether or not there was one."),
    ]
}

fn checks() -> Vec<Entry> {
    let body = || (Shape::of::<BearerRequest>(), json!({"token": ACCESS}));
    let with_token = |entry: Entry| {
        let (shape, example) = body();
        entry.takes(shape, Required::True, example)
    };
    vec![
        with_token(post(
            "/token/validate",
            "validate_token",
            "Whether an access token is good",
        ))
        .describe("Its signature, expiry, issuer and audience, and that its session goes on.")
        .answers::<Validated>(
            200,
            "Whether it is, and what it says.",
            json!({"valid": true, "claims": {
                "iss": "https://tokens.example.com", "sub": "ann", "aud": "tokend",
                "exp": 1_769_904_899, "iat": 1_769_903_999, "sid": "3.0w3eYb1mQ2Kq3Zb7d1mVtA",
                "jti": "3f0e7a39-91f0-4a8e-9d50-0e6c7a2f2d41",
            }}),
        ),
        with_token(post(
            "/token/revoke",
            "revoke_token",
            "End the session of a token",
        ))
        .describe("Of a refresh or of an access token; an unknown one is not an error.")
        .answers::<Revoked>(200, "Whether there was one.", json!({"revoked": true})),
    ]
}

fn oauth() -> Vec<Entry> {
    let post = |path, id, summary| {
        Entry::new(Tag::OAuth, HttpMethod::Post, path, id, summary)
            .strict_query()
            .asks_store()
            .takes_media(
                FORM,
                Shape::of::<TokenForm>().ignoring_others(),
                json!({"token": ACCESS}),
            )
            .problems(&[Slug::InvalidRequest, Slug::UnsupportedMediaType])
    };
    vec![
        post(
            "/oauth/introspect",
            "introspect_token",
            "What is known of a bearer token",
        )
        .describe(
            "RFC 7662. Access and unified tokens are introspected without a hint. Other kinds of bearer tokens are \
             inactive here, unless `token_type_hint` names their kind, or the setting `INTROSPECT_KINDS` does.",
        )
        .answers::<Introspection>(
            200,
            "A dead token has `active` alone.",
            json!({
                "active": true, "kind": "access", "token_type": "Bearer", "exp": 1_769_904_899,
                "iat": 1_769_903_999, "sub": "ann", "aud": "tokend",
                "iss": "https://tokens.example.com",
                "jti": "3f0e7a39-91f0-4a8e-9d50-0e6c7a2f2d41",
            }),
        ),
        post("/oauth/revoke", "revoke_bearer_token", "End a bearer token")
            .describe("RFC 7009, for every kind of bearer token that this service issues.")
            .answers_empty(200, "It has ended, whether or not there was one."),
    ]
}

fn well_known() -> Vec<Entry> {
    let get = |path, id, summary| Entry::new(Tag::OAuth, HttpMethod::Get, path, id, summary);
    vec![
        get(
            "/.well-known/jwks.json",
            "show_jwks",
            "The public keys of access tokens",
        )
        .answers::<KeySet>(
            200,
            "None if access tokens are signed by a shared secret. `alg` is what a key signs by; an RSA key has `n` and `e`.",
            json!({"keys": [{
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "2026-01",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }]}),
        ),
        get(
            "/.well-known/oauth-authorization-server",
            "show_metadata",
            "Where the endpoints of the standards are",
        )
        .answers::<ServerMetadata>(
            200,
            "RFC 8414.",
            json!({
                "issuer": "https://tokens.example.com",
                "jwks_uri": "https://tokens.example.com/.well-known/jwks.json",
                "introspection_endpoint": "https://tokens.example.com/oauth/introspect",
                "introspection_endpoint_auth_methods_supported": ["none"],
                "revocation_endpoint": "https://tokens.example.com/oauth/revoke",
                "revocation_endpoint_auth_methods_supported": ["none"],
                "access_token_signing_alg_values_supported": ["EdDSA"],
                "service_documentation": "https://tokens.example.com/reference",
                "response_types_supported": [], "grant_types_supported": [],
            }),
        ),
    ]
}
