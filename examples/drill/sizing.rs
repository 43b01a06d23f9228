//! What one replica and its Redis need: memory, CPU per request, bytes written. The figures of docs/OPERATIONS.md, Sizing.
//!
//! CPU is what the kernel charged the two processes, so a busy machine makes the run slower and not the figures.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::interfaces::ClientLike;
use fred::types::InfoKind;
use serde_json::{Value, json};

use super::Report;
use super::burst::used_memory;
use super::process::{self, Directory, Process};

const CLIENTS: usize = 64;
const MEASURED: Duration = Duration::from_secs(15);
const TOKENS: u64 = 200_000;
/// The same of a chosen length.
const LONG_TOKENS: u64 = 20_000;
/// Most bytes of tokens in one import: the body may have 1 MiB.
const IMPORT_BYTES: usize = 900_000;
const WAITERS: usize = 1_000;
/// How long a waiter waits; what is measured of it is measured earlier.
const WAITS_S: u64 = 20;

struct World {
    http: reqwest::Client,
    url: String,
    tokend: Process,
    redis: Process,
    admin: Client,
}

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let world = World::start(&scratch).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    report.figure("replica: resident, idle", mib(world.resident()));
    memory_per_token(&world, None, TOKENS, &mut report).await;
    for length in [256, 1_024, 4_096] {
        memory_per_token(&world, Some(length), LONG_TOKENS, &mut report).await;
    }
    memory_per_waiter(&world, &mut report).await;
    for (name, load) in [
        ("assign and unblock", Load::Cycle),
        ("keep-alive", Load::KeepAlive),
        ("one-time token, made and exchanged", Load::OneTime),
    ] {
        measure(&world, name, load, &mut report).await;
    }
    report.figure("replica: resident, after all this", mib(world.resident()));
    report
}

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Cycle,
    KeepAlive,
    OneTime,
}

impl World {
    async fn start(scratch: &Directory) -> Self {
        let (redis_port, port) = (process::free_port(), process::free_port());
        let mut command = Command::new("redis-server");
        command
            .args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1"])
            .args([
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            // The file must only grow while it is measured.
            .args([
                "--auto-aof-rewrite-percentage",
                "0",
                "--loglevel",
                "warning",
            ])
            .arg("--dir")
            .arg(scratch.path())
            .stdout(Stdio::null());
        let redis = Process::start(&mut command);
        let redis_url = format!("redis://127.0.0.1:{redis_port}");
        let secret = "0123456789abcdef0123456789abcdef";
        let mut command = Command::new(process::program());
        command
            .args(["serve", "--port", &port.to_string()])
            .env("REDIS_URL", &redis_url)
            .env("SECRET_KEY", secret)
            // As it is run: one line a request, for a log collector.
            .env("LOG_FORMAT", "json")
            .stderr(Stdio::null());
        let tokend = Process::start(&mut command);
        let http = process::http();
        process::ready(&http, port).await;
        Self {
            http,
            url: format!("http://127.0.0.1:{port}"),
            tokend,
            redis,
            admin: super::lag::connect(&redis_url).await,
        }
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.url));
        let timeout = Duration::from_secs(WAITS_S + 10);
        let answer = request.timeout(timeout).json(body).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    fn resident(&self) -> u64 {
        resident(self.tokend.id())
    }

    async fn info(&self, kind: InfoKind, field: &str) -> u64 {
        let info: String = self.admin.info(Some(kind)).await.expect("INFO");
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(name, _)| *name == field);
        found.map_or(0, |(_, value)| value.trim().parse().expect("a number"))
    }

    /// A pool with so many free tokens.
    async fn pool(&self, name: &str, tokens: u64) {
        let policy = json!({"lifetime": 3_600, "max_tokens": TOKENS});
        self.ask("PUT", &format!("/v1/pools/{name}"), &policy).await;
        let mut left = tokens;
        while left > 0 {
            let count = left.min(10_000);
            let path = format!("/v1/pools/{name}/generate");
            let (status, _) = self.ask("POST", &path, &json!({"count": count})).await;
            assert_eq!(status, 201);
            left -= count;
        }
    }

    /// Adds so many tokens of so many bytes.
    async fn import(&self, pool: &str, tokens: u64, length: usize) {
        let path = format!("/v1/pools/{pool}/generate");
        let values: Vec<_> = (0..tokens).map(|n| format!("{n:0length$}")).collect();
        for part in values.chunks((IMPORT_BYTES / length).min(10_000)) {
            let (status, _) = self.ask("POST", &path, &json!({ "tokens": part })).await;
            assert_eq!(status, 201);
        }
    }
}

/// Of generated tokens, or of imported ones of that length.
async fn memory_per_token(world: &World, length: Option<usize>, tokens: u64, report: &mut Report) {
    let name = format!("many-{}", length.unwrap_or_default());
    let path = format!("/v1/pools/{name}/assign");
    world.pool(&name, 0).await;
    let empty = used_memory(&world.admin).await;
    match length {
        None => world.pool(&name, tokens).await,
        Some(length) => world.import(&name, tokens, length).await,
    }
    let free = used_memory(&world.admin).await;
    let left = AtomicU64::new(tokens);
    let clients = (0..CLIENTS).map(|client| {
        let (left, path) = (&left, &path);
        async move {
            let body = json!({"holder": format!("worker-{client}")});
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                let (status, _) = world.ask("POST", path, &body).await;
                assert_eq!(status, 200);
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let held = used_memory(&world.admin).await;
    let each = |bytes: u64| bytes.saturating_sub(empty) / tokens;
    let length = length.unwrap_or(36);
    report.figure(
        &format!("Redis: bytes per free token of {length} bytes, per held one (holder of 9 bytes)"),
        format!("{}, {}", each(free), each(held)),
    );
}

async fn memory_per_waiter(world: &World, report: &mut Report) {
    world.pool("dry", 0).await;
    let before = world.resident();
    let body = json!({"wait_seconds": WAITS_S});
    let waiting = (0..WAITERS).map(|_| world.ask("POST", "/v1/pools/dry/assign", &body));
    let during = async {
        tokio::time::sleep(Duration::from_secs(WAITS_S / 2)).await;
        world.resident()
    };
    let (during, answers) = tokio::join!(during, futures_util::future::join_all(waiting));
    report.check(
        answers.iter().all(|(status, _)| *status == 404),
        "a waiter got something else than 404",
    );
    report.figure(
        "replica: KiB per request that waits (1,000, each on a connection)",
        format!(
            "{:.0}",
            during.saturating_sub(before) as f64 / 1_024.0 / WAITERS as f64
        ),
    );
}

/// One client until the end; how many of its requests were answered well.
async fn client(world: &World, load: Load, stop: &AtomicBool, failed: &AtomicU64) -> u64 {
    let mut done = 0;
    let mut held = Value::Null;
    let mut one_time = Value::Null;
    while !stop.load(Ordering::Relaxed) {
        let (status, answer) = match load {
            Load::Cycle | Load::KeepAlive if held.is_null() => {
                let answer = world.ask("POST", "/v1/pools/work/assign", &json!({})).await;
                held = json!({"token": answer.1["token"], "fence": answer.1["fence"]});
                answer
            }
            Load::Cycle => {
                let body = std::mem::take(&mut held);
                world.ask("POST", "/v1/pools/work/unblock", &body).await
            }
            Load::KeepAlive => world.ask("POST", "/v1/pools/work/keep-alive", &held).await,
            Load::OneTime if one_time.is_null() => {
                let body = json!({"meta": {"user": "u-1", "cart": [1, 2, 3]}});
                let answer = world.ask("POST", "/token", &body).await;
                one_time = answer.1.clone();
                answer
            }
            Load::OneTime => {
                let body = json!({"token": std::mem::take(&mut one_time), "meta": {"step": 2}});
                world.ask("PUT", "/token", &body).await
            }
        };
        let well = status < 300 && answer.get("Err").is_none();
        done += u64::from(well);
        failed.fetch_add(u64::from(!well), Ordering::Relaxed);
    }
    done
}

async fn measure(world: &World, name: &str, load: Load, report: &mut Report) {
    world
        .pool("work", if load == Load::Cycle { 1_000 } else { 0 })
        .await;
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
    let cpu = || (cpu(world.tokend.id()), cpu(world.redis.id()));
    let written = async || world.info(InfoKind::Persistence, "aof_current_size").await;
    let (cpu_before, written_before, began) = (cpu(), written().await, Instant::now());
    let clients = (0..CLIENTS).map(|_| client(world, load, &stop, &failed));
    let end = async {
        tokio::time::sleep(MEASURED).await;
        stop.store(true, Ordering::Relaxed);
    };
    let (done, ()) = tokio::join!(futures_util::future::join_all(clients), end);
    let done: u64 = done.into_iter().sum();
    let took = began.elapsed();
    let each = |spent: Duration| spent.as_micros() as f64 / done as f64;
    let (tokend, redis) = cpu();
    report.figure(
        &format!("{name}: CPU per request, tokend and Redis"),
        format!(
            "{:.0} µs, {:.0} µs",
            each(tokend - cpu_before.0),
            each(redis - cpu_before.1)
        ),
    );
    report.figure(
        &format!("{name}: written per request"),
        format!("{} bytes", (written().await - written_before) / done.max(1)),
    );
    report.figure(
        &format!("{name}: requests per second here, {CLIENTS} clients"),
        format!("{:.0}", done as f64 / took.as_secs_f64()),
    );
    let failed = failed.into_inner();
    report.check(failed == 0, format!("{name}: {failed} requests failed"));
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("KiB") * 1_024
}

/// What a process has used of the processors, by itself and in the kernel.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    // The name may have spaces; behind it the fields are counted from the third.
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| fields[at - 3].parse::<u64>().expect("ticks");
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis((ticks(14) + ticks(15)) * 1_000 / per_second)
}
