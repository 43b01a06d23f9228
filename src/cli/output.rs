//! What goes to stdout and stderr.

use std::io::{ErrorKind, Write as _};

use super::client::Answer;
use super::error::Failure;

/// How the user wants answers.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// Prints an answer: its JSON as one line, or what `human` makes of it.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn answer<T>(
        self,
        answer: &Answer<T>,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if self.json {
            print(&answer.json)
        } else {
            print(&human(&answer.value))
        }
    }
}

/// Prints lines to stdout. A reader that has gone (`| head`) is no failure.
///
/// # Errors
/// When stdout cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::io("cannot write the output", &error))
        }
        _ => Ok(()),
    }
}

/// One line on stderr, marked as ours. Unlike `eprintln!` it does not panic when stderr is gone:
/// a lease must survive its log.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "tokend: {line}");
}

/// The text on one line and without control characters: it may come from the network.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// An aligned block of names and values.
#[must_use]
pub fn block(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> = rows
        .iter()
        .map(|(name, value)| format!("{name:<width$}  {}", one_line(value)))
        .collect();
    lines.join("\n")
}

/// A table under a heading; the first column to the left, the others (numbers) to the right.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(head.get(column).map_or(0, |name| name.len()))
    };
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            if column == 0 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let padded: Vec<String> = padded.collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| line(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_aligned_and_a_value_cannot_break_out_of_its_line() {
        let rows = [("token", "a".to_owned()), ("expires at", "b\nc".to_owned())];
        assert_eq!(block(&rows), "token       a\nexpires at  b c");
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [
            vec!["default".to_owned(), "10".to_owned()],
            vec!["x".to_owned(), "1234567".to_owned()],
        ];
        assert_eq!(
            table(&["NAME", "FREE"], &rows),
            "NAME        FREE\ndefault       10\nx        1234567"
        );
    }
}
