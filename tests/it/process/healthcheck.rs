//! `tokend healthcheck`, as a container runs it: with the environment of the service and nothing else.

use std::io::{Read, Write};
use std::net::TcpListener;

use super::{Directory, Ran, Tokend, tokend};
use crate::harness::{OwnRedis, eventually, skip};

/// Runs it with these settings.
fn healthcheck(settings: &[(&str, &str)], args: &[&str]) -> Ran {
    let directory = Directory::new();
    let output = tokend(&directory)
        .arg("healthcheck")
        .args(args)
        .envs(settings.iter().copied())
        // No part of it: it asks this very machine, however the command line reaches a service.
        .env("TOKEND_URL", "http://127.0.0.1:1")
        .env("http_proxy", "http://127.0.0.1:1")
        .output();
    Ran::from(output.expect("tokend runs"))
}

/// The one line that says what is wrong.
fn complaint(ran: &Ran) -> &str {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stdout.is_empty(), "{ran:?}");
    let line = ran.stderr.strip_prefix("tokend: ").expect("marked as ours");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    line.trim_end()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_readyz_says_and_with_live_what_livez_says() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("healthcheck", "there is no redis-server on PATH");
    };
    let directory = Directory::new();
    let settings = [
        ("REDIS_URL", redis.url.as_str()),
        ("HOST", "0.0.0.0"),
        ("SHUTDOWN_DELAY", "5"),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    let (_, port) = service.address().rsplit_once(':').expect("a port");
    let port = port.to_owned();
    let settings = [("HOST", "0.0.0.0"), ("PORT", port.as_str())];
    assert_eq!(healthcheck(&settings, &[]).ok(), "ready\n");
    assert_eq!(healthcheck(&settings, &["--live"]).ok(), "alive\n");
    assert_eq!(
        healthcheck(&settings, &["--json"]).json()["status"],
        "ready"
    );
    let elsewhere = [("PORT", "1")];
    assert_eq!(healthcheck(&elsewhere, &["--port", &port]).ok(), "ready\n");

    redis.pause().await;
    let why = format!("http://127.0.0.1:{port}/readyz: Redis does not answer");
    eventually("it tells of the outage", async || {
        let ran = healthcheck(&settings, &[]);
        ran.code == Some(1) && complaint(&ran) == why
    })
    .await;
    assert_eq!(healthcheck(&settings, &["--live"]).ok(), "alive\n");
    redis.resume().await;
    eventually("it is ready again", async || {
        healthcheck(&settings, &[]).code == Some(0)
    })
    .await;

    service.process.signal("TERM");
    let why = format!("http://127.0.0.1:{port}/readyz: this replica is shutting down");
    eventually("it tells of the stop", async || {
        let ran = healthcheck(&settings, &[]);
        ran.code == Some(1) && complaint(&ran) == why
    })
    .await;
    service.process.until_ended().await;
    for args in [&[][..], &["--live"]] {
        let ran = healthcheck(&settings, args);
        assert!(complaint(&ran).contains("refused"), "{ran:?}");
    }
}

/// Answers one request with these bytes.
fn answer_once(listener: TcpListener, answer: &'static str) {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            seen.push(byte[0]);
        }
        stream.write_all(answer.as_bytes()).expect("it listens");
    });
}

#[test]
fn who_is_not_tokend_or_says_nothing_is_not_healthy() {
    for (answer, why) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "not an answer of tokend",
        ),
        ("HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nhi", "HTTP 500"),
        (
            "HTTP/1.1 302 Go\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            "HTTP 302",
        ),
        ("hello\r\n", "no answer"),
    ] {
        let listener = TcpListener::bind("[::1]:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port().to_string();
        answer_once(listener, answer);
        let ran = healthcheck(&[("HOST", "::"), ("PORT", &port)], &[]);
        let told = complaint(&ran);
        assert!(told.contains(why) && told.contains("[::1]"), "{told}");
    }
    // The kernel takes the connection, nobody answers.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let ran = healthcheck(&[("PORT", &port)], &[]);
    assert!(complaint(&ran).contains("timed out"), "{ran:?}");
}

#[test]
fn what_the_service_would_not_start_with_is_told() {
    for (settings, why) in [
        (("PORT", "many"), "PORT"),
        (("PORT", "0"), "PORT is 0"),
        (("TOKEN_LIFETIME", "never"), "TOKEN_LIFETIME"),
    ] {
        let ran = healthcheck(&[settings], &[]);
        assert!(complaint(&ran).contains(why), "{ran:?}");
    }
}
