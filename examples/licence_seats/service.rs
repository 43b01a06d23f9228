//! The tokend that the workers talk to: the one at `TOKEND_URL`, or one of our own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokend::cli::client::{Client, parse_url};
use tokio::runtime::Runtime;

use crate::Result;

/// Between two looks whether it is ready, or gone.
const POLL: Duration = Duration::from_millis(50);
/// From SIGTERM to SIGKILL.
const STOP_MAX: Duration = Duration::from_secs(5);

pub struct Service {
    pub url: String,
    /// For data, log and file locks; removed at the end.
    pub dir: PathBuf,
    child: Option<Child>,
}

impl Service {
    pub fn find_or_start(runtime: &Runtime, deadline: Instant) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("licence-seats-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let mut service = Self {
            url: String::new(),
            dir,
            child: None,
        };
        if let Ok(url) = std::env::var("TOKEND_URL") {
            service.url = url;
        } else {
            service.start()?;
        }
        service.wait_until_ready(runtime, deadline)?;
        Ok(service)
    }

    pub fn client(&self) -> Result<Client> {
        let client = Client::new(parse_url(&self.url)?);
        Ok(client.map_err(|failure| failure.message)?)
    }

    fn start(&mut self) -> Result<()> {
        // Bound and dropped: a port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        self.url = format!("http://127.0.0.1:{port}");
        let log = File::create(self.log())?;
        let child = Command::new(binary()?)
            .arg("serve")
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("DATA_DIR", &self.dir)
            // An example leaves the reader's own Redis and settings alone.
            .env_remove("REDIS_URL")
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    fn wait_until_ready(&mut self, runtime: &Runtime, deadline: Instant) -> Result<()> {
        let client = self.client()?;
        while !runtime.block_on(client.is_ready()) {
            let gone = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => false,
            };
            if gone || Instant::now() > deadline {
                let log = std::fs::read_to_string(self.log()).unwrap_or_default();
                return Err(format!("no tokend at {}\n{log}", self.url).into());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.join("tokend.log")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            stop(child);
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Asks first: a tokend that is told to end takes its Redis with it in order.
fn stop(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_MAX;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The binary of the same build: `target/<profile>/tokend` beside `target/<profile>/examples/`.
fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own
        .parent()
        .and_then(Path::parent)
        .ok_or("no target directory")?;
    let binary = profile.join("tokend");
    if !binary.exists() {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let mut build = Command::new(cargo);
        build
            .args(["build", "--bin", "tokend"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        if !build.status()?.success() {
            return Err("cargo build failed".into());
        }
    }
    Ok(binary)
}
