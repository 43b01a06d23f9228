//! A caller who leaves before the answer. Redis is frozen meanwhile, so that the grant is made after the
//! caller has left: an un-keyed one must come back by itself, a keyed one waits for its retry.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, answer};
use crate::harness::{Fixture, OwnRedis, eventually, signal, skip};

/// How the caller leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// Closes the connection.
    Fully,
    /// Says that it will send no more, and would still read.
    Half,
}

/// Tries at most: one is void where Redis was frozen for longer than a call may take.
const TRIES_MAX: usize = 20;
const ROUTE: &str = "/v1/pools/{pool}/assign";

/// A frozen process, thawed even if the test fails.
struct Frozen(u32);

impl Frozen {
    fn new(pid: u32) -> Self {
        signal(pid, "STOP");
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

struct Numbers {
    calls: u64,
    left: u64,
    failed: u64,
}

fn numbers(server: &Server) -> Numbers {
    let metrics = &server.fixture.metrics;
    let errors = ["unknown", "unavailable"]
        .map(|kind| metrics.store_errors.with_label_values(&[kind]).get());
    let left = metrics
        .http_request_duration
        .with_label_values(&[ROUTE, "POST", "499"]);
    Numbers {
        calls: metrics
            .batch_size
            .with_label_values(&["assign"])
            .get_sample_count(),
        left: left.get_sample_count(),
        failed: errors.iter().sum(),
    }
}

async fn redis_pid(redis: &OwnRedis) -> u32 {
    let file = redis.dir.join("redis.pid");
    eventually("the pid file is written", async || {
        std::fs::read_to_string(&file).is_ok_and(|it| it.ends_with('\n'))
    })
    .await;
    redis.pid().await
}

/// Sends an assign to a frozen Redis and leaves before its answer. Says whether the try counts: whether
/// Redis was thawed before the call was given up.
async fn abandon(server: &Server, pid: u32, how: Leaves, headers: &str) -> bool {
    let before = numbers(server);
    let frozen = Frozen::new(pid);
    let mut stream = TcpStream::connect(server.address).expect("it listens");
    let head = format!(
        "POST /v1/pools/seats/assign HTTP/1.1\r\nhost: x\r\n{headers}content-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    eventually("the call is sent", async || {
        numbers(server).calls > before.calls
    })
    .await;
    match how {
        Leaves::Fully => drop(stream),
        Leaves::Half => stream.shutdown(Shutdown::Write).expect("connected"),
    }
    let until_noticed = async || {
        let now = numbers(server);
        now.left > before.left || now.failed > before.failed
    };
    eventually("the server notices", until_noticed).await;
    drop(frozen);
    // The call has ended, one way or the other, when another gets through.
    eventually("Redis answers again", async || {
        server.get("/v1/pools/seats").await.status == 200
    })
    .await;
    numbers(server).failed == before.failed
}

/// A server on a Redis of its own; its pool's leases and cooling outlast any test.
async fn server(test: &str) -> Option<(OwnRedis, Server, u32)> {
    let Some(redis) = OwnRedis::start(&[]).await else {
        skip(test, "no redis-server");
        return None;
    };
    let server = Server::on(Fixture::on(&redis.url).await).await;
    let policy = json!({"lifetime": 86_400, "cooldown": 86_400});
    server.put("/v1/pools/seats", policy).await.json(201);
    let pid = redis_pid(&redis).await;
    Some((redis, server, pid))
}

async fn inspect(server: &Server, token: &str) -> Value {
    server
        .seats("inspect", json!({ "token": token }))
        .await
        .json(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_assign_gives_its_token_back() {
    let Some((_redis, server, pid)) = server("an_abandoned_assign_gives_its_token_back").await
    else {
        return;
    };
    for how in [Leaves::Fully, Leaves::Half] {
        let mut counted = false;
        for n in 0..TRIES_MAX {
            // One token in the pool at a time, so that it is the one that the try is granted.
            let token = format!("{how:?}-{n}");
            server
                .seats("generate", json!({"tokens": [token]}))
                .await
                .json(201);
            counted = abandon(&server, pid, how, "").await;
            if counted {
                // It was granted, so it has a fence; it is free, though its lease and its cooling last a day.
                eventually("the token comes back", async || {
                    let seen = inspect(&server, &token).await;
                    seen["state"] == "free" && seen["fence"].as_u64() > Some(0)
                })
                .await;
            }
            server
                .seats("delete", json!({ "token": token }))
                .await
                .json(200);
            if counted {
                break;
            }
        }
        assert!(counted, "{how:?}: Redis was never thawed in time");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_assign_with_a_key_waits_for_its_retry() {
    let Some((_redis, server, pid)) =
        server("an_abandoned_assign_with_a_key_waits_for_its_retry").await
    else {
        return;
    };
    for how in [Leaves::Fully, Leaves::Half] {
        // It makes no difference here whether the call was given up: the retry finds it in any case.
        let (token, key) = (format!("{how:?}"), format!("key-{how:?}"));
        server
            .seats("generate", json!({"tokens": [token]}))
            .await
            .json(201);
        abandon(&server, pid, how, &format!("idempotency-key: {key}\r\n")).await;
        eventually("the token is held", async || {
            inspect(&server, &token).await["state"] == "held"
        })
        .await;
        let request = server.request(Method::POST, "/v1/pools/seats/assign");
        let retried = answer(request.header("Idempotency-Key", key))
            .await
            .json(200);
        assert_eq!(retried["token"], token.as_str());
        let seen = inspect(&server, &token).await;
        assert_eq!(
            (&seen["state"], &seen["fence"]),
            (&json!("held"), &retried["fence"])
        );
    }
}
