//! The bearer flows at their size: a million temporary tokens alive that lapse within a few seconds, and sessions
//! that are refreshed a hundred times each.
//!
//! `DRILL_DIVIDE_BY=100` runs it with a hundredth of the tokens and sessions, to try it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fred::prelude::*;
use serde_json::{Value, json};
use tokend::metrics::Metrics;
use tokend::store::{Durability, ExchangeRequest, Store, StoreConfig};
use tokend::token::rotating::{ROTATION_RETRY_DEFAULT, Rotating};
use tokend::token::{ExchangeOutcome, Flow, FlowsLimits, Metadata, Policy, bearer};

use super::process::{self, Directory, Process};
use super::{Report, burst, lag};

const KEY_PREFIX: &str = "flows";
const PARTITIONS: u32 = 16;
/// Twice what is made: this is not about the cap.
const FLOW_MAX: u64 = 2_000_000;
const TOKENS: u64 = 1_000_000;
/// Alive beside the million, for an hour: those that requests go on about.
const FEW: u64 = 1_000;
/// Tokens made a second at the least: decides when they end.
const MADE_A_SECOND_MIN: u64 = 10_000;
/// From the last that is made to the first that lapses: what is measured while all are alive.
const ALIVE_S: u64 = 30;
/// Over how long they lapse.
const LAPSE_MS: u64 = 3_000;
/// Longest that they may take to be gone.
const GONE_S_MAX: u64 = 120;
/// Validations per measurement, one after the other.
const ASKED: usize = 5_000;
const SESSIONS: u64 = 100_000;
const REFRESHES: u64 = 100;
/// Longest that the refreshes may take: what was not done by then is not done.
const REFRESH_S_MAX: u64 = 240;
/// Calls under way at once.
const TASKS: u64 = 2_000;

pub async fn drill() -> Report {
    let mut report = Report::default();
    let divide_by = std::env::var("DRILL_DIVIDE_BY").ok();
    let divide_by = divide_by.and_then(|by| by.parse().ok()).unwrap_or(1).max(1);
    temporary(&mut report, (TOKENS / divide_by).max(1)).await;
    sessions(&mut report, (SESSIONS / divide_by).max(1)).await;
    report
}

/// A Redis of its own, and this process as a replica on it.
struct World {
    port: u16,
    admin: Client,
    store: Store,
    _redis: Process,
    _scratch: Directory,
}

impl World {
    async fn new() -> Self {
        let scratch = Directory::new();
        let port = process::free_port();
        let redis = process::redis(port, scratch.path()).await;
        let url = format!("redis://127.0.0.1:{port}");
        let mut flows = FlowsLimits::DEFAULT;
        flows.temporary.max = FLOW_MAX;
        flows.session.max = FLOW_MAX;
        let config = StoreConfig {
            url: url.clone(),
            key_prefix: KEY_PREFIX.to_owned(),
            partitions: PARTITIONS,
            default_policy: Policy::FOR_DEFAULT_POOL,
            flows,
            durability: Durability::Memory,
        };
        let store = Store::start(config, Arc::new(Metrics::new())).await;
        Self {
            port,
            admin: lag::connect(&url).await,
            store: store.expect("a store"),
            _redis: redis,
            _scratch: scratch,
        }
    }

    async fn used_memory(&self) -> u64 {
        burst::used_memory(&self.admin).await
    }

    /// The longest wait for Redis while that goes on, ms.
    async fn longest_pause_ms<T>(&self, while_: impl Future<Output = T>) -> (f64, T) {
        let stop = Arc::new(AtomicBool::new(false));
        let pause_us = Arc::new(AtomicU64::new(0));
        let pinger = tokio::spawn(burst::ping(self.port, stop.clone(), pause_us.clone()));
        let done = while_.await;
        stop.store(true, Ordering::Relaxed);
        pinger.await.expect("the pinger");
        (pause_us.load(Ordering::Relaxed) as f64 / 1_000.0, done)
    }
}

// ---- Temporary tokens ----

async fn temporary(report: &mut Report, tokens: u64) {
    let world = World::new().await;
    let (url, max) = (
        format!("redis://127.0.0.1:{}", world.port),
        FLOW_MAX.to_string(),
    );
    let partitions = PARTITIONS.to_string();
    let http_port = process::free_port();
    let _replica = process::tokend(
        http_port,
        &[
            ("REDIS_URL", url.as_str()),
            ("KEY_PREFIX", KEY_PREFIX),
            ("PARTITIONS", partitions.as_str()),
            ("TEMPORARY_MAX", max.as_str()),
            ("SESSION_MAX", max.as_str()),
        ],
    );
    let asker = Asker::new(http_port).await;

    let hour_ms = 3_600_000;
    // The first makes the flow's pool, once.
    let mut few = make(&world.store, 1, move || hour_ms).await;
    let empty = world.used_memory().await;
    few.extend(make(&world.store, FEW - 1, move || hour_ms).await);
    let with_few = world.used_memory().await;
    told_alive(report, &asker, &few, FEW, (with_few - empty) / (FEW - 1)).await;

    let began = Instant::now();
    let end = began + Duration::from_secs(tokens / MADE_A_SECOND_MIN + ALIVE_S);
    // Spread evenly: each call of the closure is one token.
    let nth = AtomicU64::new(0);
    let lifetime_ms = move || {
        let n = nth.fetch_add(1, Ordering::Relaxed) % tokens;
        until_ms(end) + LAPSE_MS * n / tokens
    };
    let (pause_ms, many) = world
        .longest_pause_ms(make(&world.store, tokens, lifetime_ms))
        .await;
    let took = began.elapsed();
    report.figure(
        &format!("{tokens} temporary tokens made, one replica"),
        format!(
            "{took:.1?}, {:.0}/s, longest pause of Redis {pause_ms:.1} ms",
            tokens as f64 / took.as_secs_f64()
        ),
    );
    let bytes = (world.used_memory().await - with_few) / tokens;
    told_alive(report, &asker, &many, tokens + FEW, bytes).await;
    report.check(
        Instant::now() < end,
        "making and asking took too long to measure",
    );
    lapse(report, &world, &asker, &few, (tokens, end)).await;
    world.store.stop().await;
}

/// What so many alive cost: memory, and the time to validate one of these.
async fn told_alive(report: &mut Report, asker: &Asker, tokens: &[String], alive: u64, bytes: u64) {
    let (latency, valid) = asker.ask(tokens, ASKED, &AtomicBool::new(false)).await;
    report.figure(
        &format!("{alive} alive: Redis per token"),
        format!("{bytes} bytes"),
    );
    report.figure(&format!("{alive} alive: validate over HTTP"), latency);
    report.check(
        valid,
        format!("{alive} alive: one that is alive was not valid"),
    );
}

/// From the first deadline to the last token gone, while requests go on.
async fn lapse(
    report: &mut Report,
    world: &World,
    asker: &Asker,
    few: &[String],
    (tokens, end): (u64, Instant),
) {
    let pattern = format!("{KEY_PREFIX}:1:*:records:_temporary");
    let records: Vec<String> = world
        .admin
        .custom(fred::cmd!("KEYS"), vec![pattern])
        .await
        .expect("KEYS");
    report.check(!records.is_empty(), "no records were found");
    tokio::time::sleep_until(end.into()).await;
    let stop = AtomicBool::new(false);
    let all_gone = async {
        let until = end + Duration::from_secs(GONE_S_MAX);
        let mut gone = None;
        while gone.is_none() && Instant::now() < until {
            let kept = kept(&world.admin, &records).await;
            gone = (kept <= FEW).then(Instant::now);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, Ordering::Relaxed);
        gone
    };
    let both = async { tokio::join!(all_gone, asker.ask(few, usize::MAX, &stop)) };
    let (pause_ms, (gone, (latency, valid))) = world.longest_pause_ms(both).await;
    let last = end + Duration::from_millis(LAPSE_MS);
    report.figure(
        &format!("{tokens} lapse within {LAPSE_MS} ms: all gone"),
        match gone {
            Some(gone) => format!(
                "{:.2?} after the last",
                gone.saturating_duration_since(last)
            ),
            None => "never".to_owned(),
        },
    );
    report.figure(
        "meanwhile: longest pause of Redis",
        format!("{pause_ms:.1} ms"),
    );
    report.figure("meanwhile: validate over HTTP", latency);
    report.check(gone.is_some(), "tokens that lapsed were not removed");
    report.check(valid, "one that is alive was not valid while others lapsed");
    report.check(
        kept(&world.admin, &records).await == FEW,
        "others than those that lapsed are gone",
    );
}

/// Records in Redis, dead or alive. Asking the store would sweep.
async fn kept(admin: &Client, records: &[String]) -> u64 {
    let mut kept = 0;
    for key in records {
        let length: u64 = admin.hlen(key.as_str()).await.expect("HLEN");
        kept += length;
    }
    kept
}

/// Milliseconds until then, at least the shortest lifetime.
fn until_ms(end: Instant) -> u64 {
    let left = end.saturating_duration_since(Instant::now()).as_millis();
    u64::try_from(left).unwrap_or(u64::MAX).max(1_000)
}

/// Makes so many, each with the lifetime that is said at that moment.
async fn make(
    store: &Store,
    count: u64,
    lifetime_ms: impl Fn() -> u64 + Send + Sync + 'static,
) -> Vec<String> {
    let (left, lifetime_ms) = (Arc::new(AtomicU64::new(count)), Arc::new(lifetime_ms));
    let tasks: Vec<_> = (0..TASKS.min(count))
        .map(|_| {
            let (store, left) = (store.clone(), left.clone());
            let lifetime_ms = lifetime_ms.clone();
            tokio::spawn(async move {
                let mut made = Vec::new();
                while take(&left) {
                    let lifetime_ms = Some(lifetime_ms());
                    let new = bearer::temporary;
                    let new = store.create_opaque(Flow::Temporary, new, None, lifetime_ms);
                    let (token, _) = new.await.expect("create").expect("room");
                    made.push(token);
                }
                made
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a task"));
    }
    all
}

fn take(left: &AtomicU64) -> bool {
    let one_less = |left: u64| left.checked_sub(1);
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_ok()
}

/// A client of the replica that is a process of its own.
struct Asker {
    client: reqwest::Client,
    url: String,
}

impl Asker {
    async fn new(port: u16) -> Self {
        let client = process::http();
        process::ready(&client, port).await;
        Self {
            client,
            url: format!("http://127.0.0.1:{port}/app/valid"),
        }
    }

    /// Validates one after the other, as many as said or until it is to stop: how long each took, and whether all
    /// were valid.
    async fn ask(&self, tokens: &[String], most: usize, stop: &AtomicBool) -> (String, bool) {
        // A stride that meets tokens of all ages.
        let stride = (tokens.len() / ASKED).max(1);
        let mut took = Vec::new();
        let mut valid = true;
        for token in tokens.iter().step_by(stride).cycle().take(most) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let began = Instant::now();
            let request = self.client.post(&self.url).json(&json!({ "token": token }));
            let answer = request.send().await.expect("an answer");
            let body = answer.text().await.expect("a body");
            took.push(began.elapsed());
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            valid &= body["status"] == json!(true);
        }
        took.sort();
        let at = |percent: usize| {
            let nth = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            took.get(nth).copied().unwrap_or_default().as_secs_f64() * 1_000.0
        };
        let told = format!(
            "p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms of {}",
            at(50),
            at(99),
            at(100),
            took.len()
        );
        (told, valid)
    }
}

// ---- Sessions ----

async fn sessions(report: &mut Report, sessions: u64) {
    let world = World::new().await;
    let empty = world.used_memory().await;
    let began = Instant::now();
    // The first makes the flow's pool, once.
    let mut families = log_in(&world.store, 1).await;
    families.extend(log_in(&world.store, sessions - 1).await);
    let took = began.elapsed();
    report.figure(
        &format!("{sessions} sessions made, one replica"),
        format!("{took:.1?}, {:.0}/s", sessions as f64 / took.as_secs_f64()),
    );
    let before = world.used_memory().await;

    let began = Instant::now();
    let refreshing = refresh_all(&world.store, families);
    let (pause_ms, families) = world.longest_pause_ms(refreshing).await;
    let took = began.elapsed();
    // A family starts at 1.
    let done: u64 = families.iter().map(|token| token.number.get() - 1).sum();
    report.figure(
        &format!("refreshes done, of {REFRESHES} each"),
        format!(
            "{done} of {} in {took:.1?}, {:.0}/s, longest pause of Redis {pause_ms:.1} ms",
            sessions * REFRESHES,
            done as f64 / took.as_secs_f64()
        ),
    );
    let after = world.used_memory().await;
    let each = |used: u64| (used - empty) / sessions;
    report.figure(
        "bytes of Redis per session, before and after",
        format!("{}, {}", each(before), each(after)),
    );
    report.check(
        each(after) <= each(before) * 3 / 2,
        "a session grows with its refreshes",
    );
    for token in families.iter().step_by(families.len().div_ceil(ASKED)) {
        let found = world
            .store
            .inspect_family(Flow::Session, token.partition, &token.family);
        let number = found.await.expect("inspect").map(|view| view.number);
        report.check(
            number == Some(token.number),
            format!("a session is at {number:?}, not {:?}", token.number),
        );
    }
    world.store.stop().await;
}

async fn log_in(store: &Store, count: u64) -> Vec<Rotating> {
    let left = Arc::new(AtomicU64::new(count));
    let tasks: Vec<_> = (0..TASKS.min(count))
        .map(|_| {
            let (store, left) = (store.clone(), left.clone());
            tokio::spawn(async move {
                let mut made = Vec::new();
                while take(&left) {
                    let new = store.create_family(Flow::Session, None, Metadata::default());
                    let (token, _) = new.await.expect("create").expect("room");
                    made.push(token);
                }
                made
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a task"));
    }
    all
}

/// Refreshes each again and again, all at about the same number, until each was refreshed often enough or time
/// is up: the tokens as they are then.
async fn refresh_all(store: &Store, families: Vec<Rotating>) -> Vec<Rotating> {
    let until = Instant::now() + Duration::from_secs(REFRESH_S_MAX);
    let size = families
        .len()
        .div_ceil(usize::try_from(TASKS).expect("few"));
    let tasks: Vec<_> = families
        .chunks(size)
        .map(|families| {
            let (store, mut families) = (store.clone(), families.to_vec());
            tokio::spawn(async move {
                for _ in 0..REFRESHES {
                    for token in &mut families {
                        if Instant::now() >= until {
                            return families;
                        }
                        *token = refreshed(&store, token).await;
                    }
                }
                families
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a task"));
    }
    all
}

async fn refreshed(store: &Store, token: &Rotating) -> Rotating {
    let request = ExchangeRequest {
        token: token.clone(),
        metadata: Metadata::default(),
        retry: ROTATION_RETRY_DEFAULT,
        renew: true,
        revoke_on_reuse: true,
    };
    match store.exchange(Flow::Session, &request).await {
        Ok(ExchangeOutcome::Exchanged(done)) => {
            assert_eq!(done.number.get(), token.number.get() + 1, "one at a time");
            Rotating {
                number: done.number,
                ..request.token
            }
        }
        Ok(other) => panic!("not refreshed: {other:?}"),
        Err(error) => panic!("{error}"),
    }
}
