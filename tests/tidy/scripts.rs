//! A script, what its header says of it, its binding and its test file agree.

use std::collections::{BTreeMap, BTreeSet};

use super::{assert_clean, read, root, sources};

/// Scripts that are not about tokens: they have no item list and touch no partition.
const BATCHED_MARK: &str = "impl Verb for";

/// The scripts: name → text. The prelude is none.
fn scripts() -> BTreeMap<String, String> {
    let lua = sources().into_iter().filter(|s| s.path.starts_with("lua/"));
    let named = lua.filter_map(|s| {
        let name = s
            .path
            .strip_prefix("lua/")?
            .strip_suffix(".lua")?
            .to_owned();
        Some((name, s.text))
    });
    named.filter(|(name, _)| name != "prelude").collect()
}

#[derive(Debug, PartialEq)]
struct Header<'a> {
    returns: &'a str,
    body: &'a str,
}

/// Parses a header by the grammar: `#!lua` and flags, `-- name: sentence`, KEYS, ARGV, RETURNS, COST,
/// RETRY, in this order, and then something else than a comment.
fn header<'a>(name: &str, text: &'a str) -> Result<Header<'a>, String> {
    let mut lines = text.split_inclusive('\n');
    let mut seen = 0;
    let mut next = || {
        let line = lines.next().unwrap_or_default();
        seen += line.len();
        line.trim_end()
    };
    let first = next();
    let flags = first
        .strip_prefix("#!lua")
        .ok_or("the first line is not #!lua")?;
    let known = ["", " flags=allow-oom", " flags=no-writes"];
    if !known.contains(&flags) {
        return Err(format!("unknown flags{flags}"));
    }
    let sentence = next();
    let sentence = sentence.strip_prefix(&format!("-- {name}: "));
    let sentence = sentence.ok_or(format!("the second line is not `-- {name}: …`"))?;
    if !sentence.ends_with('.') {
        return Err("the second line is no sentence".to_owned());
    }
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    let order = ["KEYS", "ARGV", "RETURNS", "COST", "RETRY"];
    let mut at = 0;
    loop {
        let line = next();
        let Some(said) = line.strip_prefix("-- ") else {
            if !line.is_empty() {
                return Err(format!("no empty line behind the header, but `{line}`"));
            }
            break;
        };
        let (word, rest) = said.split_once(' ').unwrap_or((said, ""));
        let word = word.split('[').next().unwrap_or_default();
        let place = order.iter().position(|known| *known == word);
        let place = place.ok_or(format!("`{word}` is no part of a header"))?;
        if place < at {
            return Err(format!("{word} is out of order"));
        }
        if rest.trim().is_empty() {
            return Err(format!("{word} says nothing"));
        }
        at = place;
        parts.insert(order[place], rest.trim());
    }
    for part in order {
        if !parts.contains_key(part) {
            return Err(format!("{part} is missing"));
        }
    }
    Ok(Header {
        returns: parts["RETURNS"],
        body: &text[seen..],
    })
}

/// What stands first in each table that begins with a string: `{'tag', …}`.
fn tags(text: &str) -> BTreeSet<String> {
    let tables = text.split("{'").skip(1);
    let tags = tables.filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned()));
    tags.collect()
}

/// The tags that a script's code answers. `{STATES[…], …}` may be any state.
fn code_tags(body: &str, told: &BTreeSet<String>) -> BTreeSet<String> {
    let code = body
        .lines()
        .map(|line| line.split(" -- ").next().unwrap_or_default());
    let code: Vec<_> = code
        .filter(|line| !line.trim_start().starts_with("--"))
        .collect();
    let code = code.join("\n");
    let mut found = tags(&code);
    if code.contains("return {STATES[") {
        let states = ["free", "held", "cooling"].map(str::to_owned);
        found.extend(states.into_iter().filter(|state| told.contains(state)));
    }
    found
}

/// The tags that a binding knows: the patterns of its `match reply.tag.as_str()`, and what it compares.
fn binding_tags(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = BTreeSet::new();
    // The indent of the match that the line stands in.
    let mut within = None::<usize>;
    for line in code.lines() {
        let indent = line.len() - line.trim_start().len();
        if line.contains("match reply.tag.as_str() {") || line.contains("match tag.as_str() {") {
            within = Some(indent);
        } else if within == Some(indent) && line.trim_start().starts_with('}') {
            within = None;
        }
        let arm = within.is_some_and(|outer| indent == outer + 4);
        let pattern = match line.split_once(" =>") {
            Some((pattern, _)) if arm && pattern.trim_start().starts_with('"') => pattern,
            _ if line.contains("reply.tag != ") || line.contains("reply.tag == ") => line,
            _ => continue,
        };
        found.extend(pattern.split('"').skip(1).step_by(2).map(str::to_owned));
    }
    found
}

fn check_script(name: &str, text: &str, binding: &str) -> Vec<String> {
    let header = match header(name, text) {
        Ok(header) => header,
        Err(wrong) => return vec![format!("lua/{name}.lua: {wrong}")],
    };
    let told = tags(header.returns);
    let mut wrong = Vec::new();
    let mut compare = |where_: &str, found: BTreeSet<String>| {
        for tag in told.difference(&found) {
            wrong.push(format!(
                "lua/{name}.lua: RETURNS names {tag}, {where_} does not"
            ));
        }
        for tag in found.difference(&told) {
            wrong.push(format!(
                "lua/{name}.lua: {where_} names {tag}, RETURNS does not"
            ));
        }
    };
    compare("its code", code_tags(header.body, &told));
    let mut known = binding_tags(binding);
    if binding.contains(BATCHED_MARK) {
        // The batcher takes these for all verbs.
        let common = ["stale", "again"].map(str::to_owned);
        known.extend(common.into_iter().filter(|tag| told.contains(tag)));
    }
    compare("its binding", known);
    if told.is_empty() {
        wrong.push(format!("lua/{name}.lua: RETURNS names no tag"));
    }
    wrong
}

#[test]
fn a_scripts_header_its_code_and_its_binding_agree() {
    let mut wrong = Vec::new();
    for (name, text) in scripts() {
        let binding = root().join(format!("src/store/{name}.rs"));
        match std::fs::read_to_string(binding) {
            Ok(binding) => wrong.extend(check_script(&name, &text, &binding)),
            Err(_) => wrong.push(format!("lua/{name}.lua: no binding src/store/{name}.rs")),
        }
    }
    assert_clean(&wrong);
    // And the batcher does take what is left to it.
    assert_eq!(
        binding_tags(&read("src/store/batch.rs")),
        BTreeSet::from(["stale".to_owned(), "again".to_owned()])
    );
}

const GOOD_SCRIPT: &str = "#!lua flags=allow-oom\n-- demo: do it.\n-- KEYS[1]  prefix\n-- ARGV[…]  items\n\
    -- RETURNS  per item: {'done', n} | {'absent'} | {'stale'}\n-- COST     O(1)\n-- RETRY    safe\n\n\
    -- a note: {'other'}\nreturn ok and {'done', 1} or x and {'absent'} or {'stale'} -- {'never'}\n";
const GOOD_BINDING: &str = "impl Verb for Demo {\n    fn decode() {\n        match reply.tag.as_str() {\n            \
    \"done\" => Ok(text(\"more\")),\n            \"absent\" => Ok(Absent),\n            _ => reply.unknown(),\n        \
    }\n    }\n}\n";

#[test]
fn a_header_that_disagrees_is_found() {
    assert_eq!(
        check_script("demo", GOOD_SCRIPT, GOOD_BINDING),
        Vec::<String>::new()
    );
    for (from, to) in [
        ("#!lua flags=allow-oom", "-- no shebang"),
        ("allow-oom", "allow-everything"),
        ("-- demo: ", "-- another: "),
        ("do it.", "do it"),
        ("-- KEYS[1]  prefix\n", ""),
        ("-- ARGV[…]  items\n", ""),
        ("-- COST     O(1)\n", ""),
        ("-- COST     O(1)\n", "-- COST\n"),
        ("-- RETRY    safe\n", ""),
        ("-- RETRY    safe\n", "-- RETRIES  safe\n"),
        (
            "-- COST     O(1)\n-- RETRY    safe\n",
            "-- RETRY    safe\n-- COST     O(1)\n",
        ),
        (" | {'absent'} | ", " | "),
        ("{'done', n}", "{'did', n}"),
        ("{'done', 1}", "{'done', 1} or {'more'}"),
        ("or x and {'absent'} ", ""),
    ] {
        let bad = GOOD_SCRIPT.replace(from, to);
        assert_ne!(bad, GOOD_SCRIPT);
        assert_ne!(
            check_script("demo", &bad, GOOD_BINDING),
            Vec::<String>::new(),
            "{from}"
        );
    }
    for (from, to) in [
        ("\"absent\"", "\"gone\""),
        ("\"done\" =>", "\"done\" | \"new\" =>"),
        (BATCHED_MARK, "impl"),
    ] {
        let bad = GOOD_BINDING.replace(from, to);
        assert_ne!(
            check_script("demo", GOOD_SCRIPT, &bad),
            Vec::<String>::new(),
            "{from}"
        );
    }
    let states = "return {STATES[t.state], 1}";
    let told = BTreeSet::from(["free".to_owned(), "cooling".to_owned()]);
    assert_eq!(code_tags(states, &told), told);
}

/// Files without their fellows. `paths` are all of the repository's.
fn check_fellows(paths: &BTreeSet<String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in paths {
        let name = path
            .strip_prefix("lua/")
            .and_then(|name| name.strip_suffix(".lua"));
        let Some(name) = name.filter(|name| *name != "prelude") else {
            continue;
        };
        for fellow in [
            format!("src/store/{name}.rs"),
            format!("tests/it/scripts/{name}.rs"),
        ] {
            if !paths.contains(&fellow) {
                wrong.push(format!("{path}: {fellow} is missing"));
            }
        }
    }
    wrong
}

/// Test files that nothing compiles.
fn check_modules(folder: &str, list: &str, paths: &BTreeSet<String>) -> Vec<String> {
    let files = paths
        .iter()
        .filter_map(|path| path.strip_prefix(folder)?.strip_suffix(".rs"));
    let modules = files.filter(|name| !name.contains('/') && !["mod", "main"].contains(name));
    let forgotten = modules.filter(|name| !list.contains(&format!("mod {name};")));
    forgotten
        .map(|name| format!("{folder}{name}.rs: no `mod {name};`"))
        .collect()
}

#[test]
fn every_script_has_a_binding_and_a_test_file_that_is_compiled() {
    let paths = sources().into_iter().map(|source| source.path).collect();
    assert_clean(&check_fellows(&paths));
    for (folder, list) in [
        ("tests/it/scripts/", "tests/it/scripts/mod.rs"),
        ("tests/it/", "tests/it/main.rs"),
        ("tests/operations/", "tests/operations/main.rs"),
        ("tests/tidy/", "tests/tidy.rs"),
    ] {
        assert_clean(&check_modules(folder, &read(list), &paths));
    }
}

#[test]
fn a_missing_fellow_is_found() {
    let all = [
        "lua/prelude.lua",
        "lua/a.lua",
        "src/store/a.rs",
        "tests/it/scripts/a.rs",
    ];
    let all: BTreeSet<_> = all.map(str::to_owned).into();
    assert_eq!(check_fellows(&all), Vec::<String>::new());
    for gone in ["src/store/a.rs", "tests/it/scripts/a.rs"] {
        let mut some = all.clone();
        some.remove(gone);
        assert_eq!(check_fellows(&some).len(), 1);
    }
    assert_eq!(
        check_modules("tests/it/scripts/", "mod a;", &all),
        Vec::<String>::new()
    );
    assert_eq!(check_modules("tests/it/scripts/", "mod b;", &all).len(), 1);
}
