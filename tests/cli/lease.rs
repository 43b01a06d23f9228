//! `tokend lease`: COMMAND, its signals, and the loss of its lease.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

use crate::service::{PATIENCE, Service, grant, kept, problem, text, unblocked, until, well};

#[test]
fn a_leased_command_knows_its_token_and_its_code_is_passed_through() {
    let service = well(60.0);
    let output = service.run(&[
        "lease",
        "seats",
        "--",
        "sh",
        "-c",
        "echo $TOKEND_TOKEN $TOKEND_FENCE $TOKEND_POOL; exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "seat-1 41 seats\n");
    let assign = &service.seen("assign")[0];
    assert!(assign.key.as_deref().is_some_and(|key| key.len() == 36));
    assert!(
        assign.body["holder"]
            .as_str()
            .expect("a holder")
            .contains(':')
    );
    let back = service.seen("unblock");
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].body, json!({"token": "seat-1", "fence": 41}));
}

#[test]
fn a_command_that_cannot_run_gives_the_lease_back() {
    let service = well(60.0);
    let missing = service.run(&["lease", "seats", "--", "/nowhere/at-all"]);
    assert_eq!(missing.status.code(), Some(127));
    let no_program = service.run(&["lease", "seats", "--", env!("CARGO_MANIFEST_DIR")]);
    assert_eq!(no_program.status.code(), Some(126));
    assert_eq!(service.seen("unblock").len(), 2);
    let died = service.run(&["lease", "seats", "--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(died.status.code(), Some(137));
}

#[test]
fn no_token_is_75_at_once_or_waited_for() {
    let service = Service::start(|seen, before| match (seen.verb(), before) {
        ("assign", 0 | 1) => {
            let (status, _, body) = problem("no-token-available", 404);
            (status, Some(1), body)
        }
        ("assign", _) => grant(60.0),
        _ => unblocked(),
    });
    let at_once = service.run(&["lease", "seats", "--", "true"]);
    assert_eq!(at_once.status.code(), Some(75));
    let waited = service.run(&["lease", "seats", "--wait-for", "10s", "--", "true"]);
    assert_eq!(waited.status.code(), Some(0));
    let seen = service.seen("assign");
    assert_eq!(seen.len(), 3);
    assert!(
        seen[2].at - seen[1].at >= Duration::from_secs(1),
        "Retry-After"
    );
    assert_ne!(seen[0].key, seen[1].key, "a key for each lease");
    assert_eq!(seen[1].key, seen[2].key, "one key for all tries");
}

#[test]
fn an_unknown_outcome_is_settled_with_the_same_key() {
    let service = Service::start(|seen, before| match (seen.verb(), before) {
        ("assign", 0) => problem("outcome-unknown", 503),
        ("assign", _) => grant(60.0),
        _ => unblocked(),
    });
    let output = service.run(&["lease", "seats", "--", "true"]);
    assert_eq!(output.status.code(), Some(0));
    let seen = service.seen("assign");
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].key, seen[1].key);
}

#[test]
fn the_clock_of_a_lease_starts_at_its_grant_however_long_the_wait_was() {
    const LEASE: Duration = Duration::from_millis(1_500);
    let service = Service::start(|seen, before| match (seen.verb(), before) {
        ("assign", 0) => {
            std::thread::sleep(LEASE * 2); // the wait in line
            grant(LEASE.as_secs_f64())
        }
        ("assign", _) => grant(LEASE.as_secs_f64()),
        ("keep-alive", _) => kept(LEASE.as_secs_f64()),
        _ => unblocked(),
    });
    let output = service.run(&["lease", "seats", "--wait-for", "30s", "--", "echo", "ran"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "ran\n");
    let seen = service.seen("assign");
    assert_eq!(seen.len(), 2, "asked again for what is left of the lease");
    assert_eq!(seen[0].key, seen[1].key);
    let waits = |n: usize| seen[n].body.get("wait_seconds").is_some();
    assert!(waits(0) && !waits(1), "{seen:?}");
}

#[test]
fn a_grant_that_lapsed_before_it_was_heard_of_is_not_used() {
    const LEASE: Duration = Duration::from_millis(1_500);
    let service = Service::start(|seen, before| match (seen.verb(), before) {
        ("assign", 0) => {
            std::thread::sleep(LEASE * 2);
            grant(LEASE.as_secs_f64())
        }
        ("assign", 1) => problem("lease-lost", 409),
        ("assign", _) => grant(60.0),
        _ => unblocked(),
    });
    let output = service.run(&["lease", "seats", "--wait-for", "30s", "--", "true"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let seen = service.seen("assign");
    assert_eq!(seen[0].key, seen[1].key);
    assert_ne!(seen[1].key, seen[2].key, "the old key only finds the loss");
}

/// A lease around a shell script that says when it is ready.
struct Held {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Held {
    fn start(service: &Service, args: &[&str], script: &str) -> Self {
        let mut all = vec!["lease", "seats"];
        all.extend(args);
        all.extend(["--", "sh", "-c", script]);
        let mut child = service
            .tokend(&all)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("tokend runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("UTF-8")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill_process(Pid::from_raw(pid).expect("not 0"), signal).expect("it runs");
    }

    fn code(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

/// A shell script's part that goes on until a signal ends it; `read` from a pipe that never says
/// anything would need one, and `sleep` alone would put off the traps.
const FOREVER: &str = "while :; do sleep 0.05; done";

#[test]
fn signals_reach_the_command_and_the_token_comes_back() {
    let service = well(60.0);
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ] {
        let script = format!("trap 'echo got; exit 9' {name}; echo ready; {FOREVER}");
        let mut held = Held::start(&service, &[], &script);
        assert_eq!(held.line(), "ready");
        held.signal(signal);
        assert_eq!(held.line(), "got");
        assert_eq!(held.code(), Some(9));
    }
    assert_eq!(service.seen("unblock").len(), 4);
}

#[test]
fn a_command_ended_by_a_signal_exits_with_128_and_its_number() {
    let service = well(60.0);
    let mut held = Held::start(&service, &[], &format!("echo ready; {FOREVER}"));
    assert_eq!(held.line(), "ready");
    held.signal(Signal::TERM);
    assert_eq!(held.code(), Some(143));
    assert_eq!(service.seen("unblock").len(), 1);
}

#[test]
fn a_lease_is_kept_alive_at_a_third_of_its_length_with_its_fence() {
    let service = well(3.0);
    let mut held = Held::start(
        &service,
        &["--lifetime", "3s"],
        &format!("trap 'exit 0' TERM; echo ready; {FOREVER}"),
    );
    assert_eq!(held.line(), "ready");
    until("keep-alives", || service.seen("keep-alive").len() >= 2);
    held.signal(Signal::TERM);
    assert_eq!(held.code(), Some(0));
    let kept = service.seen("keep-alive");
    let expected = json!({"token": "seat-1", "fence": 41, "lifetime": 3});
    assert_eq!(kept[0].body, expected);
    let assigned = service.seen("assign")[0].at;
    assert!(
        kept[0].at - assigned >= Duration::from_millis(950),
        "not before a third"
    );
}

#[test]
fn a_lease_that_the_service_calls_lost_ends_the_command_with_76() {
    // The last is how an older service says that a token is free.
    let free = json!({"token": "seat-1", "state": "free", "expires_at": "2030-01-01T00:00:00.000Z", "expires_in": 300});
    for lost in [
        problem("lease-lost", 409),
        problem("not-held", 409),
        problem("token-not-found", 404),
        problem("pool-not-found", 404),
        (200, None, json!({"token": "seat-1", "state": "free"})),
        (200, None, free),
    ] {
        let answered = lost.clone();
        // Lost only once the command is ready for its SIGTERM, however long that takes.
        let ready = Arc::new(AtomicBool::new(false));
        let is_ready = ready.clone();
        let service = Service::start(move |seen, _| match seen.verb() {
            "assign" => grant(3.0),
            "keep-alive" if is_ready.load(Ordering::SeqCst) => answered.clone(),
            "keep-alive" => kept(3.0),
            _ => unblocked(),
        });
        let mut held = Held::start(
            &service,
            &[],
            &format!("trap 'echo cleaned up; exit 0' TERM; echo ready; {FOREVER}"),
        );
        assert_eq!(held.line(), "ready");
        ready.store(true, Ordering::SeqCst);
        assert_eq!(held.line(), "cleaned up", "SIGTERM comes first");
        assert_eq!(held.code(), Some(76), "{lost:?}");
        assert!(
            service.seen("unblock").is_empty(),
            "it is not ours to give back"
        );
    }
}

#[test]
fn a_lease_that_cannot_be_confirmed_ends_a_stubborn_command_before_its_deadline() {
    const LEASE: Duration = Duration::from_secs(3);
    let ready = Arc::new(AtomicBool::new(false));
    let confirmed = Arc::new(Mutex::new(Instant::now()));
    let (is_ready, last) = (ready.clone(), confirmed.clone());
    let service = Service::start(move |seen, _| match seen.verb() {
        verb @ ("assign" | "keep-alive") if !is_ready.load(Ordering::SeqCst) => {
            *last.lock().expect("unpoisoned") = seen.at;
            let answer = if verb == "assign" { grant } else { kept };
            answer(LEASE.as_secs_f64())
        }
        _ => problem("store-unavailable", 503),
    });
    // Takes no notice of SIGTERM, and neither does what it starts.
    let mut held = Held::start(&service, &[], &format!("trap '' TERM; echo $$; {FOREVER}"));
    let pid: i32 = held.line().parse().expect("a process id");
    ready.store(true, Ordering::SeqCst);
    assert!(
        held.lines.next().is_none(),
        "the pipe closes when all are dead"
    );
    let since = confirmed.lock().expect("unpoisoned").elapsed();
    assert!(since < LEASE, "{since:?} after it was last confirmed");
    assert_eq!(held.code(), Some(76));
    assert!(test_kill_process(Pid::from_raw(pid).expect("not 0")).is_err());
    assert!(service.seen("keep-alive").len() > 1, "it was tried again");
}

#[test]
fn a_loss_that_shows_only_at_the_end_is_told() {
    let service = Service::start(|seen, _| match seen.verb() {
        "assign" => grant(60.0),
        _ => problem("lease-lost", 409),
    });
    let output = service.run(&["lease", "seats", "--", "true"]);
    assert_eq!(output.status.code(), Some(76));
}

#[test]
fn giving_back_is_tried_again_and_its_own_echo_is_no_loss() {
    let service = Service::start(|seen, before| match (seen.verb(), before) {
        ("assign", _) => grant(60.0),
        (_, 0) => problem("outcome-unknown", 503),
        _ => problem("lease-lost", 409),
    });
    let output = service.run(&["lease", "seats", "--", "true"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(service.seen("unblock").len(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn the_command_does_not_outlive_a_killed_lease() {
    let service = well(60.0);
    let mut held = Held::start(
        &service,
        &[],
        &format!("trap 'echo told; exit 0' TERM; echo ready; {FOREVER}"),
    );
    assert_eq!(held.line(), "ready");
    held.signal(Signal::KILL);
    assert_eq!(held.line(), "told");
    assert_eq!(held.code(), None);
}

#[test]
fn a_signal_while_waiting_for_a_token_ends_the_wait() {
    let service = Service::start(|_, _| {
        let (status, _, body) = problem("no-token-available", 404);
        (status, Some(60), body)
    });
    let held = Held::start(&service, &["--wait-for", "1h"], "echo never");
    until("the first try", || !service.seen("assign").is_empty());
    held.signal(Signal::TERM);
    assert_eq!(held.code(), Some(143));
}

#[test]
fn a_signal_cuts_the_wait_off_and_a_grant_that_came_all_the_same_is_given_back() {
    for (signal, code, granted) in [
        (Signal::INT, 130, true),
        (Signal::TERM, 143, true),
        (Signal::TERM, 143, false),
    ] {
        let (sender, receiver) = std::sync::mpsc::channel();
        let cut_off = Mutex::new(receiver);
        let service = Service::start(move |seen, before| match (seen.verb(), before) {
            // The answer of the request that waits comes only after the next request.
            ("assign", 0) => {
                let _ = cut_off.lock().expect("unpoisoned").recv_timeout(PATIENCE);
                grant(60.0)
            }
            ("assign", _) => {
                let _ = sender.send(());
                match granted {
                    true => grant(60.0),
                    false => problem("no-token-available", 404),
                }
            }
            _ => unblocked(),
        });
        let held = Held::start(&service, &["--wait-for", "1h"], "echo never");
        until("it waits", || !service.seen("assign").is_empty());
        held.signal(signal);
        assert_eq!(held.code(), Some(code));
        let seen = service.seen("assign");
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].key, seen[1].key);
        // It stands in the same place in line, and leaves it.
        assert_eq!(seen[1].body["wait_seconds"], 0.001, "{seen:?}");
        let back: Vec<_> = service.seen("unblock").into_iter().collect();
        assert_eq!(back.len(), usize::from(granted));
        assert!(back.iter().all(|it| it.body["fence"] == 41), "{back:?}");
    }
}

#[test]
fn a_signal_after_an_unknown_outcome_looks_for_the_grant_too() {
    let service = Service::start(|seen, before| match (seen.verb(), before) {
        ("assign", 0) => {
            let (status, _, body) = problem("outcome-unknown", 503);
            (status, Some(60), body)
        }
        ("assign", _) => grant(60.0),
        _ => unblocked(),
    });
    let held = Held::start(&service, &["--wait-for", "1h"], "echo never");
    until("the first try", || !service.seen("assign").is_empty());
    held.signal(Signal::TERM);
    assert_eq!(held.code(), Some(143));
    assert_eq!(service.seen("unblock").len(), 1);
}
