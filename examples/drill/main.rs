//! Drills: what tokend does when things die, measured on this machine, with real processes.
//!
//! `cargo run --release --example drill -- NAME…` runs the drills named, without a name all of them:
//!
//! - `acknowledged`: what a failover undoes of what was acknowledged, in `memory` and in `replicated` durability, and
//!   what a promoted replica does whose clock is wrong
//! - `chaos`: 64 clients, two replicas, one killed with SIGKILL every 5 s
//! - `cost`: what an assign and an unblock cost Redis, one at a time and many at once
//! - `lag`: release lag, alone, beside a million unrelated expiring keys, with pub/sub cut, and when replicas die
//! - `burst`: a million leases of one pool lapse at once, beside a small pool
//! - `embedded`: the embedded Redis is killed under load, and its disk stalls
//! - `faults`: everything that dies, freezes, fills up or is cut off, on a single Redis, behind Sentinels and in a
//!   Cluster, under load, judged by one checker: a table
//! - `flows`: a million temporary tokens alive that lapse at once, and sessions refreshed again and again
//! - `idle`: what 20 replicas cost Redis with nothing to do, and how often they sweep under load
//! - `import`: 100,000 phone numbers from a file
//! - `sizing`: what one replica and its Redis need: memory, CPU per request, bytes written
//! - `waiting`: 1,000 wait for 10 tokens on two replicas, some beside connections that are cut
//!
//! Needs `redis-server` and, for the stalling disk, `cc`. Traffic stays on the loopback interface. Each
//! drill ends by itself, prints its figures, and the exit code is 1 if an invariant was broken.

#![allow(clippy::large_futures)] // there is one of each

mod burst;
mod chaos;
mod cost;
mod embedded;
mod faults;
mod flows;
mod idle;
mod import;
mod lag;
mod process;
mod sizing;
#[path = "../../tests/support/mod.rs"]
mod support;
mod waiting;

use std::fmt::Display;
use std::process::ExitCode;

/// What a drill found: its figures, and what it saw that must never be.
#[derive(Default)]
pub struct Report {
    pub figures: Vec<(String, String)>,
    pub violations: Vec<String>,
}

impl Report {
    pub fn figure(&mut self, name: &str, value: impl Display) {
        self.figures.push((name.to_owned(), format!("{value}")));
    }

    pub fn check(&mut self, holds: bool, violation: impl Into<String>) {
        if !holds {
            self.violations.push(violation.into());
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names = [
            "import",
            "cost",
            "idle",
            "lag",
            "burst",
            "flows",
            "sizing",
            "embedded",
            "chaos",
            "waiting",
            "faults",
            "acknowledged",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    let mut broken = false;
    for name in names {
        println!("## {name}");
        let report = match name.as_str() {
            "chaos" => chaos::drill().await,
            "cost" => cost::drill().await,
            "lag" => lag::drill().await,
            "burst" => burst::drill().await,
            "embedded" => embedded::drill().await,
            "acknowledged" => Box::pin(faults::acknowledged::drill()).await,
            "faults" => Box::pin(faults::drill()).await,
            "flows" => flows::drill().await,
            "idle" => idle::drill().await,
            "import" => import::drill().await,
            "sizing" => sizing::drill().await,
            "waiting" => waiting::drill().await,
            other => {
                eprintln!("no drill {other}");
                return ExitCode::from(2);
            }
        };
        for (figure, value) in &report.figures {
            println!("{figure:<52} {value}");
        }
        for violation in &report.violations {
            println!("VIOLATED: {violation}");
        }
        broken |= !report.violations.is_empty();
        println!();
    }
    ExitCode::from(u8::from(broken))
}
