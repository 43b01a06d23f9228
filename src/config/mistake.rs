//! What can be wrong with the settings, and the reader that collects it.
//!
//! No message repeats a rejected value: any variable may hold a secret or a URL, by design or by a slip. It has the name,
//! the place and the rule.

use std::fmt;
use std::path::Path;

use crate::text::Text;

/// Most bytes of a file that holds the value of a variable.
const VALUE_BYTES_MAX: u64 = 64 * 1_024;
/// Free texts, which may begin and end with a quote.
const TEXTS: [&str; 2] = ["APP_TITLE", "APP_DESCRIPTION"];

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable, or the place in `.env`.
    pub variable: String,
    /// What it would accept, as a sentence's end: "must be …".
    pub expected: String,
}

impl Mistake {
    pub(super) fn new(variable: &str, expected: String) -> Self {
        Self {
            variable: variable.to_owned(),
            expected,
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.variable, self.expected)
    }
}

/// Everything wrong with the configuration, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Mistake>);

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration has mistakes:")?;
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Turns texts into values and collects what is wrong with them.
#[derive(Default)]
pub(super) struct Reader {
    pub mistakes: Vec<Mistake>,
}

impl Reader {
    /// The value of a variable, or its default if none is given.
    pub fn take<T>(
        &mut self,
        variable: &str,
        given: Option<String>,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> T {
        let given = given.unwrap_or_default();
        let given = given.trim();
        if given.is_empty() {
            return default;
        }
        let parsed = match quote_around(given) {
            Some(quote) if !TEXTS.contains(&variable) => Err(format!(
                "must not begin and end with {quote}: the quotes are a part of the value, as `docker run --env-file` \
                 leaves them; remove them"
            )),
            _ => parse(given),
        };
        parsed.unwrap_or_else(|expected| {
            self.mistakes.push(Mistake::new(variable, expected));
            default
        })
    }

    /// As `take`, for a value without a default.
    pub fn secret<T>(
        &mut self,
        (variable, given): (String, Option<String>),
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.take(&variable, given, None, |text| parse(text).map(Some))
    }

    /// The value of a variable, or the content of the file that `NAME_FILE` names, with the name of the variable that
    /// gave it. An empty variable is not given.
    pub fn or_file(
        &mut self,
        variable: &str,
        value: &Option<String>,
        file: &Option<String>,
    ) -> (String, Option<String>) {
        let by_file = format!("{variable}_FILE");
        let is_given = |text: &&String| !text.trim().is_empty();
        let value = value.as_ref().filter(is_given);
        let Some(path) = file.as_ref().filter(is_given) else {
            return (variable.to_owned(), value.cloned());
        };
        if value.is_some() {
            let why = "are both set: remove one of them";
            let both = format!("{variable} and {by_file}");
            self.mistakes.push(Mistake::new(&both, why.to_owned()));
            return (by_file, None);
        }
        let read = |path: &str| {
            let text = Text::read_file(Path::new(path), VALUE_BYTES_MAX).and_then(Text::value);
            text.map(Some).map_err(|error| {
                format!("must be the path of a text file with the value of {variable}: {error}")
            })
        };
        let value = self.take(&by_file, Some(path.clone()), None, read);
        (format!("{by_file} (its content)"), value)
    }
}

/// The quote that a value begins and ends with.
fn quote_around(value: &str) -> Option<char> {
    let quote = value.chars().next().filter(|c| ['"', '\''].contains(c))?;
    (value.len() > 1 && value.ends_with(quote)).then_some(quote)
}
