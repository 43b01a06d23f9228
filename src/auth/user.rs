//! Users and their names.

use std::collections::HashSet;
use std::fmt;

use icu_normalizer::DecomposingNormalizerBorrowed;

use super::precis;
use crate::token::Invalid;

/// Most bytes of a user's name: with the epoch it has to fit into a holder's label.
pub const USER_NAME_BYTES_MAX: usize = 128;
/// A user's name. It fits into an htpasswd file and into one line of a log. New ones are in the form that
/// [`UserName::prepare`] gives; older ones may be in any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// A name as it is stored, or as it was typed.
    ///
    /// # Errors
    /// When it is empty, too long, or has characters that an htpasswd file or a line of a log can't have.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let told = |why: &str| Err(Invalid(format!("a user's name {why}")));
        if text.is_empty() || text.len() > USER_NAME_BYTES_MAX {
            return told(&format!("must have 1 to {USER_NAME_BYTES_MAX} bytes"));
        }
        if text.chars().any(|c| c.is_control() || c == ':') {
            return told("must not contain a colon or control characters");
        }
        if text.trim() != text {
            return told("must not begin or end with a space");
        }
        Ok(Self(text.to_owned()))
    }

    /// The name in the one form that all its spellings have: parts in the PRECIS profile `UsernameCasePreserved`,
    /// with one space between two (RFC 8265, section 3).
    ///
    /// # Errors
    /// When it has no such form, or that form is no name.
    pub fn prepare(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)?;
        let parts: Result<Vec<_>, _> = text.split(' ').map(precis::userpart).collect();
        let form = parts.map_err(|why| match why {
            precis::Refused::Empty => {
                Invalid("a user's name must not have two spaces together".to_owned())
            }
            why => Invalid(format!("a user's name {why}")),
        })?;
        Self::parse(&form.join(" "))
    }

    /// The names under which a user who types this may be stored: just this one, which may be older than the
    /// form, then the form, then the form decomposed (NFD), as some systems typed older names.
    #[must_use]
    pub fn spellings(typed: &str) -> Vec<Self> {
        let mut names: Vec<_> = Self::parse(typed).into_iter().collect();
        if let Ok(form) = Self::prepare(typed) {
            let decomposed = DecomposingNormalizerBorrowed::new_nfd().normalize(form.as_str());
            let decomposed = Self::parse(&decomposed);
            names.push(form);
            names.extend(decomposed);
        }
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.0.clone()));
        names
    }

    /// The form, or the name itself where it has none: equal for all spellings of a name.
    #[must_use]
    pub fn form(typed: &str) -> String {
        Self::prepare(typed).map_or_else(|_| typed.to_owned(), |name| name.0)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user as the store keeps them.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    pub name: UserName,
    /// A PHC string of Argon2id, or a bcrypt hash that was imported.
    pub password_hash: String,
    /// When the password was set, in Redis's microseconds; greater each time. A session holds the one under which
    /// it began, so that it dies with the password.
    pub epoch: u64,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, epoch) = (&self.name, self.epoch);
        write!(f, "User({name:?}, epoch {epoch})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_htpasswd_and_a_log() {
        for good in ["a", "Jörg Müller", "a@b.example", &"x".repeat(128)] {
            assert_eq!(UserName::parse(good).expect(good).as_str(), good);
        }
        for bad in [
            "",
            " a",
            "a ",
            "a:b",
            "a\nb",
            "a\u{85}b",
            "\u{a0}a",
            &"x".repeat(129),
            &"ä".repeat(65),
        ] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_hash() {
        let user = User {
            name: UserName::parse("ann").expect("a name"),
            password_hash: "$2b$secret".to_owned(),
            epoch: 7,
        };
        assert!(!format!("{user:?}").contains("secret"));
    }

    #[test]
    fn a_new_name_has_one_form_however_it_is_typed() {
        for (typed, form) in [
            ("ann", "ann"),
            ("Ann", "Ann"),
            ("J\u{f6}rg M\u{fc}ller", "J\u{f6}rg M\u{fc}ller"),
            ("Jo\u{308}rg Mu\u{308}ller", "J\u{f6}rg M\u{fc}ller"),
            ("\u{ff41}nn", "ann"),
        ] {
            assert_eq!(UserName::prepare(typed).expect(typed).as_str(), form);
            assert_eq!(UserName::form(typed), form);
        }
        for (bad, why) in [
            ("a\u{200b}b", "U+200B (character 2)"),
            ("\u{feff}ann", "U+FEFF (character 1)"),
            ("a\u{202e}b", "U+202E"),
            ("a  b", "two spaces together"),
            ("a\u{ff1a}b", "colon"),
            ("a:b", "colon"),
            ("\u{5d0}a", "mix writing directions"),
        ] {
            let told = UserName::prepare(bad).expect_err(bad).to_string();
            assert!(
                told.starts_with("a user's name must not ") && told.contains(why),
                "{told}"
            );
            assert_eq!(UserName::form(bad), bad);
        }
    }

    #[test]
    fn a_typed_name_is_looked_for_as_it_is_and_in_its_form() {
        let spellings = |typed: &str| -> Vec<String> {
            UserName::spellings(typed)
                .into_iter()
                .map(|it| it.0)
                .collect()
        };
        assert_eq!(spellings("ann"), ["ann"]);
        assert_eq!(spellings("e\u{301}"), ["e\u{301}", "\u{e9}"]);
        assert_eq!(spellings("\u{e9}"), ["\u{e9}", "e\u{301}"]);
        assert_eq!(spellings("a\u{200b}"), ["a\u{200b}"]);
        assert_eq!(spellings("a:b"), [""; 0]);
    }
}
