//! The secrets of sessions, as a process finds, keeps and hides them.

use std::os::unix::fs::PermissionsExt as _;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::RsaKeyPair;
use serde_json::{Value, json};
use tokend::store::{Durability, StoreConfig};
use tokend::token::{FlowsLimits, Policy};

use super::{Directory, Ran, Tokend, tokend};
use crate::api::ann::PASSWORD;
use crate::harness::{Fixture, eventually, new_namespace, redis_url, skip};

#[tokio::test(flavor = "multi_thread")]
async fn with_its_own_redis_tokend_makes_its_keys_once_and_keeps_them_closed() {
    let test = "with_its_own_redis_tokend_makes_its_keys_once_and_keeps_them_closed";
    if std::process::Command::new("redis-server")
        .arg("--version")
        .output()
        .is_err()
    {
        return skip(test, "no redis-server");
    }
    let directory = Directory::new();
    // The issuer has to stay the same on another port.
    let settings = [("DATA_DIR", "data"), ("SHUTDOWN_DELAY", "0")];
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut service = Tokend::start(&directory, &settings).await;
        let (status, jwks) = service.get("/.well-known/jwks.json").await;
        assert_eq!(
            (status, jwks["keys"][0]["alg"].as_str()),
            (200, Some("ES256"))
        );
        keys.push(jwks);
        let nobody = json!({"username": "nobody", "password": "x"});
        assert_eq!(service.post("/auth/login", nobody).await.0, 401);
        service.process.stop("TERM").await;
    }
    assert_eq!(keys[0], keys[1]);
    for name in ["jwt.pem", "refresh.key"] {
        let about = std::fs::metadata(directory.path().join("data").join(name));
        let mode = about.expect("it is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_in_one_line() {
    let secret = "x".repeat(32);
    for (given, told) in [
        (&[][..], "JWT_PRIVATE_KEY_FILE (or JWT_SECRET)"),
        (
            &[("REFRESH_TOKEN_SECRET", secret.as_str())],
            "JWT_PRIVATE_KEY_FILE (or JWT_SECRET)",
        ),
        (&[("JWT_SECRET", secret.as_str())], "REFRESH_TOKEN_SECRET"),
    ] {
        let directory = Directory::new();
        let namespace = new_namespace();
        let mut settings = vec![("REDIS_URL", redis_url().await), ("KEY_PREFIX", &namespace)];
        settings.extend(given);
        let service = Tokend::start(&directory, &settings).await;
        let log = service.process.log();
        let lines: Vec<_> = log
            .iter()
            .filter(|it| it.contains("logins are off"))
            .collect();
        assert_eq!(lines.len(), 1, "{log:?}");
        assert!(
            lines[0].contains(&format!("{told} is not set")),
            "{lines:?}"
        );
    }
}

/// A start that `JWT_PRIVATE_KEY_FILE` must refuse.
async fn refused_with(directory: &Directory, key_file: &str) -> Ran {
    let namespace = new_namespace();
    let mut command = tokend(directory);
    command
        .args(["serve", "--port", "0"])
        .env("REDIS_URL", redis_url().await)
        .env("KEY_PREFIX", namespace)
        .env("JWT_PRIVATE_KEY_FILE", key_file)
        .env("REFRESH_TOKEN_SECRET", "x".repeat(32));
    let ran = tokio::task::spawn_blocking(move || command.output()).await;
    let ran = Ran::from(ran.expect("no panic").expect("tokend runs"));
    assert_eq!(ran.code, Some(78), "{}", ran.stderr);
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_cannot_be_used_refuses_to_start() {
    let directory = Directory::new();
    directory.write("bad.pem", "-----BEGIN NONSENSE-----\nSECRETTEXT\n");
    for file in ["missing.pem", "bad.pem"] {
        let ran = refused_with(&directory, file).await;
        let place = if file == "bad.pem" { file } else { "file 1" };
        assert!(ran.stderr.contains(place), "{}", ran.stderr);
        assert!(!ran.stderr.contains("SECRETTEXT"), "{}", ran.stderr);
    }
}

/// In every form that people give a key in place of its path.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_place_of_a_path_is_not_in_the_log() {
    let pem = tokend::auth::jwt::new_private_key().expect("a key");
    let body = pem.lines().nth(1).expect("base64");
    for given in [
        pem.as_str(),
        &pem.replace('\n', "\\n"),
        &pem.replace('\n', ""),
        body,
    ] {
        let directory = Directory::new();
        let ran = refused_with(&directory, given).await;
        assert!(
            ran.stderr.contains("JWT_PRIVATE_KEY_FILE"),
            "{}",
            ran.stderr
        );
        for part in body.as_bytes().chunks(16) {
            let part = String::from_utf8_lossy(part);
            assert!(!ran.stderr.contains(&*part), "{}", ran.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_may_be_files_and_an_rsa_key_signs() {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let key = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).expect("DER");
    let directory = Directory::new();
    let pem = pem::encode(&pem::Pem::new("PRIVATE KEY", key.as_ref())); // with line ends of Windows
    directory.write("jwt.pem", &format!("\u{feff}{pem}"));
    directory.write("url", &format!("{}\r\n", redis_url().await));
    directory.write("refresh", &format!("{}\n", "x".repeat(40)));
    let namespace = new_namespace();
    for algorithm in ["RS256", "PS256"] {
        let settings = [
            ("REDIS_URL_FILE", "url"),
            ("REFRESH_TOKEN_SECRET_FILE", "refresh"),
            ("KEY_PREFIX", namespace.as_str()),
            ("JWT_PRIVATE_KEY_FILE", "jwt.pem"),
            ("JWT_RSA_ALGORITHM", algorithm),
        ];
        let service = Tokend::start(&directory, &settings).await;
        let (_, jwks) = service.get("/.well-known/jwks.json").await;
        let shown = &jwks["keys"][0];
        assert_eq!(
            (&shown["kty"], &shown["alg"]),
            (&json!("RSA"), &json!(algorithm))
        );
        assert!(shown["n"].is_string() && shown["e"] == "AQAB" && shown.get("d").is_none());
        let (_, metadata) = service.get("/.well-known/oauth-authorization-server").await;
        assert_eq!(
            metadata["access_token_signing_alg_values_supported"],
            json!([algorithm])
        );
        let log = service.process.log().join("\n");
        assert!(
            !log.contains("logins are off") && !log.contains("embedded"),
            "{log}"
        );
    }
}

/// All that goes with a session, and mistakes. What must never be seen in a log.
async fn traffic(service: &Tokend) -> Vec<String> {
    let credentials = json!({"username": "ann", "password": PASSWORD});
    let wrong = json!({"username": "s3cret-user", "password": "s3cret-password"});
    assert_eq!(service.post("/auth/login", wrong).await.0, 401);
    let mut secrets = vec![PASSWORD.to_owned(), "s3cret".to_owned()];
    let (status, mut last) = service.post("/auth/login", credentials).await;
    assert_eq!(status, 200);
    let mut keep = |answer: &Value| {
        let tokens = ["access_token", "refresh_token"].map(|it| answer[it].as_str());
        for token in tokens.into_iter().flatten() {
            // No part that is of use by itself.
            secrets.extend(
                token
                    .split('.')
                    .filter(|it| it.len() > 8)
                    .map(ToOwned::to_owned),
            );
        }
    };
    for _ in 0..3 {
        keep(&last);
        let refresh = json!({"refresh_token": last["refresh_token"]});
        last = service.post("/auth/refresh", refresh).await.1;
    }
    keep(&last);
    for path in ["/token/validate", "/token/revoke"] {
        let access = json!({"token": last["access_token"]});
        assert_eq!(service.post(path, access).await.0, 200);
    }
    let dead = json!({"refresh_token": last["refresh_token"]});
    assert_eq!(service.post("/auth/refresh", dead).await.0, 401);
    let twice = json!({"refresh_token": "s3cret-a", "refreshToken": "s3cret-b"});
    assert_eq!(service.post("/auth/logout", twice).await.0, 400);
    let url = format!("{}/oauth/introspect", service.url);
    let form = crate::api::http_client()
        .post(url)
        .header("connection", "close");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    let answer = form.body("token=s3cret-token&s3cret-name=1").send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    secrets
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_no_secret_and_no_password_is_ever_in_the_log() {
    let directory = Directory::new();
    let namespace = new_namespace();
    let (refresh, access) = ("refresh-s3cret".repeat(4), "access-s3cret".repeat(4));
    let settings = [
        ("REDIS_URL", redis_url().await),
        ("KEY_PREFIX", &namespace),
        ("PARTITIONS", "2"),
        ("SHUTDOWN_DELAY", "0"),
        ("LOG_LEVEL", "debug"),
        ("REFRESH_TOKEN_SECRET", &refresh),
        ("JWT_SECRET", &access),
    ];
    let mut service = Tokend::start(&directory, &settings).await;
    let config = StoreConfig {
        url: redis_url().await.to_owned(),
        key_prefix: namespace.clone(),
        partitions: 2,
        default_policy: Policy::FOR_DEFAULT_POOL,
        flows: FlowsLimits::DEFAULT,
        durability: Durability::Memory,
    };
    Fixture::with(config).await.add_user("ann").await;
    let secrets = traffic(&service).await;
    let told = |log: &[String]| {
        log.iter()
            .filter(|line| line.contains("/oauth/introspect"))
            .count()
    };
    eventually("the last request is logged", async || {
        told(&service.process.log()) > 0
    })
    .await;
    service.process.stop("TERM").await;
    for line in &service.process.log() {
        for secret in &secrets {
            assert!(!line.contains(secret.as_str()), "{secret} in {line}");
        }
    }
}
