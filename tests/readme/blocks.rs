//! Fenced blocks: found, paired and compared.

/// What to paste, and what it prints.
#[derive(Debug, PartialEq, Eq)]
pub struct Step {
    /// Of the opening fence, from 1.
    pub line: usize,
    pub script: String,
    pub expected: Option<String>,
}

/// A section's text without its heading, and the number of its first line.
pub fn section<'a>(text: &'a str, heading: &str) -> Option<(usize, &'a str)> {
    let at = text.lines().position(|line| line == heading)?;
    let start = text.match_indices('\n').nth(at).map(|(end, _)| end + 1)?;
    let rest = &text[start..];
    let level = heading.split(' ').next().unwrap_or_default().to_owned() + " ";
    let mut fenced = false;
    let mut end = 0;
    for line in rest.split_inclusive('\n') {
        fenced ^= line.starts_with("```");
        // A comment in a shell block looks like a heading.
        if !fenced && line.starts_with(&level) {
            break;
        }
        end += line.len();
    }
    Some((at + 2, &rest[..end]))
}

/// The blocks to run, in order. `first_line` is the number of the text's first line.
pub fn steps(text: &str, first_line: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut last_was_run = false;
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let mut content = String::new();
        for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
            content.push_str(line);
            content.push('\n');
        }
        match (info.trim(), steps.last_mut()) {
            ("text", Some(step)) if last_was_run => step.expected = Some(content),
            ("sh", _) => steps.push(Step {
                line: first_line + at,
                script: content,
                expected: None,
            }),
            _ => {}
        }
        last_was_run = info.trim() == "sh";
    }
    steps
}

/// Whether it was printed; `…` stands for anything within a line. White space at the ends is no matter.
pub fn matches(expected: &str, printed: &str) -> bool {
    let (expected, printed) = (expected.trim(), printed.trim());
    let pairs = expected.lines().zip(printed.lines());
    expected.lines().count() == printed.lines().count()
        && pairs
            .into_iter()
            .all(|(expected, printed)| line_matches(expected.trim_end(), printed.trim_end()))
}

fn line_matches(expected: &str, printed: &str) -> bool {
    let Some((head, rest)) = expected.split_once('…') else {
        return expected == printed;
    };
    let Some(printed) = printed.strip_prefix(head) else {
        return false;
    };
    let ends = printed
        .char_indices()
        .map(|(at, _)| at)
        .chain([printed.len()]);
    ends.into_iter()
        .any(|at| line_matches(rest, &printed[at..]))
}

#[test]
fn blocks_are_found_and_paired() {
    let text = "# T\n\n## Tour\n\nWords.\n\n```sh\n# a comment\n## and another\ncurl x\n```\n\nMore:\n\n```text\n{…}\n```\n\
                ```sh skip\nrm -rf /\n```\n```text\nnot compared\n```\n```json\n{}\n```\n```sh\nlast\n```\n## Next\n```sh\nno\n```\n";
    let (first_line, tour) = section(text, "## Tour").expect("it is there");
    assert_eq!(first_line, 4);
    let expected = [
        Step {
            line: 7,
            script: "# a comment\n## and another\ncurl x\n".to_owned(),
            expected: Some("{…}\n".to_owned()),
        },
        Step {
            line: 27,
            script: "last\n".to_owned(),
            expected: None,
        },
    ];
    assert_eq!(steps(tour, first_line), expected);
    assert!(section(text, "## Missing").is_none());
}

#[test]
fn an_ellipsis_stands_for_anything_within_a_line() {
    for (expected, printed, same) in [
        ("a\nb\n", "a\nb", true),
        ("a\nb\n", "a\n", false),
        ("a\n", "a\nb\n", false),
        ("{\"fence\":…,\"x\":1}", "{\"fence\":123,\"x\":1}", true),
        ("{\"fence\":…,\"x\":1}", "{\"fence\":123,\"x\":2}", false),
        ("a…", "a", true),
        ("…", "any é thing", true),
        ("a…b", "a\nb", false),
        ("a…b…c", "abbcbc", true),
        ("HTTP/1.1 200 OK…", "HTTP/1.1 200 OK\r\n", true),
    ] {
        assert_eq!(matches(expected, printed), same, "{expected:?} {printed:?}");
    }
}
