//! What the service writes while it serves.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Directory, Tokend};
use crate::harness::{eventually, new_namespace, redis_url};

/// Every value that must never be seen in a log has this in it.
const SECRET: &str = "s3cret";

async fn traffic(service: &Tokend) -> Vec<String> {
    let seat = format!("{SECRET}-seat");
    let token = json!({ "token": seat });
    let held = json!({"token": seat, "holder": format!("{SECRET}-holder")});
    let lost = json!({"token": seat, "fence": 7});
    let with_query = format!("/tokens/delete?token={SECRET}-query");
    let mut secrets = Vec::new();
    let calls = [
        (
            Method::POST,
            "/tokens/generate",
            json!({"tokens": [seat, format!("{SECRET}-other")]}),
            201,
        ),
        (Method::POST, "/tokens/generate", json!({"count": 5}), 201),
        (
            Method::POST,
            "/tokens/generate",
            json!({"tokens": [format!("{SECRET}\n")]}),
            400,
        ),
        (Method::POST, "/tokens/assign", held, 200),
        (Method::POST, "/tokens/assign", token.clone(), 409),
        (Method::POST, "/tokens/keep-alive", token.clone(), 200),
        (Method::POST, "/tokens/keep-alive", lost, 409),
        (Method::POST, "/tokens/inspect", token.clone(), 200),
        (Method::POST, "/tokens/unblock", token.clone(), 200),
        (Method::GET, "/v1/pools/default/tokens", Value::Null, 200),
        (Method::DELETE, "/tokens/delete", token, 200),
        (Method::DELETE, &with_query, Value::Null, 404),
        (Method::GET, "/tokens/s3cret-path", Value::Null, 404),
        (
            Method::POST,
            "/tokens/assign",
            json!({"s3cret-member": 1}),
            400,
        ),
        (Method::GET, "/v1/pools/s3cret-pool", Value::Null, 404),
    ];
    for (method, path, body, status) in calls {
        let body = Some(body).filter(|it| !it.is_null());
        let (told, answer) = service.ask(method, path, body).await.expect("an answer");
        assert_eq!(told, status, "{path}: {answer}");
        let generated = answer["tokens"].as_array().into_iter().flatten();
        secrets.extend(generated.filter_map(Value::as_str).map(ToOwned::to_owned));
    }
    secrets.push(SECRET.to_owned());
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_json_line_for_each_request_and_never_a_token() {
    let directory = Directory::new();
    let namespace = new_namespace();
    let settings = [
        ("REDIS_URL", redis_url().await),
        ("KEY_PREFIX", &namespace),
        ("SHUTDOWN_DELAY", "0"),
        // All that tokend itself can say.
        ("LOG_LEVEL", "trace"),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    let before = requests(&service.process.log());
    let secrets = traffic(&service).await;
    eventually("all requests are logged", async || {
        let now = requests(&service.process.log());
        // More, where a line from before was read late.
        now.values().sum::<usize>() >= before.values().sum::<usize>() + 15
    })
    .await;
    service.process.stop("TERM").await;
    let log = service.process.log();
    for line in &log {
        for secret in &secrets {
            assert!(!line.contains(secret.as_str()), "{secret} in {line}");
        }
    }
    let seen = requests(&log);
    for (what, times) in [
        ("POST /tokens/generate 201", 2),
        ("POST /tokens/generate 400", 1),
        ("POST /tokens/assign 409", 1),
        ("DELETE /tokens/delete 404", 1),
        ("GET /v1/pools/{pool}/tokens 200", 1),
        ("GET /v1/pools/{pool} 404", 1),
        ("GET unmatched 404", 1),
    ] {
        assert_eq!(seen.get(what), Some(&times), "{what}: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_logins_are_logged_for_fail2ban_and_without_the_name() {
    const RUNBOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
    let directory = Directory::new();
    let namespace = new_namespace();
    let secret = "x".repeat(32);
    let settings = [
        ("REDIS_URL", redis_url().await),
        ("KEY_PREFIX", &namespace),
        ("SHUTDOWN_DELAY", "0"),
        ("REFRESH_TOKEN_SECRET", &secret),
        ("JWT_SECRET", &secret),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    // A password where the name goes.
    let login = json!({"username": SECRET, "password": SECRET});
    for status in [401; 10].into_iter().chain([429]) {
        let answer = service.post("/auth/login", login.clone()).await;
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    service.process.stop("TERM").await;
    let log = service.process.log();
    assert!(!log.iter().any(|line| line.contains(SECRET)), "{log:#?}");
    let runbooks = std::fs::read_to_string(RUNBOOKS).expect("the runbooks");
    let filter = runbooks
        .lines()
        .find_map(|line| line.strip_prefix("failregex = "));
    let filter = filter
        .expect("a filter")
        .replace("<ADDR>", "(?<address>[0-9a-f.:]+)");
    let filter = regex::Regex::new(&filter).expect("a regular expression");
    let found = log.iter().filter_map(|line| filter.captures(line));
    let found: Vec<_> = found.map(|found| found["address"].to_owned()).collect();
    assert_eq!(found, ["127.0.0.1"; 11]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_never_shows_a_temporary_token() {
    let directory = Directory::new();
    let namespace = new_namespace();
    let settings = [
        ("REDIS_URL", redis_url().await),
        ("KEY_PREFIX", &namespace),
        ("SHUTDOWN_DELAY", "0"),
        ("LOG_LEVEL", "trace"),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    let (status, made) = service.post("/app/token", Value::Null).await;
    assert_eq!(status, 200);
    let token = made["token"].as_str().expect("a token");
    let (digits, random) = token.split_once(':').expect("a colon");
    for form in [
        token.to_owned(),
        format!("{digits}%3a{random}?x={random}"),
        format!("{token}/{SECRET}"),
        format!("{SECRET}%ff"),
    ] {
        let (status, _) = service.get(&format!("/app/valid/{form}")).await;
        assert_eq!(status, 200, "{form}");
    }
    let (status, told) = service.post("/app/valid", json!({ "token": token })).await;
    assert_eq!((status, &told["status"]), (200, &json!(true)));
    let (status, _) = service.post("/app/valid", json!([token])).await;
    assert_eq!(status, 400);
    eventually("all requests are logged", async || {
        let seen = requests(&service.process.log());
        ["GET /app/valid/{token:.*} 200", "POST /app/valid 400"]
            .iter()
            .map(|what| seen.get(*what).copied().unwrap_or_default())
            .eq([4, 1])
    })
    .await;
    let metrics = service.metrics().await;
    service.process.stop("TERM").await;
    let log = service.process.log();
    for line in log.iter().map(String::as_str).chain(metrics.lines()) {
        for secret in [random, SECRET] {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_scrapes_leave_a_line_only_where_it_is_asked_for() {
    for (level, lines) in [("INFO", 0), ("DEBUG", 1)] {
        let directory = Directory::new();
        let namespace = new_namespace();
        let settings = [
            ("REDIS_URL", redis_url().await),
            ("KEY_PREFIX", &namespace),
            ("LOG_LEVEL", level),
        ];
        let service = Tokend::start(&directory, &settings).await;
        let before = requests(&service.process.log());
        let routine = ["/livez", "/readyz", "/metrics"];
        for path in routine.iter().chain(&["/v1/pools"]) {
            let (status, _) = service.get(path).await;
            assert_eq!(status, 200, "{path}");
        }
        let count = |seen: &BTreeMap<String, usize>, path: &str| {
            seen.get(&format!("GET {path} 200")).copied().unwrap_or(0)
        };
        // The last of them: what came before is in the log too.
        eventually("the list of pools is logged", async || {
            count(&requests(&service.process.log()), "/v1/pools") == 1
        })
        .await;
        let seen = requests(&service.process.log());
        for path in routine {
            // The service was probed until it was ready.
            assert!(
                count(&seen, path) >= count(&before, path) + lines,
                "{seen:?}"
            );
            assert_eq!(
                count(&seen, path) > 0,
                lines > 0,
                "{level} {path}: {seen:?}"
            );
        }
    }
}

/// The request lines by method, route and status. Every line is JSON, every request's has all it must.
fn requests(log: &[String]) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for line in log {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
        if line["message"] != "request" {
            continue;
        }
        let (method, route) = (line["method"].as_str(), line["route"].as_str());
        let status = line["status"].as_u64().expect("a status");
        assert!(line["duration_ms"].is_number(), "{line}");
        assert!(
            line["request_id"].as_str().is_some_and(|it| !it.is_empty()),
            "{line}"
        );
        let what = format!(
            "{} {} {status}",
            method.expect("a method"),
            route.expect("a route")
        );
        *seen.entry(what).or_default() += 1;
    }
    seen
}
