//! `wait_seconds` over HTTP: the answer comes when a token does.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Server, answer};
use crate::harness::eventually;

/// Longer than the head of a request, or a body, may take to arrive: a wait is not what those limits mean.
const LONGER_THAN_A_HEAD: Duration = Duration::from_millis(5_500);

/// Leases and cooling outlast any test.
fn lasting() -> Value {
    json!({"lifetime": 86_400, "cooldown": 0})
}

async fn waiters(server: &Server) -> u64 {
    let body = server.get("/metrics").await.body;
    let series = "tokend_waiters{pool=\"seats\"} ";
    let told = body.lines().find_map(|line| line.strip_prefix(series));
    told.map_or(0, |count| count.parse().expect("a count"))
}

async fn wait_for(server: &Server, seconds: f64) -> Answer {
    let body = json!({"holder": "pod-7", "wait_seconds": seconds});
    server.seats("assign", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_assign_answers_when_a_token_is_free() {
    let server = Server::with_seats(lasting(), &["seat-1"]).await;
    let held = server.grant().await;
    let give_back = async {
        eventually("it waits", async || waiters(&server).await == 1).await;
        tokio::time::sleep(LONGER_THAN_A_HEAD).await;
        let body = json!({"token": "seat-1", "fence": held["fence"]});
        server.seats("unblock", body).await.json(200);
    };
    let (granted, ()) = tokio::join!(wait_for(&server, 60.0), give_back);
    let granted = granted.json(200);
    assert_eq!(
        (&granted["token"], &granted["holder"]),
        (&json!("seat-1"), &json!("pod-7"))
    );
    assert_eq!(granted["expires_in"], 86_400);
    assert!(granted["fence"].as_u64() > held["fence"].as_u64());
    assert_eq!(waiters(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_in_vain_is_told_what_one_that_does_not_wait_is() {
    let server = Server::with_seats(lasting(), &["seat-1"]).await;
    server.grant().await;
    for seconds in [0.0, 0.05] {
        let told = wait_for(&server, seconds).await;
        told.problem("no-token-available", 404);
        assert!(told.retry_after_s() > 80_000);
    }
    assert_eq!(waiters(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_can_not_be_waited_for() {
    let server = Server::with_seats(lasting(), &["seat-1"]).await;
    let asked = json!({"token": "seat-1", "wait_seconds": 1});
    let told = server.seats("assign", asked).await;
    let told = told.problem("invalid-request", 400);
    assert_eq!(told["errors"][0]["field"], "wait_seconds");
    for seconds in [json!(61), json!(-0.1), json!("1"), json!(null)] {
        let told = server
            .seats("assign", json!({"wait_seconds": seconds}))
            .await;
        told.problem("invalid-request", 400);
    }
    let at_once = json!({"token": "seat-1", "wait_seconds": 0});
    server.seats("assign", at_once).await.json(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_makes_way_for_the_next() {
    let server = Server::with_seats(lasting(), &["seat-1"]).await;
    for whole in [true, false] {
        let held = server.grant().await;
        let mut stream = TcpStream::connect(server.address).expect("it listens");
        let body = "{\"wait_seconds\": 60}";
        let request = format!(
            "POST /v1/pools/seats/assign HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        eventually("it waits", async || waiters(&server).await == 1).await;
        if whole {
            drop(stream);
        } else {
            stream.shutdown(Shutdown::Write).expect("connected");
        }
        eventually("it has left", async || waiters(&server).await == 0).await;
        let token = json!({"token": "seat-1", "fence": held["fence"]});
        server.seats("unblock", token).await.json(200);
        let next = wait_for(&server, 60.0).await.json(200);
        let token = json!({"token": "seat-1", "fence": next["fence"]});
        server.seats("unblock", token).await.json(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_with_a_key_is_found_by_its_retry() {
    let server = Server::with_seats(lasting(), &["seat-1"]).await;
    let held = server.grant().await;
    let asked = async || {
        let request = server.request(Method::POST, "/v1/pools/seats/assign");
        let request = request.header("Idempotency-Key", "job-42");
        answer(request.json(&json!({"wait_seconds": 60}))).await
    };
    let give_back = async {
        eventually("both wait", async || waiters(&server).await == 2).await;
        let body = json!({"token": "seat-1", "fence": held["fence"]});
        server.seats("unblock", body).await.json(200);
    };
    let (first, retry, ()) = tokio::join!(asked(), asked(), give_back);
    let first = first.json(200);
    assert_eq!(first["fence"], retry.json(200)["fence"]);
    // How long it waits is no part of what is asked.
    let request = server.request(Method::POST, "/v1/pools/seats/assign");
    let again = answer(request.header("Idempotency-Key", "job-42"))
        .await
        .json(200);
    assert_eq!(first["fence"], again["fence"]);
}
