//! Three replicas behind haproxy, restarted one after the other: no request fails.

use std::process::{Command, Stdio};

use super::stage::{Replica, Stage};
use super::{Expect, Report, have, row, single};
use crate::process::{self, Directory, Process};

const NAME: &str = "rolling restart behind haproxy";
/// How often haproxy asks whether a replica is ready, and how many answers it believes.
const CHECK: &str = "check inter 100ms fall 1 rise 1";
/// Longest that a replica may take to end: what it promises.
const STOP_MS_MAX: u64 = 10_000;

pub async fn play(report: &mut Report) {
    if !have("haproxy", NAME) {
        return;
    }
    let Some(place) = single(&[]).await else {
        return;
    };
    let scratch = Directory::new();
    let mut stage = Stage::set(place, vec![Replica::default(); 3], &[]).await;
    let port = process::free_port();
    let file = scratch.path().join("haproxy.cfg");
    std::fs::write(&file, config(port, &stage.ports)).expect("a writable directory");
    let mut command = Command::new("haproxy");
    command
        .arg("-f")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _haproxy = Process::start(&mut command);
    stage.go_through(port);
    process::ready(&stage.world.http, port).await;
    stage.begin_load();
    stage.load_for(1.5).await;
    for n in 0..3 {
        stage.fault();
        stage.replicas[n].terminate(STOP_MS_MAX).await;
        stage.replicas[n] = stage.start(n);
        stage.ready(n).await;
        stage.load_for(1.0).await;
    }
    let seen = Box::pin(stage.judge()).await;
    row(report, NAME, "single", "memory", Expect::NoFailure, &seen);
}

fn config(port: u16, replicas: &[u16]) -> String {
    let mut text = format!(
        "defaults\n mode http\n timeout connect 1s\n timeout client 15s\n timeout server 15s\n\
         frontend front\n bind 127.0.0.1:{port}\n default_backend tokend\n\
         backend tokend\n option httpchk GET /readyz\n balance roundrobin\n"
    );
    for (n, replica) in replicas.iter().enumerate() {
        text += &format!(" server r{n} 127.0.0.1:{replica} {CHECK}\n");
    }
    text
}
