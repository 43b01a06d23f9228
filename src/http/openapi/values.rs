//! The schemas of single values: what `token` parses, told to callers.

use serde_json::json;
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::answer::{Seconds, Timestamp};
use crate::token::{
    Fence, HOLDER_BYTES_MAX, Holder, IDEMPOTENCY_KEY_CHARS_MAX, NewToken, OnLapse, PoolName, State,
    TOKEN_BYTES_MAX, TokenValue, WAIT_MAX,
};

/// No control characters.
const PRINTABLE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// Nor a space at either end. That other invisible characters are refused too is more than a pattern can say.
const TRIMMED: &str = r"^[^\x00-\x20\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f])?$";
/// Shortest and longest duration, in seconds.
const DURATION_S: (f64, f64) = (1.0, 2_592_000.0);

macro_rules! schemas {
    ($($kind:ty: $schema:expr;)+) => {$(
        impl PartialSchema for $kind {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $kind {}
    )+};
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
}

fn printable(description: &str, bytes_max: usize) -> ObjectBuilder {
    text(description)
        .min_length(Some(1))
        .max_length(Some(bytes_max))
        .pattern(Some(PRINTABLE))
}

fn seconds(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some(description))
}

/// A duration that a request gives.
pub enum Duration {}

/// A duration that a request gives, or none.
pub enum DurationOrNone {}

/// How long a request waits.
pub enum Waiting {}

/// The name of a pool that can be made.
pub enum NewPoolName {}

/// `Idempotency-Key`.
pub enum Key {}

/// `limit`.
pub enum PageLimit {}

/// Any text.
pub enum Text {}

schemas! {
    TokenValue: printable("A pool's token: 1 to 4096 bytes, no control characters.", TOKEN_BYTES_MAX)
        .examples([json!("seat-1")]);
    NewToken: printable(
        "A new token: 1 to 4096 bytes, no control or invisible characters, no white space at either end. It is stored \
         in Unicode's NFC.",
        TOKEN_BYTES_MAX,
    )
    .pattern(Some(TRIMMED))
    .examples([json!("seat-1")]);
    Holder: printable(
        "A label for who holds a lease: 1 to 256 bytes, no control characters. In a request also no invisible ones and \
         no white space at either end; it is kept in Unicode's NFC.",
        HOLDER_BYTES_MAX,
    )
    .examples([json!("worker-7")]);
    Timestamp: text("A moment: RFC 3339, UTC, with milliseconds.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .pattern(Some(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"))
        .examples([json!("2026-01-31T23:59:59.999Z")]);
    Seconds: seconds("A duration in seconds, with a fraction where it is not whole.")
        .minimum(Some(0.0))
        .examples([json!(60)]);
    Waiting: seconds("Seconds to wait, fractions allowed: 0 (not at all) to 60.")
        .minimum(Some(0.0))
        .maximum(Some(WAIT_MAX.as_secs_f64()))
        .examples([json!(30)]);
    Duration: seconds("A duration in seconds, fractions allowed: 1 to 2592000 (30 days).")
        .minimum(Some(DURATION_S.0))
        .maximum(Some(DURATION_S.1))
        .examples([json!(60)]);
    // Nothing between 0 and 1, which a range can't say.
    DurationOrNone: seconds("A duration in seconds, fractions allowed: 1 to 2592000 (30 days), or 0 for none.")
        .minimum(Some(0.0))
        .maximum(Some(DURATION_S.1))
        .examples([json!(0)]);
    Fence: ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some("Names one grant: larger than that of every earlier grant of the token."))
        .minimum(Some(1))
        .maximum(Some(9_007_199_254_740_992_usize))
        .examples([json!(1_769_903_999_000_000_u64)]);
    State: text("`free`: assignable; `held`: granted to one holder; `cooling`: back, not yet assignable.")
        .enum_values(Some(["free", "held", "cooling"]));
    OnLapse: text("What becomes of a token whose lease lapsed: it cools and is free again, or is deleted.")
        .enum_values(Some(["recycle", "delete"]));
    // A pool of a flow is in no answer.
    PoolName: text("A pool's name.").pattern(Some("^[a-z0-9][a-z0-9-]{0,62}$")).examples([json!("seats")]);
    NewPoolName: text("A pool's name: lower-case letters, digits and hyphens.")
        .pattern(Some("^[a-z0-9][a-z0-9-]{0,62}$"));
    Key: text("1 to 128 printable ASCII characters.")
        .min_length(Some(1))
        .max_length(Some(IDEMPOTENCY_KEY_CHARS_MAX))
        .pattern(Some("^[!-~]([ -~]*[!-~])?$"));
    PageLimit: ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(1_000))
        .default(Some(json!(100)));
    Text: ObjectBuilder::new().schema_type(Type::String);
}
