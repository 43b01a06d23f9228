//! What a failover may cost: a primary grants while its replicas do not hear it, dies, and one of them is promoted.
//! In `memory` durability those grants were acknowledged and are gone; in `replicated` they never were.

use serde_json::{Value, json};

use super::stage::{Place, Stage, TOKENS};
use super::{REPLICATED, Report, sentinel, two};
use crate::support::eventually;

/// Grants that replicas hear of, and grants that they do not.
const HEARD: usize = 10;
const UNHEARD: usize = 10;

pub async fn play(report: &mut Report) {
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
    eventually("it answers again", async || {
        let body = json!({"token": "seat-0"});
        stage.world.call("inspect", None, &body).await.is_ok()
    })
    .await;
    let mut lost = 0;
    for grant in &grants {
        let body = json!({"token": grant["token"]});
        let seen = stage.world.call("inspect", None, &body).await;
        let held = matches!(&seen, Ok((200, told)) if told["state"] == "held" && told["fence"] == grant["fence"]);
        lost += usize::from(!held);
    }
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
