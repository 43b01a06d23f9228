//! `tokend import`: the user's own tokens, one per line.
//!
//! The whole input is read and checked before the first call, so a typo in the last line leaves
//! the pool as it was. Then it goes out in chunks. A chunk is all or nothing and a token that the
//! pool has is left as it is, so repeating an import is always safe.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::PoolArg;
use super::client::Client;
use super::error::{CallError, Failure};
use super::output::{self, Output};
use crate::text::Text;
use crate::token::{Invalid, TOKENS_PER_CALL_MAX, TokenValue};

/// Most bytes of one call's body: the service refuses more than 1 MiB; the rest is margin for
/// proxies that count headers in.
const BODY_BYTES_MAX: usize = 1_000_000;
/// Bad lines to name before the rest is only counted: a wrong file has thousands.
const BAD_LINES_SHOWN_MAX: usize = 10;
/// Imports shorter than this say nothing: nobody waits for them.
const QUIET: Duration = Duration::from_secs(1);
/// How often a line is added where stderr is no terminal: a log should not fill up.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// What stands around a chunk's tokens.
const BODY_HEAD: &str = r#"{"tokens":["#;
const BODY_TAIL: &str = "]}";

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file with one token per line, or - for stdin. Blank lines are ignored.
    file: PathBuf,
    /// Read and check the file, say how many tokens it has, and send nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ignore lines that begin with #; without this option they are tokens too.
    #[arg(long)]
    skip_comments: bool,
    #[command(flatten)]
    pool: PoolArg,
}

/// A request body and how many tokens it carries.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    body: String,
    count: usize,
}

/// Imports the file, then says how many tokens are new.
///
/// # Errors
/// When the file cannot be used, the service refuses, or the output cannot be written.
pub async fn run(client: &Client, output: Output, args: &ImportArgs) -> Result<(), Failure> {
    let text = Text::read(&args.file, u64::MAX).map_err(|error| {
        let name = args.file.display();
        Failure::usage(format!("cannot read {name}: {error}"))
    })?;
    let tokens = parse(&text, args.skip_comments).map_err(|bad| Failure::usage(told(&bad)))?;
    let total = tokens.len();
    if args.dry_run {
        return output::print(&if output.json {
            serde_json::json!({ "tokens": total }).to_string()
        } else {
            format!("{total} tokens, all valid; nothing was sent")
        });
    }
    let mut progress = Progress::new(total, std::io::stderr().is_terminal());
    let started = Instant::now();
    let (mut done, mut new, mut existing) = (0, 0, 0);
    for chunk in chunks(&tokens) {
        match client.import(&args.pool.name, chunk.body).await {
            Ok(answer) => {
                new += answer.value.tokens.len();
                existing += answer.value.existing;
                done += chunk.count;
                progress.show(started.elapsed(), done);
            }
            Err(error) => {
                progress.clear();
                return Err(stopped(error, done, total));
            }
        }
    }
    progress.clear();
    output::print(&if output.json {
        serde_json::json!({ "new": new, "existing": existing }).to_string()
    } else {
        format!("{new} new, {existing} existing in {}", args.pool.name)
    })
}

fn stopped(error: CallError, done: usize, total: usize) -> Failure {
    let Failure { message, code } = error.into();
    let message = format!("{message}; {done} of {total} were imported, repeating is safe");
    Failure { message, code }
}

/// The tokens of a file, or every bad line with its number and why.
fn parse(text: &Text, skip_comments: bool) -> Result<Vec<TokenValue>, Vec<(usize, Invalid)>> {
    let (mut tokens, mut bad) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if line.is_blank() || (skip_comments && line.is_comment()) {
            continue;
        }
        let parsed = line
            .text()
            .map_err(|_| Invalid("a token must be UTF-8 text".to_owned()))
            .and_then(TokenValue::parse_new);
        match parsed {
            Ok(token) => tokens.push(token),
            Err(why) => bad.push((line.number, why)),
        }
    }
    if bad.is_empty() { Ok(tokens) } else { Err(bad) }
}

/// A line for each of the first bad lines, without their content: it may be a secret.
fn told(bad: &[(usize, Invalid)]) -> String {
    let mut lines: Vec<String> = bad
        .iter()
        .take(BAD_LINES_SHOWN_MAX)
        .map(|(number, why)| format!("line {number}: {why}"))
        .collect();
    if bad.len() > BAD_LINES_SHOWN_MAX {
        lines.push(format!(
            "{} more bad lines",
            bad.len() - BAD_LINES_SHOWN_MAX
        ));
    }
    lines.push("nothing was sent".to_owned());
    lines.join("\n")
}

/// Bodies of at most [`TOKENS_PER_CALL_MAX`] tokens and [`BODY_BYTES_MAX`] bytes, in order.
fn chunks(tokens: &[TokenValue]) -> impl Iterator<Item = Chunk> {
    let mut rest = tokens.iter().peekable();
    std::iter::from_fn(move || {
        rest.peek()?;
        let mut chunk = Chunk {
            body: BODY_HEAD.to_owned(),
            count: 0,
        };
        while chunk.count < TOKENS_PER_CALL_MAX {
            let Some(token) = rest.peek() else { break };
            // As JSON, which may be up to six times as long as the token.
            let text = serde_json::Value::from(token.as_str()).to_string();
            let bytes = chunk.body.len() + ",".len() + text.len() + BODY_TAIL.len();
            if chunk.count > 0 && bytes > BODY_BYTES_MAX {
                break;
            }
            if chunk.count > 0 {
                chunk.body.push(',');
            }
            chunk.body.push_str(&text);
            chunk.count += 1;
            rest.next();
        }
        chunk.body.push_str(BODY_TAIL);
        Some(chunk)
    })
}

/// How far an import got, on stderr.
struct Progress {
    total: usize,
    terminal: bool,
    shown_at: Option<Duration>,
}

impl Progress {
    fn new(total: usize, terminal: bool) -> Self {
        Self {
            total,
            terminal,
            shown_at: None,
        }
    }

    fn show(&mut self, elapsed: Duration, done: usize) {
        if let Some(text) = self.text(elapsed, done) {
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }

    /// What to write now, if anything. The last chunk needs none: the result follows.
    fn text(&mut self, elapsed: Duration, done: usize) -> Option<String> {
        let since = elapsed.saturating_sub(self.shown_at.unwrap_or_default());
        let due = match self.shown_at {
            None => elapsed >= QUIET,
            Some(_) => self.terminal || since >= LOG_EVERY,
        };
        if !due || done == self.total {
            return None;
        }
        self.shown_at = Some(elapsed);
        let percent = done * 100 / self.total;
        let line = format!("tokend: {done} of {} imported ({percent} %)", self.total);
        // On a terminal: back to the line's start and erase it.
        Some(if self.terminal {
            format!("\r\x1b[K{line}")
        } else {
            format!("{line}\n")
        })
    }

    /// Leaves a clean line for what comes next.
    fn clear(&mut self) {
        if self.terminal && self.shown_at.take().is_some() {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TOKEN_BYTES_MAX;

    fn text(bytes: &[u8]) -> Text {
        Text::of(bytes).expect("not UTF-16")
    }

    #[test]
    fn lines_that_begin_with_a_number_sign_are_tokens_unless_comments_are_skipped() {
        let text = text(b"\xef\xbb\xbf# seats\r\n\r\nseat-1\r\n# more\nseat-2 # 2");
        let tokens = |skip_comments| {
            let tokens = parse(&text, skip_comments).expect("valid");
            tokens.len()
        };
        assert_eq!((tokens(true), tokens(false)), (2, 4));
        let indented = self::text(b"  # seats\nseat-1");
        assert_eq!(parse(&indented, true).map(|tokens| tokens.len()), Ok(1));
        assert!(parse(&indented, false).is_err());
    }

    #[test]
    fn every_bad_line_is_named_by_its_number_and_never_quoted() {
        let long = "s".repeat(TOKEN_BYTES_MAX + 1);
        let mut bytes = format!("good\n{long}\n\nbad\ttab\n").into_bytes();
        bytes.extend(b"\xff\xfe\n");
        let bad = parse(&text(&bytes), false).expect_err("three bad lines");
        let lines: Vec<usize> = bad.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4, 5]);
        assert!(!told(&bad).contains("tab"));
        assert!(told(&bad).ends_with("nothing was sent"));
    }

    #[test]
    fn only_the_first_bad_lines_are_listed() {
        let bad = parse(&text("\u{1}\n".repeat(50).as_bytes()), false).expect_err("all bad");
        assert_eq!(told(&bad).lines().count(), BAD_LINES_SHOWN_MAX + 2);
        assert!(told(&bad).contains("40 more bad lines"));
    }

    /// Each chunk within both limits, and together exactly the tokens, in order.
    fn assert_chunks(tokens: &[TokenValue], expected: &[usize]) {
        let made: Vec<Chunk> = chunks(tokens).collect();
        let counts: Vec<usize> = made.iter().map(|chunk| chunk.count).collect();
        assert_eq!(counts, expected);
        let mut all = Vec::new();
        for chunk in made {
            assert!(chunk.body.len() <= BODY_BYTES_MAX);
            let body: serde_json::Value = serde_json::from_str(&chunk.body).expect("JSON");
            for token in body["tokens"].as_array().expect("a list") {
                all.push(token.as_str().expect("a text").to_owned());
            }
        }
        assert!(all.iter().eq(tokens.iter().map(TokenValue::as_str)));
    }

    #[test]
    fn chunks_keep_to_the_count() {
        let tokens: Vec<TokenValue> = (0..20_001)
            .map(|n| TokenValue::parse(&format!("t{n}")).unwrap())
            .collect();
        assert_chunks(&tokens, &[10_000, 10_000, 1]);
        assert_chunks(&[], &[]);
    }

    #[test]
    fn chunks_keep_to_the_bytes_of_their_json() {
        // 256 quotes are 512 bytes as JSON, 515 with the quotes around and the comma.
        let token = TokenValue::parse(&"\"".repeat(256)).unwrap();
        let per_chunk = (BODY_BYTES_MAX - BODY_HEAD.len() - BODY_TAIL.len()) / 515;
        assert_chunks(&vec![token; per_chunk + 1], &[per_chunk, 1]);
    }

    #[test]
    fn progress_speaks_only_after_a_second_and_then_by_the_kind_of_stderr() {
        let second = Duration::from_secs(1);
        let mut log = Progress::new(100, false);
        assert_eq!(log.text(second / 2, 10), None);
        let line = log.text(second, 20).expect("due");
        assert_eq!(line, "tokend: 20 of 100 imported (20 %)\n");
        assert_eq!(log.text(second * 3, 30), None);
        assert!(log.text(second * 6, 40).is_some());
        assert_eq!(log.text(second * 20, 100), None, "the result follows");

        let mut terminal = Progress::new(100, true);
        assert!(terminal.text(second, 20).is_some());
        let rewritten = terminal.text(second * 2, 30).expect("due");
        assert!(rewritten.starts_with("\r\x1b[K") && !rewritten.ends_with('\n'));
    }
}
