//! Texts that name something: token values and labels. One name must not come in two spellings that people and logs
//! cannot tell apart. `docs/adr/0023-identity-of-text.md` has the reasons.
//!
//! Two rules. The *strict* one is for what is new: no outer white space, no invisible character, kept in NFC. The
//! *loose* one is for what exists: older versions stored values under it, and these must stay reachable.

use std::borrow::Cow;

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    CanonicalCombiningClass, DefaultIgnorableCodePoint, Emoji, EmojiModifier, ExtendedPictographic,
    GeneralCategory, JoiningType, NoncharacterCodePoint, WhiteSpace,
};
use icu_properties::{CodePointMapData, CodePointSetData};

use super::{Invalid, TOKEN_BYTES_MAX, TokenValue};

const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
/// Asks for the emoji form of the character before it.
const EMOJI_SELECTOR: char = '\u{fe0f}';
const KEYCAP: char = '\u{20e3}';
const IDEOGRAPHIC_SPACE: char = '\u{3000}';
/// Looks like a space, though Unicode does not count it as one.
const BRAILLE_BLANK: char = '\u{2800}';

/// The loose rule: 1 to `bytes_max` bytes without control characters.
pub(super) fn printable(text: &str, what: &str, bytes_max: usize) -> Result<(), Invalid> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(Invalid(format!(
            "{what} must have 1 to {bytes_max} bytes, not {}",
            text.len()
        )));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid(format!(
            "{what} must not contain control characters"
        )));
    }
    Ok(())
}

/// The strict rule. Returns the text in NFC.
pub(super) fn strict<'a>(
    text: &'a str,
    what: &str,
    bytes_max: usize,
) -> Result<Cow<'a, str>, Invalid> {
    printable(text, what, bytes_max)?;
    let text = nfc(text);
    if !text.is_ascii() {
        printable(&text, what, bytes_max)?;
    }
    visible(&text, what)?;
    Ok(text)
}

/// The text in Unicode's Normalization Form C.
fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    ComposingNormalizerBorrowed::new_nfc().normalize(text)
}

/// That the text has no outer white space and no invisible character. The error names the code point, which says
/// nothing about the rest of the text.
///
/// # Errors
/// When it has.
pub fn visible(text: &str, what: &str) -> Result<(), Invalid> {
    let refuse = |rule: &str, c: char| {
        let point = u32::from(c);
        Err(Invalid(format!("{what} must not {rule} U+{point:04X}")))
    };
    if let Some(first) = text.chars().next().filter(|c| is_blank(*c)) {
        return refuse("begin with the white space", first);
    }
    if let Some(last) = text.chars().next_back().filter(|c| is_blank(*c)) {
        return refuse("end with the white space", last);
    }
    if text.is_ascii() {
        return Ok(());
    }
    for (at, c) in text.char_indices() {
        if is_blank(c) && c != ' ' && c != IDEOGRAPHIC_SPACE {
            return refuse("contain the white space", c);
        }
        let (before, after) = (&text[..at], &text[at + c.len_utf8()..]);
        if is_invisible(c) && !is_needed(before, c, after) {
            return refuse("contain the invisible character", c);
        }
    }
    Ok(())
}

fn is_blank(c: char) -> bool {
    c == BRAILLE_BLANK || CodePointSetData::new::<WhiteSpace>().contains(c)
}

fn is_invisible(c: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
        || CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::Format
}

/// Whether an invisible character changes how its neighbours are drawn: a joiner in the contexts of RFC 5892,
/// appendix A, or within an emoji.
fn is_needed(before: &str, c: char, after: &str) -> bool {
    let pictographic = CodePointSetData::new::<ExtendedPictographic>();
    let last = before.chars().next_back();
    match c {
        ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER if last.is_some_and(is_virama) => true,
        ZERO_WIDTH_NON_JOINER => breaks_a_join(before, after),
        ZERO_WIDTH_JOINER => {
            let modifier = CodePointSetData::new::<EmojiModifier>();
            let mut bases = before.chars().rev();
            let base = bases.find(|c| *c != EMOJI_SELECTOR && !modifier.contains(*c));
            let next = after.chars().next();
            base.is_some_and(|c| pictographic.contains(c))
                && next.is_some_and(|c| pictographic.contains(c))
        }
        EMOJI_SELECTOR => last.is_some_and(|last| {
            CodePointSetData::new::<Emoji>().contains(last)
                && (!last.is_ascii() || after.starts_with(KEYCAP))
        }),
        _ => false,
    }
}

fn is_virama(c: char) -> bool {
    CodePointMapData::<CanonicalCombiningClass>::new().get(c) == CanonicalCombiningClass::Virama
}

/// Whether the letters around would be drawn joined without the non-joiner.
fn breaks_a_join(before: &str, after: &str) -> bool {
    let types = CodePointMapData::<JoiningType>::new();
    let mut left = before.chars().rev().map(|c| types.get(c));
    let mut right = after.chars().map(|c| types.get(c));
    let left = left.find(|it| *it != JoiningType::Transparent);
    let right = right.find(|it| *it != JoiningType::Transparent);
    matches!(
        left,
        Some(JoiningType::LeftJoining | JoiningType::DualJoining)
    ) && matches!(
        right,
        Some(JoiningType::RightJoining | JoiningType::DualJoining)
    )
}

impl TokenValue {
    /// A value that may be added to a pool, as it was given: see [`NewToken`].
    ///
    /// # Errors
    /// When the value is empty or too long, or has control characters, invisible ones or outer white space.
    pub fn parse_new(value: &str) -> Result<Self, Invalid> {
        strict(value, "a token", TOKEN_BYTES_MAX)?;
        Ok(Self(value.to_owned()))
    }

    /// Its spelling in NFC. `None` if it has that spelling already, or if no token can have it.
    #[must_use]
    pub fn nfc(&self) -> Option<Self> {
        let nfc = nfc(&self.0);
        if *nfc == self.0 {
            return None;
        }
        Self::parse(&nfc).ok()
    }
}

/// A value that a caller adds to a pool. The pool gets it in NFC, unless an older version has stored it as it was
/// given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    given: TokenValue,
    /// Its spelling in NFC, if that is another one.
    nfc: Option<TokenValue>,
}

impl NewToken {
    /// # Errors
    /// As [`TokenValue::parse_new`].
    pub fn parse(value: &str) -> Result<Self, Invalid> {
        let nfc = strict(value, "a token", TOKEN_BYTES_MAX)?;
        Ok(Self {
            nfc: (nfc != value).then(|| TokenValue(nfc.into_owned())),
            given: TokenValue(value.to_owned()),
        })
    }

    /// As the caller gave it.
    #[must_use]
    pub fn given(&self) -> &TokenValue {
        &self.given
    }

    /// As the pool gets it.
    #[must_use]
    pub fn value(&self) -> &TokenValue {
        self.nfc.as_ref().unwrap_or(&self.given)
    }

    /// Whether the pool gets it in another spelling than it was given.
    #[must_use]
    pub fn is_respelled(&self) -> bool {
        self.nfc.is_some()
    }

    /// The pool has it as it was given.
    pub fn keep_as_given(&mut self) {
        self.nfc = None;
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
