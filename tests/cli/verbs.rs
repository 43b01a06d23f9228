//! The commands that make one call, and the import, which makes several.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::service::{Service, problem, text, well};

#[test]
fn assign_prints_a_block_for_people_and_the_answer_for_scripts() {
    let service = well(60.0);
    let human = service.run(&["assign", "--holder", "me", "--lifetime", "1m"]);
    assert_eq!(human.status.code(), Some(0));
    assert_eq!(
        text(&human.stdout),
        "token       seat-1\nfence       41\nexpires at  2030-01-01T00:00:00.000Z\n\
         expires in  1m\nholder      me\n"
    );
    let script = service.run(&[
        "assign",
        "--json",
        "--pool",
        "seats",
        "--idempotency-key",
        "k",
    ]);
    let line = text(&script.stdout);
    assert_eq!(line.lines().count(), 1);
    let json: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(json["fence"], 41);

    let seen = service.seen("assign");
    assert_eq!(seen[0].path, "/v1/pools/default/assign");
    assert_eq!(seen[0].body, json!({"holder": "me", "lifetime": 60}));
    assert_eq!(seen[0].key, None);
    assert_eq!(seen[1].path, "/v1/pools/seats/assign");
    assert_eq!(seen[1].body, json!({}));
    assert_eq!(seen[1].key.as_deref(), Some("k"));
}

#[test]
fn the_exit_code_says_what_went_wrong_and_stderr_says_it_in_one_line() {
    let service = Service::start(|seen, _| match seen.verb() {
        "assign" => problem("no-token-available", 404),
        "keep-alive" => problem("lease-lost", 409),
        "unblock" => problem("store-unavailable", 503),
        _ => problem("token-not-found", 404),
    });
    for (args, code) in [
        (["assign", "--token", "secret"], 75),
        (["keep-alive", "secret", "--fence=1"], 76),
        (["unblock", "secret", "--fence=1"], 69),
        (["inspect", "secret", "--json"], 1),
        (["delete", "secret", "--json"], 1),
        (["inspect", "secret", "--pool=NOT-A-NAME"], 2),
    ] {
        let output = service.run(&args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let stderr = text(&output.stderr);
        if code != 2 {
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.contains("words about") && stderr.contains("request-7"));
            assert!(!stderr.contains("secret"));
        }
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_keep_alive_of_a_free_token_prints_it_and_says_that_the_lease_is_lost() {
    for free in [
        json!({"token": "seat-1", "state": "free"}),
        json!({"token": "seat-1", "state": "free", "idle_expires_at": "2030-01-01T00:00:00.000Z"}),
        // As an older service says it.
        json!({"token": "seat-1", "state": "free", "expires_at": "2030-01-01T00:00:00.000Z", "expires_in": 300}),
    ] {
        let answer = free.clone();
        let service = Service::start(move |_, _| (200, None, answer.clone()));
        let output = service.run(&["keep-alive", "seat-1", "--json"]);
        assert_eq!(output.status.code(), Some(76), "{free}");
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(told, free);
        let stderr = text(&output.stderr);
        assert!(stderr.contains("lease is lost"), "{stderr}");
    }
}

#[test]
fn a_keep_alive_that_is_refused_says_by_its_code_that_the_lease_is_lost() {
    for (slug, status, code) in [
        ("lease-lost", 409, 76),
        ("not-held", 409, 76),
        ("token-not-found", 404, 76),
        ("invalid-request", 400, 1),
        ("store-unavailable", 503, 69),
    ] {
        let service = Service::start(move |_, _| problem(slug, status));
        let output = service.run(&["keep-alive", "seat-1"]);
        assert_eq!(output.status.code(), Some(code), "{slug}");
    }
}

#[test]
fn a_service_that_is_not_there_is_69() {
    // Bound and dropped at once: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let output = Command::new(env!("CARGO_BIN_EXE_tokend"))
        .args(["--url", &url, "pool", "list"])
        .output()
        .expect("tokend runs");
    assert_eq!(output.status.code(), Some(69));
}

/// With this `TOKEND_URL`.
fn with_url(url: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tokend"))
        .args(args)
        .env("TOKEND_URL", url)
        .env("PORT", "none") // nothing here gets as far as to serve, or to ask
        .output()
        .expect("tokend runs")
}

#[test]
fn a_bad_address_is_a_mistake_for_clients_and_no_business_of_others() {
    for bad in ["localhost:3000", "bad", "ftp://u:hush@h"] {
        let output = with_url(bad, &["pool", "list"]);
        assert_eq!(output.status.code(), Some(2), "{bad}");
        let told = text(&output.stderr);
        assert!(told.contains("TOKEND_URL") && told.contains("http://127.0.0.1:3000"));
        assert!(!told.contains("hush"), "{told}");
    }
    // An empty one is none: then it is the default, whoever listens there.
    let output = with_url("", &["pool", "list"]);
    assert_ne!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let output = with_url("", &["--url", "", "pool", "list"]);
    assert_eq!(output.status.code(), Some(2));
    for url in ["", "bad"] {
        for command in ["serve", "healthcheck"] {
            let output = with_url(url, &[command]);
            let told = text(&output.stderr);
            // They look at the settings, which are wrong.
            assert!(told.contains("PORT") && !told.contains("URL"), "{told}");
        }
    }
}

#[test]
fn pools_are_listed_shown_set_and_deleted() {
    let pool = json!({
        "name": "seats", "free": 3, "held": 2, "cooling": 0, "total": 5, "lifetime": 3,
        "idle_limit": 0, "cooldown": 0, "max_tokens": 10000, "max_hold": 0,
        "on_lapse": "recycle", "shards": 4,
    });
    let service = Service::start(move |seen, _| match (seen.method.as_str(), seen.verb()) {
        ("GET", "pools") => (200, None, json!({"pools": [pool]})),
        ("DELETE", _) => (204, None, Value::Null),
        _ => (200, None, pool.clone()),
    });
    let list = service.run(&["pool", "list"]);
    assert!(text(&list.stdout).starts_with("NAME   FREE  HELD"));
    let show = service.run(&["pool", "show", "seats"]);
    assert!(text(&show.stdout).contains("idle limit  never"));
    assert!(text(&show.stdout).contains("shards      4"));
    let set = service.run(&[
        "pool",
        "set",
        "seats",
        "--lifetime",
        "1m",
        "--idle-limit",
        "0",
        "--on-lapse",
        "delete",
        "--shards",
        "4",
    ]);
    assert_eq!(set.status.code(), Some(0));
    let put = service
        .seen("seats")
        .into_iter()
        .find(|s| s.method == "PUT");
    let fields = json!({"lifetime": 60, "idle_limit": 0, "on_lapse": "delete", "shards": 4});
    assert_eq!(put.expect("a PUT").body, fields);
    let delete = service.run(&["pool", "delete", "seats"]);
    assert_eq!(text(&delete.stdout), "deleted seats\n");
}

/// Runs an import of what is piped in.
fn import(service: &Service, input: &[u8]) -> Output {
    import_with(service, &[], input)
}

fn import_with(service: &Service, options: &[&str], input: &[u8]) -> Output {
    let mut child = service
        .tokend(&[&["import", "-"], options].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tokend runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

fn many(count: usize) -> String {
    let lines: Vec<String> = (0..count).map(|n| format!("seat-{n}\r\n")).collect();
    lines.concat()
}

#[test]
fn an_import_goes_out_in_chunks_and_is_summed_up() {
    let service = Service::start(|seen, before| {
        let sent = seen.body["tokens"].as_array().expect("tokens");
        // The first chunk is half known.
        let known = if before == 0 { sent.len() / 2 } else { 0 };
        let body = json!({"tokens": sent[known..], "existing": known});
        (201, None, body)
    });
    let output = import(&service, many(12_000).as_bytes());
    assert_eq!(text(&output.stdout), "7000 new, 5000 existing in default\n");
    let sizes: Vec<usize> = service
        .seen("generate")
        .iter()
        .map(|s| s.body["tokens"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(sizes, [10_000, 2_000]);
}

#[test]
fn an_import_that_fails_midway_says_how_far_it_got() {
    let service = Service::start(|seen, before| match before {
        0 => (
            201,
            None,
            json!({"tokens": seen.body["tokens"], "existing": 0}),
        ),
        _ => problem("pool-full", 409),
    });
    let output = import(&service, many(12_000).as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("10000 of 12000 were imported, repeating is safe"),
        "{stderr}"
    );
}

#[test]
fn a_bad_line_stops_an_import_before_anything_is_sent() {
    let service = well(60.0);
    let output = import(&service, b"good\nbad\x01one\n");
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("line 2") && !stderr.contains("bad\x01one"),
        "{stderr}"
    );
    assert!(service.seen("generate").is_empty());
}

#[test]
fn an_import_names_the_lines_of_values_that_look_like_others() {
    let service = well(60.0);
    let lines = "seat-1\nseat-1 \n seat-1\nseat-1\u{200b}\nseat\u{ad}-1\n";
    let output = import(&service, lines.as_bytes());
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    for told in [
        "line 2: a token must not end with the white space U+0020",
        "line 3: a token must not begin with the white space U+0020",
        "line 4: a token must not contain the invisible character U+200B",
        "line 5: a token must not contain the invisible character U+00AD",
    ] {
        assert!(stderr.contains(told), "{stderr}");
    }
    assert!(!stderr.contains("line 1:"), "{stderr}");
    assert!(service.seen("generate").is_empty());
}

#[test]
fn an_import_of_long_tokens_is_cut_by_bytes() {
    let service = Service::start(|seen, _| {
        let sent = &seen.body["tokens"];
        (201, None, json!({"tokens": sent, "existing": 0}))
    });
    let lines = (0..400).map(|n| format!("{n:04}{}\n", "x".repeat(4_092)));
    let output = import(&service, lines.collect::<String>().as_bytes());
    assert_eq!(text(&output.stdout), "400 new, 0 existing in default\n");
    let calls = service.seen("generate");
    let sizes = calls
        .iter()
        .map(|call| call.body["tokens"].as_array().map_or(0, Vec::len));
    assert_eq!(sizes.collect::<Vec<_>>(), [243, 157]);
}

#[test]
fn a_dry_run_reads_and_checks_and_sends_nothing() {
    let service = well(60.0);
    let list = b"\xef\xbb\xbf# seats\r\nseat-1\r\n\r\n  # more\r\nseat-2\r\n";
    for (options, told) in [
        (
            &["--dry-run", "--skip-comments"][..],
            "2 tokens, all valid; nothing was sent\n",
        ),
        (
            &["--dry-run", "--skip-comments", "--json"],
            "{\"tokens\":2}\n",
        ),
    ] {
        let output = import_with(&service, options, list);
        assert_eq!(text(&output.stdout), told);
    }
    let bad = import_with(&service, &["--dry-run"], b"good\nbad\x01one\n");
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("line 2"));
    assert!(service.seen("generate").is_empty());
    import_with(&service, &["--skip-comments"], list);
    let sent: Vec<_> = service
        .seen("generate")
        .iter()
        .map(|s| s.body["tokens"].clone())
        .collect();
    assert_eq!(sent, [json!(["seat-1", "seat-2"])]);
}

#[test]
fn the_version_says_which_build_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_tokend"))
        .arg("--version")
        .output()
        .expect("tokend runs");
    // This test was built in the same go.
    let revision = option_env!("TOKEND_REVISION").filter(|it| !it.is_empty());
    let revision = revision.unwrap_or("unknown");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        text(&output.stdout),
        format!("tokend {version} ({revision})\n")
    );
}
