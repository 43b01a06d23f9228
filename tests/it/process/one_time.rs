//! One-time tokens of a real process: its flags, its secret, its log.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use reqwest::Method;
use serde_json::{Value, json};

use super::serve::embedded;
use super::{Directory, Ran, Tokend, tokend};
use crate::harness::{eventually, new_namespace, redis_url};
use crate::support::eventually_some;

impl Tokend {
    /// A new one-time token. Asked for again while nothing could be done: the embedded Redis waits for a disk that
    /// hundreds of tests write to.
    async fn issue(&self, meta: Value) -> String {
        eventually_some("a one-time token", async || {
            let asked = self.ask_text(Method::POST, "/token", Some(json!({ "meta": meta })));
            let (status, token) = asked.await.expect("an answer");
            if status == 503 && token.contains("nothing was done") {
                return None;
            }
            assert_eq!(status, 200, "{token}");
            Some(token)
        })
        .await
    }

    /// What a token is exchanged for.
    async fn turn_in(&self, token: &str) -> Value {
        let asked = self.ask(Method::PUT, "/token", Some(json!({ "token": token })));
        let (status, told) = asked.await.expect("an answer");
        assert_eq!(status, 200, "{told}");
        told
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_tells_metadata_and_expiry_and_the_log_has_never_a_token() {
    let directory = Directory::new();
    let (namespace, secret) = (new_namespace(), "s3cret".repeat(8));
    let settings = [
        ("REDIS_URL", redis_url().await),
        ("KEY_PREFIX", &namespace),
        ("PARTITIONS", "2"),
        ("SHUTDOWN_DELAY", "0"),
        ("LOG_LEVEL", "DEBUG"),
        ("SECRET_KEY", &secret),
        // The flag wins.
        ("ONE_TIME_LIFETIME", "96h"),
    ];
    let flags = ["--dump", "-t", "30min", "-P", "5min"];
    let mut service = Tokend::with_flags(&directory, &settings, &flags).await;
    let mut hidden = vec!["s3cret".to_owned()];
    for n in 0..3 {
        let first = service.issue(json!({"n": n, "line": "a\nb"})).await;
        let told = service.turn_in(&first).await;
        let second = told["Ok"]["token"].as_str().expect("a token").to_owned();
        service.turn_in("nonsense-token").await;
        let unified = service.ask(Method::POST, "/token", None);
        let (_, unified) = unified.await.expect("an answer");
        let unified = unified["payload"]["token"].as_str().expect("a token");
        hidden.push(unified.to_owned());
        let family = first.split('.').nth(2).expect("a family").to_owned();
        let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
        hidden.extend([signature(&first), signature(&second), family, first, second]);
    }
    hidden.push("nonsense-token".to_owned());
    let dropped = service.issue(json!({"n": 7})).await;
    let asked = service.ask_text(Method::DELETE, "/token", Some(json!({ "token": dropped })));
    assert_eq!(asked.await.expect("an answer"), (202, String::new()));
    hidden.push(dropped);
    let asked = service.ask_text(Method::HEAD, "/dump", None).await;
    assert_eq!(asked.expect("an answer"), (202, String::new()));
    eventually("all is shown", async || {
        let log = service.process.log();
        log.iter()
            .any(|line| line.contains("all one-time tokens are shown"))
    })
    .await;
    service.process.stop("TERM").await;
    let log = service.process.log();
    for secret in &hidden {
        let told = log.iter().find(|line| line.contains(secret.as_str()));
        assert_eq!(told, None, "{secret}");
    }
    let lines = log
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let shown: Vec<_> = lines
        .filter(|line| line["message"] == "one-time token")
        .collect();
    let mut numbers: Vec<_> = shown.iter().map(seen_number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2]);
    assert!(
        log.iter().any(|line| line.contains("--purge-interval")),
        "{log:?}"
    );
}

/// The member `n` of a shown token, after a look at the rest of its line.
fn seen_number(line: &Value) -> u64 {
    assert_eq!(line["level"], "INFO");
    let meta = line["meta"].as_str().expect("a text");
    let meta: Value = serde_json::from_str(meta).expect("JSON");
    assert_eq!(meta["line"], "a\nb");
    let expires = humantime::parse_rfc3339(line["expires_at"].as_str().expect("a text"));
    let soon = SystemTime::now() + Duration::from_secs(31 * 60);
    assert!(expires.expect("a time") < soon, "30 minutes, not 96 hours");
    meta["n"].as_u64().expect("a number")
}

#[test]
fn a_flag_out_of_range_is_a_usage_error() {
    let directory = Directory::new();
    for (flag, value, range) in [
        ("-t", "29min", "30min to 96h"),
        ("--token-lifetime", "97h", "30min to 96h"),
        ("-P", "0.5s", "1s"),
        ("--purge-interval", "91min", "1s to 90min"),
    ] {
        let output = tokend(&directory).args(["serve", flag, value]).output();
        let ran = Ran::from(output.expect("tokend runs"));
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(range), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_redis_comes_with_a_secret_that_is_kept() {
    if !embedded("the_embedded_redis_comes_with_a_secret_that_is_kept") {
        return;
    }
    let directory = Directory::new();
    let settings = [("DATA_DIR", "data"), ("SHUTDOWN_DELAY", "0")];
    let mut service = Tokend::start(&directory, &settings).await;
    let first = service.issue(json!({"big": 1})).await;
    let told = service.turn_in(&first).await;
    service.process.stop("TERM").await;
    let file = directory.path().join("data/one-time.key");
    let mode = std::fs::metadata(&file)
        .expect("it is kept")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut service = Tokend::start(&directory, &settings).await;
    let second = told["Ok"]["token"].as_str().expect("a token");
    let told = service.turn_in(second).await;
    assert_eq!(told["Ok"]["meta"], json!({"big": 1}));
    service.process.stop("INT").await;
    let secret = std::fs::read_to_string(file).expect("a text");
    assert!(!service.process.log().concat().contains(&secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_ones_own_without_a_secret_has_no_one_time_tokens() {
    let directory = Directory::new();
    let service = Tokend::on_shared_redis(&directory).await;
    let (status, told) = service.post("/token", json!({"meta": {}})).await;
    assert_eq!((status, &told["type"]), (503, &json!("/problems/flow-off")));
    let log = service.process.log();
    let off = |line: &String| line.contains("SECRET_KEY") && line.contains("WARN");
    assert!(log.iter().any(off), "{log:?}");
    let asked = service.ask(Method::POST, "/token", None).await;
    assert_eq!(asked.expect("an answer").0, 200, "unified tokens need none");
}
