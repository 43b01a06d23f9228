//! Temporary, one-time and unified tokens.

use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::{HttpMethod, Required};

use super::AnyObject;
use super::entry::{Entry, JSON, TEXT, Tag};
use super::schemas::Shape;
use super::values::Text;
use crate::http::answer::Timestamp;
use crate::http::problem::Slug;

/// A body that browsers and `curl -d` send where nothing else is said.
const FORM: &str = "application/x-www-form-urlencoded";

/// What to make; members of other names are ignored.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct TemporaryRequest {
    /// How long it shall live, instead of `TOKEN_TTL_MINUTES`.
    #[schema(minimum = 1, maximum = 2_592_000)]
    ttl_seconds: Option<u32>,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct TemporaryMade {
    /// That of the answer.
    status_code: u16,
    /// Six digits, a colon, and 256 random bits.
    #[schema(pattern = "^[0-9]{6}:[A-Za-z0-9_-]{43}$")]
    token: String,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct TemporaryChecked {
    /// That of the answer.
    status_code: u16,
    status: bool,
}

/// A bearer token of whatever kind.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
pub struct BearerRequest {
    pub token: String,
}

/// A new one-time token; members of other names are ignored.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct OneTimeRequest {
    /// At most 64 KiB. May be missing only where the header `user` is there: then the token is a unified one.
    meta: Option<AnyObject>,
}

/// A one-time token to exchange; members of other names are ignored.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct ExchangeRequest {
    token: String,
    /// New fields win, and null is kept as null.
    meta: Option<AnyObject>,
}

/// A one-time token; members of other names are ignored.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct OneTimeToken {
    token: String,
}

/// The token is exchanged.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct Exchanged {
    #[schema(rename = "Ok")]
    ok: Successor,
}

/// The successor, and all metadata as it is now.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct Successor {
    token: String,
    meta: AnyObject,
}

/// The token is unknown, used or expired.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct NotExchanged {
    #[schema(rename = "Err", pattern = "^InvalidToken$")]
    err: String,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct UnifiedMade {
    #[schema(pattern = "^200$")]
    status: String,
    message: String,
    payload: UnifiedToken,
}

#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct UnifiedToken {
    #[schema(pattern = "^[A-Za-z0-9_-]{32,}$")]
    token: String,
    created: Timestamp,
    expires: Timestamp,
    /// Whose it is, where a header `user` said so.
    user: Option<String>,
}

/// The header `user` is not `name@host`.
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema
struct UserNotValid {
    #[schema(pattern = "^400$")]
    status: String,
    #[schema(pattern = "^User not valid")]
    message: String,
}

const TEMPORARY: &str = "754321:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";
const ONE_TIME: &str = "3.k1.0w3eYb1mQ2Kq3Zb7d1mVtA.1.q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA";
const SUCCESSOR: &str = "3.k1.0w3eYb1mQ2Kq3Zb7d1mVtA.2.N7xI0VniQq83vEjRWeJAq83vEjRWeJCrze8SNFZ4kKv";

pub fn entries() -> Vec<Entry> {
    [temporary(), one_time()].into_iter().flatten().collect()
}

fn temporary() -> Vec<Entry> {
    let entry = |method, path, id, summary| {
        Entry::new(Tag::Temporary, method, path, id, summary).asks_store()
    };
    let checked = |entry: Entry| {
        entry.answers::<TemporaryChecked>(
            200,
            "`status`: whether it is alive. What is unknown, expired or malformed is not.",
            json!({"status_code": 200, "status": true}),
        )
    };
    vec![
        entry(
            HttpMethod::Post,
            "/app/token",
            "create_temporary_token",
            "Make a temporary token",
        )
        .describe("A body that is not a JSON object is ignored.")
        .strict_query()
        .takes(
            Shape::of::<TemporaryRequest>()
                .ignoring_others()
                .or_no_object(),
            Required::False,
            json!({"ttl_seconds": 600}),
        )
        .answers::<TemporaryMade>(
            200,
            "The token.",
            json!({"status_code": 200, "token": TEMPORARY}),
        )
        .problems(&[Slug::FlowFull]),
        checked(entry(
            HttpMethod::Get,
            "/app/valid/{token}",
            "validate_temporary_token_in_path",
            "Whether a temporary token is alive",
        ))
        .describe("`POST /app/valid` keeps tokens out of URLs.")
        .in_path::<Text>("token", "The token.", TEMPORARY),
        checked(entry(
            HttpMethod::Post,
            "/app/valid",
            "validate_temporary_token",
            "Whether a temporary token is alive, asked in the body",
        ))
        .strict_query()
        .takes(
            Shape::of::<BearerRequest>(),
            Required::True,
            json!({"token": TEMPORARY}),
        ),
        entry(
            HttpMethod::Delete,
            "/app/clear/all/tokens",
            "clear_temporary_tokens",
            "Remove the temporary tokens that have expired",
        )
        .describe("Those, and no others.")
        .strict_query()
        .answers::<TemporaryChecked>(
            200,
            "It is done.",
            json!({"status_code": 200, "status": true}),
        ),
    ]
}

fn one_time() -> Vec<Entry> {
    vec![create(), exchange(), delete(), dump()]
}

fn entry(method: HttpMethod, id: &'static str, summary: &'static str) -> Entry {
    Entry::new(Tag::Token, method, "/token", id, summary)
        .asks_store()
        .problems(&[Slug::FlowOff])
}

fn create() -> Entry {
    let object = json!({"meta": {"order": 4711}});
    entry(HttpMethod::Post, "create_token", "Make a one-time or a unified token")
        .describe(
            "The body says which. A JSON object, whatever its content type: a **one-time** token with the \
             metadata in `meta`; it is exchanged at each use. No body, or something else that is not said to \
             be JSON: a **unified** token, which lives 24 hours; so does a JSON object without `meta` where \
             there is a header `user`.",
        )
        .in_header::<Text>("user", "Whose the unified token is: `name@host`.", "ann@example.com")
        .takes(Shape::of::<OneTimeRequest>().ignoring_others(), Required::False, object.clone())
        .takes_media(FORM, Shape::text(), object.to_string().into())
        .takes_media(TEXT, Shape::text(), "".into())
        .answers_text(200, "A one-time token (text), or a unified one (JSON).", TEXT, ONE_TIME)
        .answers::<UnifiedMade>(
            200,
            "",
            json!({
                "status": "200", "message": "Token created",
                "payload": {
                    "token": "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA",
                    "created": "2026-01-30T23:59:59.999Z", "expires": "2026-01-31T23:59:59.999Z",
                    "user": "ann@example.com",
                },
            }),
        )
        .answers::<UserNotValid>(
            400,
            "The request is not valid, or its header `user` is not.",
            json!({"status": "400", "message": "User not valid: must be name@host"}),
        )
        .problems(&[Slug::InvalidRequest, Slug::InvalidMetadata, Slug::FlowFull])
}

fn exchange() -> Entry {
    entry(HttpMethod::Put, "exchange_token", "Exchange a one-time token for its successor")
        .describe(
            "The token given in is dead, its successor lives a full lifetime; `meta` is merged into the \
             metadata, field by field. A retry within `ROTATION_RETRY` (60 seconds unless it is set) \
             gets the same successor, unless that successor was exchanged meanwhile; its `meta` is ignored.",
        )
        .takes(
            Shape::of::<ExchangeRequest>().ignoring_others(),
            Required::True,
            json!({"token": ONE_TIME, "meta": {"step": 2}}),
        )
        .answers_shape(
            200,
            "The successor in `Ok`, or `Err`: the token is unknown, used or expired.",
            JSON,
            Shape::of::<Exchanged>().or::<NotExchanged>(),
            json!({"Ok": {"token": SUCCESSOR, "meta": {"order": 4711, "step": 2}}}),
        )
        .problems(&[Slug::InvalidMetadata])
}

fn delete() -> Entry {
    entry(
        HttpMethod::Delete,
        "delete_one_time_token",
        "Delete a one-time token",
    )
    .takes(
        Shape::of::<OneTimeToken>().ignoring_others(),
        Required::True,
        json!({"token": ONE_TIME}),
    )
    .answers_empty(202, "It is gone, whether or not it was there.")
}

fn dump() -> Entry {
    Entry::new(
        Tag::Token,
        HttpMethod::Head,
        "/dump",
        "dump_tokens",
        "Write what one-time tokens carry to the log",
    )
    .describe("Metadata and expiry, never tokens. Only there with `DUMP=true`.")
    .answers_empty(202, "It has begun.")
    .problems(&[Slug::NotFound, Slug::FlowOff])
}
