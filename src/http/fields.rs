//! A request's members, read one by one. Every mistake is collected, so that a caller learns of all
//! of them at once; a member that nobody asked for is a mistake too, usually a misspelt option.

use std::time::Duration;

use serde_json::{Map, Value};

use super::problem::{FieldError, Problem};
use crate::token::{Fence, Invalid, NewToken, TOKENS_PER_CALL_MAX, WAIT_MAX, duration_ms};

/// Most field errors in one answer: enough to see the pattern in a bad import of 10,000 values,
/// without an answer larger than the request.
const FIELD_ERRORS_MAX: usize = 20;
/// Most characters of an unknown member's name that an answer repeats.
const FIELD_NAME_CHARS_MAX: usize = 64;

/// The members that are still unread, and what was wrong with those read.
#[derive(Debug, Default)]
pub struct Fields {
    unread: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// The members of a JSON object.
    #[must_use]
    pub fn new(members: Map<String, Value>) -> Self {
        Self {
            unread: members,
            errors: Vec::new(),
        }
    }

    /// The parameters of a query string, all of them text. One given twice is a mistake.
    #[must_use]
    pub fn from_query(query: &str) -> Self {
        let mut fields = Self::default();
        match actix_web::web::Query::<Vec<(String, String)>>::from_query(query) {
            Ok(pairs) if is_percent_encoded_utf8(query) => {
                for (name, value) in pairs.into_inner() {
                    if fields.unread.contains_key(&name) {
                        fields.refuse(&name, "is given more than once");
                    }
                    fields.unread.insert(name, Value::String(value));
                }
            }
            _ => fields.refuse("query", "is not percent-encoded UTF-8"),
        }
        fields
    }

    /// Whether the request has that member and nobody has read it yet.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.unread.contains_key(name)
    }

    /// Notes a mistake.
    pub fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError {
            field: name.chars().take(FIELD_NAME_CHARS_MAX).collect(),
            detail: detail.into(),
        });
    }

    /// A member that may be absent. `None` where it is, or where a mistake was noted. An explicit
    /// null is not absence: for a policy field it could as well mean "none".
    pub fn optional<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        let value = self.unread.remove(name)?;
        match read(&value) {
            Ok(read) => Some(read),
            Err(Invalid(detail)) => {
                self.refuse(name, detail);
                None
            }
        }
    }

    /// A member that must be there. `None` always means that a mistake was noted.
    pub fn required<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Result<T, Invalid>,
    ) -> Option<T> {
        if !self.has(name) {
            self.refuse(name, "is missing");
            return None;
        }
        self.optional(name, read)
    }

    /// 1 to [`TOKENS_PER_CALL_MAX`] new token values; mistakes are noted by index. `None` where there
    /// are any.
    pub fn new_tokens(&mut self, name: &str) -> Option<Vec<NewToken>> {
        let Some(Value::Array(values)) = self.unread.remove(name) else {
            self.refuse(name, "must be a list of strings");
            return None;
        };
        if !(1..=TOKENS_PER_CALL_MAX).contains(&values.len()) {
            let detail = format!(
                "must have 1 to {TOKENS_PER_CALL_MAX} values, not {}",
                values.len()
            );
            self.refuse(name, detail);
            return None;
        }
        let mut tokens = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            match text(NewToken::parse)(value) {
                Ok(token) => tokens.push(token),
                Err(Invalid(detail)) => {
                    self.refuse(&format!("{name}[{index}]"), detail);
                    if self.errors.len() >= FIELD_ERRORS_MAX {
                        break;
                    }
                }
            }
        }
        (tokens.len() == values.len()).then_some(tokens)
    }

    /// Lets pass what nobody has read.
    pub fn ignore_unread(&mut self) {
        self.unread.clear();
    }

    /// Ends the reading: what is still unread is unknown. `value` is `None` where a required member
    /// was.
    ///
    /// # Errors
    /// `invalid-request` with every mistake, up to a limit.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Problem> {
        for name in std::mem::take(&mut self.unread).keys() {
            self.refuse(name, "is not known here");
        }
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => {
                self.errors.truncate(FIELD_ERRORS_MAX);
                Err(Problem::fields(self.errors))
            }
        }
    }
}

/// Whether each `%` stands before two hex digits and the bytes so written are UTF-8. The decoder puts
/// something else in place of what is not, and a verb must not act on a token that nobody named.
fn is_percent_encoded_utf8(query: &str) -> bool {
    let mut parts = query.as_bytes().split(|b| *b == b'%');
    let mut bytes = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let Some((hex, rest)) = part.split_at_checked(2) else {
            return false;
        };
        if !hex.iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        let hex = std::str::from_utf8(hex).unwrap_or_default();
        bytes.extend(u8::from_str_radix(hex, 16));
        bytes.extend(rest);
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// Reads a string through `parse`.
pub fn text<T>(
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> impl FnOnce(&Value) -> Result<T, Invalid> {
    |value| match value {
        Value::String(text) => parse(text),
        _ => Err(Invalid("must be a string".to_owned())),
    }
}

fn not_whole(min: u64, max: u64) -> Invalid {
    Invalid(format!("must be a whole number from {min} to {max}"))
}

/// Reads a JSON integer. `10.0`, `1e3` and `"10"` are none: whoever sends those has lost control of
/// the type, and the next value may be 0.5.
pub fn whole(min: u64, max: u64) -> impl FnOnce(&Value) -> Result<u64, Invalid> {
    move |value| match value.as_u64() {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(not_whole(min, max)),
    }
}

/// Reads an integer written as text, as query parameters are.
pub fn whole_text(min: u64, max: u64) -> impl FnOnce(&Value) -> Result<u64, Invalid> {
    text(move |text| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && (min..=max).contains(&number) => Ok(number),
            _ => Err(not_whole(min, max)),
        }
    })
}

/// Reads a fence.
///
/// # Errors
/// When the value is not an integer from 1 to [`Fence::MAX`].
pub fn fence(value: &Value) -> Result<Fence, Invalid> {
    whole(1, Fence::MAX)(value).and_then(Fence::parse)
}

fn seconds(value: &Value) -> Result<f64, Invalid> {
    value
        .as_f64()
        .ok_or_else(|| Invalid("must be a number of seconds".to_owned()))
}

/// Reads a duration in seconds, as milliseconds.
///
/// # Errors
/// When the value is not a number or out of range.
pub fn duration(value: &Value) -> Result<u64, Invalid> {
    duration_ms(seconds(value)?)
}

/// Reads a duration in seconds where 0 means none, as milliseconds.
///
/// # Errors
/// When the value is not a number, or neither 0 nor in range.
pub fn duration_or_none(value: &Value) -> Result<u64, Invalid> {
    let seconds = seconds(value)?;
    if seconds == 0.0 {
        return Ok(0);
    }
    duration_ms(seconds).map_err(|Invalid(detail)| {
        let range = detail.strip_prefix("must be ").unwrap_or(&detail);
        Invalid(format!("must be 0 (none) or {range}"))
    })
}

/// Reads for how many seconds a caller waits, 0 for not at all.
///
/// # Errors
/// When the value is not a number or out of range.
pub fn waiting(value: &Value) -> Result<Duration, Invalid> {
    let seconds = seconds(value)?;
    let most = WAIT_MAX.as_secs_f64();
    if (0.0..=most).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(Invalid(format!("must be 0 to {most} seconds")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::token::TokenValue;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(members) => Fields::new(members),
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn a_count_is_a_json_integer_in_range_and_nothing_else() {
        for good in ["1", "10", "10000"] {
            let value: Value = serde_json::from_str(good).expect("JSON");
            assert!(whole(1, 10_000)(&value).is_ok(), "{good}");
        }
        let bad = [
            "\"10\"",
            "0",
            "-1",
            "-0",
            "0.5",
            "1e9",
            "10.0",
            "1e1",
            "null",
            "true",
            "[]",
            "{}",
            "10001",
            "18446744073709551616",
        ];
        for bad in bad {
            let value: Value = serde_json::from_str(bad).expect("JSON");
            assert!(whole(1, 10_000)(&value).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_in_a_query_has_digits_only() {
        for (text, good) in [("1", true), ("+1", false), ("", false), ("1001", false)] {
            assert_eq!(whole_text(1, 1_000)(&json!(text)).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_fence_is_exact_in_every_reader() {
        assert!(fence(&json!(1)).is_ok());
        assert!(fence(&json!(Fence::MAX)).is_ok());
        for bad in [json!(0), json!(Fence::MAX + 1), json!("1"), json!(1.0)] {
            assert!(fence(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_numbers_of_seconds() {
        assert_eq!(duration(&json!(1)), Ok(1_000));
        assert_eq!(duration(&json!(1.5)), Ok(1_500));
        assert_eq!(duration_or_none(&json!(0)), Ok(0));
        for bad in [
            json!(0.9),
            json!(0.999_9),
            json!("60"),
            json!(-1),
            json!(2_592_000.000_1),
            json!(2_592_001),
        ] {
            assert!(duration(&bad).is_err(), "{bad}");
            assert!(duration_or_none(&bad).is_err(), "{bad}");
        }
        assert!(duration(&json!(0)).is_err());
        let told = duration_or_none(&json!(0.5)).expect_err("too short").0;
        assert!(told.starts_with("must be 0 (none) or 1 to"), "{told}");
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mut fields = fields(json!({"fence": 0, "lifetime": "x", "tokn": "a", "holder": null}));
        let token = fields.required("token", text(TokenValue::parse));
        fields.optional("fence", fence);
        fields.optional("lifetime", duration);
        fields.optional("holder", text(TokenValue::parse));
        let problem = fields.finish(token).expect_err("mistakes");
        let named: Vec<_> = problem.errors().iter().map(|e| e.field.as_str()).collect();
        assert_eq!(named, ["token", "fence", "lifetime", "holder", "tokn"]);
    }

    #[test]
    fn an_import_names_the_values_it_refuses_and_stops_somewhere() {
        let mut one_bad = fields(json!({"tokens": ["a", "b\n", "c"]}));
        let tokens = one_bad.new_tokens("tokens");
        let problem = one_bad.finish(tokens).expect_err("a control character");
        assert_eq!(problem.errors()[0].field, "tokens[1]");

        let mut all_bad = fields(json!({"tokens": vec![1; 10_000]}));
        let tokens = all_bad.new_tokens("tokens");
        let problem = all_bad.finish(tokens).expect_err("numbers");
        assert_eq!(problem.errors().len(), FIELD_ERRORS_MAX);

        for bad in [json!([]), json!("a"), json!(vec!["a"; 10_001])] {
            let mut fields = fields(json!({"tokens": bad}));
            assert!(fields.new_tokens("tokens").is_none());
        }
    }

    #[test]
    fn a_query_parameter_is_decoded_and_given_once() {
        let mut query = Fields::from_query("token=a%20b%2Bc");
        let token = query.required("token", text(TokenValue::parse));
        assert_eq!(query.finish(token).expect("valid").as_str(), "a b+c");
        let mut twice = Fields::from_query("token=a&token=b");
        let token = twice.required("token", text(TokenValue::parse));
        assert!(twice.finish(token).is_err());
        for (query, good) in [
            ("token=%C3%A9", true),
            ("token=%zz", false),
            ("token=a%F", false),
            ("token=%ff", false),
            ("token=%+1", false),
        ] {
            let mut fields = Fields::from_query(query);
            let token = fields.required("token", text(TokenValue::parse));
            assert_eq!(fields.finish(token).is_ok(), good, "{query}");
        }
    }
}
