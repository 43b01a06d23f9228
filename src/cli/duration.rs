//! Durations as people type them and as the contract wants them.

use std::time::Duration;

use serde_json::Number;

use crate::token::{DURATION_MS_MAX, Invalid, WAIT_MAX, duration_ms};

/// `--purge-interval`: its range is that of the services whose start-up scripts pass it.
const PURGE_INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(90 * 60);

/// `90s`, `2m`, `1h 30m`, or plain seconds (`90`, `0.5`).
///
/// # Errors
/// When it is none of these.
pub fn parse(text: &str) -> Result<Duration, Invalid> {
    let seconds = text.parse::<f64>().ok();
    let parsed = match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => humantime::parse_duration(text).ok(),
    };
    parsed.ok_or_else(|| Invalid("write 90s, 2m, 1h, or plain seconds".to_owned()))
}

/// A lease's length: 1 s to 30 d.
///
/// # Errors
/// When it is not a duration or out of range.
pub fn lifetime(text: &str) -> Result<Duration, Invalid> {
    duration_ms(parse(text)?.as_secs_f64()).map(Duration::from_millis)
}

/// A limit where 0 means none: 0, or 1 s to 30 d.
///
/// # Errors
/// When it is not a duration or out of range.
pub fn limit(text: &str) -> Result<Duration, Invalid> {
    if parse(text)?.is_zero() {
        Ok(Duration::ZERO)
    } else {
        lifetime(text)
    }
}

/// How long to wait for a token: 0 to 60 s.
///
/// # Errors
/// When it is not a duration or out of range.
pub fn wait(text: &str) -> Result<Duration, Invalid> {
    let wait = parse(text)?;
    if wait <= WAIT_MAX {
        Ok(wait)
    } else {
        Err(Invalid(format!("must be 0 to {}", human(WAIT_MAX))))
    }
}

/// How often `serve` was once told to look for expired tokens: 1 s to 90 min.
///
/// # Errors
/// When it is not a duration or out of range.
pub fn purge_interval(text: &str) -> Result<Duration, Invalid> {
    let interval = parse(text)?;
    if PURGE_INTERVAL.contains(&interval) {
        Ok(interval)
    } else {
        Err(Invalid("must be 1s to 90min".to_owned()))
    }
}

/// Seconds for a request's JSON: a whole number where it is one, else a fraction.
#[must_use]
pub fn seconds(duration: Duration) -> Number {
    if duration.subsec_nanos() == 0 {
        Number::from(duration.as_secs())
    } else {
        // A duration in seconds is always finite.
        Number::from_f64(duration.as_secs_f64()).unwrap_or_else(|| Number::from(0))
    }
}

/// Seconds of an answer, which came over the network and so may be anything.
#[must_use]
pub fn from_seconds(seconds: f64) -> Duration {
    let longest = Duration::from_millis(DURATION_MS_MAX);
    Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .min(longest)
}

/// For people: `1m 30s`, whole milliseconds.
#[must_use]
pub fn human(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_forms_are_taken() {
        for (text, ms) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1h 30m", 5_400_000),
            ("0.5", 500),
            ("0", 0),
            ("250ms", 250),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "-1", "NaN", "inf", "1e30", "s", "ten", "1 x", "-5s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_lifetime_is_never_zero_but_a_limit_may_be() {
        assert!(lifetime("0").is_err());
        assert!(lifetime("0.5").is_err());
        assert!(lifetime("31d").is_err());
        assert_eq!(limit("0"), Ok(Duration::ZERO));
        assert_eq!(limit("0s"), Ok(Duration::ZERO));
        assert!(limit("0.5").is_err());
        assert_eq!(limit("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(wait("0.5"), Ok(Duration::from_millis(500)));
        assert!(wait("1m").is_ok() && wait("61s").is_err());
    }

    #[test]
    fn whole_seconds_are_sent_as_whole_numbers() {
        assert_eq!(seconds(Duration::from_mins(1)).to_string(), "60");
        assert_eq!(seconds(Duration::from_millis(1_500)).to_string(), "1.5");
    }

    #[test]
    fn an_answer_that_is_no_duration_counts_as_none() {
        for hostile in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert_eq!(from_seconds(hostile), Duration::ZERO);
        }
        assert_eq!(from_seconds(1.5), Duration::from_millis(1_500));
    }
}
