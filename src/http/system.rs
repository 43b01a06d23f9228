//! For whoever runs the service: is it alive, is it ready, what does it measure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix_web::{HttpResponse, web};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::problem::{Problem, Slug};
use crate::metrics::Metrics;
use crate::store::{Readiness, Store};

/// Whether this replica is going away. Set once, by `main`, before the server stops, so that
/// nothing new is sent here.
#[derive(Debug, Clone, Default)]
pub struct ShuttingDown {
    begun: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

/// One open connection, until it is dropped.
#[derive(Debug)]
pub struct Connection(Arc<AtomicUsize>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ShuttingDown {
    /// From here on `/readyz` answers 503.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as what this gives lives.
    #[must_use]
    pub fn connected(&self) -> Connection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connection(Arc::clone(&self.connections))
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    status: &'static str,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    status: &'static str,
    checks: Checks,
}

/// `true` is good.
#[derive(Serialize, Clone, Copy, ToSchema)]
pub(super) struct Checks {
    redis: bool,
    scripts: bool,
    not_shutting_down: bool,
}

/// `GET /livez`: the process answers. Never asks Redis, or an outage of Redis would restart every
/// replica.
pub async fn show_livez() -> HttpResponse {
    HttpResponse::Ok().json(Live { status: "alive" })
}

/// `GET /readyz`: whether requests can be served here now.
///
/// # Errors
/// `not-ready`, with the checks.
pub async fn show_readyz(
    store: web::Data<Store>,
    shutting_down: web::Data<ShuttingDown>,
) -> Result<HttpResponse, Problem> {
    readyz(store.readiness().await, shutting_down.has_begun())
}

fn readyz(store: Readiness, shutting_down: bool) -> Result<HttpResponse, Problem> {
    let checks = Checks {
        redis: store.redis,
        scripts: store.scripts,
        not_shutting_down: !shutting_down,
    };
    let detail = match checks {
        Checks {
            not_shutting_down: false,
            ..
        } => "this replica is shutting down",
        Checks { redis: false, .. } => "Redis does not answer",
        Checks { scripts: false, .. } => "this Redis can't be used yet; the log says why",
        _ => {
            return Ok(HttpResponse::Ok().json(Ready {
                status: "ready",
                checks,
            }));
        }
    };
    Err(Problem::new(Slug::NotReady, detail)
        .with_member("checks", json!(checks))
        .caused_by(detail))
}

/// `GET /metrics`: the Prometheus text format.
pub async fn show_metrics(
    store: web::Data<Store>,
    metrics: web::Data<Metrics>,
    shutting_down: web::Data<ShuttingDown>,
) -> HttpResponse {
    let readiness = store.refresh_gauges().await;
    let ready = readyz(readiness, shutting_down.has_begun()).is_ok();
    metrics.ready.set(i64::from(ready));
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4; charset=utf-8")
        .body(metrics.render())
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use serde_json::Value;

    use super::*;

    async fn told(redis: bool, scripts: bool, shutting_down: bool) -> (u16, Value) {
        let response = readyz(Readiness { redis, scripts }, shutting_down)
            .unwrap_or_else(|problem| problem.respond("r"));
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body()).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    #[actix_web::test]
    async fn readiness_says_which_check_fails() {
        let (status, body) = told(true, true, false).await;
        assert_eq!((status, &body["status"]), (200, &json!("ready")));
        for (redis, scripts, going) in [
            (false, true, false),
            (true, false, false),
            (true, true, true),
        ] {
            let (status, body) = told(redis, scripts, going).await;
            assert_eq!(
                (status, &body["type"]),
                (503, &json!("/problems/not-ready"))
            );
            let checks = json!({"redis": redis, "scripts": scripts, "not_shutting_down": !going});
            assert_eq!(body["checks"], checks);
        }
    }

    #[test]
    fn shutting_down_is_seen_by_every_clone() {
        let flag = ShuttingDown::default();
        let seen = flag.clone();
        assert!(!seen.has_begun());
        flag.begin();
        assert!(seen.has_begun());
    }
}
