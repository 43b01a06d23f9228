//! The Kubernetes manifests, built by kustomize and judged: by the schemas of the API, and by what no schema says.

mod build;
mod fit;
mod pods;
mod settings;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::Value;

use self::build::{Manifests, builds, tools};
use crate::machine::repository;
use crate::support::{Directory, skip};

/// The newest three minor versions, and the oldest that the manifests work on: the sleep of `preStop` is on by default
/// since 1.30 (KEP-3960).
const KUBERNETES: [&str; 4] = ["1.30", "1.35", "1.36", "1.37"];
/// The group of the kinds that the Prometheus operator brings; the API's own schemas don't have them.
const OPERATOR: &str = "monitoring.coreos.com/v1";

/// What is built, or a skip.
fn built(test: &str) -> Option<&'static BTreeMap<String, Manifests>> {
    builds().as_ref().map_err(|why| skip(test, why)).ok()
}

fn assert_clean(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Runs a check over everything that is built.
fn assert_all(test: &str, check: impl Fn(&Manifests) -> Vec<String>) {
    let Some(builds) = built(test) else { return };
    let wrong = builds.iter().flat_map(|(name, manifests)| {
        let wrong = check(manifests).into_iter();
        wrong.map(move |wrong| format!("{name}: {wrong}"))
    });
    assert_clean(&wrong.collect::<Vec<_>>());
}

/// Shows that a check sees: each of these changes of what production is must be found. A change is what a pointer leads
/// to in the first object of a kind, and what stands there instead; null: nothing.
fn assert_finds(
    test: &str,
    check: impl Fn(&Manifests) -> Vec<String>,
    planted: &[(&str, &str, Value)],
) {
    let Some(builds) = built(test) else { return };
    let good = &builds["everything"];
    assert_clean(&check(good));
    for (kind, pointer, value) in planted {
        let bad = good.with(kind, pointer, value.clone());
        assert!(
            !check(&bad).is_empty(),
            "not found: {kind} {pointer} {value}"
        );
    }
}

// ---- Schemas ----

/// What `kubernetes-validate` says of these, strictly: errors, and how many it found valid.
fn validate(manifests: &Manifests, version: &str) -> (Vec<String>, usize) {
    let directory = Directory::new();
    let file = directory.write("manifests.yaml", &manifests.text);
    let python = tools().as_ref().expect("there, since it is built");
    let ran = Command::new(python)
        .args(["-m", "kubernetes_validate", "--strict", "-k", version])
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("python starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&ran.stdout) + &text(&ran.stderr);
    let passed = |line: &&str| line.contains(" passed ") && line.ends_with(version);
    // It has no schema for what others bring, and says so.
    let foreign = |line: &&str| line.starts_with("WARN ") && line.contains(OPERATOR);
    let wrong = said.lines().filter(|line| !passed(line) && !foreign(line));
    let wrong = wrong.map(str::to_owned).collect();
    (wrong, said.lines().filter(passed).count())
}

#[test]
fn the_manifests_are_valid_for_every_version_of_kubernetes() {
    let Some(builds) = built("the_manifests_are_valid_for_every_version_of_kubernetes") else {
        return;
    };
    // Between them they have every object there is.
    for name in ["dev", "everything"] {
        let manifests = &builds[name];
        let own = manifests.objects.iter();
        let own = own
            .filter(|object| object["apiVersion"] != OPERATOR)
            .count();
        for version in KUBERNETES {
            let (wrong, passed) = validate(manifests, version);
            assert_clean(&wrong);
            assert_eq!(passed, own, "{name} {version}");
        }
    }
}

#[test]
fn a_misspelt_field_is_found() {
    let Some(builds) = built("a_misspelt_field_is_found") else {
        return;
    };
    for (right, wrong) in [
        ("startupProbe:", "startUpProbe:"),
        ("maxUnavailable: 0", "maxUnavailable: [0]"),
        ("averageUtilization:", "averageUtilisation:"),
        ("policy/v1", "policy/v2"),
    ] {
        let good = &builds["production"];
        let bad = Manifests::parse(good.text.replace(right, wrong)).expect("still YAML");
        assert_ne!(good.text, bad.text);
        let (found, _) = validate(&bad, KUBERNETES[3]);
        assert!(!found.is_empty(), "{wrong}");
    }
}

/// The fields of the operator's kinds that are used here, by its API reference (monitoring.coreos.com/v1). A field that
/// is not there may exist all the same: look it up, then add it.
fn operator_schema(kind: &str) -> Value {
    let closed = |properties: Value, required: &[&str]| {
        serde_json::json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        })
    };
    let text = serde_json::json!({"type": "string", "minLength": 1});
    let texts = serde_json::json!({"type": "object", "additionalProperties": {"type": "string"}});
    let duration = serde_json::json!({"type": "string", "pattern": "^([0-9]+(ms|[smhdwy]))+$"});
    let spec = match kind {
        "ServiceMonitor" => {
            let endpoint = serde_json::json!({
                "port": text, "path": text, "interval": duration, "scrapeTimeout": duration,
            });
            let selector = closed(serde_json::json!({"matchLabels": texts}), &["matchLabels"]);
            let endpoints = serde_json::json!({"type": "array", "minItems": 1, "items": closed(endpoint, &["port"])});
            let spec =
                serde_json::json!({"jobLabel": text, "selector": selector, "endpoints": endpoints});
            closed(spec, &["jobLabel", "selector", "endpoints"])
        }
        _ => {
            let rule = serde_json::json!({
                "alert": text, "record": text, "expr": text, "for": duration, "keep_firing_for": duration,
                "labels": texts, "annotations": texts,
            });
            let rules = serde_json::json!({"type": "array", "minItems": 1, "items": closed(rule, &["expr"])});
            let group = serde_json::json!({"name": text, "interval": duration, "rules": rules});
            let groups =
                serde_json::json!({"type": "array", "items": closed(group, &["name", "rules"])});
            closed(serde_json::json!({"groups": groups}), &["groups"])
        }
    };
    let head = serde_json::json!({"apiVersion": {"const": OPERATOR}, "kind": text, "metadata": {}, "spec": spec});
    closed(head, &["apiVersion", "kind", "metadata", "spec"])
}

fn check_operator(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for object in &manifests.objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        if ["ServiceMonitor", "PrometheusRule"].contains(&kind) {
            let schema = jsonschema::validator_for(&operator_schema(kind)).expect("a schema");
            let errors = schema.iter_errors(object);
            wrong.extend(errors.map(|error| format!("{kind} {}: {error}", error.instance_path())));
        }
    }
    wrong
}

#[test]
fn what_the_prometheus_operator_reads_has_its_form() {
    assert_finds(
        "what_the_prometheus_operator_reads_has_its_form",
        check_operator,
        &[
            (
                "ServiceMonitor",
                "/apiVersion",
                "monitoring.coreos.com/v2".into(),
            ),
            ("ServiceMonitor", "/spec/endpoints/0/port", 80.into()),
            ("ServiceMonitor", "/spec/endpoints/0/every", "15s".into()),
            ("ServiceMonitor", "/spec/endpoints/0/interval", "15".into()),
            ("ServiceMonitor", "/spec/selector", Value::Null),
            ("PrometheusRule", "/spec/groups", Value::Null),
            ("PrometheusRule", "/spec/groups", "all".into()),
        ],
    );
}

// ---- Dashboards ----

/// Every dashboard is in a `ConfigMap` with the label that Grafana's sidecar looks for.
fn check_dashboards(manifests: &Manifests, files: &BTreeMap<String, String>) -> Vec<String> {
    let maps = manifests.of_kind("ConfigMap");
    let maps = maps.filter(|map| map["metadata"]["labels"]["grafana_dashboard"] == "1");
    let data = maps.filter_map(|map| map["data"].as_object()).flatten();
    let told: BTreeMap<_, _> = data.collect();
    let missing = files.iter().filter(|(name, text)| {
        let value = told.get(name).and_then(|value| value.as_str());
        value != Some(text)
    });
    missing
        .map(|(name, _)| format!("grafana/kustomization.yaml: {name} is not the dashboard"))
        .collect()
}

#[test]
fn every_dashboard_is_found_by_the_sidecar() {
    let Some(builds) = built("every_dashboard_is_found_by_the_sidecar") else {
        return;
    };
    let entries = std::fs::read_dir(repository("grafana/dashboards")).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.map(|path| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        (name, std::fs::read_to_string(path).expect("text"))
    });
    let mut files: BTreeMap<_, _> = files.collect();
    let monitoring = &builds["monitoring"];
    assert!(!files.is_empty());
    assert_clean(&check_dashboards(monitoring, &files));
    let all = files.len();
    assert_eq!(check_dashboards(&builds["production"], &files).len(), all);
    files.insert("another.json".to_owned(), "{}".to_owned());
    assert_eq!(check_dashboards(monitoring, &files).len(), 1);
}
