//! Tests about the repository itself. No Redis needed. Each check is a function from texts to a list of
//! what is wrong, so that it can be shown a planted violation; to add one, write it and its two tests.

#[path = "tidy/metrics.rs"]
mod metrics;
#[path = "tidy/version.rs"]
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
/// Files and functions that may be longer, each with its reason.
const LONG: &[(&str, &str)] = &[
    (
        "src/metrics.rs: new",
        "every metric is made in one place, one after the other",
    ),
    (
        "tests/tidy.rs",
        "every check stands next to its planted violations",
    ),
    (
        "tests/support/history.rs",
        "what is recorded and the rules that judge it are one thing",
    ),
    (
        "tests/it/faults.rs",
        "one fault after the other, each short",
    ),
    (
        "tests/it/flows.rs",
        "one attack after the other, each short",
    ),
    ("tests/it/races.rs", "one race after the other, each short"),
    (
        "tests/it/model/mod.rs",
        "one arm for each verb of the state machine",
    ),
    (
        "tests/it/model/oracle.rs",
        "the state machine once more, in one piece",
    ),
];
/// Scripts that are not about tokens: they have no item list and touch no partition.
const BATCHED_MARK: &str = "impl Verb for";

/// A file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn lies_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository that people write. Assets are others' work, as they released it.
fn sources() -> Vec<Source> {
    const SKIPPED: &[&str] = &[
        "target",
        ".git",
        "data",
        "tools",
        "assets",
        "Cargo.lock",
        "artifacts",
        "corpus",
    ];
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a readable folder");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).expect("inside");
                let path = path.to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

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

fn assert_clean(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

// ---- Headers of scripts ----

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

// ---- One verb: one script, one binding, one test file ----

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
    assert_clean(&check_modules(
        "tests/it/scripts/",
        &read("tests/it/scripts/mod.rs"),
        &paths,
    ));
    assert_clean(&check_modules(
        "tests/it/",
        &read("tests/it/main.rs"),
        &paths,
    ));
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

// ---- Sizes ----

/// Functions by name and length: from `fn` to the brace at its indent, as rustfmt sets them.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let words: Vec<_> = code
            .split(' ')
            .take_while(|word| !word.starts_with("fn"))
            .collect();
        let before = [
            "pub",
            "pub(super)",
            "pub(crate)",
            "const",
            "async",
            "unsafe",
        ];
        let Some(name) = code
            .split("fn ")
            .nth(1)
            .filter(|_| words.iter().all(|w| before.contains(w)))
        else {
            continue;
        };
        let indent = &line[..line.len() - code.len()];
        let end = lines[at..].iter().position(|l| *l == format!("{indent}}}"));
        let name = name.split(['(', '<']).next().unwrap_or_default();
        if let Some(end) = end.filter(|_| !line.ends_with(';') && !line.ends_with('}')) {
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

fn check_size(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = &source.path;
    let lines = source.text.lines().count();
    let listed = |what: &str| LONG.iter().any(|(long, _)| *long == what);
    if lines > FILE_LINES_MAX && !listed(path) {
        wrong.push(format!("{path}: {lines} lines"));
    }
    for (name, lines) in functions(&source.text) {
        if lines > FUNCTION_LINES_MAX && !listed(&format!("{path}: {name}")) {
            wrong.push(format!("{path}: {name}: {lines} lines"));
        }
    }
    wrong
}

#[test]
fn files_and_functions_stay_readable() {
    let rust = sources()
        .into_iter()
        .filter(|s| s.is_rust() && s.lies_in(&["src/", "tests/"]));
    let wrong: Vec<_> = rust.flat_map(|source| check_size(&source)).collect();
    assert_clean(&wrong);
}

#[test]
fn a_long_file_or_function_is_found() {
    let file = |lines: usize| Source::new("src/long.rs", &"// line\n".repeat(lines));
    assert_eq!(check_size(&file(FILE_LINES_MAX)), Vec::<String>::new());
    assert_eq!(check_size(&file(FILE_LINES_MAX + 1)).len(), 1);
    let function = |lines: usize| {
        let body = "        go();\n".repeat(lines - 2);
        Source::new(
            "src/a.rs",
            &format!("impl A {{\n    pub async fn go() {{\n{body}    }}\n}}\n"),
        )
    };
    assert_eq!(functions(&function(10).text), [("go".to_owned(), 10)]);
    assert_eq!(
        check_size(&function(FUNCTION_LINES_MAX)),
        Vec::<String>::new()
    );
    assert_eq!(check_size(&function(FUNCTION_LINES_MAX + 1)).len(), 1);
}

// ---- Boundaries ----

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

fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

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
    let rust = sources()
        .into_iter()
        .filter(|s| s.is_rust() && s.lies_in(&["src/"]));
    let wrong: Vec<_> = rust.flat_map(|source| check_boundaries(&source)).collect();
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

// ---- Key names ----

/// What key names are made of, behind the partition's prefix.
const KINDS: &[&str] = &[
    "alarm", "attempts", "due", "fence", "free", "guard", "idem", "layout", "meta", "pool",
    "pools", "records", "replicas", "reserved", "ticks", "turns", "users", "queue", "waiters",
    "events", "wakes",
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
    let rust = sources()
        .into_iter()
        .filter(|s| s.is_rust() && s.lies_in(&["src/"]));
    let others = rust.filter(|source| source.path != "src/store/keys.rs");
    let wrong: Vec<_> = others.flat_map(|source| check_key_names(&source)).collect();
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

// ---- Settings on Kubernetes ----

/// Variables that are in neither the ConfigMap nor the Secret.
const NOT_ON_KUBERNETES: &[(&str, &str)] = &[
    (
        "DATA_DIR",
        "the image has no Redis to embed; REDIS_URL is required",
    ),
    (
        "JWT_PRIVATE_KEY_FILE",
        "a path, given by k8s/components/sessions, which mounts the file",
    ),
];
/// Settings of the ConfigMap that are not the defaults.
const OWN_ON_KUBERNETES: &[(&str, &str)] = &[
    (
        "HOST",
        "what listens on 127.0.0.1 can't be reached in a pod",
    ),
    ("WORKERS", "the default is one per core of the node"),
    (
        "SHUTDOWN_DELAY",
        "callers must be told to leave: docs/adr/0017",
    ),
    ("LOG_FORMAT", "for whoever collects logs"),
    ("PUBLIC_URL", "the Service's name, not that of a pod"),
];

/// The lines `NAME=value` of a file of settings. Those behind a `#` are examples.
fn settings(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let named = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let pairs = pairs.filter(|(name, _)| !name.is_empty() && named(name));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The keys `NAME: value` of a manifest.
fn secret_names(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let named = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let names = lines.map(|(name, _)| name).filter(|name| named(name));
    names.map(str::to_owned).collect()
}

/// ConfigMap, Secret and exceptions are together what tokend reads, and the ConfigMap has the defaults.
fn check_kubernetes_settings(
    known: &BTreeSet<String>,
    example: &str,
    config_map: &str,
    secret: &str,
) -> Vec<String> {
    let (example, config_map) = (settings(example), settings(config_map));
    let secret = secret_names(secret);
    let mut told: BTreeSet<String> = config_map.keys().chain(&secret).cloned().collect();
    let exceptions = NOT_ON_KUBERNETES.iter().map(|(name, _)| *name);
    told.extend(exceptions.map(str::to_owned));
    let mut wrong = Vec::new();
    let missing = known.difference(&told);
    wrong.extend(missing.map(|name| format!("k8s/base/tokend.env: {name} is missing")));
    let unknown = told.difference(known);
    wrong.extend(unknown.map(|name| format!("k8s: tokend does not know {name}")));
    let twice = config_map.keys().filter(|name| secret.contains(*name));
    wrong.extend(twice.map(|name| format!("k8s: {name} is in ConfigMap and Secret")));
    for (name, value) in &config_map {
        let own = OWN_ON_KUBERNETES.iter().any(|(own, _)| own == name);
        if (example.get(name) == Some(value)) == own {
            let what = if own { "is" } else { "is not" };
            wrong.push(format!(
                "k8s/base/tokend.env: {name}={value} {what} the default"
            ));
        }
    }
    wrong
}

#[test]
fn config_map_secret_and_env_example_agree_with_env() {
    assert_clean(&check_kubernetes_settings(
        &tokend::config::variable_names(),
        &read(".env.example"),
        &read("k8s/base/tokend.env"),
        &read("k8s/overlays/production/secret.example.yaml"),
    ));
}

#[test]
fn a_setting_that_kubernetes_lacks_is_found() {
    let names = [
        "DATA_DIR",
        "JWT_PRIVATE_KEY_FILE",
        "PORT",
        "HOST",
        "REDIS_URL",
    ];
    let known: BTreeSet<String> = names.map(str::to_owned).into();
    let example = "PORT=3000\nHOST=127.0.0.1\n# WORKERS=2\n";
    let (config_map, secret) = (
        "# Words\nPORT=3000\nHOST=0.0.0.0\n",
        "kind: Secret\n  REDIS_URL: x\n",
    );
    let check = |known: &BTreeSet<String>, config_map: &str, secret: &str| {
        check_kubernetes_settings(known, example, config_map, secret).len()
    };
    assert_eq!(check(&known, config_map, secret), 0);
    assert_eq!(check(&known, config_map, ""), 1);
    assert_eq!(check(&known, "PORT=3000\n", secret), 1);
    assert_eq!(check(&known, "PORT=80\nHOST=0.0.0.0\n", secret), 1);
    assert_eq!(check(&known, "PORT=3000\nHOST=127.0.0.1\n", secret), 1);
    assert_eq!(check(&known, config_map, "REDIS_URL: x\nHOST: y\n"), 1);
    let fewer = known
        .iter()
        .filter(|name| *name != "PORT")
        .cloned()
        .collect();
    assert_eq!(check(&fewer, config_map, secret), 1);
}

// ---- The alert rules, for Prometheus and for its operator ----

/// The rules as they stand behind `spec:` in a `PrometheusRule`: two further in.
fn check_prometheus_rule(rules: &str, manifest: &str) -> Vec<String> {
    let from = rules.find("groups:\n").unwrap_or(rules.len());
    let lines = rules[from..].lines().map(|line| match line {
        "" => String::new(),
        line => format!("  {line}"),
    });
    let wanted: Vec<_> = lines.collect();
    let spec = manifest.split_once("\nspec:\n").unwrap_or_default().1;
    if !wanted.is_empty() && wanted.iter().eq(spec.lines()) {
        return Vec::new();
    }
    let what = "k8s/components/monitoring/prometheus-rule.yaml does not have the rules of grafana/rules/tokend.yaml";
    vec![format!("{what}: run scripts/prometheus-rule.sh")]
}

#[test]
fn the_operator_gets_the_rules_that_prometheus_gets() {
    assert_clean(&check_prometheus_rule(
        &read("grafana/rules/tokend.yaml"),
        &read("k8s/components/monitoring/prometheus-rule.yaml"),
    ));
}

#[test]
fn a_rule_that_the_operator_does_not_get_is_found() {
    let rules = "# Words\ngroups:\n  - name: a\n\n  - name: b\n";
    let manifest = "kind: PrometheusRule\nspec:\n  groups:\n    - name: a\n\n    - name: b\n";
    assert_eq!(check_prometheus_rule(rules, manifest), Vec::<String>::new());
    for (rules, manifest) in [
        ("groups:\n  - name: a\n", manifest),
        (
            rules,
            "kind: PrometheusRule\nspec:\n  groups:\n    - name: a\n",
        ),
        (rules, "kind: PrometheusRule\n"),
        ("", ""),
    ] {
        assert_eq!(
            check_prometheus_rule(rules, manifest).len(),
            1,
            "{manifest}"
        );
    }
}

// ---- Nothing left for later ----

/// In two parts, so that this file does not name them.
const LEFTOVERS: &[(&str, &str)] = &[
    ("TO", "DO"),
    ("FIX", "ME"),
    ("XX", "X:"),
    ("#[ig", "nore"),
    ("to", "do!("),
    ("unimple", "mented!("),
    ("db", "g!("),
];

fn check_leftovers(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, line) in source.text.lines().enumerate() {
        for (first, second) in LEFTOVERS {
            let word = format!("{first}{second}");
            // A word of its own: not the end of another one.
            let found = line.match_indices(&word).any(|(from, _)| {
                let before = line[..from].chars().next_back();
                let after = line[from + word.len()..].chars().next();
                let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                let open = !word.starts_with(char::is_alphabetic) || !part(before);
                let closed = !word.ends_with(char::is_alphabetic) || !part(after);
                open && closed
            });
            if found {
                wrong.push(format!("{}:{}: {word}", source.path, at + 1));
            }
        }
    }
    wrong
}

#[test]
fn nothing_is_left_for_later() {
    let wrong: Vec<_> = sources().iter().flat_map(check_leftovers).collect();
    assert_clean(&wrong);
}

#[test]
fn what_is_left_for_later_is_found() {
    for (first, second) in LEFTOVERS {
        let planted = Source::new("a.rs", &format!("fine\n    {first}{second} this\n"));
        assert_eq!(check_leftovers(&planted).len(), 1, "{first}{second}");
        let other = Source::new("a.rs", &format!("x{first}{second}\n"));
        let inside = check_leftovers(&other).len();
        assert_eq!(
            inside,
            usize::from(first.starts_with('#')),
            "{first}{second}"
        );
    }
}
