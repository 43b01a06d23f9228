//! The embedded Redis: a real `redis-server` (or `valkey-server`) that tokend starts and looks after
//! when no `REDIS_URL` is given. Same scripts, same semantics; the data is there after a restart.
//!
//! - **Every acknowledged write is on disk** (append-only file, fsynced always), so Redis may be
//!   killed at any instant. Its directory is `DATA_DIR`, its door a Unix socket that only this user
//!   can open.
//! - **It dies with its parent**, however that dies: the kernel kills it (Linux; elsewhere only an
//!   orderly stop ends it).
//! - **Its death is noticed** and it is started again, with back-off. Meanwhile the store answers 503.
//! - **Never two on one append-only file**: a lock file is held by tokend *and* by its Redis, which
//!   inherits it, so it is free only once both are gone. A restarted tokend waits for that.
//!
//! **Architecture Invariant:** one thread spawns, waits for and reaps Redis, and it lives as long as
//! Redis should: the kernel's parent-death signal is bound to the thread that spawned the child, not
//! to the process.

mod binary;
mod directory;
mod supervisor;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::oneshot;

use self::supervisor::Shared;

/// How long a start waits for a predecessor's lock: as long as an orderly shutdown may take.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How long Redis may take to stop on SIGTERM. Everything acknowledged is on disk, so SIGKILL after
/// this loses nothing.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long SIGKILL may take to be seen.
const KILL_WAIT: Duration = Duration::from_secs(1);

/// Why the embedded Redis could not start. Each text is one clear line, but for Redis's own last ones.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "no redis-server on PATH to keep the tokens in: install one (apt-get install redis-server), or set REDIS_URL to a Redis that runs"
    )]
    NoBinary,
    #[error(
        "{} is version {version}, but tokend needs Redis 7.0 or newer (or any Valkey): upgrade it, or set REDIS_URL to another Redis",
        path.display()
    )]
    TooOld { path: PathBuf, version: String },
    #[error(
        "DATA_DIR {} belongs to another tokend (pid {holder}) or to its redis-server: stop that one, or give this one a DATA_DIR of its own",
        directory.display()
    )]
    InUse { directory: PathBuf, holder: String },
    #[error("redis-server does not start: {0}")]
    Failed(String),
    #[error("{what}: {source}")]
    Io {
        what: String,
        source: std::io::Error,
    },
}

impl StartError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// The URL of the embedded Redis that another process of this user runs on `data_dir`; `None`: there is none.
#[must_use]
pub fn running_url(data_dir: &Path) -> Option<String> {
    directory::running(data_dir)
}

/// What tests set otherwise.
struct Settings {
    /// Where to look for the binary, in the form of `PATH`.
    search: OsString,
    lock_wait: Duration,
}

/// A Redis that runs, or is being started again, until `stop`. Dropped without it, it is killed.
pub struct Embedded {
    url: String,
    shared: Arc<Shared>,
}

impl Embedded {
    /// Starts Redis on `data_dir` and returns once it answers (or, with a large append-only file, once
    /// it has been loading that for a while: then the store answers 503 until it is done).
    ///
    /// # Errors
    /// When there is no binary that would do, the directory can't be used or is in use, or Redis
    /// ends at once whenever it is started.
    pub async fn start(data_dir: &Path) -> Result<Self, StartError> {
        let settings = Settings {
            search: std::env::var_os("PATH").unwrap_or_default(),
            lock_wait: LOCK_WAIT,
        };
        Self::start_with(data_dir, settings).await
    }

    async fn start_with(data_dir: &Path, settings: Settings) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::default());
        let (told, outcome) = oneshot::channel();
        let thread = std::thread::Builder::new().name("redis-supervisor".to_owned());
        let mut this = Self {
            url: String::new(),
            shared: Arc::clone(&shared),
        };
        let data_dir = data_dir.to_owned();
        thread
            .spawn(move || supervisor::run(&data_dir, &settings, &shared, told))
            .map_err(StartError::io("a thread for redis-server"))?;
        this.url = outcome
            .await
            .unwrap_or_else(|_| Err(StartError::Failed("its supervisor ended".to_owned())))?;
        Ok(this)
    }

    /// Where it listens: `redis+unix://` and the socket's path.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends Redis and frees the directory; SIGKILL if SIGTERM does not do it within 5 s.
    pub async fn stop(self) {
        let mut ended = self.shared.ended();
        self.shared.stop(Signal::TERM);
        let in_time = tokio::time::timeout(STOP_WAIT, ended.wait_for(|ended| *ended))
            .await
            .is_ok();
        if !in_time {
            tracing::warn!("redis-server did not stop within {STOP_WAIT:?}: killing it");
            self.shared.stop(Signal::KILL);
            let _ = tokio::time::timeout(KILL_WAIT, ended.wait_for(|ended| *ended)).await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.stop(Signal::KILL);
    }
}
