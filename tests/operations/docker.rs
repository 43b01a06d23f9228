//! Containers, networks and what goes with them, by the command line of whatever Docker engine answers.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::eventually_some;

/// A name that no other test uses.
fn new_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("tokend-check-{}-{next}", std::process::id())
}

pub fn try_docker(args: &[&str]) -> Output {
    let output = Command::new("docker").args(args).output();
    output.expect("docker was there a moment ago")
}

/// What a command that must succeed prints.
pub fn docker(args: &[&str]) -> String {
    let output = try_docker(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "docker {args:?}: {told}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// One object, as the engine describes it.
pub fn inspect(name: &str) -> Value {
    let all: Value = serde_json::from_str(&docker(&["inspect", name])).expect("JSON");
    all[0].clone()
}

/// Removed when dropped.
pub struct Network {
    pub name: String,
}

impl Network {
    pub fn create() -> Self {
        let name = new_name();
        docker(&["network", "create", &name]);
        Self { name }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        try_docker(&["network", "rm", &self.name]);
    }
}

/// Killed and removed when dropped.
pub struct Container {
    pub name: String,
}

impl Container {
    /// `docker run --detach` with these options, image and command.
    pub fn run(args: &[&str]) -> Self {
        let name = new_name();
        docker(&[&["run", "--detach", "--name", &name], args].concat());
        Self { name }
    }

    pub fn state(&self) -> Value {
        inspect(&self.name)["State"].clone()
    }

    /// What it has written to stdout and stderr.
    pub fn log(&self) -> String {
        let output = try_docker(&["logs", &self.name]);
        let texts = [output.stdout, output.stderr];
        texts
            .map(|it| String::from_utf8_lossy(&it).into_owned())
            .concat()
    }

    /// Its address on its network, which a Linux host reaches.
    pub fn address(&self) -> String {
        let networks = inspect(&self.name)["NetworkSettings"]["Networks"].clone();
        let networks = networks.as_object().expect("networks");
        let network = networks.values().next().expect("one");
        network["IPAddress"]
            .as_str()
            .expect("an address")
            .to_owned()
    }

    /// Waits for this state of health; what the last check said comes with it.
    pub async fn until_health(&self, wanted: &str) -> String {
        eventually_some(&format!("it is {wanted}"), async || {
            let state = self.state();
            assert_eq!(state["Running"], true, "{}", self.log());
            let health = &state["Health"];
            let last = health["Log"].as_array()?.last()?;
            let said = last["Output"].as_str().unwrap_or_default().trim();
            (health["Status"] == wanted).then(|| said.to_owned())
        })
        .await
    }

    /// Its exit code, once it has ended.
    pub fn wait(&self) -> i32 {
        let code = docker(&["wait", &self.name]);
        code.trim().parse().expect("a number")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        try_docker(&["rm", "--force", "--volumes", &self.name]);
    }
}

/// A mount that is only read.
pub fn read_only(from: &Path, to: &str) -> String {
    format!("{}:{to}:ro", from.display())
}
