use super::*;
use crate::token::{HOLDER_BYTES_MAX, Holder, IdempotencyKey};

fn refused(value: &str) -> String {
    match NewToken::parse(value) {
        Err(Invalid(why)) => why,
        Ok(_) => panic!("{value:?} was taken"),
    }
}

#[test]
fn a_new_value_has_no_outer_white_space() {
    for (value, at, point) in [
        ("seat-1 ", "end", "U+0020"),
        (" seat-1", "begin", "U+0020"),
        ("\u{a0}seat-1", "begin", "U+00A0"),
        ("seat-1\u{3000}", "end", "U+3000"),
        ("seat-1\u{2029}", "end", "U+2029"),
        ("seat-1\u{2800}", "end", "U+2800"),
        (" ", "begin", "U+0020"),
    ] {
        let why = refused(value);
        assert_eq!(
            why,
            format!("a token must not {at} with the white space {point}")
        );
    }
}

#[test]
fn a_new_value_has_no_invisible_character_and_no_white_space_that_looks_like_another() {
    for (c, kind) in [
        ('\u{ad}', "invisible character"), // soft hyphen
        ('\u{34f}', "invisible character"),
        ('\u{61c}', "invisible character"),
        ('\u{115f}', "invisible character"), // a Hangul filler
        ('\u{180e}', "invisible character"),
        ('\u{200b}', "invisible character"),
        ('\u{200c}', "invisible character"),
        ('\u{200d}', "invisible character"),
        ('\u{200e}', "invisible character"),
        ('\u{202e}', "invisible character"), // right-to-left override
        ('\u{2060}', "invisible character"),
        ('\u{2066}', "invisible character"),
        ('\u{3164}', "invisible character"),
        ('\u{fe0f}', "invisible character"),
        ('\u{feff}', "invisible character"), // byte order mark
        ('\u{fff9}', "invisible character"),
        ('\u{fffe}', "invisible character"),
        ('\u{e0041}', "invisible character"),
        ('\u{10ffff}', "invisible character"),
        ('\u{a0}', "white space"),
        ('\u{2003}', "white space"),
        ('\u{2028}', "white space"),
        ('\u{2800}', "white space"),
    ] {
        let why = refused(&format!("seat{c}1"));
        let point = u32::from(c);
        let expected = format!("a token must not contain the {kind} U+{point:04X}");
        assert_eq!(why, expected);
    }
}

#[test]
fn what_is_seen_is_taken() {
    for value in [
        "seat-1",
        "a  b",
        "山田\u{3000}太郎",
        "日本語",
        "üñï¢ödé",
        "می\u{200c}خواهم", // Persian: a non-joiner between two letters that would join
        "क्\u{200d}ष",      // Hindi: a half form
        "क्\u{200c}ष",      // and an explicit virama
        "👩\u{200d}💻",    // a technician
        "👩🏽\u{200d}💻",    // with a skin tone
        "🏳\u{fe0f}\u{200d}🌈", // a flag
        "❤\u{fe0f}",       // a red heart
        "1\u{fe0f}\u{20e3}", // a keycap
        "\u{e000}",        // private use
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_",
    ] {
        let new = NewToken::parse(value).expect(value);
        assert_eq!(new.value(), new.given(), "{value}");
    }
}

#[test]
fn joiners_are_refused_where_they_change_nothing() {
    for value in [
        "a\u{200c}b",
        "a\u{200d}b",
        "می\u{200c}",
        "👩\u{200d}",
        "\u{200d}💻",
        "👩\u{200d}a",
        "1\u{fe0f}",
        "a\u{fe0f}",
        "❤\u{fe0f}\u{fe0f}",
    ] {
        assert!(refused(value).contains("invisible"), "{value}");
    }
}

#[test]
fn a_new_value_is_kept_in_nfc() {
    for (given, kept) in [
        ("Cafe\u{301}", "Café"),
        ("\u{212a}elvin", "Kelvin"),
        ("\u{1100}\u{1161}", "가"),
        ("\u{958}", "\u{915}\u{93c}"), // NFC takes it apart
    ] {
        let new = NewToken::parse(given).expect(given);
        assert_eq!(new.given().as_str(), given);
        assert_eq!(new.value().as_str(), kept);
        assert_eq!(new.value().nfc(), None);
        let label = Holder::parse(given).expect(given);
        assert_eq!(label.as_str(), kept);
    }
}

#[test]
fn a_value_fits_as_it_is_given_and_as_it_is_kept() {
    assert!(NewToken::parse(&"x".repeat(TOKEN_BYTES_MAX)).is_ok());
    refused(&"x".repeat(TOKEN_BYTES_MAX + 1));
    // Six bytes each in NFC, three as given.
    let longer_in_nfc = "\u{958}".repeat(TOKEN_BYTES_MAX / 3);
    assert!(TokenValue::parse(&longer_in_nfc).is_ok());
    assert_eq!(TokenValue::parse(&longer_in_nfc).expect("fits").nfc(), None);
    refused(&longer_in_nfc);
    assert!(Holder::parse(&"x".repeat(HOLDER_BYTES_MAX)).is_ok());
    assert!(Holder::parse(&"x".repeat(HOLDER_BYTES_MAX + 1)).is_err());
}

#[test]
fn an_existing_value_may_have_what_older_versions_took() {
    for value in [" ", "seat-1 ", "a\u{200b}b", "\u{feff}a", "Cafe\u{301}"] {
        assert_eq!(TokenValue::parse(value).expect(value).as_str(), value);
        assert_eq!(Holder::parse_stored(value).expect(value).as_str(), value);
    }
}

#[test]
fn a_label_is_refused_like_a_value() {
    let refused = |label: &str| Holder::parse(label).expect_err("refused").0;
    assert_eq!(
        refused("pod-1 "),
        "a holder must not end with the white space U+0020"
    );
    assert_eq!(
        refused("pod\u{200b}-1"),
        "a holder must not contain the invisible character U+200B"
    );
}

#[test]
fn no_two_keys_differ_by_what_http_drops() {
    for key in [
        " k",
        "k ",
        " ",
        "",
        "k\t",
        "k\u{a0}",
        "\u{e9}",
        &"k".repeat(129),
    ] {
        assert!(IdempotencyKey::parse(key).is_err(), "{key:?}");
    }
    for key in ["k", "a b", &"k".repeat(128)] {
        assert!(IdempotencyKey::parse(key).is_ok(), "{key:?}");
    }
}
