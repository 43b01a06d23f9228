//! `tokend lease` against a real service.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use serde_json::json;

use super::{Directory, Tokend};
use crate::harness::{eventually, program, wait};

async fn service(directory: &Directory) -> Tokend {
    let service = Tokend::on_shared_redis(directory).await;
    service.run(directory, &["pool", "set", "seats"]).ok();
    let (status, _) = service
        .post("/v1/pools/seats/generate", json!({"tokens": ["seat-1"]}))
        .await;
    assert_eq!(status, 201);
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_under_a_lease_that_is_given_back() {
    let directory = Directory::new();
    let service = service(&directory).await;
    // The command looks at its own token through the same service.
    let script = "echo $TOKEND_TOKEN $TOKEND_FENCE $TOKEND_POOL
        $TOKEND inspect $TOKEND_TOKEN --pool $TOKEND_POOL --json; exit 7";
    let output = service
        .cli(
            &directory,
            &["lease", "seats", "--holder", "me", "--", "sh", "-c", script],
        )
        .env("TOKEND", program())
        .output()
        .expect("tokend runs");
    let ran = super::Ran::from(output);
    assert_eq!(ran.code, Some(7), "{}", ran.stderr);
    let (_, seen) = service
        .post("/v1/pools/seats/inspect", json!({"token": "seat-1"}))
        .await;
    assert_eq!(seen["state"], "free", "given back");
    let mut lines = ran.stdout.lines();
    let told = format!("seat-1 {} seats", seen["fence"]);
    assert_eq!(lines.next(), Some(told.as_str()));
    let inside: serde_json::Value =
        serde_json::from_str(lines.next().expect("a line")).expect("JSON");
    assert_eq!(
        (&inside["state"], &inside["holder"]),
        (&json!("held"), &json!("me"))
    );
    assert_eq!(inside["fence"], seen["fence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_the_command_does_not_run() {
    let directory = Directory::new();
    let service = service(&directory).await;
    service
        .run(
            &directory,
            &["assign", "--pool", "seats", "--lifetime", "1h"],
        )
        .ok();
    let ran = service.run(&directory, &["lease", "seats", "--", "touch", "ran"]);
    assert_eq!(ran.code, Some(75), "{}", ran.stderr);
    assert!(!directory.path().join("ran").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lease_ends_the_command() {
    let directory = Directory::new();
    let service = service(&directory).await;
    let mut lease = service
        .cli(
            &directory,
            &[
                "lease",
                "seats",
                "--lifetime",
                "3s",
                "--",
                "sh",
                "-c",
                "echo started; exec sleep 600",
            ],
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tokend runs");
    let mut line = String::new();
    let mut stdout = BufReader::new(lease.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("it starts");
    assert_eq!(line, "started\n");
    let path = "/v1/pools/seats/delete";
    let (status, _) = service.post(path, json!({"token": "seat-1"})).await;
    assert_eq!(status, 200);
    assert_eq!(wait(&mut lease).await.code(), Some(76));
    // The command held the other end: it is gone when there is nothing more to read.
    line.clear();
    assert_eq!(stdout.read_line(&mut line).expect("the end"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_gets_the_token_when_it_is_given_back() {
    let directory = Directory::new();
    let service = service(&directory).await;
    for (args, told) in [
        (&["assign", "--pool", "seats", "--wait", "1m"][..], "seat-1"),
        (&["lease", "seats", "--wait-for", "10m", "--", "true"], ""),
    ] {
        let asked = json!({"lifetime": 3_600});
        let (_, held) = service.post("/v1/pools/seats/assign", asked).await;
        let child = service
            .cli(&directory, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tokend runs");
        eventually("it waits", async || {
            let metrics = service.metrics().await;
            metrics.contains("tokend_waiters{pool=\"seats\"} 1\n")
        })
        .await;
        let token = json!({"token": "seat-1", "fence": held["fence"]});
        let (status, _) = service.post("/v1/pools/seats/unblock", token).await;
        assert_eq!(status, 200);
        let ran = super::Ran::from(child.wait_with_output().expect("it ends"));
        assert!(ran.ok().contains(told));
        let token = json!({"token": "seat-1"});
        service.post("/v1/pools/seats/unblock", token).await;
    }
    let both = ["assign", "--wait", "1s", "--token", "seat-1"];
    assert_eq!(service.run(&directory, &both).code, Some(2));
    assert_eq!(
        service.run(&directory, &["assign", "--wait", "61s"]).code,
        Some(2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_was_waited_for_longer_than_it_lasts_is_kept() {
    let directory = Directory::new();
    let service = service(&directory).await;
    let asked = json!({"lifetime": 3_600});
    let (_, held) = service.post("/v1/pools/seats/assign", asked).await;
    let waits = ["lease", "seats", "--wait-for", "10m", "--lifetime", "2s"];
    let child = service
        .cli(&directory, &[&waits[..], &["--", "echo", "ran"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tokend runs");
    // Longer than the lease.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let token = json!({"token": "seat-1", "fence": held["fence"]});
    let (status, _) = service.post("/v1/pools/seats/unblock", token).await;
    assert_eq!(status, 200);
    let ran = super::Ran::from(child.wait_with_output().expect("it ends"));
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "ran\n"),
        "{}",
        ran.stderr
    );
}

async fn waiters(service: &Tokend, count: u32) -> bool {
    let line = format!("tokend_waiters{{pool=\"seats\"}} {count}\n");
    service.metrics().await.contains(&line)
}

/// A `tokend lease` that stands in line.
async fn waiting(service: &Tokend, directory: &Directory) -> Child {
    let waits = ["lease", "seats", "--wait-for", "10m", "--", "sleep", "600"];
    let child = service
        .cli(directory, &waits)
        .stderr(Stdio::null())
        .spawn()
        .expect("tokend runs");
    eventually("it waits", async || waiters(service, 1).await).await;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_a_signal_ends_leaves_no_token_held() {
    let directory = Directory::new();
    let service = service(&directory).await;
    // Signals that COMMAND gets too, should it have the token already.
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let asked = json!({"lifetime": 3_600});
        let (_, held) = service.post("/v1/pools/seats/assign", asked).await;
        let mut child = waiting(&service, &directory).await;
        // In the very moment in which the token comes free.
        let token = json!({"token": "seat-1", "fence": held["fence"]});
        let unblock = service.post("/v1/pools/seats/unblock", token);
        let kill = async { crate::support::signal(child.id(), signal) };
        let ((status, _), ()) = tokio::join!(unblock, kill);
        assert_eq!(status, 200);
        assert_eq!(wait(&mut child).await.code(), Some(code));
        eventually("it has left", async || waiters(&service, 0).await).await;
        eventually("the token is free", async || {
            let (_, pool) = service.get("/v1/pools/seats").await;
            pool["free"] == 1
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_a_signal_ends_leaves_its_place_in_line() {
    let directory = Directory::new();
    let service = service(&directory).await;
    let asked = json!({"lifetime": 3_600});
    let (_, held) = service.post("/v1/pools/seats/assign", asked).await;
    let mut child = waiting(&service, &directory).await;
    crate::support::signal(child.id(), "TERM");
    assert_eq!(wait(&mut child).await.code(), Some(143));
    let token = json!({"token": "seat-1", "fence": held["fence"]});
    let (status, _) = service.post("/v1/pools/seats/unblock", token).await;
    assert_eq!(status, 200);
    let (status, grant) = service.post("/v1/pools/seats/assign", json!({})).await;
    assert_eq!(
        status, 200,
        "the token went to a waiter that is gone: {grant}"
    );
}
