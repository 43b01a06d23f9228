//! What a failover may cost: a primary grants while its replicas do not hear it, dies, and one of them is promoted.
//! In `memory` durability those grants were acknowledged and are gone; in `replicated` they never were.

use serde_json::{Value, json};

use super::stage::{Place, Stage};
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
}

async fn grants_lost(place: Place, durability: &str) -> (usize, usize) {
    let env = if durability == "replicated" {
        REPLICATED
    } else {
        &[]
    };
    let mut stage = Stage::set(place, two(), env).await;
    let mut grants = grant(&stage, HEARD).await;
    let redis = stage.place.sentinel();
    let primary = redis.primary().await;
    let others: Vec<_> = (0..redis.servers.len()).filter(|n| *n != primary).collect();
    for n in &others {
        redis.servers[*n].pause().await;
    }
    // What was on its way to them would be read when they wake.
    let cut = ["CLIENT", "KILL", "TYPE", "replica"];
    redis.servers[primary]
        .command(&cut)
        .await
        .expect("CLIENT KILL");
    grants.extend(grant(&stage, UNHEARD).await);
    let redis = stage.place.sentinel();
    redis.servers[primary].kill().await;
    for n in others {
        redis.servers[n].resume().await;
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
