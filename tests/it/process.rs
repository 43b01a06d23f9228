//! The real binary: `tokend serve` as a process, and the command line against it.

mod commands;
mod doctor;
mod healthcheck;
mod lease;
mod logs;
mod one_time;
mod serve;
mod sessions;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{eventually, new_namespace, redis_url, signal};
pub use crate::support::{Directory, http_client};

/// Longest that a process may take to end before the test gives up: no timing assertion.
const END_TIME_MAX: Duration = Duration::from_secs(40);

/// The binary with nothing of this process's environment but PATH.
pub fn tokend(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokend"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(directory)
        .stdin(Stdio::null());
    command
}

/// A running `tokend serve`, killed when dropped.
pub struct Service {
    pub url: String,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    http: reqwest::Client,
}

impl Service {
    /// On the shared Redis, in a namespace of its own.
    pub async fn start(directory: &Directory) -> Self {
        let namespace = new_namespace();
        let settings = [
            ("REDIS_URL", redis_url().await),
            ("KEY_PREFIX", &namespace),
            ("PARTITIONS", "2"),
        ];
        Self::with(directory, &settings).await
    }

    /// With these settings, on a free port.
    pub async fn with(directory: &Directory, settings: &[(&str, &str)]) -> Self {
        Self::with_flags(directory, settings, &[]).await
    }

    /// With these settings and flags, on a free port.
    pub async fn with_flags(
        directory: &Directory,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let mut command = tokend(directory.path());
        command
            .args(["serve", "--port", "0"])
            .args(flags)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("tokend starts");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("unpoisoned").push(line);
            }
        });
        let mut service = Self {
            url: String::new(),
            child,
            log,
            http: http_client(),
        };
        service.url = service.announced().await;
        eventually("it is ready", async || {
            service.get("/readyz").await.0 == 200
        })
        .await;
        service
    }

    /// The URL that the log tells.
    async fn announced(&mut self) -> String {
        let mut url = None;
        eventually("it serves", async || {
            let log = self.log();
            let ended = self.child.try_wait().expect("our child");
            assert!(ended.is_none(), "tokend ended: {log:?}");
            url = log.iter().find_map(|line| {
                let (_, rest) = line.split_once(" serves ")?;
                rest.split_whitespace().next().map(ToOwned::to_owned)
            });
            url.is_some()
        })
        .await;
        url.expect("just seen")
    }

    /// All lines so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("unpoisoned").clone()
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(reqwest::Method::GET, path, None)
            .await
            .expect("an answer")
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.ask(reqwest::Method::POST, path, Some(body));
        answer.await.expect("an answer")
    }

    /// Status and JSON body, on a connection of its own so that none keeps a stop waiting.
    pub async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let (status, text) = self.ask_text(method, path, body).await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    pub async fn metrics(&self) -> String {
        let asked = self.ask_text(reqwest::Method::GET, "/metrics", None);
        asked.await.expect("an answer").1
    }

    /// Status and body as it came.
    pub async fn ask_text(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, String), reqwest::Error> {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let mut request = request.header("connection", "close").timeout(END_TIME_MAX);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.text().await?))
    }

    /// The command line, pointed here.
    pub fn cli(&self, directory: &Directory, args: &[&str]) -> Command {
        let mut command = tokend(directory.path());
        command.env("TOKEND_URL", &self.url).args(args);
        command
    }

    /// Runs a command to its end: its exit code, stdout and stderr.
    pub fn run(&self, directory: &Directory, args: &[&str]) -> Ran {
        Ran::from(self.cli(directory, args).output().expect("tokend runs"))
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        wait(&mut self.child).await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a child's end, and fails the test if it never comes.
pub async fn wait(child: &mut Child) -> ExitStatus {
    let until = Instant::now() + END_TIME_MAX;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status;
        }
        assert!(Instant::now() < until, "the process never ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Ran {
    /// Its stdout, after a look at the code.
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        &self.stdout
    }

    pub fn json(&self) -> Value {
        assert_eq!(self.ok().lines().count(), 1, "{}", self.stdout);
        serde_json::from_str(self.ok()).expect("JSON")
    }
}
