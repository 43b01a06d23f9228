//! What no schema says of pods: that each is as locked down as it can be, that it has the time to end orderly, and that it
//! is of this version.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokend::serve::SHUTDOWN_MAX;

use super::build::Manifests;
use super::fit::{containers, members, name, workloads};
use super::{assert_all, assert_finds};

/// Time from the last step of a pod's orderly end to its killing, in seconds; what stands between is the kubelet.
const SPARE_S: f64 = 5.0;

/// What may be mounted.
const VOLUMES: [&str; 7] = [
    "name",
    "configMap",
    "secret",
    "emptyDir",
    "projected",
    "downwardAPI",
    "persistentVolumeClaim",
];

fn is_off(value: &Value) -> bool {
    value.is_null() || value == false
}

/// The Pod Security Standard `restricted`, and a little more: no credentials of the cluster, no variables of its Services.
fn restricted_pod(pod: &Value) -> [(&'static str, bool); 8] {
    let context = &pod["securityContext"];
    let user = context["runAsUser"].as_u64().unwrap_or(0);
    let shared = ["hostNetwork", "hostPID", "hostIPC"];
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    let mut kinds = volumes
        .filter_map(Value::as_object)
        .flat_map(|it| it.keys());
    let seccomp = &context["seccompProfile"]["type"];
    let token = &pod["automountServiceAccountToken"];
    let links = &pod["enableServiceLinks"];
    [
        ("runAsNonRoot", context["runAsNonRoot"] == true),
        ("runAsUser", user > 0),
        ("seccompProfile", seccomp == "RuntimeDefault"),
        ("automountServiceAccountToken", token == false),
        ("enableServiceLinks", links == false),
        ("host…", shared.iter().all(|it| is_off(&pod[*it]))),
        ("volumes", kinds.all(|it| VOLUMES.contains(&it.as_str()))),
        ("containers", pod["containers"] != json!([])),
    ]
}

/// The same of a container, and a read-only root, a limit on memory and none on CPU.
fn restricted_container(container: &Value) -> [(&'static str, bool); 8] {
    let context = &container["securityContext"];
    let (user, non_root) = (&context["runAsUser"], &context["runAsNonRoot"]);
    let mut ports = container["ports"].as_array().into_iter().flatten();
    let requests = &container["resources"]["requests"];
    let limits = container["resources"]["limits"].as_object();
    let escalation = &context["allowPrivilegeEscalation"];
    let dropped = json!({"drop": ["ALL"]});
    let asks = requests["cpu"].is_string() && requests["memory"].is_string();
    let limited = limits.is_some_and(|it| it.keys().eq(["memory"]));
    [
        ("allowPrivilegeEscalation", escalation == false),
        ("capabilities", context["capabilities"] == dropped),
        ("privileged", is_off(&context["privileged"])),
        ("a user of its own", user.is_null() && non_root.is_null()),
        ("read-only", context["readOnlyRootFilesystem"] == true),
        ("hostPort", ports.all(|it| it["hostPort"].is_null())),
        ("requests", asks),
        ("limits", limited),
    ]
}

fn check_restricted(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for workload in workloads(manifests) {
        let pod = restricted_pod(&workload["spec"]["template"]["spec"]);
        let containers = containers(workload).into_iter();
        let all = containers.flat_map(restricted_container).chain(pod);
        let failed = all.filter(|(_, good)| !good);
        wrong.extend(failed.map(|(what, _)| format!("{}: {what}", name(workload))));
    }
    wrong
}

/// A rollout without a failed request: nothing is killed while it still ends orderly, and none is taken away before the
/// next one is ready.
fn check_ending(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for workload in manifests.of_kind("Deployment") {
        let pod = &workload["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let before_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            .as_f64()
            .unwrap_or(0.0);
        let grace_s = pod["terminationGracePeriodSeconds"]
            .as_f64()
            .unwrap_or(30.0);
        if before_s == 0.0 || grace_s < before_s + SHUTDOWN_MAX.as_secs_f64() + SPARE_S {
            wrong.push(format!(
                "{}: {grace_s} s are too few after {before_s}",
                name(workload)
            ));
        }
        let strategy = &workload["spec"]["strategy"]["rollingUpdate"];
        if strategy["maxUnavailable"] != 0 || strategy["maxSurge"] != 1 {
            wrong.push(format!("{}: {strategy}", name(workload)));
        }
        // Readiness may ask Redis, liveness may not: an outage would restart every replica.
        for (probe, path) in [
            ("startupProbe", "/livez"),
            ("livenessProbe", "/livez"),
            ("readinessProbe", "/readyz"),
        ] {
            if container[probe]["httpGet"]["path"] != path {
                wrong.push(format!("{}: {probe} does not ask {path}", name(workload)));
            }
        }
    }
    wrong
}

/// Whatever says which release this is says the same as Cargo.toml.
fn check_version(manifests: &Manifests) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut labels = Vec::new();
    for object in &manifests.objects {
        members(object, "app.kubernetes.io/version", &mut labels);
    }
    let mut images = BTreeSet::new();
    for workload in manifests.of_kind("Deployment") {
        images.extend(
            containers(workload)
                .iter()
                .filter_map(|it| it["image"].as_str()),
        );
    }
    let tagged = |image: &&str| image.ends_with(&format!("tokend:{version}"));
    let wrong = images.into_iter().filter(|image| !tagged(image));
    let wrong = wrong.map(|image| format!("the image {image} is not of {version}"));
    let others = labels.into_iter().filter(|label| *label != version);
    wrong
        .chain(others.map(|label| format!("a label says {label}, not {version}")))
        .collect()
}

#[test]
fn every_pod_is_restricted() {
    assert_all("every_pod_is_restricted", check_restricted);
    let pod = |path: &str| format!("/spec/template/spec/{path}");
    let planted: Vec<(String, Value)> = vec![
        (pod("securityContext/runAsNonRoot"), Value::Null),
        (pod("securityContext/runAsUser"), 0.into()),
        (
            pod("securityContext/seccompProfile"),
            json!({"type": "Unconfined"}),
        ),
        (pod("automountServiceAccountToken"), Value::Null),
        (pod("enableServiceLinks"), Value::Null),
        (pod("hostNetwork"), true.into()),
        (
            pod("volumes/0"),
            json!({"name": "host", "hostPath": {"path": "/"}}),
        ),
        (pod("containers"), json!([])),
        (pod("initContainers"), json!([{"name": "more"}])),
        (pod("containers/0/securityContext"), Value::Null),
        (
            pod("containers/0/securityContext/allowPrivilegeEscalation"),
            true.into(),
        ),
        (
            pod("containers/0/securityContext/capabilities/add"),
            json!(["NET_ADMIN"]),
        ),
        (
            pod("containers/0/securityContext/readOnlyRootFilesystem"),
            Value::Null,
        ),
        (pod("containers/0/securityContext/privileged"), true.into()),
        (pod("containers/0/securityContext/runAsUser"), 0.into()),
        (pod("containers/0/ports/0/hostPort"), 3000.into()),
        (pod("containers/0/resources/limits/memory"), Value::Null),
        (pod("containers/0/resources/limits/cpu"), "1".into()),
        (pod("containers/0/resources/requests/memory"), Value::Null),
    ];
    let planted = planted
        .iter()
        .map(|(pointer, value)| ("Deployment", pointer.as_str(), value.clone()));
    let planted: Vec<_> = planted.collect();
    assert_finds("every_pod_is_restricted", check_restricted, &planted);
}

#[test]
fn a_rollout_leaves_time_for_an_orderly_end() {
    let test = "a_rollout_leaves_time_for_an_orderly_end";
    assert_all(test, check_ending);
    let container = "/spec/template/spec/containers/0";
    assert_finds(
        test,
        check_ending,
        &[
            (
                "Deployment",
                "/spec/template/spec/terminationGracePeriodSeconds",
                20.into(),
            ),
            (
                "Deployment",
                &format!("{container}/lifecycle/preStop/sleep/seconds"),
                20.into(),
            ),
            ("Deployment", &format!("{container}/lifecycle"), Value::Null),
            (
                "Deployment",
                "/spec/strategy/rollingUpdate/maxUnavailable",
                1.into(),
            ),
            (
                "Deployment",
                &format!("{container}/livenessProbe/httpGet/path"),
                "/readyz".into(),
            ),
            (
                "Deployment",
                &format!("{container}/readinessProbe/httpGet/path"),
                "/livez".into(),
            ),
            (
                "Deployment",
                &format!("{container}/startupProbe"),
                Value::Null,
            ),
        ],
    );
}

#[test]
fn the_image_and_the_labels_are_of_this_version() {
    let test = "the_image_and_the_labels_are_of_this_version";
    assert_all(test, check_version);
    assert_finds(
        test,
        check_version,
        &[
            (
                "Deployment",
                "/spec/template/spec/containers/0/image",
                "tokend:latest".into(),
            ),
            (
                "Service",
                "/metadata/labels/app.kubernetes.io~1version",
                "0.0.9".into(),
            ),
        ],
    );
}
