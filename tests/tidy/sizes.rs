//! Files and functions that can be read in one go.

use super::{Source, assert_clean, rust_in};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
/// Files and functions that may be longer, each with its reason.
const LONG: &[(&str, &str)] = &[
    (
        "src/metrics.rs: new",
        "every metric is made in one place, one after the other",
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
    let rust = rust_in(&["src/", "tests/"]);
    let wrong: Vec<_> = rust.iter().flat_map(check_size).collect();
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
