//! Bodies whose values must come back byte for byte: their members as the JSON texts that they came as. A
//! parsed number would lose digits, and a parsed object its order.

use std::collections::HashMap;
use std::fmt;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::Fields;
use super::input::{check_media, no_object, read_body, says_json};
use super::problem::Problem;

/// A body as it came, and what it says that it is.
pub struct RawBody {
    pub bytes: Bytes,
    pub says_json: bool,
    media: Result<(), Problem>,
}

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_body(request, payload.take());
        let (says_json, media) = (says_json(request), check_media(request));
        async move {
            Ok(Self {
                bytes: body.await?,
                says_json,
                media,
            })
        }
        .boxed_local()
    }
}

impl RawBody {
    /// The members of a body that must be JSON. An empty one counts as `{}` whatever its content type.
    ///
    /// # Errors
    /// `invalid-request`, `unsupported-media-type`.
    pub fn members(&self) -> Result<RawMembers<'_>, Problem> {
        if self.bytes.is_empty() {
            return Ok(RawMembers::default());
        }
        self.media.clone()?;
        RawMembers::parse(&self.bytes)
            .map_err(|error| no_object(&error))?
            .each_once()
    }
}

/// The members of a JSON object, and the names of those given twice.
#[derive(Debug, Default)]
pub struct RawMembers<'a> {
    values: HashMap<String, &'a RawValue>,
    twice: Vec<String>,
}

impl<'a> RawMembers<'a> {
    /// # Errors
    /// When it is not a JSON object.
    pub fn parse(body: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(body)
    }

    /// That no member is given twice: readers differ in which of the two they take, and what a proxy has checked
    /// may not be what we would act on.
    ///
    /// # Errors
    /// `invalid-request`, naming those that are.
    pub fn each_once(self) -> Result<Self, Problem> {
        let mut checked = Fields::default();
        for name in &self.twice {
            checked.refuse(name, "is given more than once");
        }
        checked.finish(Some(self))
    }

    #[must_use]
    pub fn has_twice(&self, name: &str) -> bool {
        self.twice.iter().any(|twice| twice == name)
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A member's JSON text, without spaces around it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).map(|value| value.get())
    }

    /// A member that must be there and be a string.
    ///
    /// # Errors
    /// `invalid-request`, naming it.
    pub fn text(&self, name: &str) -> Result<String, Problem> {
        let Some(value) = self.get(name) else {
            return Err(Problem::field(name, "is missing"));
        };
        serde_json::from_str(value).map_err(|_| Problem::field(name, "must be a string"))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawMembers<'a> {
    fn deserialize<D: Deserializer<'de>>(body: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawMembers<'de>, A::Error> {
                let mut members = RawMembers::default();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.values.insert(name.clone(), value).is_some() {
                        members.twice.push(name);
                    }
                }
                Ok(members)
            }
        }
        body.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_texts_that_they_came_as() {
        let body = br#" {"a" : 12345678901234567890 , "b":{"x": [1, 2.0]},"c":"\u00e9"} "#;
        let members = RawMembers::parse(body).expect("an object");
        assert_eq!(members.get("a"), Some("12345678901234567890"));
        assert_eq!(members.get("b"), Some(r#"{"x": [1, 2.0]}"#));
        assert_eq!(members.text("c").ok().as_deref(), Some("é"));
        assert!(members.text("a").is_err() && members.text("d").is_err());
    }

    #[test]
    fn what_is_no_object_is_none() {
        for bad in [
            "",
            " ",
            "[]",
            "1",
            "null",
            "\"{}\"",
            "{",
            "{}{}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{\"\\ud800\":1}",
        ] {
            assert!(RawMembers::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(RawMembers::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_member_given_twice_is_named() {
        let members = RawMembers::parse(br#"{"a":1,"b":2,"\u0061":3}"#).expect("an object");
        let problem = members.each_once().expect_err("a is there twice");
        assert_eq!(problem.errors()[0].field, "a");
    }
}
