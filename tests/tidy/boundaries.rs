//! What only some files may name.

use super::{Source, assert_clean, code_lines, rust_in};

/// A word that may be named only in some files of `src`, and what for.
const BOUNDARIES: &[(&str, &[&str])] = &[
    ("fred", &["src/store/"]),
    ("actix_web", &["src/http/", "src/server.rs", "src/serve.rs"]),
    (
        "actix_http",
        &["src/http/", "src/server.rs", "src/serve.rs"],
    ),
    ("actix_rt", &["src/http/", "src/server.rs", "src/serve.rs"]),
    (".lua\"", &["src/store/"]),
    ("opentelemetry", &["src/traces/"]),
    ("opentelemetry_sdk", &["src/traces/"]),
    ("opentelemetry_otlp", &["src/traces/"]),
];

fn check_boundaries(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for (word, allowed) in BOUNDARIES
        .iter()
        .filter(|(_, allowed)| !source.lies_in(allowed))
    {
        let path_or_use = |line: &str| {
            let named = [
                format!("{word}::"),
                format!("use {word}"),
                format!("extern crate {word}"),
            ];
            named.iter().any(|named| line.contains(named.as_str()))
                || (word.ends_with('"') && line.contains(word))
        };
        for (at, _) in code_lines(&source.text).filter(|(_, line)| path_or_use(line)) {
            let (path, allowed) = (&source.path, allowed.join(", "));
            wrong.push(format!("{path}:{at}: names {word}, which is for {allowed}"));
        }
    }
    wrong
}

#[test]
fn fred_stays_in_the_store_and_actix_in_http() {
    let rust = rust_in(&["src/"]);
    let wrong: Vec<_> = rust.iter().flat_map(check_boundaries).collect();
    assert_clean(&wrong);
}

#[test]
fn a_crossed_boundary_is_found() {
    for (path, text, expected) in [
        ("src/store/a.rs", "use fred::types::Value;\n", 0),
        ("src/http/a.rs", "use fred::types::Value;\n", 1),
        ("src/http/a.rs", "fn f(v: fred::types::Value) {}\n", 1),
        ("src/http/a.rs", "// fred::types\nuse actix_web::web;\n", 0),
        ("src/store/a.rs", "use actix_web::web;\n", 1),
        ("src/token/mod.rs", "let x = actix_web::rt::spawn();\n", 1),
        ("src/store/a.rs", "use opentelemetry::Context;\n", 1),
        ("src/traces/a.rs", "use opentelemetry::Context;\n", 0),
        ("src/http/a.rs", "include_str!(\"../lua/assign.lua\")\n", 1),
    ] {
        assert_eq!(
            check_boundaries(&Source::new(path, text)).len(),
            expected,
            "{path}: {text}"
        );
    }
}
