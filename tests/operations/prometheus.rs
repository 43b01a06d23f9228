//! A real Prometheus, and what stands around it: something that it scrapes, or that is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::machine::{on_path, repository};
use crate::support::{Directory, Port, Process, http_client, skip};

/// The rules that we ship.
pub const RULES: &str = "grafana/rules/tokend.yaml";

/// A rule as Prometheus has read it.
pub struct Rule {
    pub name: String,
    pub expr: String,
    pub is_alert: bool,
}

pub struct Prometheus {
    pub url: String,
    http: reqwest::Client,
    _process: Process,
    _directory: Directory,
    _port: Port,
}

impl Prometheus {
    /// With this configuration and these rules; it scrapes and evaluates twice a second. None where there is no such
    /// program, which is said.
    pub async fn start(test: &str, jobs: &str, rules: &str) -> Option<Self> {
        let Some(program) = on_path("prometheus") else {
            skip(test, "no prometheus");
            return None;
        };
        let (directory, port) = (Directory::new(), Port::claim());
        directory.write("rules.yaml", rules);
        let config = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\n\
             rule_files: [rules.yaml]\n{jobs}"
        );
        let config = directory.write("prometheus.yaml", &config);
        let address = format!("127.0.0.1:{}", port.number);
        let mut process = Process::start(
            Command::new(program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    directory.path().display()
                ))
                .arg(format!("--web.listen-address={address}"))
                .env("GOMAXPROCS", "1")
                .current_dir(directory.path()),
        );
        let url = format!("http://{address}");
        process.until_ok(&format!("{url}/-/ready")).await;
        Some(Self {
            url,
            http: http_client(),
            _process: process,
            _directory: directory,
            _port: port,
        })
    }

    async fn get(&self, path: &str, arguments: &[(&str, &str)]) -> Value {
        let arguments = arguments.iter();
        let arguments: Vec<_> = arguments
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        let url = format!("{}/api/v1/{path}?{}", self.url, arguments.join("&"));
        let answer = self.http.get(url).send().await.expect("Prometheus answers");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(
            answer["status"], "success",
            "{path} {arguments:?}: {answer}"
        );
        answer["data"].clone()
    }

    /// The values that an expression has now, one of each series.
    pub async fn query(&self, expr: &str) -> Vec<f64> {
        values(&self.get("query", &[("query", expr)]).await)
    }

    /// The same long before anything was scraped.
    pub async fn query_before_all(&self, expr: &str) -> Vec<f64> {
        values(
            &self
                .get("query", &[("query", expr), ("time", "1000000000")])
                .await,
        )
    }

    /// The values that a label has, among the series that match.
    pub async fn label_values(&self, label: &str, series: &str) -> usize {
        let path = format!("label/{label}/values");
        let found = self.get(&path, &[("match[]", series)]).await;
        found.as_array().map_or(0, Vec::len)
    }

    pub async fn rules(&self) -> Vec<Rule> {
        let found = self.get("rules", &[]).await;
        let groups = found["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
        rules
            .map(|rule| Rule {
                name: text(&rule["name"]),
                expr: text(&rule["query"]),
                is_alert: rule["type"] == "alerting",
            })
            .collect()
    }
}

/// A job that scrapes these, with the namespace that Kubernetes would add.
pub fn job(name: &str, urls: &[&str]) -> String {
    let targets: Vec<_> = urls.iter().map(|url| url.replace("http://", "")).collect();
    format!(
        "  - job_name: {name}\n    honor_labels: true\n    static_configs:\n      - targets: [{}]\n        \
         labels: {{namespace: tok}}\n",
        targets.join(", ")
    )
}

pub fn shipped_rules() -> String {
    std::fs::read_to_string(repository(RULES)).expect("the rules")
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn values(data: &Value) -> Vec<f64> {
    let series = data["result"].as_array().expect("a vector").iter();
    series
        .map(|series| text(&series["value"][1]).parse().expect("a number"))
        .collect()
}

fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Answers every request with this text, and keeps what it was sent. Ends with the process.
pub struct Listener {
    pub url: String,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    pub fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = BufReader::new(stream);
                let (mut line, mut length) = (String::new(), 0);
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    if let Some(told) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = told.trim().parse().unwrap_or(0);
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if stream.read_exact(&mut body).is_ok() && length > 0 {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    kept.lock().expect("unpoisoned").push(body);
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n",
                    answer.len()
                );
                let _ = stream.get_mut().write_all((head + answer).as_bytes());
            }
        });
        Self { url, bodies }
    }

    pub fn bodies(&self) -> Vec<String> {
        self.bodies.lock().expect("unpoisoned").clone()
    }
}
