//! The embedded Redis dies under load (kill -9), and its disk stalls while it does. What was acknowledged
//! must be there afterwards, and every request must have had its answer within 2 s.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Report;
use super::process::{self, Directory};

const CLIENTS: usize = 16;
const KILLS: usize = 6;
/// How long the disk stalls, and when in it Redis is killed.
const STALL_MS: u64 = 2_000;
/// Longest that a request may take.
const ANSWER_MS_MAX: u64 = 2_000;
/// What the machine's own scheduling may add on two busy cores.
const NOISE_MS: u64 = 300;

#[derive(Default)]
struct Seen {
    generated: Mutex<Vec<String>>,
    granted: Mutex<Vec<(String, u64)>>,
    ok: AtomicU64,
    unavailable: AtomicU64,
    unknown: AtomicU64,
    other: Mutex<Vec<String>>,
    slowest_ms: AtomicU64,
}

pub async fn drill() -> Report {
    let mut report = Report::default();
    let scratch = Directory::new();
    let flag = scratch.path().join("stall");
    let Some(shim) = process::build_shim(scratch.path(), process::STALLING_FSYNC) else {
        report.figure("skipped", "no C compiler for the stalling disk");
        return report;
    };
    let data = scratch.path().join("data");
    let port = process::free_port();
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let tokend = process::tokend(
        port,
        &[
            ("REDIS_URL", ""),
            ("DATA_DIR", &text(&data)),
            ("LD_PRELOAD", &shim),
            ("STALL_FLAG", &text(&flag)),
        ],
    );
    let client = process::http();
    process::ready(&client, port).await;
    let base = format!("http://127.0.0.1:{port}/v1/pools/drill");
    let policy = json!({"lifetime": 86400, "max_tokens": 1_000_000});
    client.put(&base).json(&policy).send().await.expect("PUT");

    let seen = Arc::new(Seen::default());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            tokio::spawn(load(
                client.clone(),
                base.clone(),
                seen.clone(),
                stop.clone(),
            ))
        })
        .collect();
    let mut recoveries = Vec::new();
    for round in 0..KILLS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stalled = round % 2 == 1;
        if stalled {
            std::fs::write(&flag, "").expect("a flag");
            tokio::time::sleep(Duration::from_millis(STALL_MS / 2)).await;
        }
        kill_redis_of(tokend.id());
        if stalled {
            tokio::time::sleep(Duration::from_millis(STALL_MS / 2)).await;
            std::fs::remove_file(&flag).expect("the flag");
        }
        let began = Instant::now();
        process::ready(&client, port).await;
        recoveries.push(began.elapsed());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("a client's task");
    }
    judge(&mut report, &client, &base, &seen, &recoveries).await;
    report
}

/// kill -9 of the redis-server whose parent tokend is.
fn kill_redis_of(tokend: u32) {
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        let Some((head, tail)) = stat.rsplit_once(')') else {
            continue;
        };
        let parent = tail.split_whitespace().nth(1).and_then(|p| p.parse().ok());
        if head.contains("redis-server") && parent == Some(tokend) {
            let pid = entry.file_name().into_string().expect("a number");
            let _ = Command::new("sh")
                .args(["-c", &format!("kill -9 {pid}")])
                .status();
        }
    }
}

async fn load(client: reqwest::Client, base: String, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        if let Some(made) = call(&client, &base, "generate", json!({"count": 5}), &seen).await {
            let tokens = made["tokens"].as_array().expect("tokens").iter();
            let tokens = tokens.filter_map(|t| Some(t.as_str()?.to_owned()));
            seen.generated.lock().expect("no panic").extend(tokens);
        }
        if let Some(grant) = call(&client, &base, "assign", json!({}), &seen).await {
            let token = grant["token"].as_str().expect("a token").to_owned();
            let fence = grant["fence"].as_u64().expect("a fence");
            seen.granted.lock().expect("no panic").push((token, fence));
        }
    }
}

/// One call; its body if it succeeded.
async fn call(
    client: &reqwest::Client,
    base: &str,
    verb: &str,
    body: Value,
    seen: &Seen,
) -> Option<Value> {
    let began = Instant::now();
    let answer = client
        .post(format!("{base}/{verb}"))
        .json(&body)
        .send()
        .await;
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    seen.slowest_ms.fetch_max(took, Ordering::Relaxed);
    let told = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let body: Value = answer.json().await.unwrap_or_default();
            if status < 300 {
                seen.ok.fetch_add(1, Ordering::Relaxed);
                return Some(body);
            }
            match (status, body["type"].as_str()) {
                (503, Some("/problems/store-unavailable")) => &seen.unavailable,
                (503, Some("/problems/outcome-unknown")) => &seen.unknown,
                (404, Some("/problems/no-token-available")) => return None,
                _ => {
                    seen.other
                        .lock()
                        .expect("no panic")
                        .push(format!("{verb}: {status} {body}"));
                    return None;
                }
            }
        }
        Err(error) => {
            seen.other.lock().expect("no panic").push(error.to_string());
            return None;
        }
    };
    told.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    None
}

async fn judge(
    report: &mut Report,
    client: &reqwest::Client,
    base: &str,
    seen: &Seen,
    recoveries: &[Duration],
) {
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let generated = seen.generated.lock().expect("no panic").clone();
    let granted = seen.granted.lock().expect("no panic").clone();
    let mut lost = 0;
    for (token, fence) in &granted {
        let now = inspect(client, base, token).await;
        lost += usize::from(now["state"] != "held" || now["fence"] != *fence);
    }
    let mut missing = 0;
    for token in generated.iter().step_by(1 + generated.len() / 5_000) {
        missing += usize::from(inspect(client, base, token).await["state"].is_null());
    }
    let slowest = value(&seen.slowest_ms);
    let longest = recoveries.iter().max().copied().unwrap_or_default();
    report.figure(
        "kill -9 of the embedded Redis (half in a stalled fsync)",
        recoveries.len(),
    );
    report.figure(
        "answers: ok, store-unavailable, outcome-unknown",
        format!(
            "{}, {}, {}",
            value(&seen.ok),
            value(&seen.unavailable),
            value(&seen.unknown)
        ),
    );
    report.figure("slowest answer", format!("{slowest} ms"));
    report.figure("longest time until ready again", format!("{longest:.2?}"));
    report.figure(
        "acknowledged grants, of those lost",
        format!("{}, {lost}", granted.len()),
    );
    report.figure(
        "acknowledged tokens, of those looked at missing",
        format!("{}, {missing}", generated.len()),
    );
    report.check(lost == 0, "an acknowledged grant is gone");
    report.check(missing == 0, "an acknowledged token is gone");
    report.check(
        slowest <= ANSWER_MS_MAX + NOISE_MS,
        "an answer took too long",
    );
    for other in seen.other.lock().expect("no panic").iter().take(5) {
        report.check(false, other.clone());
    }
}

async fn inspect(client: &reqwest::Client, base: &str, token: &str) -> Value {
    let request = client
        .post(format!("{base}/inspect"))
        .json(&json!({"token": token}));
    match request.send().await {
        Ok(answer) => answer.json().await.unwrap_or_default(),
        Err(_) => Value::Null,
    }
}
