//! From an empty pool to whoever is woken, and back: a real Prometheus and a real Alertmanager.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::machine::on_path;
use crate::prometheus::{Listener, Prometheus, job, shipped_rules, text};
use crate::support::{Directory, OwnRedis, Port, Process, Tokend, eventually, skip};

const ROUTES: &str = "route: {receiver: hook, group_by: [alertname], group_wait: 0s, group_interval: 1s, \
    repeat_interval: 1h}\nreceivers:\n  - name: hook\n    webhook_configs:\n      - url: HOOK\n        \
    send_resolved: true\n";

/// The rules with each minute made a second and each hour a minute: the same expressions, sixty times as fast.
fn sped_up(rules: &str) -> String {
    let mut told = String::new();
    for line in rules.lines() {
        let is_for = line.trim_start().starts_with("for: ");
        let mut previous = ' ';
        for (at, c) in line.char_indices() {
            let next = line[at + c.len_utf8()..].chars().next();
            // The unit of a duration: behind a digit, before the bracket or the end.
            let ends = next == Some(']') || (is_for && next.is_none());
            told.push(match c {
                'm' if previous.is_ascii_digit() && ends => 's',
                'h' if previous.is_ascii_digit() && ends => 'm',
                other => other,
            });
            previous = c;
        }
        told.push('\n');
    }
    told
}

struct Alertmanager {
    address: String,
    _process: Process,
    _directory: Directory,
    _port: Port,
}

impl Alertmanager {
    /// One that tells the hook of everything at once.
    async fn start(program: &Path, hook: &Listener) -> Self {
        let (directory, port) = (Directory::new(), Port::claim());
        let config = directory.write("alertmanager.yaml", &ROUTES.replace("HOOK", &hook.url));
        let address = format!("127.0.0.1:{}", port.number);
        let mut process = Process::start(
            Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.path={}", directory.path().display()))
                .arg(format!("--web.listen-address={address}"))
                .arg("--cluster.listen-address="),
        );
        process.until_ok(&format!("http://{address}/-/ready")).await;
        Self {
            address,
            _process: process,
            _directory: directory,
            _port: port,
        }
    }
}

/// The state of an alert about a pool, as it was told last.
fn last_told(hook: &Listener, alert: &str, pool: &str) -> Option<String> {
    let told: Vec<Value> = hook
        .bodies()
        .iter()
        .filter_map(|body| serde_json::from_str(body).ok())
        .collect();
    let alerts = told
        .iter()
        .flat_map(|told| told["alerts"].as_array().expect("alerts"));
    let mut ours = alerts.filter(|it| {
        let labels = &it["labels"];
        labels["alertname"] == alert && labels["pool"] == pool
    });
    ours.next_back().map(|it| text(&it["status"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_runs_dry_is_told_and_so_is_its_recovery() {
    let test = "a_pool_that_runs_dry_is_told_and_so_is_its_recovery";
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip(test, "no redis-server");
    };
    let Some(alertmanager) = on_path("prometheus-alertmanager").or_else(|| on_path("alertmanager"))
    else {
        return skip(test, "no alertmanager");
    };
    let directory = Directory::new();
    let service = Tokend::on(&redis, &directory, &[]).await;
    let hook = Listener::start("");
    let alertmanager = Alertmanager::start(&alertmanager, &hook).await;
    let jobs = format!(
        "alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{}']}}]}}]}}\n\
         scrape_configs:\n{}",
        alertmanager.address,
        job("tokend", &[&service.url])
    );
    let rules = sped_up(&shipped_rules());
    let Some(prometheus) = Prometheus::start(test, &jobs, &rules).await else {
        return;
    };
    let post = async |verb: &str, body: Value| {
        let path = format!("/v1/pools/seats/{verb}");
        service.post(&path, body).await.0
    };
    let policy = Some(json!({"lifetime": 600}));
    let put = service.ask(Method::PUT, "/v1/pools/seats", policy).await;
    assert_eq!(put.expect("an answer").0, 201);
    let tokens = json!({"tokens": ["seat-1", "seat-2"]});
    assert_eq!(post("generate", tokens).await, 201);
    let scraped = "tokend_refusals_total{pool=\"seats\",verb=\"assign\"}";
    eventually("Prometheus knows the pool", async || {
        prometheus.query(scraped).await == [0.0]
    })
    .await;
    // All held, and nobody refused: a pool that is well used.
    for _ in 0..2 {
        assert_eq!(post("assign", json!({})).await, 200);
    }
    let told =
        |state: &str| last_told(&hook, "TokendPoolExhausted", "seats").as_deref() == Some(state);
    eventually("it is told that the pool is dry", async || {
        assert_eq!(post("assign", json!({})).await, 404);
        told("firing")
    })
    .await;
    for token in ["seat-1", "seat-2"] {
        assert_eq!(post("unblock", json!({"token": token})).await, 200);
    }
    eventually("it is told that it is over", async || {
        let granted = post("assign", json!({"token": "seat-1"})).await;
        let back = post("unblock", json!({"token": "seat-1"})).await;
        assert_eq!((granted, back), (200, 200));
        told("resolved")
    })
    .await;
}

#[test]
fn minutes_become_seconds_and_nothing_else_changes() {
    let rules =
        "expr: rate(a_5m[5m]) > 5m2h and b[1h] # 10m\n        for: 2m\nsummary: for: 2m or so\n";
    let expected =
        "expr: rate(a_5m[5s]) > 5m2h and b[1m] # 10m\n        for: 2s\nsummary: for: 2m or so\n";
    assert_eq!(sped_up(rules), expected);
}
