//! The processes that drills start, and kill.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a process may take to answer.
const UP_S_MAX: u64 = 20;

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A directory of our own, removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tokend-drill-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self {
            child: child.expect("the program starts"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and kill -9 for one that does not end within that.
    pub async fn terminate(&mut self, ms_max: u64) {
        crate::support::signal(self.child.id(), "TERM");
        let until = Instant::now() + Duration::from_millis(ms_max);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A redis-server without persistence, up.
pub async fn redis(port: u16, dir: &Path) -> Process {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::null());
    let process = Process::start(&mut command);
    let until = Instant::now() + Duration::from_secs(UP_S_MAX);
    while tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .is_err()
    {
        assert!(Instant::now() < until, "redis-server never came up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process
}

/// The `tokend` that was built with this program.
pub fn program() -> PathBuf {
    let me = std::env::current_exe().expect("our own path");
    me.ancestors()
        .nth(2)
        .expect("target/PROFILE")
        .join("tokend")
}

/// A replica: the `tokend` built beside this program.
pub fn tokend(port: u16, env: &[(&str, &str)]) -> Process {
    let mut command = Command::new(program());
    command
        .arg("serve")
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("LOG_LEVEL", "error")
        .envs(env.iter().copied());
    Process::start(&mut command)
}

/// Waits until `/readyz` is 200.
pub async fn ready(client: &reqwest::Client, port: u16) {
    let url = format!("http://127.0.0.1:{port}/readyz");
    let until = Instant::now() + Duration::from_secs(UP_S_MAX);
    loop {
        let answer = client.get(&url).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        assert!(
            Instant::now() < until,
            "tokend on port {port} never got ready"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .expect("an HTTP client")
}
