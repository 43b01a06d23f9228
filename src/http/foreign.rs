//! Revocations of tokens that this replica cannot read. By the standard (RFC 7009) they are answered like any other, and
//! do nothing: where another replica honours the token, it lives on. So they are counted, and the log says so.

use std::future::{Ready, ready};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::{Error, FromRequest, HttpRequest, web};

use crate::metrics::Metrics;

/// Shortest time between two lines: anybody can send such tokens.
const TELL_AGAIN: Duration = Duration::from_mins(1);
/// The routes that revoke, as the metric names them.
const ROUTES: [&str; 4] = ["/auth/logout", "/token/revoke", "/oauth/revoke", "/token"];

/// What a process has told of them.
#[derive(Debug, Default)]
pub struct Foreign(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    /// Since then.
    more: u64,
}

impl Foreign {
    /// Whether the log is to have this one, and how many it did not have before.
    fn next_line(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said
            .at
            .is_some_and(|at| now.duration_since(at) < TELL_AGAIN)
        {
            said.more += 1;
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.more))
    }
}

/// Makes the series of each route, or the first one would not show in a rate.
pub fn count_foreign_from_zero(metrics: &Metrics) {
    for route in ROUTES {
        metrics.foreign_tokens.with_label_values(&[route]);
    }
}

/// Where one request tells of it.
pub struct Revocations {
    foreign: web::Data<Foreign>,
    metrics: web::Data<Metrics>,
    route: &'static str,
}

impl FromRequest for Revocations {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let foreign = web::Data::from_request(request, payload).into_inner();
        let metrics = web::Data::from_request(request, payload).into_inner();
        let pattern = request.match_pattern().unwrap_or_default();
        let route = ROUTES.into_iter().find(|route| **route == pattern);
        ready(foreign.and_then(|foreign| {
            metrics.map(|metrics| Self {
                foreign,
                metrics,
                route: route.unwrap_or_default(),
            })
        }))
    }
}

impl Revocations {
    /// Counts one that did nothing. `why` is a clause for the log.
    pub fn did_nothing(&self, why: &str) {
        let count = self.metrics.foreign_tokens.with_label_values(&[self.route]);
        count.inc();
        if let Some(more) = self.foreign.next_line(Instant::now()) {
            tracing::warn!(
                "{}: a token was not revoked: {why}. Another replica, or another service, may honour it; {more} more \
                 since the last such line",
                self.route
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_one_in_a_minute_and_how_many_it_left_out() {
        let foreign = Foreign::default();
        let start = Instant::now();
        assert_eq!(foreign.next_line(start), Some(0));
        assert_eq!(foreign.next_line(start), None);
        assert_eq!(foreign.next_line(start + TELL_AGAIN / 2), None);
        assert_eq!(foreign.next_line(start + TELL_AGAIN), Some(2));
        assert_eq!(foreign.next_line(start + TELL_AGAIN), None);
    }
}
