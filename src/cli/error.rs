//! What can go wrong, and the exit code of each.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// The service refused: any 4xx without a code of its own below.
pub const EXIT_REFUSED: u8 = 1;
/// Bad arguments or an unusable input file; the same code that clap exits with.
pub const EXIT_USAGE: u8 = 2;
/// Unreachable or 5xx; `EX_UNAVAILABLE` of sysexits.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// No token available or not free; `EX_TEMPFAIL` of sysexits.
pub const EXIT_TRY_LATER: u8 = 75;
/// The lease is lost: somebody else may hold the token now.
pub const EXIT_LEASE_LOST: u8 = 76;

/// The slugs that the command line treats in a way of their own.
pub mod slug {
    pub const NO_TOKEN_AVAILABLE: &str = "no-token-available";
    pub const NOT_FREE: &str = "not-free";
    pub const NOT_HELD: &str = "not-held";
    pub const LEASE_LOST: &str = "lease-lost";
    pub const TOKEN_NOT_FOUND: &str = "token-not-found";
    pub const POOL_NOT_FOUND: &str = "pool-not-found";
    pub const OUTCOME_UNKNOWN: &str = "outcome-unknown";
    pub const RATE_LIMITED: &str = "rate-limited";
}

/// An `application/problem+json` body (RFC 9457) as far as we use it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// `/problems/<slug>`.
    #[serde(rename = "type")]
    pub kind: String,
    pub status: u16,
    pub title: String,
    pub detail: String,
    pub request_id: Option<String>,
    /// Field errors, each an object of short texts.
    pub errors: Vec<Value>,
    /// From the `Retry-After` header.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// The last part of `type`, which names the problem.
    #[must_use]
    pub fn slug(&self) -> &str {
        self.kind.rsplit('/').next().unwrap_or_default()
    }
}

/// Why a call to the service did not succeed.
#[derive(Debug, Clone)]
pub enum CallError {
    /// The service answered with a problem.
    Refused(Problem),
    /// No connection was made, so nothing was sent.
    NotSent(String),
    /// It was sent and no whole answer came: it may or may not have run.
    NoAnswer(String),
    /// An answer that the contract does not know; perhaps a proxy's.
    Strange { status: u16, why: String },
}

impl CallError {
    /// The problem's name, when there is one.
    #[must_use]
    pub fn slug(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(problem.slug()),
            _ => None,
        }
    }

    /// Whether the call may have run although it failed: only then does a retry need the same
    /// `Idempotency-Key`.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Refused(problem) => {
                problem.slug() == slug::OUTCOME_UNKNOWN || problem.status == 500
            }
            Self::NotSent(_) => false,
            Self::NoAnswer(_) => true,
            // A proxy's 5xx, or an answer of success that we cannot read.
            Self::Strange { status, .. } => *status >= 500 || *status < 300,
        }
    }

    /// How long the service asks us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(problem) => problem.retry_after,
            _ => None,
        }
    }

    /// Whether this answer to a keep-alive or unblock means that the caller's lease is lost. Everything else may pass.
    #[must_use]
    pub fn says_lost(&self) -> bool {
        matches!(
            self.slug(),
            Some(slug::LEASE_LOST | slug::NOT_HELD | slug::TOKEN_NOT_FOUND | slug::POOL_NOT_FOUND)
        )
    }

    /// The exit code, by the table in `--help`.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Strange { status, .. } if (400..500).contains(status) => EXIT_REFUSED,
            Self::NotSent(_) | Self::NoAnswer(_) | Self::Strange { .. } => EXIT_UNAVAILABLE,
            Self::Refused(problem) => match problem.slug() {
                slug::NO_TOKEN_AVAILABLE | slug::NOT_FREE => EXIT_TRY_LATER,
                slug::LEASE_LOST => EXIT_LEASE_LOST,
                _ if problem.status >= 500 => EXIT_UNAVAILABLE,
                _ => EXIT_REFUSED,
            },
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "cannot reach the service: {why}"),
            Self::NoAnswer(why) => {
                write!(f, "no answer ({why}); it may or may not have been done")
            }
            Self::Strange { status, why } => write!(f, "HTTP {status}: {why}; is --url right?"),
            Self::Refused(problem) => f.write_str(&describe(problem)),
        }
    }
}

impl std::error::Error for CallError {}

/// One line: detail, field errors, then in brackets what a bug report or a script needs.
fn describe(problem: &Problem) -> String {
    let mut line = if problem.detail.is_empty() {
        problem.title.clone()
    } else {
        problem.detail.clone()
    };
    for error in &problem.errors {
        let text = |names: &[&str]| {
            let found = names.iter().find_map(|name| error.get(*name)?.as_str());
            found.map(str::to_owned)
        };
        let field = text(&["field", "pointer", "name"]);
        let why = text(&["detail", "reason", "message"]);
        if let (Some(field), Some(why)) = (field, why) {
            let _ = write!(line, "; {field}: {why}");
        }
    }
    let _ = write!(line, " ({}", problem.slug());
    if let Some(wait) = problem.retry_after {
        let _ = write!(line, ", try again in {}s", wait.as_secs());
    }
    if let Some(id) = &problem.request_id {
        let _ = write!(line, ", request {id}");
    }
    line.push(')');
    line
}

/// What ends a command: a message for stderr and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    /// The user's input cannot be used.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: EXIT_USAGE,
        }
    }

    /// Something on this machine failed.
    #[must_use]
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Self {
            message: format!("{what}: {error}"),
            code: EXIT_REFUSED,
        }
    }

    /// Says the message on stderr and turns into the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        for line in self.message.lines() {
            super::output::say(line);
        }
        ExitCode::from(self.code)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self {
            code: error.exit_code(),
            message: super::output::one_line(&error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(slug: &str, status: u16) -> CallError {
        CallError::Refused(Problem {
            kind: format!("/problems/{slug}"),
            status,
            detail: "words".to_owned(),
            request_id: Some("r-1".to_owned()),
            ..Problem::default()
        })
    }

    #[test]
    fn every_problem_has_the_exit_code_of_the_table() {
        for (slug, status, code) in [
            ("invalid-request", 400, 1),
            ("unauthorized", 401, 1),
            ("pool-not-found", 404, 1),
            ("token-not-found", 404, 1),
            ("not-held", 409, 1),
            ("pool-full", 409, 1),
            ("idempotency-mismatch", 422, 1),
            ("rate-limited", 429, 1),
            ("no-token-available", 404, 75),
            ("not-free", 409, 75),
            ("lease-lost", 409, 76),
            ("store-unavailable", 503, 69),
            ("outcome-unknown", 503, 69),
            ("internal", 500, 69),
        ] {
            assert_eq!(refused(slug, status).exit_code(), code, "{slug}");
        }
        assert_eq!(CallError::NotSent(String::new()).exit_code(), 69);
        assert_eq!(CallError::NoAnswer(String::new()).exit_code(), 69);
    }

    #[test]
    fn only_calls_that_may_have_run_are_said_to() {
        assert!(refused("outcome-unknown", 503).may_have_run());
        assert!(!refused("store-unavailable", 503).may_have_run());
        assert!(!refused("not-free", 409).may_have_run());
        assert!(CallError::NoAnswer(String::new()).may_have_run());
        assert!(!CallError::NotSent(String::new()).may_have_run());
    }

    #[test]
    fn a_problem_is_told_in_one_line_with_its_request_id() {
        let problem = Problem {
            kind: "/problems/invalid-request".to_owned(),
            status: 400,
            detail: "The request\nis invalid.".to_owned(),
            request_id: Some("r-1".to_owned()),
            errors: vec![serde_json::json!({"field": "count", "detail": "must be 1 to 10000"})],
            ..Problem::default()
        };
        let failure = Failure::from(CallError::Refused(problem));
        assert_eq!(
            failure.message,
            "The request is invalid.; count: must be 1 to 10000 (invalid-request, request r-1)"
        );
    }
}
