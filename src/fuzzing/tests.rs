use proptest::prelude::*;

use super::*;

type Property = fn(&[u8]);

/// Every property, with texts that lead it beyond its first check.
const PROPERTIES: &[(&str, Property, &[&str])] = &[
    (
        "jwt",
        jwt,
        &[
            "eyJhbGciOiJub25lIn0.e30.",
            "a.b.c",
            "eyJ0eXAiOiJhdCtqd3QifQ.e30.AAAA",
        ],
    ),
    (
        "form",
        form,
        &[
            "token=a%3Ab&token_type_hint=x",
            "token=&token=a",
            "token=%ff",
        ],
    ),
    (
        "raw",
        raw,
        &[
            r#"{"token":"\u00e9","meta":{"a":[1, 2.0]}}"#,
            r#"{"meta":{},"meta":1}"#,
        ],
    ),
    ("rotating", rotating, &["3.AAAA.family.7.c2lnbmF0dXJl", "."]),
    (
        "metadata",
        metadata,
        &[
            r#"{"a":1e400,"b":{},"c":[1, 2.0],"\u0000":"\ud800"}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a" : [ ] }"#,
        ],
    ),
    (
        "body",
        body,
        &[
            r#"{"token":"a","fence":9007199254740992,"count":1,"lifetime":1.5,"cooldown":0}"#,
            r#"{"token":"a","tokens":["a","b"],"holder":"h"}"#,
            r#"{"token":"a ","tokens":["e\u0301","b"],"holder":"e\u0301"}"#,
            r#"{"token":"a","token":"b"}"#,
        ],
    ),
    (
        "query",
        query,
        &["token=a%20b%2Bc", "token=%ff", "a&b=%C3%A9"],
    ),
    (
        "names",
        names,
        &[
            "seats-1",
            "1790000000000000 ann",
            "3.family",
            "+3.family",
            "_session",
            "60.6162",
            "1h 30m",
            "redis://u:p@h:1/0",
            "Cafe\u{301} \u{212a}\u{958}",
            "\u{644}\u{200c}\u{645}\u{ad}",
            "\u{1f469}\u{1f3fd}\u{200d}\u{1f4bb}\u{fe0f}",
            "seat-1\u{3000}",
            "5.9~da39a3ee5e6b4b0d3255bfef95601890afd80709.2",
        ],
    ),
    (
        "reply",
        reply,
        &["\u{1}\u{2}\u{3}rotated", "\u{7}\u{0}\u{0}\u{0}page"],
    ),
    (
        "settings",
        settings,
        &[
            "A=1\nSECRET_KEY='a b",
            "PORT=0\nONE_TIME_LIFETIME=2h\n# c",
            "CORS_ORIGINS=*,a",
            "A=1\nPORT=${A:-${B:?x}}$A\nHOST=\"a\\$b\"",
        ],
    ),
];

/// Characters that parsers treat in a way of their own.
const SPECIAL: &str = r#"[-a-zA-Z0-9{}\[\]":,.=&%+_#' \\\n\x00é]{0,60}"#;

/// Bytes of any kind; texts full of what parsers look for; and good texts with a little changed.
fn inputs(good: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let changed = (prop::sample::select(good), any::<Vec<u8>>()).prop_map(|(good, change)| {
        let change = change.into_iter().take(6).collect::<Vec<_>>();
        splice(good, &change).into_bytes()
    });
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => SPECIAL.prop_map(String::into_bytes),
        2 => changed,
    ]
}

#[test]
fn every_property_holds_for_bytes_of_all_kinds() {
    for (name, property, good) in PROPERTIES {
        for text in *good {
            property(text.as_bytes());
        }
        let config = ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        proptest::test_runner::TestRunner::new(config)
            .run(&inputs(good), |data| {
                property(&data);
                Ok(())
            })
            .unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}

#[test]
fn every_property_has_a_target_and_every_target_a_property() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).expect("a manifest");
    let mut targets: Vec<_> = std::fs::read_dir(root.join("fuzz_targets"))
        .expect("targets")
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    targets.sort();
    let mut names: Vec<_> = PROPERTIES.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    assert_eq!(targets, names);
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
