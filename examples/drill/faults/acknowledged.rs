//! What a failover may cost: a primary grants while its replicas do not hear it, dies, and one of them is promoted.
//! In `memory` durability those grants were acknowledged and are gone; in `replicated` they never were.

use serde_json::{Value, json};

use super::stage::{Place, Stage, TOKENS};
use super::{REPLICATED, Report, sentinel, two};
use crate::process::{Directory, WRONG_CLOCK, build_shim};
use crate::support::{Sentinel, eventually};

/// Grants that replicas hear of, and grants that they do not.
const HEARD: usize = 10;
const UNHEARD: usize = 10;

pub async fn drill() -> Report {
    let mut report = Report::default();
    play(&mut report).await;
    report
}

async fn play(report: &mut Report) {
    for durability in ["memory", "replicated"] {
        let Some(place) = sentinel().await else {
            return;
        };
        let (acknowledged, lost) = Box::pin(grants_lost(place, durability)).await;
        let name = format!("{durability}: acknowledged grants, lost in a failover");
        report.figure(&name, format!("{acknowledged}, {lost}"));
        let expected = if durability == "memory" { UNHEARD } else { 0 };
        report.check(lost == expected, format!("{name}: not {expected}"));
    }
    for seconds in ["900", "-900"] {
        Box::pin(skewed(report, seconds)).await;
    }
    let Some(place) = sentinel().await else {
        return;
    };
    let (acknowledged, free) = Box::pin(seats_back(place)).await;
    let name = "replicas cut off: assigns acknowledged, seats free";
    report.figure(
        name,
        format!("{acknowledged} of {}, {free} of {TOKENS}", 2 * TOKENS),
    );
    report.check(acknowledged == 0 && free == TOKENS, name);
}

/// Leases of ten minutes, taken before a failover to a replica whose clock is that much off: which of them are over at
/// once, and whether a later grant has a higher fence.
async fn skewed(report: &mut Report, seconds: &str) {
    const NAME: &str = "promoted clock off by";
    let scratch = Directory::new();
    let Some(shim) = build_shim(scratch.path(), WRONG_CLOCK) else {
        println!("{NAME} {seconds} s: skipped: there is no C compiler");
        return;
    };
    let (preload, off) = (
        format!("LD_PRELOAD={shim}"),
        format!("CLOCK_OFF_S={seconds}"),
    );
    let under = ["env", preload.as_str(), off.as_str()];
    let place = Sentinel::start_with_replicas_under(&under, &[]).await;
    let Some(place) = place.map(Place::Sentinel) else {
        return;
    };
    let mut stage = Stage::set(place, two(), REPLICATED).await;
    let before = grant(&stage, HEARD).await;
    let dead = stage.place.sentinel().kill_primary().await;
    stage.place.sentinel().failed_over(dead).await;
    answers(&stage).await;
    let held = still_held(&stage, &before).await;
    let after = grant(&stage, 1).await;
    let highest = |grants: &[Value]| grants.iter().filter_map(|g| g["fence"].as_u64()).max();
    report.figure(
        &format!("{NAME} {seconds} s: leases of 10 min still held"),
        format!("{held} of {}", before.len()),
    );
    report.check(
        highest(&after) > highest(&before) || seconds.starts_with('-'),
        "a later fence is lower",
    );
    let expected = if seconds.starts_with('-') {
        before.len()
    } else {
        0
    };
    report.check(
        held == expected && !before.is_empty(),
        format!("{NAME} {seconds} s"),
    );
}

/// Waits until the new primary does.
async fn answers(stage: &Stage) {
    eventually("it answers again", async || {
        let body = json!({"token": "seat-0"});
        stage.world.call("inspect", None, &body).await.is_ok()
    })
    .await;
}

/// How many of these grants stand.
async fn still_held(stage: &Stage, grants: &[Value]) -> usize {
    let mut held = 0;
    for grant in grants {
        let body = json!({"token": grant["token"]});
        let seen = stage.world.call("inspect", None, &body).await;
        let stands = |told: &Value| told["state"] == "held" && told["fence"] == grant["fence"];
        held += usize::from(matches!(&seen, Ok((200, told)) if stands(told)));
    }
    held
}

/// Un-keyed assigns that no replica confirms: told as unknown, and each seat comes back at once.
async fn seats_back(place: Place) -> (usize, usize) {
    let mut stage = Stage::set(place, two(), REPLICATED).await;
    cut_off_replicas(&mut stage).await;
    let granted = grant(&stage, 2 * TOKENS).await.len();
    let mut free = 0;
    eventually("all seats are free", async || {
        free = stage.free().await;
        free == TOKENS
    })
    .await;
    (granted, free)
}

/// What is written from here on no replica hears of. Says which is primary.
async fn cut_off_replicas(stage: &mut Stage) -> usize {
    let redis = stage.place.sentinel();
    let primary = redis.primary().await;
    for (n, server) in redis.servers.iter().enumerate() {
        if n != primary {
            server.pause().await;
        }
    }
    // What was on its way to them would be read when they wake.
    let cut = ["CLIENT", "KILL", "TYPE", "replica"];
    let cut = redis.servers[primary].command(&cut).await;
    cut.expect("CLIENT KILL");
    primary
}

async fn grants_lost(place: Place, durability: &str) -> (usize, usize) {
    let env = if durability == "replicated" {
        REPLICATED
    } else {
        &[]
    };
    let mut stage = Stage::set(place, two(), env).await;
    let mut grants = grant(&stage, HEARD).await;
    let primary = cut_off_replicas(&mut stage).await;
    grants.extend(grant(&stage, UNHEARD).await);
    let redis = stage.place.sentinel();
    redis.servers[primary].kill().await;
    for (n, server) in redis.servers.iter().enumerate() {
        if n != primary {
            server.resume().await;
        }
    }
    redis.failed_over(primary).await;
    answers(&stage).await;
    let lost = grants.len() - still_held(&stage, &grants).await;
    (grants.len(), lost)
}

/// Grants that were acknowledged, of so many asked for at once.
async fn grant(stage: &Stage, count: usize) -> Vec<Value> {
    let body = json!({"lifetime": 600});
    let asked = (0..count).map(|_| stage.world.call("assign", None, &body));
    let answers = futures_util::future::join_all(asked).await;
    let granted = answers.into_iter().filter_map(|answer| match answer {
        Ok((200, told)) => Some(told),
        _ => None,
    });
    granted.collect()
}
