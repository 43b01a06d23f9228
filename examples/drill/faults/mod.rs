//! What fails under load, on a single Redis, behind Sentinels and in a Cluster: each drill records every request
//! and answer of its clients, and one checker judges them all (`tests/support/history.rs`).

pub mod acknowledged;
mod load;
mod proxy;
mod rolling;
mod scenarios;
mod stage;

use std::time::Duration;

use self::stage::{Place, RECOVER_MAX, Replica, Seen, Stage};
use super::Report;
use crate::support::{APPEND_ONLY, Cluster, OwnRedis, Sentinel};

/// A cluster that goes on where it can.
const PARTIAL: &[&str] = &["--cluster-require-full-coverage", "no"];
const REPLICATED: &[(&str, &str)] = &[
    ("DURABILITY", "replicated"),
    ("WAIT_REPLICAS", "1"),
    ("WAIT_TIMEOUT_MS", "500"),
];

/// What a drill may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No acknowledged change is undone.
    Nothing,
    /// Acknowledged changes may be undone, and are counted: `memory` durability in a failover, or a clock that
    /// is wrong. Fences stay distinct even then.
    Loss,
    /// No request fails either.
    NoFailure,
}

pub async fn single(args: &[&str]) -> Option<Place> {
    OwnRedis::start(args).await.map(Place::Single)
}

pub async fn sentinel() -> Option<Place> {
    Sentinel::start(&[]).await.map(Place::Sentinel)
}

pub async fn cluster() -> Option<Place> {
    Cluster::start(PARTIAL).await.map(Place::Cluster)
}

fn two() -> Vec<Replica> {
    vec![Replica::default(); 2]
}

/// Prints one line of the table, and keeps what must never be.
fn row(
    report: &mut Report,
    name: &str,
    place: &str,
    durability: &str,
    expect: Expect,
    seen: &Seen,
) {
    let judged = &seen.judged;
    println!(
        "{name:<42} {place:<9} {durability:<11} {:>10} {:>7} {:>12} {:>5} {:>6} {:>7} {:>9.1}",
        seen.operations,
        seen.faults,
        judged.overlaps.len(),
        seen.lost,
        judged.early.len(),
        seen.failed,
        seen.recovered.as_secs_f64()
    );
    let mut must = vec![&judged.resurrections, &judged.over_cap];
    if expect != Expect::Loss {
        must.extend([
            &judged.overlaps,
            &judged.early,
            &judged.lost,
            &judged.fences,
        ]);
    }
    for violation in must.into_iter().flatten().take(3) {
        report.check(false, format!("{name}, {place}, {durability}: {violation}"));
    }
    let twice = judged.fences.iter().find(|found| found.contains("twice"));
    if let Some(twice) = twice {
        report.check(false, format!("{name}, {place}, {durability}: {twice}"));
    }
    for surprise in seen.surprises.iter().take(3) {
        report.check(false, format!("{name}: {surprise}"));
    }
    report.check(
        seen.recovered <= RECOVER_MAX,
        format!("{name}, {place}: recovered after {:?}", seen.recovered),
    );
    report.check(
        expect != Expect::NoFailure || seen.failed == 0,
        format!("{name}: {} requests failed", seen.failed),
    );
    report.check(seen.operations > 100, format!("{name}: there was no load"));
}

/// A drill of the usual shape: load, faults, load, judgement.
async fn play(
    report: &mut Report,
    name: &str,
    (place, durability, expect): (Option<Place>, &str, Expect),
    replicas: Vec<Replica>,
    faults: impl AsyncFnOnce(&mut Stage),
) {
    let Some(place) = place else {
        println!("{name:<42} skipped: there is no redis-server on PATH");
        return;
    };
    let env = if durability == "replicated" {
        REPLICATED
    } else {
        &[]
    };
    let kind = place.name();
    let mut stage = Stage::set(place, replicas, env).await;
    stage.begin_load();
    stage.load_for(1.5).await;
    Box::pin(faults(&mut stage)).await;
    stage.load_for(2.0).await;
    let seen = Box::pin(stage.judge()).await;
    row(report, name, kind, durability, expect, &seen);
}

pub async fn drill() -> Report {
    let mut report = Report::default();
    println!(
        "{:<42} {:<9} {:<11} {:>10} {:>7} {:>12} {:>5} {:>6} {:>7} {:>9}",
        "fault",
        "Redis",
        "durability",
        "operations",
        "faults",
        "overlapping",
        "lost",
        "early",
        "failed",
        "recover s"
    );
    scenarios::all(&mut report).await;
    rolling::play(&mut report).await;
    report
}

/// Whether a program is there; else the drill that needs it says so.
fn have(program: &str, drill: &str) -> bool {
    let found = std::process::Command::new(program)
        .arg("--version")
        .output();
    let there = found.is_ok()
        || std::process::Command::new(program)
            .arg("-v")
            .output()
            .is_ok();
    if !there {
        println!("{drill:<42} skipped: there is no {program} on PATH");
    }
    there
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
