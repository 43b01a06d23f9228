//! Getting a lease: one `Idempotency-Key` over all tries, so that a try whose answer went missing
//! is found by the next instead of holding a second token.

use std::time::Duration;

use rustix::process::Signal;

use super::clock::Moment;
use super::process::SignalStream;
use super::timing::{Step, Timing};
use crate::cli::client::{AssignRequest, Client, Grant};
use crate::cli::duration;
use crate::cli::error::{CallError, Failure, slug};
use crate::cli::output;
use crate::token::{IdempotencyKey, PoolName, WAIT_MAX};

/// Tries after an unknown outcome where `--wait-for` sets no limit: the service remembers the key,
/// so a second try nearly always settles it.
const UNKNOWN_TRIES_MAX: u32 = 3;
/// Before trying again where the service names no time.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a token that is not free. The service's Retry-After tells when the next deadline falls;
/// a holder may let go long before.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Before asking again after an unknown outcome: the grant's time is running.
const PAUSE_UNKNOWN: Duration = Duration::from_millis(250);
/// At most this much more, at random: many who wait for one pool should not all come at once.
const JITTER_MS_MAX: u64 = 250;
/// After a signal, asking for a grant that may exist takes at most this long, and so does giving it
/// back: enough for a slow network. Where the service answers, both take two round trips together. A
/// second signal ends them.
pub const PARTING_MAX: Duration = Duration::from_secs(2);
/// The request after a signal waits this long. A request that waits leaves the line when its time is
/// over; one that does not wait would leave the place in line to be offered a token for 2 s more.
const PARTING_WAIT: Duration = Duration::from_millis(1);

/// A grant, and its timing from the moment before it was asked for.
pub struct Acquired {
    pub grant: Grant,
    pub timing: Timing,
}

impl Acquired {
    /// What the lease needs now.
    fn step(&self) -> Step {
        self.timing.step(Moment::now(), false)
    }
}

/// How asking for a lease ended, if not in an error.
pub enum Outcome {
    Granted(Acquired),
    /// A signal came. The grant, if there is one, must be given back.
    Interrupted(Signal, Option<Acquired>),
}

/// Leases a token, trying for `wait_for` if there is none.
pub async fn acquire(
    client: &Client,
    pool: &PoolName,
    request: &AssignRequest,
    wait_for: Option<Duration>,
    signals: &mut SignalStream,
) -> Result<Outcome, Failure> {
    let started = Moment::now();
    let mut key = new_key()?;
    let mut tries = 0;
    loop {
        let left = |now: Moment| Some(wait_for?.saturating_sub(now.since(started)));
        let request = waiting(request, left(Moment::now()));
        let outcome = tokio::select! {
            outcome = attempt(client, pool, &request, &key) => outcome,
            signal = signals.recv() => {
                let granted = find(client, pool, &request, &key, signals).await;
                return Ok(Outcome::Interrupted(signal, granted));
            }
        };
        let error = match outcome {
            Ok(acquired) => return Ok(Outcome::Granted(acquired)),
            Err(error) => error,
        };
        tries += 1;
        let left = left(Moment::now());
        let Some(pause) = pause_after(&error, tries, left) else {
            return Err(error.into());
        };
        tokio::select! {
            () = tokio::time::sleep(pause + jitter(left)) => {}
            signal = signals.recv() => {
                let granted = match error.may_have_run() {
                    true => find(client, pool, &request, &key, signals).await,
                    false => None,
                };
                return Ok(Outcome::Interrupted(signal, granted));
            }
        }
        if error.slug() == Some(slug::LEASE_LOST) {
            // The key found a grant that ended before we heard of it; it is of no more use.
            key = new_key()?;
        }
    }
}

/// The request with as much waiting in line as it may do at a time. A token that is named can't be waited for: that
/// one is asked for again and again.
fn waiting(request: &AssignRequest, left: Option<Duration>) -> AssignRequest {
    let left = left.filter(|left| !left.is_zero() && request.token.is_none());
    AssignRequest {
        wait_seconds: left.map(|left| duration::seconds(left.min(WAIT_MAX))),
        ..request.clone()
    }
}

/// One try. A request that waited was granted at an unknown moment between request and answer.
/// Counted from before the request, its lease may seem to be over when it begins. So ask again
/// without waiting: the same key finds the same grant, and the answer says how much of it is left.
/// Counted from before *that* request, our deadline is never later than the service's. A keep-alive
/// would serve too, but it moves the deadline, and its lost answer would need a retry of its own.
async fn attempt(
    client: &Client,
    pool: &PoolName,
    request: &AssignRequest,
    key: &IdempotencyKey,
) -> Result<Acquired, CallError> {
    let first = ask(client, pool, request, key).await?;
    if matches!(first.step(), Step::Wait(_)) {
        return Ok(first);
    }
    match ask(client, pool, &without_waiting(request), key).await {
        // There is time left to renew it, which is tried next.
        Err(_) if first.step() == Step::Renew => Ok(first),
        again => again,
    }
}

/// One request; the lease's time starts, for us, before it is sent.
async fn ask(
    client: &Client,
    pool: &PoolName,
    request: &AssignRequest,
    key: &IdempotencyKey,
) -> Result<Acquired, CallError> {
    let sent = Moment::now();
    let grant = client.assign(pool, request, Some(key)).await?.value;
    let timing = Timing::granted(sent, duration::from_seconds(grant.expires_in));
    Ok(Acquired { grant, timing })
}

/// The grant of a request that a signal cut off, if it has one: a grant made under a key outlives
/// its request. The same key stands in the same place in line, and leaves it.
async fn find(
    client: &Client,
    pool: &PoolName,
    request: &AssignRequest,
    key: &IdempotencyKey,
    signals: &mut SignalStream,
) -> Option<Acquired> {
    let request = AssignRequest {
        wait_seconds: request
            .wait_seconds
            .as_ref()
            .map(|_| duration::seconds(PARTING_WAIT)),
        ..request.clone()
    };
    let asked = async {
        loop {
            match ask(client, pool, &request, key).await {
                Ok(acquired) => return Some(acquired),
                Err(CallError::Refused(problem)) if problem.status < 500 => return None,
                Err(_) => tokio::time::sleep(PAUSE_UNKNOWN).await,
            }
        }
    };
    tokio::select! {
        found = asked => return found,
        () = tokio::time::sleep(PARTING_MAX) => {}
        _ = signals.recv() => {}
    }
    output::say(
        "the service did not say whether it had granted a token; such a lease ends by itself at its deadline",
    );
    None
}

fn without_waiting(request: &AssignRequest) -> AssignRequest {
    AssignRequest {
        wait_seconds: None,
        ..request.clone()
    }
}

/// How long to wait before the next try, or `None` to give up. `left` is what remains of
/// `--wait-for`, if that was given: the last try comes when it is over.
fn pause_after(error: &CallError, tries: u32, left: Option<Duration>) -> Option<Duration> {
    let in_time = |pause: Duration| {
        let left = left.filter(|left| !left.is_zero())?;
        Some(pause.min(left))
    };
    if error.may_have_run() || error.slug() == Some(slug::LEASE_LOST) {
        return match left {
            None if tries < UNKNOWN_TRIES_MAX => Some(PAUSE_UNKNOWN),
            _ => in_time(error.retry_after().unwrap_or(PAUSE_UNKNOWN)),
        };
    }
    let pause = error.retry_after().unwrap_or(PAUSE);
    match error {
        CallError::NotSent(_) => in_time(pause),
        CallError::Refused(problem) => match problem.slug() {
            slug::NO_TOKEN_AVAILABLE | slug::NOT_FREE => in_time(pause.min(PAUSE_MAX)),
            slug::RATE_LIMITED => in_time(pause),
            _ if problem.status >= 500 => in_time(pause),
            _ => None,
        },
        CallError::NoAnswer(_) | CallError::Strange { .. } => None,
    }
}

/// Nothing where no waiting was asked for, nor beyond its end.
fn jitter(left: Option<Duration>) -> Duration {
    let spread = Duration::from_millis(rand::random_range(0..=JITTER_MS_MAX));
    left.map_or(Duration::ZERO, |left| spread.min(left))
}

fn new_key() -> Result<IdempotencyKey, Failure> {
    IdempotencyKey::parse(&uuid::Uuid::new_v4().to_string())
        .map_err(|why| Failure::usage(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::Problem;

    fn refused(slug: &str, status: u16, retry_after: Option<u64>) -> CallError {
        CallError::Refused(Problem {
            kind: format!("/problems/{slug}"),
            status,
            retry_after: retry_after.map(Duration::from_secs),
            ..Problem::default()
        })
    }

    const LEFT: Option<Duration> = Some(Duration::from_secs(30));

    #[test]
    fn without_wait_for_only_an_unknown_outcome_is_retried() {
        let unknown = refused("outcome-unknown", 503, None);
        assert!(pause_after(&unknown, 1, None).is_some());
        assert!(pause_after(&unknown, UNKNOWN_TRIES_MAX, None).is_none());
        let timeout = CallError::NoAnswer("timed out".to_owned());
        assert!(pause_after(&timeout, 1, None).is_some());
        assert!(pause_after(&refused("no-token-available", 404, Some(1)), 1, None).is_none());
        assert!(pause_after(&CallError::NotSent(String::new()), 1, None).is_none());
    }

    #[test]
    fn waiting_honours_retry_after_and_tries_a_last_time_at_the_end() {
        let empty = |seconds| refused("no-token-available", 404, seconds);
        let limited = |seconds| refused("rate-limited", 429, seconds);
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(pause_after(&empty(Some(1)), 1, LEFT), seconds(1));
        assert_eq!(pause_after(&empty(Some(60)), 1, LEFT), Some(PAUSE_MAX));
        assert_eq!(pause_after(&limited(Some(7)), 1, LEFT), seconds(7));
        assert_eq!(pause_after(&limited(Some(60)), 1, LEFT), LEFT);
        assert_eq!(pause_after(&empty(None), 1, LEFT), Some(PAUSE));
        assert_eq!(pause_after(&empty(Some(7)), 9, Some(Duration::ZERO)), None);
    }

    #[test]
    fn what_may_pass_is_waited_for_and_what_may_not_is_not() {
        for (slug, status, waits) in [
            ("not-free", 409, true),
            ("rate-limited", 429, true),
            ("store-unavailable", 503, true),
            ("pool-not-found", 404, false),
            ("token-not-found", 404, false),
            ("invalid-request", 400, false),
            ("unauthorized", 401, false),
        ] {
            let pause = pause_after(&refused(slug, status, None), 1, LEFT);
            assert_eq!(pause.is_some(), waits, "{slug}");
        }
        assert!(pause_after(&CallError::NotSent(String::new()), 1, LEFT).is_some());
    }
}
