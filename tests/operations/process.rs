//! The processes that these tests start, and that end with them.

#![allow(dead_code)] // not all of it is needed everywhere

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

pub use crate::support::{Directory, http_client};
use crate::support::{OwnRedis, eventually, eventually_some, signal};

/// Says so, past the test harness's capture, when a test can't run here.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether a program is on PATH, and where.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Debian keeps servers where only root's PATH looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut found = folders.map(|folder| folder.join(program));
    found.find(|path| path.is_file())
}

/// A process whose output is kept. Killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("unpoisoned").push(line);
            }
        });
        Self { child, log }
    }

    /// What it has said on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("unpoisoned").clone()
    }

    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    pub async fn until_ended(&mut self) -> ExitStatus {
        eventually_some("the process ends", async || self.ended()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `tokend serve`.
pub struct Tokend {
    pub url: String,
    pub process: Process,
}

impl Tokend {
    /// On this Redis and a free port, with these settings besides.
    pub async fn start(redis: &OwnRedis, directory: &Directory, settings: &[(&str, &str)]) -> Self {
        Self::on_port(0, redis, directory, settings).await
    }

    /// The same on this port; 0: any free one.
    pub async fn on_port(
        port: u16,
        redis: &OwnRedis,
        directory: &Directory,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokend"));
        command
            .args(["serve", "--port", &port.to_string()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("REDIS_URL", &redis.url)
            .envs(settings.iter().copied())
            .current_dir(directory.path());
        let mut process = Process::start(&mut command);
        let url = eventually_some("tokend serves", async || {
            assert!(process.ended().is_none(), "it ended: {:#?}", process.log());
            let told = |line: String| {
                let (_, rest) = line.split_once(" serves ")?;
                rest.split_whitespace().next().map(str::to_owned)
            };
            process.log().into_iter().find_map(told)
        })
        .await;
        let service = Self { url, process };
        service.until_ready().await;
        service
    }

    pub async fn until_ready(&self) {
        let http = http_client();
        let url = format!("{}/readyz", self.url);
        eventually("tokend is ready", async || {
            let answer = http.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
}
