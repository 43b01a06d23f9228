//! Nothing is left for later.

use super::{Source, assert_clean, sources};

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
