//! 64 clients against two replicas: assign, keep-alive, unblock or lapse at random, while one replica
//! after the other is killed with SIGKILL and started again. Every hold is recorded, and judged at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::{Value, json};

use super::Report;
use super::process::{self, Directory};

const CLIENTS: usize = 64;
const TOKENS: usize = 40;
const RUN_S: u64 = 60;
const KILL_EVERY_S: u64 = 5;
/// Longest that everything may take to come back after the last client stopped.
const SETTLE_S_MAX: u64 = 20;

/// A time in which a client certainly held a token: from the answer that told it, to the lease's end by
/// its own clock counted from before it asked, or to the moment it began to give it back.
struct Hold {
    fence: u64,
    from: Instant,
    until: Instant,
}

#[derive(Default)]
struct Tally {
    grants: AtomicU64,
    kept: AtomicU64,
    unblocked: AtomicU64,
    lapsed: AtomicU64,
    empty: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    broken: AtomicU64,
    slowest_ms: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct World {
    client: reqwest::Client,
    ports: [u16; 2],
    tally: Tally,
    holds: Mutex<BTreeMap<String, Vec<Hold>>>,
    /// What should never be seen, as it happens.
    surprises: Mutex<Vec<String>>,
    end: Instant,
}

pub async fn drill() -> Report {
    let scratch = Directory::new();
    let redis_port = process::free_port();
    let _redis = process::redis(redis_port, scratch.path()).await;
    let url = format!("redis://127.0.0.1:{redis_port}");
    let ports = [process::free_port(), process::free_port()];
    let start = |port| process::tokend(port, &[("REDIS_URL", url.as_str())]);
    let mut replicas = ports.map(start);
    let client = process::http();
    for port in ports {
        process::ready(&client, port).await;
    }
    let tokens = fill(&client, ports[0]).await;
    let world = Arc::new(World {
        client,
        ports,
        tally: Tally::default(),
        holds: Mutex::default(),
        surprises: Mutex::default(),
        end: Instant::now() + Duration::from_secs(RUN_S),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(live(world.clone(), number)))
        .collect();
    let mut kills = 0;
    while world.end > Instant::now() + Duration::from_secs(KILL_EVERY_S) {
        tokio::time::sleep(Duration::from_secs(KILL_EVERY_S)).await;
        let victim = kills % 2;
        replicas[victim].kill();
        replicas[victim] = start(ports[victim]);
        kills += 1;
    }
    for client in clients {
        client.await.expect("a client's task");
    }
    judge(&world, kills, &tokens).await
}

async fn fill(client: &reqwest::Client, port: u16) -> BTreeSet<String> {
    let base = format!("http://127.0.0.1:{port}/v1/pools/chaos");
    let policy = json!({"lifetime": 2, "cooldown": 1});
    client.put(&base).json(&policy).send().await.expect("PUT");
    let made: Value = client
        .post(format!("{base}/generate"))
        .json(&json!({"count": TOKENS}))
        .send()
        .await
        .expect("generate")
        .json()
        .await
        .expect("tokens");
    let tokens = made["tokens"].as_array().expect("tokens").iter();
    tokens
        .filter_map(|t| Some(t.as_str()?.to_owned()))
        .collect()
}

/// One call, to a random replica. `None`: no answer came.
async fn call(world: &World, verb: &str, key: Option<&str>, body: &Value) -> Option<(u16, Value)> {
    let port = world.ports[rand::rng().random_range(0..2)];
    let mut request = world
        .client
        .post(format!("http://127.0.0.1:{port}/v1/pools/chaos/{verb}"))
        .json(body);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let began = Instant::now();
    let answer = request.send().await;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    world.tally.slowest_ms.fetch_max(took, Ordering::Relaxed);
    let Ok(answer) = answer else {
        count(&world.tally.broken);
        return None;
    };
    let status = answer.status().as_u16();
    let Ok(body) = answer.json::<Value>().await else {
        count(&world.tally.broken);
        return None;
    };
    if status == 503 {
        let unknown = body["type"] == "/problems/outcome-unknown";
        count(if unknown {
            &world.tally.unknown
        } else {
            &world.tally.refused
        });
    }
    Some((status, body))
}

async fn live(world: Arc<World>, number: usize) {
    let mut round = 0u64;
    while Instant::now() < world.end {
        round += 1;
        let lifetime = rand::rng().random_range(1.0..3.0);
        let body = json!({"lifetime": lifetime, "holder": format!("client-{number}")});
        let key = rand::rng()
            .random_bool(0.5)
            .then(|| format!("{number}-{round}"));
        let mut asked = Instant::now();
        let mut answer = call(&world, "assign", key.as_deref(), &body).await;
        // With a key it is safe to ask again until there is an answer.
        while key.is_some() && answer.as_ref().is_none_or(|(status, _)| *status == 503) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            asked = Instant::now();
            answer = call(&world, "assign", key.as_deref(), &body).await;
        }
        match answer {
            Some((200, grant)) => hold(&world, &grant, asked).await,
            Some((404, _)) => {
                count(&world.tally.empty);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // A keyed retry whose lease has ended meanwhile.
            Some((409, _)) => count(&world.tally.lost),
            Some((503, _)) | None => tokio::time::sleep(Duration::from_millis(50)).await,
            Some((status, body)) => surprise(&world, format!("assign: {status} {body}")),
        }
    }
}

fn surprise(world: &World, what: String) {
    world.surprises.lock().expect("no panic").push(what);
}

fn lease_end(answer: &Value, asked: Instant) -> Instant {
    asked + Duration::from_secs_f64(answer["expires_in"].as_f64().unwrap_or(0.0))
}

async fn hold(world: &World, grant: &Value, asked: Instant) {
    count(&world.tally.grants);
    let from = Instant::now();
    let mut until = lease_end(grant, asked);
    let body = json!({"token": grant["token"], "fence": grant["fence"]});
    let keep_alives = rand::rng().random_range(0..3);
    for _ in 0..keep_alives {
        pause_before(until, 0.6).await;
        let asked = Instant::now();
        match call(world, "keep-alive", None, &body).await {
            Some((200, kept)) => {
                count(&world.tally.kept);
                until = lease_end(&kept, asked);
            }
            Some((409, _)) if Instant::now() < until => {
                surprise(world, "a lease was lost before its end".to_owned());
            }
            Some((409 | 503, _)) | None => {}
            Some((status, body)) => surprise(world, format!("keep-alive: {status} {body}")),
        }
    }
    if rand::rng().random_bool(0.6) {
        pause_before(until, 0.8).await;
        until = until.min(Instant::now());
        match call(world, "unblock", None, &body).await {
            Some((200, _)) => count(&world.tally.unblocked),
            Some((409 | 503, _)) | None => {}
            Some((status, body)) => surprise(world, format!("unblock: {status} {body}")),
        }
    } else {
        count(&world.tally.lapsed);
        tokio::time::sleep_until(until.into()).await;
    }
    let token = grant["token"].as_str().unwrap_or_default().to_owned();
    let fence = grant["fence"].as_u64().unwrap_or_default();
    let hold = Hold { fence, from, until };
    let mut holds = world.holds.lock().expect("no panic");
    holds.entry(token).or_default().push(hold);
}

/// Works for a random part, `most` at the most, of the time that is left.
async fn pause_before(until: Instant, most: f64) {
    let left = until.saturating_duration_since(Instant::now());
    let part = left.mul_f64(rand::rng().random_range(0.0..most));
    tokio::time::sleep(part).await;
}

async fn judge(world: &World, kills: usize, tokens: &BTreeSet<String>) -> Report {
    let mut report = Report::default();
    let tally = &world.tally;
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    report.figure(
        "clients, replicas, tokens",
        format!("{CLIENTS}, 2, {TOKENS}"),
    );
    report.figure("seconds, kills with SIGKILL", format!("{RUN_S}, {kills}"));
    report.figure("grants", value(&tally.grants));
    report.figure(
        "keep-alives, unblocks, left to lapse",
        format!(
            "{}, {}, {}",
            value(&tally.kept),
            value(&tally.unblocked),
            value(&tally.lapsed)
        ),
    );
    report.figure("assigns that found none free", value(&tally.empty));
    report.figure("keyed retries whose lease had ended", value(&tally.lost));
    report.figure(
        "connections that broke (killed replica)",
        value(&tally.broken),
    );
    report.figure(
        "503 store-unavailable, outcome-unknown",
        format!("{}, {}", value(&tally.refused), value(&tally.unknown)),
    );
    report.figure("slowest answer", format!("{} ms", value(&tally.slowest_ms)));
    let (overlaps, disorder) = overlaps(&mut world.holds.lock().expect("no panic"));
    report.figure("overlapping holders", overlaps);
    report.check(overlaps == 0, "two holders of one token at once");
    report.check(disorder == 0, "a later grant has a lower fence");
    for surprise in world.surprises.lock().expect("no panic").iter().take(5) {
        report.check(false, surprise.clone());
    }
    let back = all_back(world, tokens).await;
    report.figure(
        "tokens back in the pool at the end",
        format!("{back} of {TOKENS}"),
    );
    report.check(back == tokens.len(), "tokens were lost");
    report
}

fn overlaps(holds: &mut BTreeMap<String, Vec<Hold>>) -> (usize, usize) {
    let (mut overlaps, mut disorder) = (0, 0);
    for holds in holds.values_mut() {
        holds.sort_by_key(|hold| hold.from);
        for pair in holds.windows(2) {
            overlaps += usize::from(pair[0].until > pair[1].from);
            disorder += usize::from(pair[0].fence >= pair[1].fence);
        }
    }
    (overlaps, disorder)
}

/// How many of the tokens are free once all leases and cool-downs have run out.
async fn all_back(world: &World, tokens: &BTreeSet<String>) -> usize {
    let until = Instant::now() + Duration::from_secs(SETTLE_S_MAX);
    loop {
        let url = format!(
            "http://127.0.0.1:{}/v1/pools/chaos/tokens?state=free&limit=1000",
            world.ports[0]
        );
        let free = match world.client.get(url).send().await {
            Ok(answer) => answer.json::<Value>().await.unwrap_or_default(),
            Err(_) => Value::Null,
        };
        let empty = Vec::new();
        let listed = free["tokens"].as_array().unwrap_or(&empty).iter();
        let back = listed
            .filter(|t| t["token"].as_str().is_some_and(|t| tokens.contains(t)))
            .count();
        if back == tokens.len() || Instant::now() > until {
            return back;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
