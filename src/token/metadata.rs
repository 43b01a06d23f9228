//! Metadata of a one-time token: a JSON object whose values nobody looks into.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// Most bytes of a token's metadata, counted as JSON without spaces between its members. The script that
/// merges has the same limit.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Two quotes, a colon and a comma: what a member costs beside its name and its value.
const MEMBER_BYTES: usize = 4;

/// Top-level members in the order in which they came, each value as the JSON text that it came as:
/// `12345678901234567890`, `1e400`, `{}` and `[]` come back as they are.
#[derive(Debug, Clone, Default)]
pub struct Metadata(Vec<(String, Box<RawValue>)>);

impl Metadata {
    /// From the names and JSON texts that the store keeps. `None`: a text that is not JSON.
    #[must_use]
    pub fn from_stored(members: Vec<(String, String)>) -> Option<Self> {
        let raw = members.into_iter().map(|(name, text)| {
            let value = RawValue::from_string(text).ok()?;
            Some((name, value))
        });
        raw.collect::<Option<_>>().map(Self)
    }

    /// Each name with its value's JSON text.
    pub fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.get()))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`METADATA_BYTES_MAX`] counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let members = self.members();
        1 + members
            .map(|(n, v)| n.len() + v.len() + MEMBER_BYTES)
            .sum::<usize>()
    }
}

impl PartialEq for Metadata {
    /// The same members in whatever order.
    fn eq(&self, other: &Self) -> bool {
        let sorted = |metadata: &Self| {
            let mut members: Vec<_> = metadata
                .members()
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect();
            members.sort();
            members
        };
        sorted(self) == sorted(other)
    }
}

impl Eq for Metadata {}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                let mut names = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Readers differ in which of two they take.
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom("a member is given more than once"));
                    }
                    members.push((name, value));
                }
                Ok(Metadata(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_byte_for_byte() {
        let text = r#"{"big":12345678901234567890,"huge":1e400,"o":{},"a":[],"n":null,"deep":{"x":[1, 2.0,{"ü":"é\u00e9"}]},"":"","-":-0.0}"#;
        let metadata: Metadata = serde_json::from_str(text).expect("an object");
        assert_eq!(serde_json::to_string(&metadata).expect("JSON"), text);
        let stored = metadata
            .members()
            .map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(Metadata::from_stored(stored.collect()), Some(metadata));
    }

    #[test]
    fn what_is_no_object_or_names_a_member_twice_is_refused() {
        for bad in ["[]", "1", "null", "\"a\"", r#"{"a":1,"a":2}"#, r#"{"a":}"#] {
            assert!(serde_json::from_str::<Metadata>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn its_size_is_that_of_its_json() {
        for text in [r#"{"a":1}"#, r#"{"a":1,"bc":"def"}"#] {
            let metadata: Metadata = serde_json::from_str(text).expect("an object");
            assert_eq!(metadata.bytes(), text.len());
        }
    }
}
