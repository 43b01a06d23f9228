//! Keys in Redis: who forms their names, and where they are documented.

use std::collections::BTreeSet;

use super::{Source, assert_clean, code_lines, read, rust_in, sources};

/// What key names are made of, behind the partition's prefix.
const KINDS: &[&str] = &[
    "alarm", "attempts", "due", "fence", "free", "guard", "idem", "layout", "meta", "pool",
    "pools", "records", "replicas", "reserved", "ticks", "turns", "users", "queue", "waiters",
    "events", "wakes", "settings", "known",
];

fn check_key_names(source: &Source) -> Vec<String> {
    let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut wrong = Vec::new();
    for (at, line) in code_lines(code) {
        for text in line.split('"').skip(1).step_by(2) {
            let named = KINDS.iter().any(|kind| {
                let kind = format!(":{kind}");
                let mut behind = text.split(kind.as_str()).skip(1);
                behind.any(|rest| rest.is_empty() || rest.starts_with(':'))
            });
            if named || (text.starts_with("tokend:") && !text.starts_with("tokend: ")) {
                wrong.push(format!("{}:{at}: forms a key name: {text}", source.path));
            }
        }
    }
    wrong
}

#[test]
fn only_keys_rs_forms_key_names() {
    let rust = rust_in(&["src/"]);
    let others = rust.iter().filter(|it| it.path != "src/store/keys.rs");
    let wrong: Vec<_> = others.flat_map(check_key_names).collect();
    assert_clean(&wrong);
}

#[test]
fn a_key_name_elsewhere_is_found() {
    for (text, expected) in [
        ("format!(\"{prefix}:free:{pool}\")", 1),
        ("format!(\"{prefix}:alarm\")", 1),
        ("\"tokend:1:pools\"", 1),
        ("format!(\"{verb}: queue full\")", 0),
        ("format!(\"told:freely\")", 0),
        ("format!(\"__keyspace@{database}__:{alarm}\")", 0),
        ("// like `x:free:y`", 0),
    ] {
        let source = Source::new("src/store/a.rs", text);
        assert_eq!(check_key_names(&source).len(), expected, "{text}");
    }
}

/// The kinds of key that a table of `docs/KEYS.md` names: what follows the prefix or the hash tag.
fn documented_kinds(doc: &str) -> BTreeSet<String> {
    let rows = doc
        .lines()
        .filter_map(|line| line.strip_prefix("| `tokend:1:"));
    let names = rows.filter_map(|row| Some(row.split_once('`')?.0));
    let kinds = names.filter_map(|name| match name.split_once("}:") {
        Some((_, rest)) => rest.split(':').next(),
        None => Some(name).filter(|name| !name.starts_with('{')),
    });
    kinds.map(str::to_owned).collect()
}

/// The kinds of key that the scripts append to `PREFIX`, and those that `keys.rs` forms.
fn formed_kinds(scripts: &str, keys: &str) -> BTreeSet<String> {
    let word =
        |rest: &str| -> String { rest.chars().take_while(char::is_ascii_lowercase).collect() };
    let appended = scripts.split("PREFIX .. ':").skip(1).map(word);
    let code = keys.split("#[cfg(test)]").next().unwrap_or_default();
    let formed = ["{prefix}:", "{root}:"].into_iter();
    let formed = formed.flat_map(|start| code.split(start).skip(1)).map(word);
    appended
        .chain(formed)
        .filter(|kind| !kind.is_empty())
        .collect()
}

fn check_keys_doc(doc: &str, scripts: &str, keys: &str) -> Vec<String> {
    let (told, formed) = (documented_kinds(doc), formed_kinds(scripts, keys));
    let unknown = told
        .difference(&formed)
        .map(|kind| format!("docs/KEYS.md: nobody forms {kind}"));
    let missing = formed
        .difference(&told)
        .map(|kind| format!("docs/KEYS.md: {kind} is missing"));
    unknown.chain(missing).collect()
}

#[test]
fn keys_md_names_every_key_and_no_other() {
    let lua: Vec<_> = sources()
        .into_iter()
        .filter(|s| s.path.starts_with("lua/"))
        .collect();
    let lua: Vec<_> = lua.iter().map(|source| source.text.as_str()).collect();
    let (doc, keys) = (read("docs/KEYS.md"), read("src/store/keys.rs"));
    assert_clean(&check_keys_doc(&doc, &lua.join("\n"), &keys));
    let kinds = documented_kinds(&doc);
    let unlisted: Vec<_> = kinds
        .iter()
        .filter(|kind| !KINDS.contains(&kind.as_str()))
        .collect();
    assert!(unlisted.is_empty(), "not in KINDS: {unlisted:?}");
}

#[test]
fn a_key_that_is_not_documented_is_found() {
    let doc = "| `tokend:1:pools` | HASH |\n| `tokend:1:{p}` | – |\n| `tokend:1:{p}:due:<pool>:<tick>` | SET |\n";
    let (lua, keys) = ("PREFIX .. ':due:' .. name", "format!(\"{root}:pools\")");
    assert_eq!(check_keys_doc(doc, lua, keys), Vec::<String>::new());
    assert_eq!(check_keys_doc(doc, "", keys).len(), 1);
    assert_eq!(check_keys_doc(doc, lua, "").len(), 1);
    assert_eq!(
        check_keys_doc(doc, "PREFIX .. ':due:' PREFIX .. ':new'", keys).len(),
        1
    );
    assert_eq!(check_keys_doc("", lua, keys).len(), 2);
}
