//! How times and durations look in answers.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use actix_web::http::header::{self, HeaderName};
use serde::{Serialize, Serializer};

/// What no cache may keep: tokens, and whether one is good (RFC 6749, section 5.1).
pub const NO_STORE: (HeaderName, &str) = (header::CACHE_CONTROL, "no-store");

/// The last millisecond of the year 9999, since the epoch: RFC 3339 has four digits for a year.
const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// A moment in milliseconds since the epoch; RFC 3339 UTC with milliseconds on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Timestamp(pub u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = UNIX_EPOCH + Duration::from_millis(self.0.min(TIME_MS_MAX));
        humantime::format_rfc3339_millis(moment).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A duration in milliseconds; seconds on the wire, as `60`, or `1.5` where not whole.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub u64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            return serializer.serialize_u64(self.0 / 1_000);
        }
        // Exact below 2^53 ms, which is 285,000 years.
        #[allow(clippy::cast_precision_loss)]
        serializer.serialize_f64(self.0 as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).expect("serializes")
    }

    #[test]
    fn times_are_rfc_3339_utc_with_milliseconds() {
        assert_eq!(json(&Timestamp(0)), r#""1970-01-01T00:00:00.000Z""#);
        assert_eq!(
            json(&Timestamp(1_700_000_000_007)),
            r#""2023-11-14T22:13:20.007Z""#
        );
        assert_eq!(json(&Timestamp(u64::MAX)), r#""9999-12-31T23:59:59.999Z""#);
    }

    #[test]
    fn durations_are_seconds_and_whole_where_they_can_be() {
        assert_eq!(json(&Seconds(60_000)), "60");
        assert_eq!(json(&Seconds(0)), "0");
        assert_eq!(json(&Seconds(1_500)), "1.5");
        assert_eq!(json(&Seconds(59_999)), "59.999");
    }
}
