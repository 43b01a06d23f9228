//! What the pods are told: settings that tokend knows, values that it takes, paths that it answers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokend::config::{Config, variable_names};

use super::build::{Manifests, folders};
use super::{assert_all, assert_clean, assert_finds, built};
use crate::machine::repository;
use crate::support::{Directory, OwnRedis, Tokend, http_client, skip};

/// The environment of the tokend container: from the ConfigMap, and its own entries, which win. What comes from a Secret
/// has the key's name as its value.
fn environment(manifests: &Manifests) -> BTreeMap<String, String> {
    let deployment = manifests.get("Deployment", "tokend").expect("there");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = BTreeMap::new();
    for source in container["envFrom"].as_array().into_iter().flatten() {
        let map = source["configMapRef"]["name"].as_str();
        let map = map.and_then(|map| manifests.get("ConfigMap", map));
        let data = map.and_then(|map| map["data"].as_object());
        found.extend(
            data.into_iter()
                .flatten()
                .map(|(name, value)| (name.clone(), text(value))),
        );
    }
    for entry in container["env"].as_array().into_iter().flatten() {
        let secret = &entry["valueFrom"]["secretKeyRef"]["key"];
        let value = if secret.is_string() {
            secret
        } else {
            &entry["value"]
        };
        found.insert(text(&entry["name"]), text(value));
    }
    found
}

/// Names that tokend does not know, secrets under another name than the variable's, and values that it refuses.
fn check_settings(manifests: &Manifests) -> Vec<String> {
    let known = variable_names();
    let environment = environment(manifests);
    let unknown = environment.keys().filter(|name| !known.contains(*name));
    let mut wrong: Vec<_> = unknown
        .map(|name| format!("tokend does not know {name}"))
        .collect();
    let mut values = environment;
    for (name, value) in &values {
        if known.contains(value) && name != value {
            wrong.push(format!("{name} is given the secret {value}"));
        }
    }
    values.retain(|name, value| name != value);
    if let Err(error) = Config::from_vars(values.clone()) {
        wrong.push(error.to_string());
    }
    let deployment = manifests.get("Deployment", "tokend").expect("there");
    let port =
        &deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"];
    if Some(&port.to_string()) != values.get("PORT") {
        wrong.push(format!("PORT is not the container's {port}"));
    }
    if values
        .get("HOST")
        .is_none_or(|host| host.starts_with("127.") || host == "localhost")
    {
        wrong.push("nobody outside the pod can reach HOST".to_owned());
    }
    wrong
}

#[test]
fn tokend_takes_every_setting_that_its_pods_are_given() {
    let test = "tokend_takes_every_setting_that_its_pods_are_given";
    assert_all(test, check_settings);
    let entry = "/spec/template/spec/containers/0/env/1";
    assert_finds(
        test,
        check_settings,
        &[
            ("ConfigMap", "/data/WORKER", "2".into()),
            ("ConfigMap", "/data/WORKERS", "many".into()),
            ("ConfigMap", "/data/SHUTDOWN_DELAY", "30".into()),
            ("ConfigMap", "/data/PORT", "8080".into()),
            ("ConfigMap", "/data/HOST", Value::Null),
            ("Deployment", &format!("{entry}/name"), "REDIS".into()),
            (
                "Deployment",
                &format!("{entry}/valueFrom/secretKeyRef/key"),
                "JWT_SECRET".into(),
            ),
            (
                "Deployment",
                "/spec/template/spec/containers/0/ports/0/containerPort",
                80.into(),
            ),
        ],
    );
}

/// Every path that something asks: probes, Prometheus, the world outside.
fn paths(manifests: &Manifests) -> BTreeSet<String> {
    let mut found = Vec::new();
    for kind in ["Deployment", "ServiceMonitor", "Ingress"] {
        for object in manifests.of_kind(kind) {
            super::fit::members(object, "path", &mut found);
        }
    }
    let paths = found.into_iter().filter_map(|path| path.as_str());
    paths.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokend_runs_with_these_settings_and_answers_what_is_asked_of_it() {
    let test = "tokend_runs_with_these_settings_and_answers_what_is_asked_of_it";
    let builds = tokio::task::spawn_blocking(|| built(test)).await;
    let Some(builds) = builds.expect("no panic") else {
        return;
    };
    let manifests = &builds["everything"];
    let mut settings = environment(manifests);
    // What it gets from Secrets, and where it listens, are the test's.
    settings.retain(|name, value| {
        name != value && !["JWT_PRIVATE_KEY_FILE", "PORT", "HOST"].contains(&name.as_str())
    });
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip(test, "no redis-server");
    };
    let directory = Directory::new();
    let service = Tokend::on(&redis, &directory, &settings).await;
    let paths = paths(manifests);
    for asked in ["/livez", "/readyz", "/metrics", "/auth/login"] {
        assert!(paths.contains(asked), "nobody asks {asked}");
    }
    for path in paths {
        let answer = http_client()
            .get(format!("{}{path}", service.url))
            .send()
            .await;
        let status = answer.expect("an answer").status().as_u16();
        // 405: a path for POST. 503: sessions are off, since there is no key.
        assert!([200, 405, 503].contains(&status), "{path}: {status}");
    }
}

/// The keys of the example are those that the Deployment reads, and nothing ever applies it.
fn check_secret(example: &Value, manifests: &Manifests, kustomizations: &[String]) -> Vec<String> {
    let told = example["stringData"].as_object().into_iter().flatten();
    let told: BTreeSet<_> = told.map(|(name, _)| name.clone()).collect();
    let read = environment(manifests)
        .into_iter()
        .filter(|(name, value)| name == value);
    let read: BTreeSet<_> = read.map(|(name, _)| name).collect();
    let mut wrong = Vec::new();
    if told != read {
        wrong.push(format!(
            "the example has {told:?}, the Deployment reads {read:?}"
        ));
    }
    if example["metadata"]["name"] != "tokend" {
        wrong.push("the example is of another Secret".to_owned());
    }
    if kustomizations
        .iter()
        .any(|text| text.contains("secret.example"))
    {
        wrong.push("a kustomization applies the example".to_owned());
    }
    if manifests.of_kind("Secret").next().is_some() {
        wrong.push("a Secret is applied".to_owned());
    }
    wrong
}

#[test]
fn the_example_of_a_secret_has_what_is_read_and_is_never_applied() {
    let test = "the_example_of_a_secret_has_what_is_read_and_is_never_applied";
    let Some(builds) = built(test) else { return };
    let read = |path: &str| std::fs::read_to_string(repository(path)).expect(path);
    let mut kustomizations = vec![read("k8s/base/kustomization.yaml")];
    for of in ["overlays", "components"] {
        let paths = folders(of).into_iter();
        let paths = paths.map(|folder| format!("k8s/{of}/{folder}/kustomization.yaml"));
        kustomizations.extend(paths.map(|path| read(&path)));
    }
    let example = Manifests::parse(read("k8s/overlays/production/secret.example.yaml"));
    let example = example.expect("YAML");
    let production = &builds["production"];
    let secret = &example.objects[0];
    assert_clean(&check_secret(secret, production, &kustomizations));

    // And it sees.
    let other = example.with("Secret", "/stringData/REDIS_URL", Value::Null);
    assert_eq!(
        check_secret(&other.objects[0], production, &kustomizations).len(),
        1
    );
    let other = example.with("Secret", "/metadata/name", "other".into());
    assert_eq!(
        check_secret(&other.objects[0], production, &kustomizations).len(),
        1
    );
    let applied = vec!["resources:\n  - secret.example.yaml\n".to_owned()];
    assert_eq!(check_secret(secret, production, &applied).len(), 1);
    let applied = production.with("ServiceAccount", "/kind", "Secret".into());
    assert_eq!(check_secret(secret, &applied, &kustomizations).len(), 1);
}
