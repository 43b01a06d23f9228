//! `.env` in the working directory, read without touching the process's environment.

use std::io::Read;
use std::path::Path;

use super::Mistake;

/// Hands the file to the parser one line per `read`, so that the parser's read-ahead ends at the line
/// that it is at and a mistake can be told with its line number.
struct Lines<'a> {
    rest: &'a str,
    /// Lines handed out so far, so also the number of the current line.
    given: &'a std::cell::Cell<usize>,
    /// What is left of a line longer than the parser's buffer.
    pending: Vec<u8>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.pending.is_empty() {
            let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
            let (line, rest) = self.rest.split_at(end);
            if line.is_empty() {
                return Ok(0);
            }
            self.rest = rest;
            self.given.set(self.given.get() + 1);
            line_without_comment(line).clone_into(&mut self.pending);
        }
        let n = self.pending.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.pending[..n]);
        self.pending.drain(..n);
        Ok(n)
    }
}

/// Cuts a comment behind a value without quotes. The parser does so itself, except that it takes an
/// apostrophe in a comment behind an even number of spaces for an open quote.
fn line_without_comment(line: &str) -> Vec<u8> {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match c {
            '\'' | '"' | '\\' => break,
            '#' if before.is_whitespace() => {
                return format!("{}\n", line[..at].trim_end()).into_bytes();
            }
            _ => before = c,
        }
    }
    line.as_bytes().to_vec()
}

/// The variables of a file's text in their order, and each line that can't be read. The line's text is
/// not repeated: it may hold a password.
pub(crate) fn parse(text: &str) -> (Vec<(String, String)>, Vec<Mistake>) {
    let given = std::cell::Cell::new(0);
    let lines = Lines {
        rest: text.trim_start_matches('\u{feff}'),
        given: &given,
        pending: Vec::new(),
    };
    let (mut variables, mut mistakes) = (Vec::new(), Vec::new());
    for line in dotenvy::from_read_iter(lines) {
        let error = match line {
            Ok(variable) => {
                variables.push(variable);
                continue;
            }
            Err(error) => error,
        };
        // A quote that is never closed swallows the rest of the file: name the line it is in.
        let swallowed = match &error {
            dotenvy::Error::LineParse(text, _) => text.trim_end().matches('\n').count(),
            _ => 0,
        };
        mistakes.push(Mistake {
            variable: format!(".env, line {}", given.get() - swallowed.min(given.get())),
            given: None,
            expected: "must read NAME=value, with quotes around a value that has spaces \
                       (the line is not shown, it may hold a secret)"
                .to_owned(),
        });
        if matches!(error, dotenvy::Error::Io(_)) {
            break; // the same would come again
        }
    }
    (variables, mistakes)
}

/// The variables of `.env` in `directory`; none where there is no such file.
pub(super) fn read(directory: &Path) -> (Vec<(String, String)>, Vec<Mistake>) {
    match std::fs::read_to_string(directory.join(".env")) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (Vec::new(), Vec::new()),
        Err(error) => {
            let mistake = Mistake {
                variable: ".env".to_owned(),
                given: None,
                expected: format!("must be a readable text file: {error}"),
            };
            (Vec::new(), vec![mistake])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let (variables, mistakes) = parse(text);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        variables
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn comments_behind_values_are_cut_and_quotes_keep_them() {
        let text = "\u{feff}# it's a file\nA=1  # it's one\nB=\"x # y\"  # kept\n\nexport C='a b'\r\nD=a#b\nE=   # none\n";
        let expected = [
            ("A", "1"),
            ("B", "x # y"),
            ("C", "a b"),
            ("D", "a#b"),
            ("E", ""),
        ];
        assert_eq!(values(text), pairs(&expected));
    }

    #[test]
    fn a_value_may_span_lines_in_quotes() {
        assert_eq!(
            values("A=\"x\ny\"\nB=2"),
            pairs(&[("A", "x\ny"), ("B", "2")])
        );
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_by_its_number_and_not_shown() {
        for (text, line) in [
            ("A=1\n\n# c\nB=secret two words\nC=3\n", 4),
            ("A=1\nsecret\n", 2),
            ("A=1\nB='secret\nC=3\nD=4\n", 2),
            ("9A=secret\n", 1),
        ] {
            let mistake = parse(text).1.first().expect("malformed").to_string();
            assert!(
                mistake.contains(&format!(".env, line {line} ")),
                "{mistake}"
            );
            assert!(!mistake.contains("secret two"), "{mistake}");
        }
    }

    #[test]
    fn every_line_that_cannot_be_read_is_told_and_the_others_count() {
        let (variables, mistakes) = parse("TWO BAD\nA=1\nALSO BAD LINE\nB=2\n");
        let places: Vec<_> = mistakes.iter().map(|m| m.variable.as_str()).collect();
        assert_eq!(places, [".env, line 1", ".env, line 3"]);
        assert_eq!(variables, pairs(&[("A", "1"), ("B", "2")]));
    }

    #[test]
    fn a_line_longer_than_the_parsers_buffer_is_read_whole() {
        let long = "x".repeat(100_000);
        assert_eq!(
            values(&format!("A={long}\nB=1")),
            pairs(&[("A", &long), ("B", "1")])
        );
    }
}
