//! One call of a script on one primary, and what became of it.

use std::time::Duration;

use fred::error::{Error, ErrorKind};
use fred::interfaces::LuaInterface;
use fred::types::Value;

use super::node::Node;
use super::{CALL_MS_MAX, in_words};
use crate::store::script::Script;
use crate::token::StoreError;

/// The client's own limit comes first; this one holds even if its task is stuck.
const CALL_GRACE_MS: u64 = 200;
/// A script that a restarted or flushed Redis does not know is loaded again, at most so often a call.
const LOADS_MAX: usize = 3;

/// Redis error codes that mean: refused before anything ran.
const REFUSALS: &[&str] = &[
    "ASK",
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOPERM",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "WRONGPASS",
];

/// Those that another primary may not say, or this one in a moment.
const PASSING: &[&str] = &[
    "ASK",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MOVED",
    "READONLY",
    "TRYAGAIN",
];

/// Calls a script there, usable or not. At most [`CALL_MS_MAX`].
pub(in crate::store) async fn call_on(
    node: &Node,
    script: &Script,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<(Value, bool), Error> {
    let limit = Duration::from_millis(CALL_MS_MAX + CALL_GRACE_MS);
    let evaluated = tokio::time::timeout(limit, evaluate(node, script, keys, args)).await;
    let result = evaluated.unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer")));
    if let Err(error) = &result
        && matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Routing)
    {
        node.note_away();
    }
    result
}

async fn evaluate(
    node: &Node,
    script: &Script,
    keys: Vec<String>,
    args: Vec<Value>,
) -> Result<(Value, bool), Error> {
    let commits = node.commits().filter(|_| script.is_told());
    let mut loads = 0;
    loop {
        let (hash, keys, args) = (script.hash.as_str(), keys.clone(), args.clone());
        let answer = match commits {
            Some(commits) => commits.evaluate(hash, keys, args).await,
            None => {
                let value = node.client().evalsha(hash, keys, args).await;
                value.map(|value| (value, true))
            }
        };
        match answer {
            Err(error) if error.details().starts_with("NOSCRIPT") && loads < LOADS_MAX => {
                loads += 1;
                load(node, script).await?;
            }
            other => return other,
        }
    }
}

pub(in crate::store) async fn load(node: &Node, script: &Script) -> Result<(), Error> {
    let _: String = node.client().script_load(script.source.as_str()).await?;
    Ok(())
}

/// The word that an error of Redis begins with.
pub(in crate::store) fn code(error: &Error) -> &str {
    let details = error.details();
    details.split_whitespace().next().unwrap_or_default()
}

/// Whether it did not run and may if sent again.
pub(in crate::store) fn is_passing(error: &Error) -> bool {
    PASSING.contains(&code(error))
}

/// What became of a call that failed. In doubt it may have run.
pub(in crate::store) fn classify(script: &Script, error: &Error) -> StoreError {
    let refused = REFUSALS.contains(&code(error))
        || code(error) == "NOSCRIPT"
        || error
            .details()
            .starts_with("Too many failed write attempts")
        || matches!(
            error.kind(),
            ErrorKind::Backpressure | ErrorKind::Routing | ErrorKind::Auth
        );
    let told = format!("{}: {}", script.name, in_words(error));
    if refused || !script.writes {
        StoreError::Unavailable(told)
    } else if matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Parse) {
        StoreError::Protocol(told)
    } else {
        StoreError::OutcomeUnknown(told)
    }
}
