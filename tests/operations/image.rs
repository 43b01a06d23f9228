//! The image, as an engine runs it. `make check-image` builds it and says by `TOKEND_TEST_IMAGE` which one it is.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::docker::{Container, Network, docker, inspect, read_only, try_docker};
use crate::machine::repository;
use crate::support::{Directory, eventually, http_client, skip};

/// Most bytes of the image: a library or a tool more than there should be is found.
const SIZE_MAX: u64 = 40_000_000;
/// With nothing that a container can be denied.
const CONFINED: &[&str] = &[
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges:true",
];

/// The image, or why there is none.
fn image(test: &str) -> Option<String> {
    let image = std::env::var("TOKEND_TEST_IMAGE").ok();
    if image.is_none() {
        skip(test, "make check-image builds the image and runs this");
    }
    image
}

fn redis_image() -> String {
    std::env::var("TOKEND_TEST_REDIS_IMAGE").expect("make check-image names it")
}

/// A Redis that others on its network find as `redis`.
fn start_redis(network: &Network, options: &[&str], args: &[&str]) -> Container {
    let image = redis_image();
    let mut all = vec!["--network", &network.name, "--network-alias", "redis"];
    all.extend(options);
    all.extend([
        "--entrypoint",
        "redis-server",
        &image,
        "--protected-mode",
        "no",
    ]);
    all.extend(args);
    Container::run(&all)
}

/// The image with no rights, on this network, with these options.
fn start_tokend(image: &str, network: &Network, options: &[&str]) -> Container {
    let on = ["--network", network.name.as_str()];
    Container::run(&[CONFINED, &on, options, &[image]].concat())
}

#[test]
fn the_dockerfile_has_the_version_of_cargo_toml() {
    let text = std::fs::read_to_string(repository("Dockerfile")).expect("a Dockerfile");
    let line = format!("ARG VERSION={}", env!("CARGO_PKG_VERSION"));
    assert!(text.lines().any(|it| it == line), "no `{line}`");
}

#[test]
fn the_image_says_what_it_is_and_holds_nothing_else() {
    let Some(image) = image("the_image_says_what_it_is_and_holds_nothing_else") else {
        return;
    };
    let told = inspect(&image);
    let config = &told["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["Entrypoint"][0], "/tokend");
    assert_eq!(config["Cmd"][0], "serve");
    assert!(config["ExposedPorts"]["3000/tcp"].is_object());
    assert_eq!(config["Healthcheck"]["Test"][2], "healthcheck");
    let size = told["Size"].as_u64().expect("a size");
    assert!(size < SIZE_MAX, "{size} bytes");

    let labels = &config["Labels"];
    let label = |name: &str| labels[format!("org.opencontainers.image.{name}")].clone();
    assert_eq!(label("licenses"), "MIT");
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    let version = docker(&["run", "--rm", &image, "--version"]);
    let revision = label("revision");
    let revision = revision.as_str().expect("a revision");
    let expected = format!("tokend {} ({revision})", env!("CARGO_PKG_VERSION"));
    assert_eq!(version.trim_end(), expected);

    let created = docker(&["create", &image]);
    let created = created.trim();
    let list = format!("docker export {created} | tar --list");
    let list = Command::new("sh").args(["-c", &list]).output();
    try_docker(&["rm", created]);
    let list = String::from_utf8(list.expect("a shell").stdout).expect("UTF-8");
    let files: BTreeSet<_> = list.lines().filter(|name| !name.ends_with('/')).collect();
    // What the engine itself puts into every container.
    let engine = [
        ".dockerenv",
        "dev/console",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
    ];
    let files: Vec<_> = files
        .into_iter()
        .filter(|name| !engine.contains(name))
        .collect();
    assert_eq!(files, ["etc/ssl/certs/ca-certificates.crt", "tokend"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_with_no_rights_finds_redis_by_name_and_its_health_follows() {
    let Some(image) = image("it_serves_with_no_rights_finds_redis_by_name_and_its_health_follows")
    else {
        return;
    };
    let network = Network::create();
    let redis = start_redis(&network, &[], &[]);
    let options = [
        "-e",
        "REDIS_URL=redis://redis:6379",
        "--health-interval",
        "250ms",
        "--health-retries",
        "1",
    ];
    let tokend = start_tokend(&image, &network, &options);
    assert_eq!(tokend.until_health("healthy").await, "ready");

    let top = docker(&["top", &tokend.name, "-o", "pid,uid"]);
    let process = top.lines().nth(1).expect("a process");
    let user = process.split_whitespace().nth(1);
    assert_eq!(user, Some("65532"), "{top}");
    for shell in ["/bin/sh", "sh", "/bin/bash", "/busybox/sh"] {
        let ran = try_docker(&["exec", &tokend.name, shell, "-c", "true"]);
        assert!(!ran.status.success(), "{shell}");
    }
    let url = format!("http://{}:3000", tokend.address());
    let made = http_client().post(format!("{url}/tokens/generate"));
    let made = made
        .body(r#"{"count": 3}"#)
        .header("content-type", "application/json");
    assert_eq!(made.send().await.expect("an answer").status(), 201);

    docker(&["pause", &redis.name]);
    let said = tokend.until_health("unhealthy").await;
    assert!(said.ends_with("/readyz: Redis does not answer"), "{said}");
    let live = try_docker(&["exec", &tokend.name, "/tokend", "healthcheck", "--live"]);
    assert!(live.status.success());
    docker(&["unpause", &redis.name]);
    tokend.until_health("healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_what_is_in_flight_and_ends_it_within_the_limit() {
    let Some(image) = image("sigterm_answers_what_is_in_flight_and_ends_it_within_the_limit")
    else {
        return;
    };
    let network = Network::create();
    let _redis = start_redis(&network, &[], &[]);
    let tokend = start_tokend(&image, &network, &["-e", "REDIS_URL=redis://redis"]);
    let address = format!("{}:3000", tokend.address());
    let ready = format!("http://{address}/readyz");
    eventually("it is ready", async || {
        let answer = http_client().get(&ready).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    // Its head is there, its body on the way.
    let mut slow = TcpStream::connect(&address).expect("it listens");
    slow.set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    let head = "POST /tokens/generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
        content-length: 20\r\n\r\n{\"tok";
    slow.write_all(head.as_bytes()).expect("it reads");
    // Killed after 10 s, as `docker stop` does by default; its exit code would be 137.
    let name = tokend.name.clone();
    let stop = std::thread::spawn(move || docker(&["stop", "--time", "10", &name]));
    eventually("it listens no more", async || {
        let address = address.parse().expect("an address");
        TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err()
    })
    .await;
    slow.write_all(br#"ens": ["late"]}"#)
        .expect("still connected");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    stop.join().expect("it stops");
    assert_eq!(tokend.state()["ExitCode"], 0, "{}", tokend.log());
    // Without any right it turned others away before it closed: docs/adr/0015-image.md
    let log = tokend.log();
    assert!(!log.contains("the listener closes with all"), "{log}");
}

#[test]
fn a_container_that_cannot_serve_says_why_by_its_exit_code() {
    let Some(image) = image("a_container_that_cannot_serve_says_why_by_its_exit_code") else {
        return;
    };
    for (setting, code, why) in [
        ("PORT=many", 78, "PORT"),
        ("REDIS_URL=", 1, "REDIS_URL"),
        ("REDIS_URL=http://redis", 78, "REDIS_URL"),
    ] {
        let container = Container::run(&["-e", setting, &image]);
        assert_eq!(container.wait(), code, "{setting}: {}", container.log());
        assert!(container.log().contains(why), "{}", container.log());
    }
}

/// An authority and the certificate of a server called `redis` that it signed.
fn certificates(directory: &Directory) {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority \
        -keyout ca.key -out ca.pem && \
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout redis.key -out redis.csr && \
        printf 'subjectAltName=DNS:redis' >redis.ext && \
        openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile redis.ext \
        -out redis.pem && chmod 644 *.key *.pem && chmod 755 .";
    let made = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory.path())
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_trusts_the_authorities_in_etc_ssl_certs_and_no_other() {
    let Some(image) = image("it_trusts_the_authorities_in_etc_ssl_certs_and_no_other") else {
        return;
    };
    let directory = Directory::new();
    certificates(&directory);
    let network = Network::create();
    let keys = read_only(directory.path(), "/keys");
    let tls = [
        "--port",
        "0",
        "--tls-port",
        "6379",
        "--tls-auth-clients",
        "no",
    ];
    let files = [
        "--tls-cert-file",
        "/keys/redis.pem",
        "--tls-key-file",
        "/keys/redis.key",
    ];
    let redis = start_redis(&network, &["-v", &keys], &[&tls[..], &files].concat());
    let url = "REDIS_URL=rediss://redis:6379";
    let authority = directory.path().join("ca.pem");
    let authority = read_only(&authority, "/etc/ssl/certs/ca-certificates.crt");
    let trusting = start_tokend(&image, &network, &["-e", url, "-v", &authority]);
    assert_eq!(
        trusting.until_health("healthy").await,
        "ready",
        "{}",
        redis.log()
    );
    let wary = start_tokend(&image, &network, &["-e", url]);
    eventually("it says that nobody it trusts signed this", async || {
        wary.log().contains("UnknownIssuer")
    })
    .await;
    assert_ne!(wary.state()["Health"]["Status"], "healthy");
}
