//! The command line's verbs against a real service.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use super::{Directory, Ran, Tokend};

/// Runs an import of what is piped in.
fn import(service: &Tokend, directory: &Directory, input: &str) -> Ran {
    let mut child = service
        .cli(directory, &["import", "-", "--pool", "seats"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tokend runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    Ran::from(child.wait_with_output().expect("it ends"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_set_listed_shown_and_deleted() {
    let directory = Directory::new();
    let service = Tokend::on_shared_redis(&directory).await;
    let run = |args: &[&str]| service.run(&directory, args);
    let set = [
        "pool",
        "set",
        "seats",
        "--lifetime",
        "1m 30s",
        "--cooldown",
        "2",
        "--max-tokens",
        "3",
    ];
    assert!(run(&set).ok().contains("1m 30s"));
    let more = [
        "pool",
        "set",
        "seats",
        "--idle-limit",
        "1h",
        "--max-hold",
        "2h",
        "--on-lapse",
        "delete",
        "--json",
    ];
    let pool = run(&more).json();
    let told = [
        "lifetime",
        "idle_limit",
        "cooldown",
        "max_tokens",
        "max_hold",
        "on_lapse",
    ];
    let told = told.map(|field| pool[field].clone());
    assert_eq!(
        told,
        [
            json!(90),
            json!(3_600),
            json!(2),
            json!(3),
            json!(7_200),
            json!("delete")
        ]
    );
    assert_eq!(run(&["pool", "show", "seats", "--json"]).json(), pool);
    let list = run(&["pool", "list"]);
    let names: Vec<_> = list
        .ok()
        .lines()
        .map(|line| line.split(' ').next())
        .collect();
    assert_eq!(names, [Some("NAME"), Some("default"), Some("seats")]);
    assert_eq!(run(&["pool", "delete", "seats"]).ok(), "deleted seats\n");
    let gone = run(&["pool", "show", "seats"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("pool-not-found"), "{}", gone.stderr);
    assert_eq!(run(&["pool", "delete", "default"]).code, Some(1));
    assert_eq!(run(&["pool", "show", "NO"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_generated_and_imported() {
    let directory = Directory::new();
    let service = Tokend::on_shared_redis(&directory).await;
    let run = |args: &[&str]| service.run(&directory, args);
    let generated = run(&["generate", "3"]);
    let valid = generated
        .ok()
        .lines()
        .all(|it| uuid::Uuid::parse_str(it).is_ok());
    assert!(
        valid && generated.stdout.lines().count() == 3,
        "{}",
        generated.stdout
    );
    assert_eq!(run(&["generate", "0"]).code, Some(2));

    run(&["pool", "set", "seats", "--max-tokens", "5"]).ok();
    directory.write("seats.txt", "a\r\nb\n\nc d\n");
    let from_file = run(&["import", "seats.txt", "--pool", "seats"]);
    assert_eq!(from_file.ok(), "3 new, 0 existing in seats\n");
    let piped = import(&service, &directory, "a\ne\n");
    assert_eq!(piped.ok(), "1 new, 1 existing in seats\n");
    let bad = import(
        &service,
        &directory,
        "good\n\nsecret\tone\nsecret\u{1}two\n",
    );
    assert_eq!(bad.code, Some(2));
    for line in ["line 3", "line 4", "nothing was sent"] {
        assert!(bad.stderr.contains(line), "{}", bad.stderr);
    }
    assert!(!bad.stderr.contains("secret"), "{}", bad.stderr);
    let full = import(&service, &directory, "x\ny\n");
    assert_eq!(full.code, Some(1));
    assert!(full.stderr.contains("pool-full"), "{}", full.stderr);
    assert_eq!(run(&["import", "nowhere.txt"]).code, Some(2));
    let shown = run(&["pool", "show", "seats", "--json"]).json();
    assert_eq!(shown["total"], 4);
}

/// What is refused while the only token is held.
fn refused(run: &impl Fn(&[&str]) -> Ran) {
    let none = run(&["assign"]);
    assert_eq!(none.code, Some(75), "{}", none.stderr);
    assert!(
        none.stderr.contains("no-token-available"),
        "{}",
        none.stderr
    );
    let taken = run(&["assign", "--token", "a"]);
    assert_eq!(taken.code, Some(75), "{}", taken.stderr);
    assert!(taken.stderr.contains("not-free"), "{}", taken.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_through_its_life() {
    let directory = Directory::new();
    let service = Tokend::on_shared_redis(&directory).await;
    let run = |args: &[&str]| service.run(&directory, &[args, &["--pool", "seats"]].concat());
    service
        .run(&directory, &["pool", "set", "seats", "--cooldown", "1h"])
        .ok();
    import(&service, &directory, "a\n").ok();
    let granted = run(&[
        "assign",
        "--json",
        "--holder",
        "me",
        "--lifetime",
        "10m",
        "--idempotency-key",
        "k",
    ])
    .json();
    assert_eq!(
        (&granted["token"], &granted["holder"]),
        (&json!("a"), &json!("me"))
    );
    let again = run(&[
        "assign",
        "--json",
        "--holder",
        "me",
        "--lifetime",
        "10m",
        "--idempotency-key",
        "k",
    ])
    .json();
    assert_eq!(again["fence"], granted["fence"]);
    let fence = granted["fence"].to_string();
    assert!(run(&["inspect", "a"]).ok().contains(&fence));
    refused(&run);
    let kept = run(&[
        "keep-alive",
        "a",
        "--fence",
        &fence,
        "--lifetime",
        "20m",
        "--json",
    ])
    .json();
    assert_eq!(
        (&kept["state"], &kept["expires_in"]),
        (&json!("held"), &json!(1_200))
    );
    for verb in ["keep-alive", "unblock"] {
        let lost = run(&[verb, "a", "--fence", "7"]);
        assert_eq!(lost.code, Some(76), "{}", lost.stderr);
    }
    let back = run(&["unblock", "a", "--fence", &fence]);
    assert!(back.ok().contains("cooling"), "{}", back.stdout);
    assert_eq!(run(&["unblock", "a"]).code, Some(1), "not held any more");
    assert_eq!(run(&["delete", "a", "--json"]).json()["state"], "deleted");
    let gone = run(&["inspect", "a"]);
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("token-not-found"), "{}", gone.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_reached_is_69() {
    let directory = Directory::new();
    let mut service = Tokend::on_shared_redis(&directory).await;
    service.run(&directory, &["pool", "list"]).ok();
    service.process.signal("KILL");
    service.process.until_ended().await;
    for args in [
        &["pool", "list"] as &[&str],
        &["assign"],
        &["lease", "seats", "--", "true"],
    ] {
        let ran = service.run(&directory, args);
        assert_eq!(ran.code, Some(69), "{args:?}: {}", ran.stderr);
    }
}
