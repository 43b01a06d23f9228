//! `attempt`: count failed logins. See `lua/attempt.lua`.

use super::Inner;
use super::shard::number;
use crate::auth::attempts::{
    Admission, ENTRIES_MAX, KNOWN_MAX, KNOWN_MS, Limit, LoginAttempt, RateLimited, WINDOW_MS,
};
use crate::token::StoreError;

/// What became of a login, or that one is about to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Look,
    Fail,
    Pass,
}

/// Whose failures are counted: each has a partition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// The user's, from this address and from all that are not known.
    User,
    /// The address's, over all users.
    Address,
}

pub(super) async fn attempt(
    inner: &Inner,
    verb: Verb,
    count: Count,
    login: &LoginAttempt,
) -> Result<Admission, StoreError> {
    let verb = match verb {
        Verb::Look => "look",
        Verb::Fail => "fail",
        Verb::Pass => "pass",
    };
    let (shared, shared_limit, pair) = match count {
        Count::User => (&login.user, Limit::User, login.pair.to_string()),
        Count::Address => (&login.address, Limit::Address, String::new()),
    };
    let args = vec![
        verb.into(),
        number(WINDOW_MS),
        number(ENTRIES_MAX),
        shared.to_string().into(),
        number(shared_limit.max()),
        pair.into(),
        number(Limit::Pair.max()),
        login.address.to_string().into(),
        number(KNOWN_MAX),
        number(KNOWN_MS),
    ];
    let partition = shared.partition(inner.keys.partitions.len());
    let script = &inner.scripts.attempt;
    let answer = inner.call_partition(script, partition, args).await?;
    let mut reply = answer.only()?;
    let refused = match reply.tag.as_str() {
        "within" => None,
        "over" => Some(RateLimited {
            limit: if reply.text()? == "pair" {
                Limit::Pair
            } else {
                shared_limit
            },
            retry_after_ms: reply.int()?,
        }),
        _ => return reply.unknown(),
    };
    let known = reply.int()? == 1;
    Ok(Admission { known, refused })
}
