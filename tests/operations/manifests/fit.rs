//! What no schema says: that the objects fit together. Each check is a function from objects to a list of what is wrong.

use serde_json::{Value, json};

use super::build::Manifests;
use super::{assert_all, assert_finds};

/// Every object's labels, by the recommendation of kubernetes.io.
const LABELS: [&str; 2] = ["app.kubernetes.io/name", "app.kubernetes.io/part-of"];
/// Secrets that people make: the settings that are secret, and the keys of access tokens.
const SECRETS: [&str; 2] = ["tokend", "tokend-jwt"];

pub fn name(object: &Value) -> String {
    let text = |of: &Value| of.as_str().unwrap_or_default().to_owned();
    format!(
        "{} {}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    )
}

/// The values of all members of this name, however deep.
pub fn members<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(name));
            map.values().for_each(|value| members(value, name, found));
        }
        Value::Array(items) => items.iter().for_each(|value| members(value, name, found)),
        _ => {}
    }
}

/// What runs pods.
pub fn workloads(manifests: &Manifests) -> impl Iterator<Item = &Value> {
    let kinds = ["Deployment", "StatefulSet"];
    kinds.into_iter().flat_map(|kind| manifests.of_kind(kind))
}

pub fn containers(workload: &Value) -> Vec<&Value> {
    let pod = &workload["spec"]["template"]["spec"];
    let kinds = ["containers", "initContainers"].into_iter();
    kinds
        .filter_map(|kind| pod[kind].as_array())
        .flatten()
        .collect()
}

/// Whether labels have all that a selector wants. One that wants nothing selects everything, which nobody means here.
fn selects(wanted: &Value, labels: &Value) -> bool {
    let wanted = wanted.as_object().filter(|wanted| !wanted.is_empty());
    wanted.is_some_and(|wanted| wanted.iter().all(|(name, value)| labels[name] == *value))
}

/// The ports of the containers that these labels select, by name and number.
fn ports_behind(manifests: &Manifests, labels: &Value) -> Vec<Value> {
    let behind = workloads(manifests)
        .filter(|workload| selects(labels, &workload["spec"]["template"]["metadata"]["labels"]));
    let ports = behind
        .flat_map(containers)
        .filter_map(|it| it["ports"].as_array());
    let ports = ports.flatten();
    let known = ports.flat_map(|port| [port["name"].clone(), port["containerPort"].clone()]);
    known.collect()
}

fn check_labels(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for object in &manifests.objects {
        // Named by their content or by hand; what is in them is tokend's alone.
        let exempt = ["ConfigMap", "Namespace"]
            .iter()
            .any(|it| object["kind"] == **it);
        let missing = LABELS
            .iter()
            .filter(|it| !object["metadata"]["labels"][**it].is_string());
        if !exempt {
            wrong.extend(missing.map(|label| format!("{}: no {label}", name(object))));
        }
    }
    wrong
}

fn check_workloads(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for workload in workloads(manifests) {
        let template = &workload["spec"]["template"];
        let labels = &template["metadata"]["labels"];
        let mut selectors = vec![&workload["spec"]["selector"]];
        let spread = template["spec"]["topologySpreadConstraints"].as_array();
        selectors.extend(spread.into_iter().flatten().map(|it| &it["labelSelector"]));
        if !selectors
            .iter()
            .all(|it| selects(&it["matchLabels"], labels))
        {
            wrong.push(format!(
                "{}: a selector that misses its own pods",
                name(workload)
            ));
        }
        if let Some(account) = template["spec"]["serviceAccountName"].as_str()
            && manifests.get("ServiceAccount", account).is_none()
        {
            wrong.push(format!("{}: no ServiceAccount {account}", name(workload)));
        }
        if let Some(service) = workload["spec"]["serviceName"].as_str()
            && manifests.get("Service", service).is_none()
        {
            wrong.push(format!("{}: no Service {service}", name(workload)));
        }
        let mut maps = Vec::new();
        members(template, "configMapRef", &mut maps);
        for map in maps.into_iter().filter_map(|it| it["name"].as_str()) {
            if manifests.get("ConfigMap", map).is_none() {
                wrong.push(format!("{}: no ConfigMap {map}", name(workload)));
            }
        }
        let mut secrets = Vec::new();
        members(template, "secretKeyRef", &mut secrets);
        let secrets = secrets.into_iter().map(|it| &it["name"]);
        let mut mounted = Vec::new();
        members(template, "secretName", &mut mounted);
        for secret in secrets.chain(mounted) {
            if !SECRETS.iter().any(|known| secret == known) {
                wrong.push(format!("{}: a Secret {secret}", name(workload)));
            }
        }
    }
    wrong
}

fn check_services(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for service in manifests.of_kind("Service") {
        let behind = ports_behind(manifests, &service["spec"]["selector"]);
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            if !behind.contains(&port["targetPort"]) {
                wrong.push(format!("{}: nobody has {port}", name(service)));
            }
        }
    }
    let has_port = |service: &Value, wanted: &Value| {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        ports.map(|port| &port["name"]).any(|port| port == wanted)
    };
    for monitor in manifests.of_kind("ServiceMonitor") {
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        let mut services = manifests.of_kind("Service");
        let service = services.find(|it| selects(wanted, &it["metadata"]["labels"]));
        let endpoints = monitor["spec"]["endpoints"].as_array();
        let ports = endpoints.into_iter().flatten().map(|it| &it["port"]);
        // Rules and dashboards ask for job="tokend".
        let label = monitor["spec"]["jobLabel"].as_str().unwrap_or_default();
        let fits = service.is_some_and(|service| {
            service["metadata"]["labels"][label] == "tokend"
                && ports.clone().all(|port| has_port(service, port))
        });
        if !fits {
            wrong.push(format!("{}: no Service for it", name(monitor)));
        }
    }
    for ingress in manifests.of_kind("Ingress") {
        let mut backends = Vec::new();
        members(ingress, "service", &mut backends);
        let reachable = backends.iter().all(|backend| {
            let service = backend["name"].as_str().unwrap_or_default();
            let service = manifests.get("Service", service);
            service.is_some_and(|service| has_port(service, &backend["port"]["name"]))
        });
        if backends.is_empty() || !reachable {
            wrong.push(format!("{}: no Service for it", name(ingress)));
        }
    }
    wrong
}

/// The autoscaler, the budget and the network policies speak of pods that there are.
fn check_companions(manifests: &Manifests) -> Vec<String> {
    let mut wrong = Vec::new();
    for scaler in manifests.of_kind("HorizontalPodAutoscaler") {
        let target = &scaler["spec"]["scaleTargetRef"];
        let (kind, of) = (target["kind"].as_str(), target["name"].as_str());
        let target = manifests.get(kind.unwrap_or_default(), of.unwrap_or_default());
        if target.is_none_or(|target| !target["spec"]["replicas"].is_null()) {
            wrong.push(format!(
                "{}: no target, or one with `replicas`, which both would set",
                name(scaler)
            ));
        }
        let cpu = |container: &&Value| container["resources"]["requests"]["cpu"].is_string();
        if !target.is_some_and(|target| containers(target).iter().all(cpu)) {
            wrong.push(format!("{}: utilization of no request", name(scaler)));
        }
    }
    for budget in manifests.of_kind("PodDisruptionBudget") {
        if ports_behind(manifests, &budget["spec"]["selector"]["matchLabels"]).is_empty() {
            wrong.push(format!("{}: no such pods", name(budget)));
        }
    }
    for policy in manifests.of_kind("NetworkPolicy") {
        let behind = ports_behind(manifests, &policy["spec"]["podSelector"]["matchLabels"]);
        let mut opened = Vec::new();
        for rule in policy["spec"]["ingress"].as_array().into_iter().flatten() {
            members(rule, "port", &mut opened);
        }
        if behind.is_empty() || !opened.iter().all(|port| behind.contains(port)) {
            wrong.push(format!(
                "{}: no such pods, or they have no such port",
                name(policy)
            ));
        }
    }
    // Each pod is behind a policy that says who may come and where it may go.
    for workload in workloads(manifests) {
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        let closed = manifests.of_kind("NetworkPolicy").any(|policy| {
            policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"])
                && selects(&policy["spec"]["podSelector"]["matchLabels"], labels)
        });
        if !closed {
            wrong.push(format!("{}: no NetworkPolicy closes it", name(workload)));
        }
    }
    wrong
}

#[test]
fn labels_name_every_object() {
    assert_all("labels_name_every_object", check_labels);
    let planted = [
        ("Deployment", "/metadata/labels", Value::Null),
        (
            "NetworkPolicy",
            "/metadata/labels/app.kubernetes.io~1part-of",
            Value::Null,
        ),
    ];
    assert_finds("labels_name_every_object", check_labels, &planted);
}

#[test]
fn workloads_find_their_pods_settings_and_accounts() {
    let test = "workloads_find_their_pods_settings_and_accounts";
    assert_all(test, check_workloads);
    let container = "/spec/template/spec/containers/0";
    assert_finds(
        test,
        check_workloads,
        &[
            ("Deployment", "/spec/selector/matchLabels", json!({})),
            (
                "Deployment",
                "/spec/selector/matchLabels/app.kubernetes.io~1name",
                "other".into(),
            ),
            (
                "Deployment",
                "/spec/template/metadata/labels/app.kubernetes.io~1name",
                "other".into(),
            ),
            (
                "Deployment",
                "/spec/template/spec/topologySpreadConstraints/1/labelSelector",
                json!({}),
            ),
            (
                "Deployment",
                "/spec/template/spec/serviceAccountName",
                "default".into(),
            ),
            (
                "Deployment",
                &format!("{container}/envFrom/0/configMapRef/name"),
                "tokend".into(),
            ),
            (
                "Deployment",
                &format!("{container}/env/1/valueFrom/secretKeyRef/name"),
                "other".into(),
            ),
            (
                "Deployment",
                "/spec/template/spec/volumes/0/secret/secretName",
                "other".into(),
            ),
            ("ServiceAccount", "/metadata/name", "other".into()),
            ("ConfigMap", "/metadata/name", "other".into()),
        ],
    );
}

#[test]
fn services_lead_to_ports_that_are_there() {
    let test = "services_lead_to_ports_that_are_there";
    assert_all(test, check_services);
    assert_finds(
        test,
        check_services,
        &[
            (
                "Service",
                "/spec/selector/app.kubernetes.io~1component",
                "other".into(),
            ),
            ("Service", "/spec/ports/0/targetPort", "web".into()),
            ("Service", "/spec/ports/0/name", "web".into()),
            (
                "Service",
                "/metadata/labels/app.kubernetes.io~1component",
                "other".into(),
            ),
            ("ServiceMonitor", "/spec/endpoints/0/port", "web".into()),
            (
                "ServiceMonitor",
                "/spec/jobLabel",
                "app.kubernetes.io/component".into(),
            ),
            (
                "Ingress",
                "/spec/rules/0/http/paths/0/backend/service/name",
                "other".into(),
            ),
            ("Ingress", "/spec/rules", json!([])),
            (
                "Deployment",
                "/spec/template/spec/containers/0/ports",
                json!([]),
            ),
        ],
    );
}

#[test]
fn autoscaler_budget_and_policies_speak_of_pods_that_there_are() {
    let test = "autoscaler_budget_and_policies_speak_of_pods_that_there_are";
    assert_all(test, check_companions);
    assert_finds(
        test,
        check_companions,
        &[
            (
                "HorizontalPodAutoscaler",
                "/spec/scaleTargetRef/name",
                "other".into(),
            ),
            (
                "HorizontalPodAutoscaler",
                "/spec/scaleTargetRef/kind",
                "StatefulSet".into(),
            ),
            ("Deployment", "/spec/replicas", 3.into()),
            (
                "Deployment",
                "/spec/template/spec/containers/0/resources/requests",
                json!({}),
            ),
            (
                "PodDisruptionBudget",
                "/spec/selector/matchLabels",
                json!({}),
            ),
            ("NetworkPolicy", "/spec/podSelector", json!({})),
            ("NetworkPolicy", "/spec/ingress/0/ports/0/port", 80.into()),
            ("NetworkPolicy", "/spec/policyTypes", json!(["Ingress"])),
        ],
    );
}
