//! Logs: what is written, in which form, and where to (stderr).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Dependencies that say too much about their own doings, and what they are held to unless a directive names
/// them. What fred warns of, the store tells in its own words; what actix_http calls an error is any
/// stranger's malformed request.
const NOISY: [(&str, &str); 8] = [
    ("actix_http", "off"),
    ("actix_server", "warn"),
    ("actix_web", "warn"),
    ("fred", "error"),
    ("hyper", "warn"),
    ("mio", "warn"),
    ("reqwest", "warn"),
    ("rustls", "warn"),
];

/// Which events are logged. Made by `parse`, so it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self(tamed("info", ""))
    }
}

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `Pretty` on a terminal, else `Json`.
    Auto,
    /// One short line an event, for people.
    Pretty,
    /// One JSON object an event, for log collectors.
    Json,
}

impl Format {
    /// # Errors
    /// When the text is none of `auto`, `pretty`, `json` in any case.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("must be auto, pretty or json".to_owned()),
        }
    }
}

/// The level that a word means, in any case; Python's names too, as many a `.env` has them.
fn level(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" | "notice" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" | "fatal" => "error",
        "off" | "none" => "off",
        _ => return None,
    })
}

/// The directives with the noisy dependencies held back, unless the base level is off anyway or a
/// directive names them.
fn tamed(base: &str, directives: &str) -> String {
    let mut all = base.to_owned();
    for (target, level) in NOISY {
        let stricter = base == "off" || (base == "error" && level == "warn");
        if !stricter && !directives.contains(target) {
            all.push_str(&format!(",{target}={level}"));
        }
    }
    if !directives.is_empty() {
        all.push(',');
        all.push_str(directives);
    }
    all
}

impl LogFilter {
    /// A level (`INFO`, `warning`), or `tracing` directives (`info,tokend::store=debug`).
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut base = "info";
        let mut directives = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            // A bare word that is no level would be taken for the name of a module to log in full: a
            // misspelt level must not do that.
            match (part.split_once('='), level(part)) {
                (Some(_), _) => directives.push(part),
                (None, Some(level)) => base = level,
                (None, None) => return Err(expected()),
            }
        }
        let filter = tamed(base, &directives.join(","));
        EnvFilter::builder()
            .parse(&filter)
            .map_err(|_| expected())?;
        Ok(Self(filter))
    }
}

fn expected() -> String {
    "must be TRACE, DEBUG, INFO, WARNING, ERROR or OFF, or directives such as info,tokend::store=debug"
        .to_owned()
}

/// Starts logging to stderr, for the rest of the process's life. A second call does nothing.
pub fn init(filter: &LogFilter, format: Format) {
    let terminal = std::io::stderr().is_terminal();
    let filter = EnvFilter::builder().parse_lossy(&filter.0);
    let to_stderr = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let pretty = match format {
        Format::Auto => terminal,
        Format::Pretty => true,
        Format::Json => false,
    };
    // An error says that logging is on already, which is what is wanted.
    let _ = if pretty {
        // https://no-color.org
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        to_stderr.compact().with_ansi(color).try_init()
    } else {
        to_stderr
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init()
    };
    log_panics();
}

/// A panic becomes one event, so that it is one line for a log collector too.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(place, %backtrace, "panicked: {what}");
        } else {
            tracing::error!(place, "panicked: {what}");
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> String {
        LogFilter::parse(text).expect(text).0
    }

    #[test]
    fn a_level_may_be_written_in_any_case_and_in_pythons_words() {
        assert_eq!(LogFilter::parse("INFO"), Ok(LogFilter::default()));
        assert!(filter("WARNING").starts_with("warn,"));
        assert!(filter("Critical").starts_with("error,"));
        assert_eq!(filter("none"), "off");
        assert!(filter("Debug").starts_with("debug,"));
    }

    #[test]
    fn noisy_dependencies_are_held_back_unless_named() {
        assert!(filter("trace").contains("fred=error"));
        let asked = filter("debug,fred=trace");
        assert!(
            asked.contains("fred=trace") && !asked.contains("fred=error"),
            "{asked}"
        );
        // Any stranger can send what is not HTTP.
        assert!(asked.contains("actix_http=off"));
        assert!(filter("error").contains("actix_http=off"));
        assert!(!filter("error").contains("hyper"));
    }

    #[test]
    fn directives_keep_the_usual_base_level() {
        assert!(filter("tokend::store=debug").starts_with("info,"));
    }

    #[test]
    fn a_misspelt_level_is_refused_instead_of_taken_for_a_module() {
        for text in ["verbose", "inof", "info,debgu", "tokend=loud", "5"] {
            assert!(LogFilter::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_format_is_one_of_three() {
        assert_eq!(Format::parse("JSON"), Ok(Format::Json));
        assert!(Format::parse("xml").is_err());
    }
}
