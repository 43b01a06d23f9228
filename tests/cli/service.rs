//! The canned service.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

/// Longest that any of these may take before the test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub method: String,
    pub path: String,
    pub key: Option<String>,
    pub body: Value,
}

impl Seen {
    pub fn verb(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Status, `Retry-After`, body.
pub type Canned = (u16, Option<u64>, Value);
/// How the service answers: the request, and how many with its verb came before.
pub type Answers = dyn Fn(&Seen, usize) -> Canned + Send + Sync;

pub struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    handle: actix_web::dev::ServerHandle,
}

impl Service {
    pub fn start(answers: impl Fn(&Seen, usize) -> Canned + Send + Sync + 'static) -> Self {
        let answers: Arc<Answers> = Arc::new(answers);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (sender, receiver) = mpsc::channel();
        let log = seen.clone();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let server = HttpServer::new(move || {
                    let (answers, log) = (answers.clone(), log.clone());
                    // As much as the real service takes.
                    let limit = web::PayloadConfig::new(1024 * 1024);
                    App::new()
                        .app_data(limit)
                        .default_service(web::to(move |request, body| {
                            let answer = answer(&request, &body, &*answers, &log);
                            async move { answer }
                        }))
                })
                .workers(2) // an answer may wait for the next request
                .disable_signals()
                .bind(("127.0.0.1", 0))
                .expect("a free port");
                let address = server.addrs()[0];
                let server = server.run();
                sender.send((address, server.handle())).expect("a test");
                server.await.expect("the server runs");
            });
        });
        let (address, handle) = receiver.recv().expect("the server starts");
        Self {
            address,
            seen,
            handle,
        }
    }

    /// The binary, pointed here, without what the surroundings may say.
    pub fn tokend(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokend"));
        command
            .args(args)
            .env("TOKEND_URL", format!("http://{}", self.address))
            .env_remove("TOKEND_POOL")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.tokend(args).output().expect("tokend runs")
    }

    pub fn seen(&self, verb: &str) -> Vec<Seen> {
        let seen = self.seen.lock().expect("unpoisoned");
        seen.iter().filter(|s| s.verb() == verb).cloned().collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

fn answer(
    request: &HttpRequest,
    body: &web::Bytes,
    answers: &Answers,
    log: &Mutex<Vec<Seen>>,
) -> HttpResponse {
    let seen = Seen {
        at: Instant::now(),
        method: request.method().to_string(),
        path: request.path().to_owned(),
        key: request
            .headers()
            .get("idempotency-key")
            .map(|key| key.to_str().expect("ASCII").to_owned()),
        body: serde_json::from_slice(body).unwrap_or(Value::Null),
    };
    let before = {
        let mut log = log.lock().expect("unpoisoned");
        log.push(seen.clone());
        log.iter().filter(|s| s.verb() == seen.verb()).count() - 1
    };
    let (status, retry_after, body) = answers(&seen, before);
    let mut response = HttpResponse::build(StatusCode::from_u16(status).expect("a status"));
    if let Some(seconds) = retry_after {
        response.insert_header(("Retry-After", seconds.to_string()));
    }
    if status == 204 {
        return response.finish();
    }
    response.json(body)
}

pub fn problem(slug: &str, status: u16) -> Canned {
    let body = json!({
        "type": format!("/problems/{slug}"), "title": slug, "status": status,
        "detail": format!("words about {slug}"), "request_id": "request-7",
        "statusCode": status, "message": format!("words about {slug}"),
    });
    (status, None, body)
}

pub fn grant(expires_in: f64) -> Canned {
    let body = json!({
        "token": "seat-1", "fence": 41, "expires_at": "2030-01-01T00:00:00.000Z",
        "expires_in": expires_in, "holder": "me",
    });
    (200, None, body)
}

pub fn kept(expires_in: f64) -> Canned {
    let body = json!({
        "token": "seat-1", "state": "held", "expires_at": "2030-01-01T00:00:00.000Z",
        "expires_in": expires_in,
    });
    (200, None, body)
}

pub fn unblocked() -> Canned {
    let at = "2030-01-01T00:00:00.000Z";
    let body = json!({"token": "seat-1", "state": "free", "available_at": at});
    (200, None, body)
}

/// A service where all goes well and leases last so many seconds.
pub fn well(expires_in: f64) -> Service {
    Service::start(move |seen, _| match seen.verb() {
        "assign" => grant(expires_in),
        "keep-alive" => kept(expires_in),
        _ => unblocked(),
    })
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Waits until `done`, as an end in itself: nothing is assumed after a time.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
