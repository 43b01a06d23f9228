//! The HTTP server: its route table and its limits. What `main` starts is what tests start.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{KeepAlive, Method};
use actix_web::middleware::from_fn;
use actix_web::{App as Routes, HttpRequest, HttpResponse, HttpServer, Route, guard, web};

use crate::flows::Flows;
use crate::http::closing::close_when_shutting_down;
use crate::http::cors::cors;
use crate::http::docs::{self, Docs};
use crate::http::dump::{self, Dumping};
use crate::http::foreign::{Foreign, count_foreign_from_zero};
use crate::http::observe::{catch_panics, count_problems_from_zero, observe};
use crate::http::problem::{Problem, Slug, list_problems, show_problem};
use crate::http::slash::{Documents, trim_slash};
use crate::http::system::{ShuttingDown, show_livez, show_metrics, show_readyz};
use crate::http::{login, oauth, one_time, pools, sessions, temporary, token, tokens};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::traces::Traces;

/// Longest life of an idle connection. Above the 60 s after which common load balancers close
/// theirs: the side that sends requests must be the first to close, or it meets a reset.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Longest time for the head of a request to arrive; for the body, see `http::input`.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// Longest time for running requests when the server stops: the store answers within 2 s, and
/// Kubernetes kills after 30.
const SHUTDOWN_TIME_MAX_S: u64 = 5;

/// What the handlers need. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// All state.
    pub store: Store,
    /// What the bearer flows run with.
    pub flows: Arc<Flows>,
    /// The metrics of this process.
    pub metrics: Arc<Metrics>,
    /// Where requests are told of.
    pub traces: Traces,
    /// Begun by whoever stops the server, before it does.
    pub shutting_down: ShuttingDown,
}

/// Every route: method, path, handler. A GET answers HEAD too. The verbs come first since matching
/// goes from the top.
#[rustfmt::skip] // a row each
fn route_table() -> Vec<(Method, &'static str, Route)> {
    use Method as M;
    vec![
        (M::POST, "/tokens/assign", web::to(tokens::assign_token)),
        (M::POST, "/tokens/unblock", web::to(tokens::unblock_token)),
        (M::POST, "/tokens/keep-alive", web::to(tokens::keep_alive_token)),
        (M::POST, "/tokens/inspect", web::to(tokens::inspect_token)),
        (M::POST, "/tokens/generate", web::to(tokens::generate_tokens)),
        (M::DELETE, "/tokens/delete", web::to(tokens::delete_token)),
        (M::POST, "/v1/pools/{pool}/assign", web::to(tokens::assign_token)),
        (M::POST, "/v1/pools/{pool}/unblock", web::to(tokens::unblock_token)),
        (M::POST, "/v1/pools/{pool}/keep-alive", web::to(tokens::keep_alive_token)),
        (M::POST, "/v1/pools/{pool}/inspect", web::to(tokens::inspect_token)),
        (M::POST, "/v1/pools/{pool}/generate", web::to(tokens::generate_tokens)),
        (M::POST, "/v1/pools/{pool}/delete", web::to(tokens::delete_token)),
        (M::DELETE, "/v1/pools/{pool}/delete", web::to(tokens::delete_token)),
        (M::GET, "/v1/pools/{pool}/tokens", web::to(pools::list_tokens)),
        (M::GET, "/v1/pools/{pool}", web::to(pools::show_pool)),
        (M::PUT, "/v1/pools/{pool}", web::to(pools::put_pool)),
        (M::DELETE, "/v1/pools/{pool}", web::to(pools::delete_pool)),
        (M::GET, "/v1/pools", web::to(pools::list_pools)),
        (M::GET, "/livez", web::to(show_livez)),
        (M::GET, "/readyz", web::to(show_readyz)),
        (M::GET, "/metrics", web::to(show_metrics)),
        (M::GET, "/problems", web::to(list_problems)),
        (M::GET, "/problems/{slug}", web::to(show_problem)),
        (M::POST, "/app/token", web::to(temporary::create_temporary_token)),
        (M::POST, "/app/valid", web::to(temporary::validate_temporary_token)),
        // Its token is all that follows, nothing and slashes too: never a 404.
        (M::GET, "/app/valid/{token:.*}", web::to(temporary::validate_temporary_token_in_path)),
        (M::DELETE, "/app/clear/all/tokens", web::to(temporary::clear_temporary_tokens)),
        (M::POST, "/token", web::to(token::create_token)),
        (M::PUT, "/token", web::to(one_time::exchange_token)),
        (M::DELETE, "/token", web::to(one_time::delete_token)),
        (M::HEAD, dump::PATH, web::to(dump::dump_tokens)),
        (M::POST, "/auth/login", web::to(login::log_in)),
        (M::POST, "/auth/refresh", web::to(sessions::refresh_session)),
        (M::POST, "/auth/logout", web::to(sessions::log_out)),
        (M::POST, "/token/validate", web::to(sessions::validate_token)),
        (M::POST, "/token/revoke", web::to(sessions::revoke_token)),
        (M::POST, "/oauth/introspect", web::to(oauth::introspect_token)),
        (M::POST, "/oauth/revoke", web::to(oauth::revoke_token)),
        (M::GET, "/.well-known/jwks.json", web::to(oauth::show_jwks)),
        (M::GET, "/.well-known/oauth-authorization-server", web::to(oauth::show_metadata)),
        (M::GET, "/", web::to(docs::show_index)),
        (M::GET, "/reference", web::to(docs::show_reference)),
        (M::GET, "/openapi.json", web::to(docs::show_openapi)),
        (M::GET, "/docs", web::to(docs::show_swagger_ui)),
        (M::GET, "/docs/{file}", web::to(docs::show_swagger_ui_file)),
        (M::GET, "/redoc", web::to(docs::show_redoc)),
        (M::GET, "/redoc/{file}", web::to(docs::show_redoc_file)),
    ]
}

/// The paths that answer a GET.
fn documents() -> Documents {
    let table = route_table().into_iter();
    let documents = table.filter(|(method, ..)| method == Method::GET);
    Documents(documents.map(|(_, path, _)| path).collect())
}

/// Registers the table: one resource per path. It answers OPTIONS by the methods that it takes, and 405 to every other
/// method. A dump that is not asked for has no path at all.
fn routes(config: &mut web::ServiceConfig, with_dump: bool) {
    let mut table = route_table();
    table.retain(|(_, path, _)| with_dump || *path != dump::PATH);
    while let Some(path) = table.first().map(|(_, path, _)| *path) {
        let mut resource = web::resource(path);
        let mut allow = Vec::new();
        for (method, _, route) in table.extract_if(.., |(_, it, _)| *it == path) {
            allow.push(method.to_string());
            let mut methods = guard::Any(guard::Method(method.clone()));
            if method == Method::GET {
                allow.push(Method::HEAD.to_string());
                methods = methods.or(guard::Head());
            }
            resource = resource.route(route.guard(methods));
        }
        allow.push(Method::OPTIONS.to_string());
        let allow = allow.join(", ");
        let otherwise = method_not_allowed(&allow);
        let options = show_options(allow).guard(guard::Options());
        config.service(resource.route(options).default_service(otherwise));
    }
    config.default_service(web::to(not_found));
}

/// RFC 9110, 9.3.7. Load balancers ask it to see whether the service lives.
fn show_options(allow: String) -> Route {
    web::to(move || std::future::ready(allowing(&allow)))
}

fn allowing(allow: &str) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::ALLOW, allow)).finish()
}

fn method_not_allowed(allow: &str) -> Route {
    let problem = Problem::new(Slug::MethodNotAllowed, format!("this path takes {allow}"));
    let problem = match HeaderValue::from_str(allow) {
        Ok(allow) => problem.with_header(header::ALLOW, allow),
        Err(_) => problem,
    };
    web::to(move || std::future::ready(Err::<&str, _>(problem.clone())))
}

/// `OPTIONS *` asks about the service as a whole; nothing else is at an unknown path.
async fn not_found(request: HttpRequest) -> Result<HttpResponse, Problem> {
    if request.method() == Method::OPTIONS && request.path() == "*" {
        return Ok(allowing("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
    }
    Err(Problem::new(
        Slug::NotFound,
        "there is nothing at this path",
    ))
}

/// Starts answering on `listener`. Signals are left to `main`: await the server and stop it through
/// its handle.
///
/// # Errors
/// When the listener cannot be used.
pub fn start(listener: TcpListener, app: App, workers: usize) -> std::io::Result<Server> {
    let with_dump = app.flows.settings.dump;
    let dumping = web::Data::new(Dumping::default());
    let store = web::Data::new(app.store);
    let origins = app.flows.settings.cors_origins.clone();
    let docs = web::Data::new(Docs::new(&app.flows));
    let flows = web::Data::from(app.flows);
    let metrics = web::Data::from(app.metrics);
    count_problems_from_zero(&metrics);
    count_foreign_from_zero(&metrics);
    let foreign = web::Data::new(Foreign::default());
    let traces = web::Data::new(app.traces);
    let connections = app.shutting_down.clone();
    let shutting_down = web::Data::new(app.shutting_down);
    let documents = web::Data::new(documents());
    let server = HttpServer::new(move || {
        Routes::new()
            .app_data(store.clone())
            .app_data(docs.clone())
            .app_data(flows.clone())
            .app_data(metrics.clone())
            .app_data(foreign.clone())
            .app_data(traces.clone())
            .app_data(shutting_down.clone())
            .app_data(dumping.clone())
            .app_data(documents.clone())
            .wrap(from_fn(catch_panics))
            .wrap(cors(&origins))
            .wrap(from_fn(observe))
            .wrap(from_fn(trim_slash))
            .wrap(from_fn(close_when_shutting_down)) // the last is the outermost
            .configure(|config| routes(config, with_dump))
    })
    .on_connect(move |_, extensions| {
        extensions.insert(connections.connected());
    })
    .workers(workers)
    .keep_alive(KeepAlive::Timeout(KEEP_ALIVE))
    .client_request_timeout(HEAD_TIME_MAX)
    // Since actix-http 3.11.2 a half-closed connection does not cancel its handler by default: an
    // assign whose caller has left, and that has no idempotency key, would keep its token.
    .h1_allow_half_closed(false)
    // Answers are one small write each; waiting to fill a segment only delays them.
    .tcp_nodelay(true)
    .disable_signals()
    .shutdown_timeout(SHUTDOWN_TIME_MAX_S)
    .listen(listener)?
    .run();
    Ok(server)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use actix_web::dev::ServiceResponse;
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use serde_json::Value;

    use super::*;
    use crate::http::openapi::{document, operations};

    /// The real table; without a store, so only for requests that no handler sees.
    async fn answer(method: Method, path: &str) -> ServiceResponse {
        let table = |config: &mut web::ServiceConfig| routes(config, true);
        let app = Routes::new()
            .app_data(web::Data::new(documents()))
            .wrap(from_fn(observe))
            .wrap(from_fn(trim_slash))
            .configure(table);
        let app = init_service(app).await;
        let request = TestRequest::with_uri(path).method(method).to_request();
        call_service(&app, request).await.map_into_boxed_body()
    }

    #[actix_web::test]
    async fn an_unknown_path_is_a_problem() {
        for path in [
            "/nope",
            "/tokens/assign/",
            "/tokens",
            "/v1/pools/a/b/c",
            "/v1/pools//",
            "/livez//",
            "//livez/",
        ] {
            let response = answer(Method::GET, path).await;
            assert_eq!(response.status(), 404, "{path}");
            assert!(response.headers().contains_key("x-request-id"));
            let body: Value = read_body_json(response).await;
            assert_eq!(body["type"], "/problems/not-found", "{path}");
        }
    }

    #[actix_web::test]
    async fn another_method_is_told_which_are_allowed() {
        let cases = [
            (Method::GET, "/tokens/assign", "POST, OPTIONS"),
            (Method::HEAD, "/tokens/assign", "POST, OPTIONS"),
            (Method::GET, "/v1/pools/a/assign", "POST, OPTIONS"),
            (Method::POST, "/tokens/delete", "DELETE, OPTIONS"),
            (Method::GET, "/v1/pools/a/delete", "POST, DELETE, OPTIONS"),
            (
                Method::POST,
                "/v1/pools/a",
                "GET, HEAD, PUT, DELETE, OPTIONS",
            ),
            (Method::POST, "/v1/pools", "GET, HEAD, OPTIONS"),
            (Method::GET, "/token", "POST, PUT, DELETE, OPTIONS"),
            (Method::GET, "/dump", "HEAD, OPTIONS"),
        ];
        for (method, path, allow) in cases {
            for (method, status) in [(method, 405), (Method::OPTIONS, 204)] {
                let response = answer(method.clone(), path).await;
                assert_eq!(response.status(), status, "{method} {path}");
                let told = response.headers().get(header::ALLOW);
                assert!(
                    told.is_some_and(|it| it == allow),
                    "{method} {path}: {told:?}"
                );
            }
        }
    }

    #[actix_web::test]
    async fn every_path_refuses_other_methods() {
        let paths: HashSet<_> = route_table().into_iter().map(|(_, path, _)| path).collect();
        for path in paths {
            let path = path
                .replace("{pool}", "a")
                .replace("{slug}", "internal")
                .replace("{token:.*}", "a")
                .replace("{file}", "x");
            let response = answer(Method::PATCH, &path).await;
            assert_eq!(response.status(), 405, "{path}");
            let body: Value = read_body_json(response).await;
            assert_eq!(body["type"], "/problems/method-not-allowed", "{path}");
        }
    }

    #[test]
    fn the_document_names_every_route_and_no_other() {
        // A pattern behind a parameter's name is the router's own business.
        let plain = |path: &str| path.replace(":.*}", "}");
        let table = route_table().into_iter();
        let routes: BTreeSet<_> = table
            .map(|(method, path, _)| (plain(path), method.to_string()))
            .collect();
        let document = operations(&document("", "")).into_iter();
        let told: BTreeSet<_> = document
            .map(|(path, method)| (path, method.to_owned()))
            .collect();
        assert_eq!(routes, told);
    }

    #[actix_web::test]
    async fn a_get_answers_head() {
        for method in [Method::GET, Method::HEAD] {
            let response = answer(method, "/livez").await;
            assert_eq!(response.status(), 200);
        }
    }
}
