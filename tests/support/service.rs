//! The built `tokend`: any command of it, and `tokend serve` as a process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reqwest::Method;
use serde_json::Value;

use super::{Directory, OwnRedis, PATIENCE, Process, http_client};

/// The `tokend` of this very build. Cargo tells tests where it is; an example lies in a folder beside it.
pub fn program() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_tokend") {
        Some(path) => PathBuf::from(path),
        None => {
            let example = std::env::current_exe().expect("our own path");
            let profile = example.ancestors().nth(2).expect("target/PROFILE");
            profile.join("tokend")
        }
    }
}

/// It, in this directory, with nothing of this process's environment but PATH.
pub fn tokend(directory: &Directory) -> Command {
    let mut command = Command::new(program());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(directory.path())
        .stdin(Stdio::null());
    command
}

/// A running `tokend serve`, killed when dropped.
pub struct Tokend {
    pub url: String,
    pub process: Process,
    http: reqwest::Client,
}

impl Tokend {
    /// With these settings, on a free port unless they have `PORT`. It is ready.
    pub async fn start(directory: &Directory, settings: &[(&str, &str)]) -> Self {
        Self::with_flags(directory, settings, &[]).await
    }

    /// The same on this Redis.
    pub async fn on(redis: &OwnRedis, directory: &Directory, settings: &[(&str, &str)]) -> Self {
        let settings = [&[("REDIS_URL", redis.url.as_str())], settings].concat();
        Self::start(directory, &settings).await
    }

    /// With these settings and flags.
    pub async fn with_flags(
        directory: &Directory,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let mut command = tokend(directory);
        command
            .arg("serve")
            .args(flags)
            .env("PORT", "0")
            .envs(settings.iter().copied());
        let mut process = Process::start(&mut command);
        let announced = async |log: &[String]| {
            log.iter().find_map(|line| {
                let (_, rest) = line.split_once(" serves ")?;
                rest.split_whitespace().next().map(str::to_owned)
            })
        };
        let url = process.until("tokend serves", announced).await;
        process.until_ok(&format!("{url}/readyz")).await;
        Self {
            url,
            process,
            http: http_client(),
        }
    }

    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.ask(Method::GET, path, None);
        answer.await.expect("an answer")
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.ask(Method::POST, path, Some(body));
        answer.await.expect("an answer")
    }

    pub async fn metrics(&self) -> String {
        let answer = self.ask_text(Method::GET, "/metrics", None);
        answer.await.expect("an answer").1
    }

    /// Status and JSON body.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, Value), reqwest::Error> {
        let (status, text) = self.ask_text(method, path, body).await?;
        Ok((status, serde_json::from_str(&text).unwrap_or_default()))
    }

    /// Status and body as it came, on a connection of its own so that none keeps a stop waiting.
    pub async fn ask_text(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(u16, String), reqwest::Error> {
        let request = self.http.request(method, format!("{}{path}", self.url));
        let mut request = request.header("connection", "close").timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok((status, response.text().await?))
    }
}
