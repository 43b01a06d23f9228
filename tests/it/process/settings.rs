//! Two processes with different settings on one Redis: what becomes of a logout, and what an operator sees.

use serde_json::{Value, json};
use tokend::store::StoreConfig;

use super::{Directory, Ran, Tokend, tokend};
use crate::api::ann::PASSWORD;
use crate::api::rotation::key_file;
use crate::harness::{Fixture, config_on, eventually, new_namespace, redis_url};

const REFRESH: &str = "refresh-s3cret-refresh-s3cret-refresh-s3cret";
const ACCESS: &str = "access-s3cret-access-s3cret-access-s3cret";
const OTHER: &str = "another-s3cret-another-s3cret-another-s3cret";
/// What all replicas of these tests have in common.
const BASE: &[(&str, &str)] = &[
    ("PARTITIONS", "2"),
    ("SHUTDOWN_DELAY", "0"),
    ("PUBLIC_URL", "https://a.example"),
    ("REFRESH_TOKEN_SECRET", REFRESH),
    ("JWT_SECRET", ACCESS),
];

/// A data set with the user `ann`.
struct Stage {
    namespace: String,
    directory: Directory,
}

impl Stage {
    async fn new() -> Self {
        let namespace = new_namespace();
        let config = StoreConfig {
            key_prefix: namespace.clone(),
            ..config_on(redis_url().await)
        };
        let fixture = Fixture::with(config).await;
        fixture.add_user("ann").await;
        fixture.store.stop().await;
        Self {
            namespace,
            directory: Directory::new(),
        }
    }

    async fn settings<'a>(&'a self, own: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let place = [
            ("REDIS_URL", redis_url().await),
            ("KEY_PREFIX", self.namespace.as_str()),
        ];
        [&place, BASE, own].concat()
    }

    async fn serve(&self, own: &[(&str, &str)]) -> Tokend {
        Tokend::start(&self.directory, &self.settings(own).await).await
    }

    /// What `tokend doctor` says with these settings.
    async fn doctor(&self, own: &[(&str, &str)]) -> String {
        let mut command = tokend(&self.directory);
        command.arg("doctor").envs(self.settings(own).await);
        Ran::from(command.output().expect("tokend runs")).stdout
    }
}

async fn login(service: &Tokend) -> Value {
    let credentials = json!({"username": "ann", "password": PASSWORD});
    let (status, tokens) = service.post("/auth/login", credentials).await;
    assert_eq!(status, 200);
    tokens
}

fn refresh_of(tokens: &Value) -> Value {
    json!({"refresh_token": tokens["refresh_token"]})
}

/// Waits for the line of its log that names the variable as one that differs.
async fn warns(service: &Tokend, variable: &str) -> String {
    let line = || {
        let mut log = service.process.log().into_iter();
        log.find(|line| line.contains(&format!("\"{variable} differs between replicas")))
    };
    eventually(variable, async || line().is_some()).await;
    line().expect("as just seen")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_at_a_replica_with_another_key_does_nothing_and_an_operator_sees_it() {
    let stage = Stage::new().await;
    let other = [("REFRESH_TOKEN_SECRET", OTHER)];
    let (here, there) = (stage.serve(&[]).await, stage.serve(&other).await);
    let tokens = login(&here).await;
    // As the contract says; and yet the session lives.
    let (status, _) = there.post("/auth/logout", refresh_of(&tokens)).await;
    assert_eq!(status, 204);
    let (status, _) = here.post("/auth/refresh", refresh_of(&tokens)).await;
    assert_eq!(status, 200);
    for service in [&here, &there] {
        let line = warns(service, "REFRESH_TOKEN_SECRET").await;
        assert!(line.contains("TokendSettingsDiffer"), "{line}");
        let metric = "tokend_settings_differ{variable=\"REFRESH_TOKEN_SECRET\"} 1";
        assert!(service.metrics().await.contains(metric));
        let metric = "tokend_settings_differ{variable=\"JWT_SECRET\"} 0";
        assert!(service.metrics().await.contains(metric));
    }
    let metric = "tokend_foreign_tokens_total{route=\"/auth/logout\"} 1";
    assert!(there.metrics().await.contains(metric));
    let log = there.process.log();
    let mut lines = log.iter();
    assert!(lines.any(|line| line.contains("/auth/logout: a token was not revoked")));
    let told = stage.doctor(&[]).await;
    assert!(told.contains("warn  settings"), "{told}");
    assert!(told.contains("REFRESH_TOKEN_SECRET differs: "), "{told}");
    assert!(!told.contains("JWT_SECRET differs"), "{told}");
    for line in [log, here.process.log(), vec![told]].concat() {
        assert!(!line.contains("s3cret"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_setting_that_differs_is_named_with_its_values() {
    let stage = Stage::new().await;
    let files = ["one", "two"].map(|name| key_file(stage.directory.path(), name));
    let here = [
        ("JWT_PRIVATE_KEY_FILE", files[0].as_str()),
        ("SECRET_KEY", ACCESS),
    ];
    let there = [
        ("JWT_PRIVATE_KEY_FILE", files[1].as_str()),
        ("SECRET_KEY", OTHER),
        ("REFRESH_TOKEN_SECRET", OTHER),
        ("PUBLIC_URL", "https://b.example"),
        ("JWT_AUDIENCE", "b"),
        ("ACCESS_TOKEN_LIFETIME", "61"),
        ("TOKEN_LIFETIME", "1.5"),
        ("INTROSPECT_KINDS", "access"),
    ];
    let (a, b) = (stage.serve(&here).await, stage.serve(&there).await);
    for (variable, value) in there {
        for service in [&a, &b] {
            let line = warns(service, variable).await;
            let is_key = variable.ends_with("_FILE") || value == OTHER;
            assert!(is_key || line.contains(value), "{line}");
            assert!(!line.contains("s3cret"), "{line}");
        }
    }
    // This environment is like the first one.
    let told = stage.doctor(&here).await;
    let lines = told.lines().filter(|line| line.contains(" differs: "));
    assert_eq!(lines.count(), there.len(), "{told}");
    assert!(told.contains("this environment, "), "{told}");
    drop(b);
    eventually("those that run agree", async || {
        stage
            .doctor(&here)
            .await
            .contains("the same: this environment, ")
    })
    .await;
    eventually("no metric shows a difference", async || {
        let metrics = a.metrics().await;
        let differs =
            |line: &&str| line.starts_with("tokend_settings_differ{") && !line.ends_with(" 0");
        !metrics.lines().any(|line| differs(&line))
    })
    .await;
}
