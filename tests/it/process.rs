//! The real binary: `tokend serve` as a process, and the command line against it.

mod commands;
mod doctor;
mod healthcheck;
mod lease;
mod logs;
mod one_time;
mod serve;
mod sessions;
mod settings;

use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::{new_namespace, redis_url};
pub use crate::support::{Directory, Tokend, tokend};

impl Tokend {
    /// On the shared Redis, in a namespace of its own.
    pub async fn on_shared_redis(directory: &Directory) -> Self {
        let namespace = new_namespace();
        let settings = [
            ("REDIS_URL", redis_url().await),
            ("KEY_PREFIX", &namespace),
            ("PARTITIONS", "2"),
        ];
        Self::start(directory, &settings).await
    }

    /// The command line, pointed here.
    pub fn cli(&self, directory: &Directory, args: &[&str]) -> Command {
        let mut command = tokend(directory);
        command.env("TOKEND_URL", &self.url).args(args);
        command
    }

    /// Runs a command to its end: its exit code, stdout and stderr.
    pub fn run(&self, directory: &Directory, args: &[&str]) -> Ran {
        Ran::from(self.cli(directory, args).output().expect("tokend runs"))
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
