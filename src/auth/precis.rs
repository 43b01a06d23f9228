//! One form for each user name and each password, however it was typed: the PRECIS profiles of RFC 8265,
//! `UsernameCasePreserved` and `OpaqueString`.
//!
//! Two things differ from the crate that has the profiles (docs/adr/0021-precis.md). Text is composed (NFC) before
//! it is checked, so that canonically equivalent texts have the same result. Characters that are newer than the
//! crate's tables (Unicode 6.3) are classified from current Unicode data, by the rules of RFC 8264, section 8.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed as Normalizer;
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use precis_profiles::precis_core::profile::Rules as _;
use precis_profiles::precis_core::{
    DerivedPropertyValue as Property, Error, FreeformClass, IdentifierClass, StringClass,
    UnexpectedError,
};
use precis_profiles::{OpaqueString, UsernameCasePreserved};

/// Why a text has no form in its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("must not be empty")]
    Empty,
    /// The position counts from 1, in the composed text.
    #[error("must not contain U+{:04X} (character {position})", u32::from(*.character))]
    Character { character: char, position: usize },
    /// RFC 5893, section 2.
    #[error("must not mix writing directions")]
    Directions,
}

/// A part of a user name, without spaces: `UsernameCasePreserved` (RFC 8265, section 3.4).
///
/// # Errors
/// When the profile does not allow it.
pub fn userpart(text: &str) -> Result<String, Refused> {
    let profile = UsernameCasePreserved::new();
    let class = Current::IDENTIFIER;
    let mapped = profile.width_mapping_rule(compose(text));
    let mapped = mapped.map_err(|error| class.refused("", &error))?;
    class.check(&mapped)?;
    let name = compose(&mapped).into_owned();
    let directed = profile.directionality_rule(&name);
    directed.map_err(|_| Refused::Directions)?;
    Ok(name)
}

/// A password: `OpaqueString` (RFC 8265, section 4.2).
///
/// # Errors
/// When the profile does not allow it.
pub fn password(text: &str) -> Result<String, Refused> {
    let class = Current::FREEFORM;
    let composed = compose(text);
    class.check(&composed)?;
    let mapped = OpaqueString::new().additional_mapping_rule(composed);
    let mapped = mapped.map_err(|error| class.refused("", &error))?;
    Ok(compose(&mapped).into_owned())
}

fn compose(text: &str) -> Cow<'_, str> {
    Normalizer::new_nfc().normalize(text)
}

/// A string class of RFC 8264, extended by the characters that are newer than its tables.
struct Current<C> {
    class: C,
    /// What symbols, spaces and compatibility characters are in this class.
    other: Property,
}

impl Current<IdentifierClass> {
    const IDENTIFIER: Self = Self {
        class: IdentifierClass {},
        other: Property::SpecClassDis,
    };
}

impl Current<FreeformClass> {
    const FREEFORM: Self = Self {
        class: FreeformClass {},
        other: Property::SpecClassPval,
    };
}

impl<C: StringClass> Current<C> {
    fn check(&self, text: &str) -> Result<(), Refused> {
        if text.is_empty() {
            return Err(Refused::Empty);
        }
        self.allows(text)
            .map_err(|error| self.refused(text, &error))
    }

    fn refused(&self, text: &str, error: &Error) -> Refused {
        let (Error::BadCodepoint(at)
        | Error::Unexpected(
            UnexpectedError::MissingContextRule(at) | UnexpectedError::ContextRuleNotApplicable(at),
        )) = error
        else {
            return self.misplaced(text);
        };
        Refused::Character {
            character: char::from_u32(at.cp).unwrap_or(char::REPLACEMENT_CHARACTER),
            position: at.position + 1,
        }
    }

    /// The crate does not name a character that needs a neighbour and has none: it is the first of its kind.
    fn misplaced(&self, text: &str) -> Refused {
        let contextual = [Property::ContextJ, Property::ContextO];
        let mut found = (1..)
            .zip(text.chars())
            .filter(|(_, c)| contextual.contains(&self.get_value_from_char(*c)));
        let found = found.next();
        found.map_or(Refused::Empty, |(position, character)| Refused::Character {
            character,
            position,
        })
    }

    /// RFC 8264, section 8, for a character that Unicode 6.3 had not.
    fn newer(&self, c: char) -> Property {
        use GeneralCategory as Is;
        if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c) {
            return Property::Disallowed;
        }
        let mut bytes = [0; 4];
        let text: &str = c.encode_utf8(&mut bytes);
        match CodePointMapData::<GeneralCategory>::new().get(c) {
            Is::Unassigned => Property::Unassigned,
            Is::Control | Is::Format | Is::Surrogate | Is::PrivateUse => Property::Disallowed,
            Is::LineSeparator | Is::ParagraphSeparator => Property::Disallowed,
            _ if Normalizer::new_nfkc().normalize(text) != text => self.other,
            Is::UppercaseLetter | Is::LowercaseLetter | Is::ModifierLetter => Property::PValid,
            Is::OtherLetter | Is::NonspacingMark | Is::SpacingMark => Property::PValid,
            Is::DecimalNumber => Property::PValid,
            _ => self.other,
        }
    }
}

impl<C: StringClass> StringClass for Current<C> {
    fn get_value_from_char(&self, c: char) -> Property {
        match self.class.get_value_from_char(c) {
            Property::Unassigned => self.newer(c),
            known => known,
        }
    }

    fn get_value_from_codepoint(&self, cp: u32) -> Property {
        char::from_u32(cp).map_or(Property::Disallowed, |c| self.get_value_from_char(c))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(character: char, position: usize) -> Refused {
        Refused::Character {
            character,
            position,
        }
    }

    /// Tables 1 and 3 of RFC 8265, section 3.6.
    #[test]
    fn user_names_are_as_in_the_examples_of_the_rfc() {
        for same in [
            "juliet@example.com",
            "fussball",
            "fu\u{df}ball",
            "\u{3c0}",
            "\u{3a3}",
            "\u{3c3}",
            "\u{3c2}",
        ] {
            assert_eq!(userpart(same).as_deref(), Ok(same));
        }
        for (bad, why) in [
            ("foo bar", at(' ', 4)),
            ("", Refused::Empty),
            ("henry\u{2163}", at('\u{2163}', 6)),
            ("\u{265a}", at('\u{265a}', 1)),
        ] {
            assert_eq!(userpart(bad), Err(why), "{bad}");
        }
    }

    /// Tables 4 and 5 of RFC 8265, section 4.3.
    #[test]
    fn passwords_are_as_in_the_examples_of_the_rfc() {
        for (typed, form) in [
            (
                "correct horse battery staple",
                "correct horse battery staple",
            ),
            (
                "Correct Horse Battery Staple",
                "Correct Horse Battery Staple",
            ),
            ("\u{3c0}\u{df}\u{e5}", "\u{3c0}\u{df}\u{e5}"),
            ("Jack of \u{2666}s", "Jack of \u{2666}s"),
            ("foo\u{1680}bar", "foo bar"),
        ] {
            assert_eq!(password(typed).as_deref(), Ok(form));
        }
        assert_eq!(password(""), Err(Refused::Empty));
        assert_eq!(password("my cat is a \tby"), Err(at('\t', 13)));
    }

    #[test]
    fn canonically_equivalent_texts_have_one_form() {
        for (typed, form) in [
            ("e\u{301}", "\u{e9}"),
            // Decomposed Hangul, as macOS writes it, and the angstrom sign.
            ("\u{1100}\u{1161}", "\u{ac00}"),
            ("\u{212b}", "\u{c5}"),
        ] {
            assert_eq!(userpart(typed).as_deref(), Ok(form));
            assert_eq!(password(typed).as_deref(), Ok(form));
        }
        assert_eq!(
            userpart("\u{ff41}\u{ff4e}\u{ff4e}").as_deref(),
            Ok("ann"),
            "full width"
        );
    }

    #[test]
    fn invisible_characters_are_refused() {
        // Zero width space, byte order mark, right-to-left override and mark, soft hyphen, joiners out of place.
        for c in [
            '\u{200b}', '\u{feff}', '\u{202e}', '\u{200f}', '\u{ad}', '\u{200c}', '\u{200d}', '\0',
        ] {
            for (text, position) in [(format!("a{c}b"), 2), (format!("{c}b"), 1)] {
                assert_eq!(userpart(&text), Err(at(c, position)), "{text:?}");
                assert_eq!(password(&text), Err(at(c, position)), "{text:?}");
            }
        }
        assert_eq!(userpart("\u{5d0}a"), Err(Refused::Directions));
        assert_eq!(
            userpart("\u{5d0}\u{5d1}").as_deref(),
            Ok("\u{5d0}\u{5d1}"),
            "Hebrew"
        );
        let persian = "\u{646}\u{627}\u{645}\u{647}\u{200c}\u{627}\u{6cc}";
        assert_eq!(userpart(persian).as_deref(), Ok(persian));
    }

    #[test]
    fn characters_newer_than_the_tables_are_known() {
        // A robot (Unicode 8) and an Adlam letter (Unicode 9).
        assert_eq!(password("\u{1f916}").as_deref(), Ok("\u{1f916}"));
        assert_eq!(userpart("\u{1f916}"), Err(at('\u{1f916}', 1)));
        assert_eq!(userpart("\u{1e900}").as_deref(), Ok("\u{1e900}"));
        // Not assigned, assigned to nobody, and not a character.
        for c in ['\u{378}', '\u{e000}', '\u{fdd0}'] {
            assert_eq!(password(&c.to_string()), Err(at(c, 1)));
        }
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(text in "\\PC{0,12}") {
            for profile in [userpart, password] {
                if let Ok(form) = profile(&text) {
                    prop_assert_eq!(profile(&form), Ok(form));
                }
            }
        }
    }
}
