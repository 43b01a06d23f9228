//! What tests start, kill and pause: Redis servers on the loopback interface, alone, behind Sentinels and in a
//! Cluster, and the built `tokend`. Shared by the tests and by `examples/drill`, each of which names it with `#[path]`.
//!
//! `TOKEND_TEST_SERVER` names the server's program, else it is `redis-server` or `valkey-server` on PATH. Each server
//! has ports that no other process of ours takes, and ends with this process, however this ends.

#![allow(dead_code, unused_imports)] // each of its users needs another part of it

mod cluster;
mod directory;
pub mod history;
mod http;
mod ports;
mod process;
mod resp;
mod sentinel;
mod server;
mod service;

use std::io::Write;
use std::time::{Duration, Instant};

pub use cluster::{Cluster, Migration};
pub use directory::Directory;
pub use http::http_client;
pub use ports::{Port, free_port};
pub use process::{Process, wait};
pub use resp::Reply;
pub use sentinel::Sentinel;
pub use server::{APPEND_ONLY, OwnRedis};
pub use service::{Tokend, program, tokend};

/// Longest that anything here is waited for. Far beyond what is expected: it is no timing assertion.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Says so, past the test harness's capture, when a test can't run here.
pub fn skip(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Waits for a condition, checking often, and panics if it never comes.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    eventually_some(what, async || condition().await.then_some(())).await;
}

/// Waits for a value, asking often, and panics if it never comes.
pub async fn eventually_some<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends a signal to a process that we started.
pub fn signal(pid: u32, name: &str) {
    // The shell's own kill: a small Debian has no program of that name.
    let sent = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .status();
    assert!(
        sent.is_ok_and(|status| status.success()),
        "kill -{name} {pid}"
    );
}
