//! What a replica tells the others of a setting that all of them must have alike, and when two replicas agree.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Such settings by the names of their variables.
pub type Settings = BTreeMap<String, Setting>;

/// One setting. It holds no secret: of those there are the ids that every token has in clear text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// The value itself.
    Value(String),
    /// A list of keys.
    Keys(KeyIds),
}

/// The ids of a list of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyIds {
    /// The key that signs; `None`: none of this list does.
    pub signs: Option<String>,
    /// All keys of the list, each of which verifies.
    pub verifies: Vec<String>,
}

impl KeyIds {
    /// A list whose first key signs.
    #[must_use]
    pub fn signing(verifies: Vec<String>) -> Self {
        Self {
            signs: verifies.first().cloned(),
            verifies,
        }
    }

    fn takes_from(&self, other: &Self) -> bool {
        let signs = other.signs.as_ref();
        signs.is_none_or(|id| self.verifies.contains(id))
    }
}

impl Setting {
    /// Whether replicas with these two settings can work side by side. Lists of keys need not be equal: each must verify
    /// what the other signs. So no step of a rolling change of a key (append, move to the front, drop) is a difference.
    /// What another version tells in another form is none either.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(one), Self::Value(other)) => one == other,
            (Self::Keys(one), Self::Keys(other)) => one.takes_from(other) && other.takes_from(one),
            _ => true,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.write_str(value),
            Self::Keys(keys) if keys.verifies.is_empty() => f.write_str("no key"),
            Self::Keys(keys) => {
                if let Some(id) = &keys.signs {
                    write!(f, "signs with key {id}, ")?;
                }
                write!(f, "verifies {}", keys.verifies.join(" and "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ids: &str) -> Setting {
        Setting::Keys(KeyIds::signing(ids.chars().map(String::from).collect()))
    }

    #[test]
    fn a_key_that_is_changed_in_three_steps_is_never_a_difference() {
        // Before and after each step, for some replicas are a step behind.
        for (behind, ahead) in [("a", "ab"), ("ab", "ba"), ("ba", "b")] {
            assert!(keys(behind).agrees(&keys(ahead)), "{behind} and {ahead}");
            assert!(keys(ahead).agrees(&keys(behind)), "{ahead} and {behind}");
        }
    }

    #[test]
    fn a_key_that_one_of_two_does_not_verify_is_a_difference() {
        for (one, other) in [("a", "b"), ("a", "ba"), ("ab", "b"), ("a", ""), ("", "ab")] {
            assert!(!keys(one).agrees(&keys(other)), "{one} and {other}");
            assert!(!keys(other).agrees(&keys(one)), "{other} and {one}");
        }
        assert!(keys("").agrees(&keys("")), "the flow is off at both");
    }

    #[test]
    fn a_list_that_only_verifies_asks_nothing_of_others() {
        let only_verifies = Setting::Keys(KeyIds {
            signs: None,
            verifies: vec!["a".to_owned()],
        });
        assert!(only_verifies.agrees(&keys("")) && keys("").agrees(&only_verifies));
        assert!(only_verifies.agrees(&keys("a")));
        assert!(!only_verifies.agrees(&keys("b")));
    }

    #[test]
    fn values_are_equal_or_differ_and_another_form_is_of_another_version() {
        let value = |text: &str| Setting::Value(text.to_owned());
        assert!(value("60").agrees(&value("60")));
        assert!(!value("60").agrees(&value("61")));
        assert!(value("60").agrees(&keys("a")));
    }

    #[test]
    fn a_setting_comes_back_from_its_json() {
        for setting in [Setting::Value("1 \"x\"".to_owned()), keys("ab"), keys("")] {
            let json = serde_json::to_string(&setting).expect("JSON");
            assert_eq!(serde_json::from_str::<Setting>(&json).ok(), Some(setting));
        }
    }
}
