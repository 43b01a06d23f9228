//! The faults, one after the other.

use std::process::Command;

use super::proxy::Proxy;
use super::stage::{Place, Replica, Stage, up};
use super::{APPEND_ONLY, Expect, Report, cluster, pause, play, sentinel, single, two};
use crate::process::{Directory, STALLING_FSYNC, WRONG_CLOCK, build_shim};
use crate::support::{OwnRedis, Sentinel, signal};

/// For so long things are frozen or cut off.
const FROZEN_MS: u64 = 5_000;
/// By so many seconds the clock of a promoted replica is off.
const SKEW_S: f64 = 30.0;

pub async fn all(report: &mut Report) {
    of_replicas(report).await;
    of_one_redis(report).await;
    of_the_disk(report).await;
    of_several(report).await;
    of_clocks(report).await;
}

async fn of_replicas(report: &mut Report) {
    let on = (single(&[]).await, "memory", Expect::Nothing);
    play(
        report,
        "replicas killed (SIGKILL)",
        on,
        two(),
        async |stage| {
            for n in [0, 1, 0, 1, 0, 1] {
                stage.fault();
                stage.replicas[n].kill();
                stage.replicas[n] = stage.start(n);
                stage.ready(n).await;
                stage.load_for(1.5).await;
            }
        },
    )
    .await;
    let on = (single(&[]).await, "memory", Expect::Nothing);
    play(
        report,
        "a replica frozen for 5 s (SIGSTOP)",
        on,
        two(),
        async |stage| {
            stage.fault();
            let pid = stage.replicas[0].id();
            signal(pid, "STOP");
            pause(FROZEN_MS).await;
            signal(pid, "CONT");
            stage.load_for(2.0).await;
        },
    )
    .await;
    let Some(place) = single(&[]).await else {
        return;
    };
    let proxy = Proxy::start(place.url()).await;
    let mut replicas = two();
    replicas[0].redis_url = Some(proxy.url());
    let on = (Some(place), "memory", Expect::Nothing);
    play(
        report,
        "a replica cut off from Redis for 5 s",
        on,
        replicas,
        async |stage| {
            stage.fault();
            proxy.cut();
            pause(FROZEN_MS).await;
            proxy.mend();
            stage.load_for(2.0).await;
        },
    )
    .await;
}

async fn of_one_redis(report: &mut Report) {
    let on = (single(APPEND_ONLY).await, "memory", Expect::Nothing);
    play(
        report,
        "Redis killed, and restarted with its AOF",
        on,
        two(),
        async |stage| {
            for _ in 0..4 {
                stage.fault();
                stage.place.single().kill().await;
                stage.place.single().start_again().await;
                stage.load_for(2.0).await;
            }
        },
    )
    .await;
    let on = (single(&[]).await, "memory", Expect::Nothing);
    play(
        report,
        "Redis frozen for 5 s (SIGSTOP)",
        on,
        two(),
        async |stage| {
            stage.fault();
            stage.place.single().pause().await;
            pause(FROZEN_MS).await;
            stage.place.single().resume().await;
            up(stage.place.single()).await;
        },
    )
    .await;
    for (name, command) in [
        (
            "listeners killed 10 times a second",
            &["CLIENT", "KILL", "TYPE", "pubsub"][..],
        ),
        ("SCRIPT FLUSH 10 times a second", &["SCRIPT", "FLUSH"][..]),
    ] {
        let on = (single(&[]).await, "memory", Expect::Nothing);
        play(report, name, on, two(), async |stage| {
            for _ in 0..50 {
                stage.fault();
                let done = stage.place.single().command(command).await;
                assert!(done.is_ok(), "{done:?}");
                pause(100).await;
            }
        })
        .await;
    }
    let on = (single(&[]).await, "memory", Expect::Nothing);
    play(
        report,
        "Redis out of memory for 3 s",
        on,
        two(),
        async |stage| {
            let set = async |stage: &mut Stage, max: &str| {
                let set = ["CONFIG", "SET", "maxmemory", max];
                let done = stage.place.single().command(&set).await;
                assert!(done.is_ok(), "{done:?}");
            };
            stage.fault();
            set(stage, "1").await;
            pause(3_000).await;
            set(stage, "0").await;
        },
    )
    .await;
}

async fn of_several(report: &mut Report) {
    for (durability, expect) in [("memory", Expect::Loss), ("replicated", Expect::Nothing)] {
        let on = (sentinel().await, durability, expect);
        play(
            report,
            "primary killed, replica promoted",
            on,
            two(),
            async |stage| {
                stage.fault();
                let dead = stage.place.sentinel().kill_primary().await;
                stage.place.sentinel().failed_over(dead).await;
                stage.load_for(3.0).await;
            },
        )
        .await;
        let on = (cluster().await, durability, expect);
        play(
            report,
            "primary killed, replica promoted",
            on,
            two(),
            async |stage| {
                stage.fault();
                let redis = stage.place.cluster();
                let dead = redis.owner(0).await;
                redis.nodes[dead].kill().await;
                redis.taken_over(0, dead).await;
                redis.nodes[dead].start_again().await;
                stage.load_for(4.0).await;
            },
        )
        .await;
    }
    let on = (sentinel().await, "memory", Expect::Loss);
    play(
        report,
        "primary frozen, left, and wakes",
        on,
        two(),
        async |stage| {
            stage.fault();
            let frozen = stage.place.sentinel().pause_primary().await;
            stage.place.sentinel().failed_over(frozen).await;
            stage.load_for(2.0).await;
            stage.place.sentinel().servers[frozen].resume().await;
            stage.load_for(3.0).await;
        },
    )
    .await;
    let on = (cluster().await, "memory", Expect::Loss);
    play(
        report,
        "primary frozen, left, and wakes",
        on,
        two(),
        async |stage| {
            stage.fault();
            let redis = stage.place.cluster();
            let frozen = redis.owner(0).await;
            redis.nodes[frozen].pause().await;
            redis.taken_over(0, frozen).await;
            stage.load_for(2.0).await;
            stage.place.cluster().nodes[frozen].resume().await;
            stage.load_for(3.0).await;
        },
    )
    .await;
    let on = (cluster().await, "memory", Expect::Nothing);
    play(
        report,
        "a slot moves to another primary",
        on,
        two(),
        move_a_slot,
    )
    .await;
}

async fn move_a_slot(stage: &mut Stage) {
    let redis = stage.place.cluster();
    let mut slot = None;
    for node in &redis.nodes {
        let keys = node.command(&["KEYS", "*:records:drill"]).await;
        let keys = keys.map(|keys| keys.texts()).unwrap_or_default();
        if let Some(key) = keys.first() {
            slot = Some(redis.slot(key).await);
            break;
        }
    }
    let slot = slot.expect("a shard of the pool");
    stage.faults.push(std::time::Instant::now());
    let redis = stage.place.cluster();
    let from = redis.owner(slot).await;
    let migration = redis.migrate(slot, (from + 1) % 3).await;
    while migration.move_keys(1).await > 0 {
        pause(50).await;
    }
    pause(500).await;
    migration.finish().await;
    stage.load_for(2.0).await;
}

async fn of_clocks(report: &mut Report) {
    let name = "replicas whose clocks are 5 min off";
    let Some(library) = faketime() else {
        println!("{name:<42} skipped: there is no faketime on PATH");
        return;
    };
    let under = |by: &str| Replica {
        env: vec![("LD_PRELOAD", library.clone()), ("FAKETIME", by.to_owned())],
        redis_url: None,
    };
    let on = (single(&[]).await, "memory", Expect::Nothing);
    let off = vec![under("+5m"), under("-5m"), Replica::default()];
    play(report, name, on, off, async |stage| {
        stage.fault();
        stage.load_for(5.0).await;
    })
    .await;
    let scratch = Directory::new();
    let shim = build_shim(scratch.path(), WRONG_CLOCK);
    for (name, by) in [
        ("a promoted replica 30 s ahead", "30"),
        ("a promoted replica 30 s behind", "-30"),
    ] {
        let Some(shim) = &shim else {
            println!("{name:<42} skipped: there is no C compiler");
            continue;
        };
        let (preload, off) = (format!("LD_PRELOAD={shim}"), format!("CLOCK_OFF_S={by}"));
        let under = ["env", preload.as_str(), off.as_str()];
        let place = Sentinel::start_with_replicas_under(&under, &[]).await;
        let on = (place.map(Place::Sentinel), "memory", Expect::Loss);
        play(report, name, on, two(), async |stage| {
            stage.fault();
            let dead = stage.place.sentinel().kill_primary().await;
            stage.place.sentinel().failed_over(dead).await;
            stage.load_for(3.0).await;
            if by.starts_with('-') {
                // What it took over lapses only when its clock has come there.
                stage.load_for(SKEW_S).await;
            }
        })
        .await;
    }
}

/// The disk stalls for 2 s, and Redis is killed while it does.
async fn of_the_disk(report: &mut Report) {
    const NAME: &str = "fsync stalls for 2 s, then Redis is killed";
    let scratch = Directory::new();
    let Some(shim) = build_shim(scratch.path(), STALLING_FSYNC) else {
        println!("{NAME:<42} skipped: there is no C compiler");
        return;
    };
    let flag = scratch.path().join("stall");
    let preload = format!("LD_PRELOAD={shim}");
    let stall = format!("STALL_FLAG={}", flag.display());
    let under = ["env", preload.as_str(), stall.as_str()];
    let place = OwnRedis::start_under(&under, APPEND_ONLY).await;
    let on = (place.map(Place::Single), "memory", Expect::Nothing);
    play(report, NAME, on, two(), async |stage| {
        for _ in 0..3 {
            stage.fault();
            std::fs::write(&flag, "").expect("a writable directory");
            pause(2_000).await;
            stage.place.single().kill().await;
            std::fs::remove_file(&flag).expect("it is there");
            stage.place.single().start_again().await;
            stage.load_for(2.0).await;
        }
    })
    .await;
}

/// The library with which faketime makes clocks wrong. (The program stays in front of what it starts, which then
/// outlives it.)
fn faketime() -> Option<String> {
    let asked = ["-f", "+0s", "printenv", "LD_PRELOAD"];
    let told = Command::new("faketime").args(asked).output().ok()?;
    let library = String::from_utf8(told.stdout).ok()?.trim().to_owned();
    (!library.is_empty()).then_some(library)
}
