//! Starting, stopping, and what it starts with.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Directory, Ran, Tokend, tokend};
use crate::harness::{eventually, skip};

/// Whether the embedded Redis can be had; says so if not.
pub fn embedded(test: &str) -> bool {
    let found = ["redis-server", "valkey-server"].iter().any(|name| {
        let version = std::process::Command::new(name).arg("--version").output();
        version.is_ok()
    });
    if !found {
        skip(test, "no redis-server");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_redis_keeps_its_data_over_a_restart() {
    if !embedded("the_embedded_redis_keeps_its_data_over_a_restart") {
        return;
    }
    let directory = Directory::new();
    let settings = [("DATA_DIR", "data"), ("SHUTDOWN_DELAY", "0")];
    let mut service = Tokend::start(&directory, &settings).await;
    let (status, _) = service
        .post("/tokens/generate", json!({"tokens": ["a", "b"]}))
        .await;
    assert_eq!(status, 201);
    let asked = json!({"token": "a", "holder": "pod-1", "lifetime": 3_600});
    let (_, granted) = service.post("/tokens/assign", asked).await;
    service.process.stop("TERM").await;

    let mut service = Tokend::start(&directory, &settings).await;
    let (_, seen) = service.post("/tokens/inspect", json!({"token": "a"})).await;
    assert_eq!(seen["state"], "held");
    assert_eq!(seen["holder"], "pod-1");
    assert_eq!(seen["fence"], granted["fence"]);
    assert_eq!(seen["expires_at"], granted["expires_at"]);
    let (_, other) = service.post("/tokens/assign", json!({})).await;
    assert_eq!(other["token"], "b");
    assert!(other["fence"].as_u64() > granted["fence"].as_u64());
    service.process.stop("INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_turns_readiness_off_and_answers_what_is_in_flight() {
    let directory = Directory::new();
    let namespace = crate::harness::new_namespace();
    let redis = crate::harness::redis_url().await;
    let settings = [
        ("REDIS_URL", redis),
        ("KEY_PREFIX", &namespace),
        ("SHUTDOWN_DELAY", "3"),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    // Its head is here, its body on the way: in flight until we send the rest.
    let mut slow = TcpStream::connect(service.address()).expect("it listens");
    slow.set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    let body = r#"{"tokens": ["late"]}"#;
    let head = format!(
        "POST /tokens/generate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).expect("it reads");
    slow.write_all(&body.as_bytes()[..5]).expect("it reads");
    assert_eq!(service.get("/livez").await.0, 200);

    service.process.signal("TERM");
    let mut told = Value::Null;
    eventually("it is not ready any more", async || {
        let (status, body) = service.get("/readyz").await;
        told = body;
        status == 503
    })
    .await;
    assert_eq!(told["checks"]["not_shutting_down"], false);
    assert_eq!(
        service.get("/livez").await.0,
        200,
        "and goes on until the delay is over"
    );
    eventually("it listens no more", async || {
        TcpStream::connect(service.address()).is_err()
    })
    .await;

    slow.write_all(&body.as_bytes()[5..])
        .expect("still connected");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.contains(r#""tokens":["late"]"#), "{answer}");
    service.process.until_ended_well().await;
}

/// One request on a connection that is kept alive, and the head of its answer, in small letters.
fn ask(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    let mut some = [0; 4_096];
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = connection.read(&mut some).expect("an answer");
        assert_ne!(read, 0, "it was closed without an answer");
        answer.extend_from_slice(&some[..read]);
    }
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    head.split("\r\n\r\n").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_connections_with_an_answer() {
    let directory = Directory::new();
    let namespace = crate::harness::new_namespace();
    let redis = crate::harness::redis_url().await;
    let settings = [
        ("REDIS_URL", redis),
        ("KEY_PREFIX", &namespace),
        ("SHUTDOWN_DELAY", "5"),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    let mut kept = [(); 2].map(|()| {
        let connection = TcpStream::connect(service.address()).expect("it listens");
        let patience = Some(Duration::from_secs(30));
        connection.set_read_timeout(patience).expect("a timeout");
        connection
    });
    for connection in &mut kept {
        let head = ask(connection, "/livez");
        assert!(!head.contains("connection: close"), "{head}");
    }
    service.process.signal("TERM");
    eventually("it stops", async || service.get("/readyz").await.0 == 503).await;
    // One that is answered well, one with a problem.
    for (connection, path) in kept.iter_mut().zip(["/livez", "/readyz"]) {
        let head = ask(connection, path);
        assert!(head.contains("connection: close"), "{path}: {head}");
        let rest = connection.read_to_end(&mut Vec::new());
        assert!(
            rest.is_ok(),
            "{path}: the end of the answer, then of the connection"
        );
    }
    service.process.signal("TERM");
    service.process.until_ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_does_not_keep_it_from_stopping() {
    let directory = Directory::new();
    let mut service = Tokend::on_shared_redis(&directory).await;
    let mut idle = TcpStream::connect(service.address()).expect("it listens");
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("it reads");
    let mut first = [0; 12];
    idle.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    service.process.stop("INT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let directory = Directory::new();
    let namespace = crate::harness::new_namespace();
    let redis = crate::harness::redis_url().await;
    let settings = [
        ("REDIS_URL", redis),
        ("KEY_PREFIX", &namespace),
        ("SHUTDOWN_DELAY", "5"),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    service.process.signal("TERM");
    eventually("it stops", async || service.get("/readyz").await.0 == 503).await;
    service.process.signal("TERM");
    assert_eq!(service.process.until_ended().await.code(), Some(128 + 15));
}

#[test]
fn authorities_that_cannot_be_read_are_not_taken_for_a_url_that_cannot() {
    let directory = Directory::new();
    let output = tokend(&directory)
        .arg("serve")
        .env("REDIS_URL", "rediss://:hunter2@redis.example:6379")
        .env("SSL_CERT_FILE", "no-such.pem")
        .output();
    let ran = Ran::from(output.expect("tokend runs"));
    assert_eq!(ran.code, Some(78), "{}", ran.stderr);
    for part in ["SSL_CERT_FILE", "no-such.pem", "No such file"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("%40"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}

#[test]
fn a_bad_configuration_tells_all_mistakes_and_no_secret() {
    let directory = Directory::new();
    let output = tokend(&directory)
        .arg("serve")
        .env("REDIS_URL", "http://user:hunter2@redis.example:6379")
        .env("PORT", "70000")
        .env("TOKEN_LIFETIME", "0.5")
        .env("MAX_TOKENS", "0x10")
        .env("LOG_LEVEL", "loud")
        .env("PARTITIONS", "-1")
        .output();
    let ran = Ran::from(output.expect("tokend runs"));
    assert_eq!(ran.code, Some(78), "{}", ran.stderr);
    for variable in [
        "REDIS_URL",
        "PORT",
        "TOKEN_LIFETIME",
        "MAX_TOKENS",
        "LOG_LEVEL",
        "PARTITIONS",
    ] {
        assert!(ran.stderr.contains(variable), "{variable}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

/// It would run on a Redis of its own, without the user's data.
#[test]
fn a_misspelt_redis_url_starts_no_redis() {
    for (name, value, right) in [
        (
            "REDIS_URI",
            "redis://:hunter2@redis.example:6379",
            "REDIS_URL",
        ),
        ("REDIS_URL_FIEL", "/run/secrets/hunter2", "REDIS_URL_FILE"),
        ("REDIS_URL_FILE", "/run/secrets/hunter2", "No such file"),
    ] {
        let directory = Directory::new();
        let output = tokend(&directory)
            .args(["serve", "--port", "0"])
            .env(name, value)
            .output();
        let ran = Ran::from(output.expect("tokend runs"));
        assert_eq!(ran.code, Some(78), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(name) && ran.stderr.contains(right),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        assert!(!directory.path().join("data").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_and_ends_it() {
    let directory = Directory::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = tokend(&directory)
        .args(["serve", "--port", &port])
        .env("REDIS_URL", "redis://127.0.0.1:1")
        .output();
    let ran = Ran::from(output.expect("tokend runs"));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.contains(&format!("PORT {port}")),
        "{}",
        ran.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dotenv_file_with_comments_behind_its_values_works() {
    let directory = Directory::new();
    let redis = crate::harness::redis_url().await;
    let namespace = crate::harness::new_namespace();
    let text = format!(
        "# Settings of the token pool\n\
         REDIS_URL={redis}   # where Redis is\n\
         KEY_PREFIX={namespace}\n\
         TOKEN_LIFETIME=61            # seconds, the lease's length\n\
         KEEP_ALIVE_LIMIT=301  # it's deleted after this\n\
         TOKEN_UNBLOCK_LIFETIME = 121 # 'cooling'\n\
         export MAX_TOKENS=\"77\" # most tokens\n\
         LOG_LEVEL=INFO   # DEBUG, INFO, WARNING\n\
         TOKEN_LIFTIME=5 # misspelt\n\
         \n"
    );
    directory.write(".env", &text);
    let service = Tokend::start(&directory, &[("MAX_TOKENS", "78")]).await;
    let (_, pool) = service.get("/v1/pools/default").await;
    let told = [
        &pool["lifetime"],
        &pool["idle_limit"],
        &pool["cooldown"],
        &pool["max_tokens"],
    ];
    assert_eq!(told, [61, 301, 121, 78], "and the real environment wins");
    let log = service.process.log().join("\n");
    assert!(
        log.contains("TOKEN_LIFTIME"),
        "a name it does not know is told: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_who_waits() {
    let directory = Directory::new();
    let mut service = Tokend::on_shared_redis(&directory).await;
    let (status, _) = service
        .post("/tokens/generate", json!({"tokens": ["a"]}))
        .await;
    assert_eq!(status, 201);
    let (status, _) = service.post("/tokens/assign", json!({})).await;
    assert_eq!(status, 200);
    let mut waiting = TcpStream::connect(service.address()).expect("it listens");
    waiting
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    let body = r#"{"wait_seconds": 60}"#;
    let request = format!(
        "POST /tokens/assign HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    waiting.write_all(request.as_bytes()).expect("it reads");
    eventually("it waits", async || {
        let metrics = service.metrics().await;
        metrics.contains("tokend_waiters{pool=\"default\"} 1\n")
    })
    .await;
    service.process.signal("TERM");
    // Its answer comes before the end: a drain that is cut short would cut it off.
    let mut told = String::new();
    waiting.read_to_string(&mut told).expect("an answer");
    assert!(told.starts_with("HTTP/1.1 503"), "{told}");
    assert!(told.contains("/problems/store-unavailable"), "{told}");
    service.process.until_ended_well().await;
}
