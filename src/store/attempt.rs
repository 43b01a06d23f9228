//! `attempt`: count failed logins. See `lua/attempt.lua`.

use super::Inner;
use super::shard::number;
use crate::auth::user::{ATTEMPTS_MAX, ATTEMPTS_WINDOW_MS, AttemptKey, Throttle};
use crate::token::StoreError;

/// What became of a login, or that one is about to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Look,
    Fail,
    Pass,
}

pub(super) async fn attempt(
    inner: &Inner,
    attempt: Attempt,
    who: &AttemptKey,
) -> Result<Throttle, StoreError> {
    let verb = match attempt {
        Attempt::Look => "look",
        Attempt::Fail => "fail",
        Attempt::Pass => "pass",
    };
    let args = vec![
        verb.into(),
        who.id().into(),
        number(ATTEMPTS_MAX),
        number(ATTEMPTS_WINDOW_MS),
    ];
    let partition = who.partition(inner.keys.partitions.len());
    let script = &inner.scripts.attempt;
    let answer = inner.call_partition(script, partition, args).await?;
    let mut reply = answer.only()?;
    let (remaining, retry_after_ms) = match reply.tag.as_str() {
        "within" => (ATTEMPTS_MAX.saturating_sub(reply.int()?), None),
        "over" => (0, Some(reply.int()?)),
        _ => return reply.unknown(),
    };
    Ok(Throttle {
        limit: ATTEMPTS_MAX,
        remaining,
        retry_after_ms,
    })
}
