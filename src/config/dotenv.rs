//! `.env` in the working directory, by the rules of Docker Compose, without touching the process's environment.
//!
//! `docs/adr/0022-dotenv.md` has the rules and where they differ. In short: only a line that assigns one of our
//! variables can be a mistake. Other lines are there for other programs: their values can be referred to, and what
//! can't be read of them is passed over.

mod expand;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use self::expand::{expand, unescape};
use super::Mistake;
use crate::text::Text;

/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Dotenv {
    /// The variables that it sets, those of other programs too. Of several the last counts.
    pub variables: BTreeMap<String, String>,
    /// What is wrong with the lines of our variables. The lines are not repeated: they may hold a secret.
    pub mistakes: Vec<Mistake>,
    /// The numbers of the lines of others that can't be read.
    pub passed_over: Vec<usize>,
}

/// The variables of `.env` in `directory`; none if there is no such file.
pub(super) fn read(
    directory: &Path,
    is_ours: impl Fn(&str) -> bool,
    environment: impl Fn(&str) -> Option<String>,
) -> Dotenv {
    match Text::read_file(&directory.join(".env"), FILE_BYTES_MAX) {
        Ok(text) => parse(&text.lossy(), is_ours, environment),
        Err(error) if error.kind() == ErrorKind::NotFound => Dotenv::default(),
        Err(error) => Dotenv {
            mistakes: vec![Mistake::new(
                ".env",
                format!("must be a readable text file: {error}"),
            )],
            ..Dotenv::default()
        },
    }
}

/// The variables of a file's text. References are looked up in `environment` first, then in the lines above.
pub(crate) fn parse(
    text: &str,
    is_ours: impl Fn(&str) -> bool,
    environment: impl Fn(&str) -> Option<String>,
) -> Dotenv {
    let mut read = Dotenv::default();
    let mut lines = Lines {
        rest: text,
        number: 0,
    };
    while let Some(line) = lines.next() {
        let number = lines.number;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line
            .strip_prefix("export")
            .filter(|it| it.starts_with(is_blank))
            .unwrap_or(line);
        let (name, value) = match assignment(line.trim_start()) {
            Ok(Some(assignment)) => assignment,
            Ok(None) => continue, // only a name: as the environment has it
            Err(name) if is_ours(name) => {
                read.refuse(number, name, "must read NAME=value");
                continue;
            }
            Err(_) => {
                read.passed_over.push(number);
                continue;
            }
        };
        let look_up = |name: &str| environment(name).or_else(|| read.variables.get(name).cloned());
        match value_of(value, &mut lines, look_up) {
            Ok(value) if is_ours(name) && value.contains(char::REPLACEMENT_CHARACTER) => {
                read.refuse(number, name, "must be UTF-8 text");
            }
            Ok(value) => drop(read.variables.insert(name.to_owned(), value)),
            Err(why) if is_ours(name) => read.refuse(number, name, &why),
            Err(_) => read.passed_over.push(number),
        }
    }
    read
}

impl Dotenv {
    fn refuse(&mut self, number: usize, name: &str, why: &str) {
        let place = format!(".env, line {number}: {name}");
        let why = format!("{why} (the line is not shown, it may hold a secret)");
        self.mistakes.push(Mistake::new(&place, why));
    }
}

struct Lines<'a> {
    rest: &'a str,
    /// That of the line handed out last, from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        self.number += 1;
        Some(line)
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || "_.-[]".contains(c)
}

/// The name and what stands behind its `=` or `:`; none for a name alone. The error is the first word of a line that
/// is neither.
fn assignment(line: &str) -> Result<Option<(&str, &str)>, &str> {
    let end = line.find(|c| !is_part_of_name(c)).unwrap_or(line.len());
    let (word, behind) = line.split_at(end);
    let behind = behind.trim_start_matches(is_blank);
    if word.is_empty() {
        Err(word)
    } else if let Some(value) = behind.strip_prefix(['=', ':']) {
        Ok(Some((word, value)))
    } else if behind.is_empty() || behind.starts_with('#') {
        Ok(None)
    } else {
        Err(word)
    }
}

/// What a value means. One in quotes may go on in the next lines. If more than a comment follows its closing quote
/// there, the quote was forgotten, and the value ends with its line.
fn value_of(
    line: &str,
    lines: &mut Lines<'_>,
    look_up: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let value = line.trim_start_matches(is_blank);
    let Some(quote) = value.chars().next().filter(|c| ['"', '\''].contains(c)) else {
        return expand(without_comment(line), look_up);
    };
    let mut text = value[1..].to_owned();
    let mut ahead = Lines {
        rest: lines.rest,
        number: lines.number,
    };
    let end = loop {
        if let Some(end) = closing(&text, quote) {
            break end;
        }
        let next = ahead.next().ok_or_else(|| open_quote(quote))?;
        text.push('\n');
        text.push_str(next);
    };
    let behind = text[end + 1..].trim_start();
    if !behind.is_empty() && !behind.starts_with('#') {
        let one_line = ahead.number == lines.number;
        return Err(match one_line {
            true => format!("has text behind the closing {quote}"),
            false => open_quote(quote),
        });
    }
    *lines = ahead;
    if quote == '\'' {
        return Ok(text[..end].replace("\\'", "'"));
    }
    expand(&unescape(&text[..end]), look_up)
}

fn open_quote(quote: char) -> String {
    format!("begins with {quote} and has no closing {quote}")
}

/// Where the quote is that is not escaped.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let here = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        here.then_some(at)
    })
}

/// A comment begins with a `#` behind a blank.
fn without_comment(value: &str) -> &str {
    let mut before = '=';
    let comment = value.char_indices().find(|(_, c)| {
        let begins = *c == '#' && is_blank(before);
        before = *c;
        begins
    });
    value[..comment.map_or(value.len(), |(at, _)| at)].trim()
}
