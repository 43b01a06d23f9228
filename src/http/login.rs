//! Logins: who may try, whether the password is right, and the session that begins.

use std::net::IpAddr;

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web;

use super::client::ClientAddress;
use super::fields::{Fields, text};
use super::input::{JsonBody, NoQuery};
use super::problem::{Problem, Slug};
use super::sessions::{Answer, begin, challenge, sessions};
use crate::auth::attempts::{Admission, Limit, LoginAttempt, Site};
use crate::auth::password::{Busy, Verdict};
use crate::auth::user::{User, UserName};
use crate::flows::Flows;
use crate::metrics::Metrics;
use crate::store::Store;

/// When to come back where too many logins are waiting: one takes less than a second.
const OVERLOADED_RETRY_MS: u64 = 1_000;
/// What metrics and the log call the bound of logins that wait for a verification.
const QUEUE: &str = "queue";

/// What a login brings. Debug is not derived, so that it is never printed.
struct Credentials {
    username: String,
    password: String,
}

/// `POST /auth/login`: begins a session.
///
/// # Errors
/// `invalid-request`, `invalid-credentials`, `rate-limited`, `overloaded`, `flow-full`, `flow-off`, and the store's.
pub async fn log_in(
    _: NoQuery,
    address: ClientAddress,
    body: JsonBody,
    store: web::Data<Store>,
    flows: web::Data<Flows>,
    metrics: web::Data<Metrics>,
) -> Answer {
    let sessions = sessions(&flows)?;
    let Credentials { username, password } = credentials(body.0)?;
    let site = Site::from(address.0);
    let form = UserName::form(&username);
    let attempt = LoginAttempt::new(&form, site);
    let caller = Caller {
        user: sessions.refresh.pseudonym(&form),
        address: address.0,
        metrics: &metrics,
    };
    let admission = store.login_attempts(&attempt).await?;
    caller.within_limit(admission)?;
    // A name that nobody can have has no spelling, and is an unknown user: the same work, the same answer.
    let names = UserName::spellings(&username);
    let user = Box::pin(store.find_spelling(&names)).await?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let verdict = sessions.passwords.verify(site, password, hash).await;
    let verdict = verdict.map_err(|busy| caller.overloaded(busy))?;
    let (Some(user), Verdict::Right { rehash }) = (user, verdict) else {
        caller.within_limit(store.login_failed(&attempt).await?)?;
        caller.log_failed();
        return Err(invalid_credentials());
    };
    caller.within_limit(store.login_passed(&attempt, admission.known).await?)?;
    let answer = begin(&store, sessions, &user).await;
    if let Some(hash) = rehash {
        tokio::spawn(keep_better_hash(store, user, hash));
    }
    answer
}

fn credentials(mut fields: Fields) -> Result<Credentials, Problem> {
    let any = || text(|it: &str| Ok(it.to_owned()));
    let username = fields.required("username", any());
    let password = fields.required("password", any());
    let credentials = username
        .zip(password)
        .map(|(username, password)| Credentials { username, password });
    fields.finish(credentials)
}

/// Beside the answer, which is made: the login holds whether this succeeds or not.
async fn keep_better_hash(store: web::Data<Store>, user: User, hash: String) {
    if let Err(error) = store.rehash_user(&user, &hash).await {
        tracing::warn!("a password's older hash stays until the next login: {error}");
    }
}

/// Who logs in, as the log may have it. docs/OPERATIONS.md has a filter for fail2ban that reads these lines.
struct Caller<'a> {
    /// A keyed hash of the name: people type passwords where the name goes.
    user: String,
    address: IpAddr,
    metrics: &'a Metrics,
}

impl Caller<'_> {
    fn log_failed(&self) {
        let (user, address) = (&self.user, self.address);
        tracing::info!("login failed: user {user}, address {address}");
    }

    fn refused(&self, limit: &str) {
        self.metrics.login_refused(limit);
        let (user, address) = (&self.user, self.address);
        tracing::info!("login refused: user {user}, address {address}, limit {limit}");
    }

    /// `rate-limited`, with the headers that most clients know, where a limit is reached.
    fn within_limit(&self, admission: Admission) -> Result<(), Problem> {
        let Some(refused) = admission.refused else {
            return Ok(());
        };
        self.refused(refused.limit.as_str());
        let reset_s = refused.retry_after_ms.div_ceil(1_000).max(1);
        let headers = [
            ("ratelimit-limit", refused.limit.max()),
            ("ratelimit-remaining", 0),
            ("ratelimit-reset", reset_s),
        ];
        let problem = Problem::new(Slug::RateLimited, reason(refused.limit))
            .with_retry_after_ms(refused.retry_after_ms);
        Err(headers.into_iter().fold(problem, |problem, (name, value)| {
            problem.with_header(HeaderName::from_static(name), HeaderValue::from(value))
        }))
    }

    fn overloaded(&self, _: Busy) -> Problem {
        self.refused(QUEUE);
        let detail = "too many logins are waiting";
        Problem::new(Slug::Overloaded, detail)
            .with_retry_after_ms(OVERLOADED_RETRY_MS)
            .caused_by(detail)
    }
}

fn reason(limit: Limit) -> &'static str {
    match limit {
        Limit::Pair => "too many failed logins of this user from this address",
        Limit::User => {
            "too many failed logins of this user from addresses where the user has not logged in before"
        }
        Limit::Address => "too many failed logins from this address",
    }
}

fn invalid_credentials() -> Problem {
    challenge(
        Problem::new(Slug::InvalidCredentials, "wrong user name or password"),
        // No token was sent, so there is no error code to give (RFC 6750, section 3.1).
        "Bearer realm=\"tokend\"",
    )
}

#[cfg(test)]
mod tests {
    use actix_web::http::header;

    use super::*;
    use crate::auth::attempts::RateLimited;

    fn caller(metrics: &Metrics) -> Caller<'_> {
        Caller {
            user: "0a1b2c3d".to_owned(),
            address: IpAddr::from([192, 0, 2, 1]),
            metrics,
        }
    }

    #[test]
    fn a_login_that_finds_no_place_is_told_when_to_come_back() {
        let metrics = Metrics::new();
        let answer = caller(&metrics).overloaded(Busy).respond("a");
        assert_eq!(answer.status(), 503);
        let told = answer.headers().get(header::RETRY_AFTER);
        assert!(told.is_some_and(|it| it == "1"), "{told:?}");
        let counted = "tokend_login_refusals_total{limit=\"queue\"} 1\n";
        assert!(metrics.render().contains(counted));
    }

    #[test]
    fn only_a_login_over_a_limit_is_refused_and_counted_by_that_limit() {
        let metrics = Metrics::new();
        let caller = caller(&metrics);
        let admission = |refused| Admission {
            known: false,
            refused,
        };
        assert!(caller.within_limit(admission(None)).is_ok());
        for (limit, max) in [
            (Limit::Pair, "10"),
            (Limit::User, "20"),
            (Limit::Address, "50"),
        ] {
            let name = limit.as_str();
            let series = format!("tokend_login_refusals_total{{limit=\"{name}\"}}");
            assert!(metrics.render().contains(&format!("{series} 0\n")));
            let retry_after_ms = 1_001;
            let refused = Some(RateLimited {
                limit,
                retry_after_ms,
            });
            let problem = caller.within_limit(admission(refused));
            let answer = problem.expect_err("over").respond("a");
            assert_eq!(answer.status(), 429);
            for (name, value) in [
                ("retry-after", "2"),
                ("ratelimit-limit", max),
                ("ratelimit-remaining", "0"),
                ("ratelimit-reset", "2"),
            ] {
                let told = answer.headers().get(name);
                assert!(told.is_some_and(|it| it == value), "{name}: {told:?}");
            }
            assert!(metrics.render().contains(&format!("{series} 1\n")));
        }
    }
}
