//! Manifests repeat what stands elsewhere: settings, and the alert rules.

use std::collections::{BTreeMap, BTreeSet};

use super::{assert_clean, read};

/// Variables that are in neither the ConfigMap nor the Secret.
const NOT_ON_KUBERNETES: &[(&str, &str)] = &[
    (
        "DATA_DIR",
        "the image has no Redis to embed; REDIS_URL is required",
    ),
    (
        "JWT_PRIVATE_KEY_FILE",
        "a path, given by k8s/components/sessions, which mounts the file",
    ),
];
/// Settings of the ConfigMap that are not the defaults.
const OWN_ON_KUBERNETES: &[(&str, &str)] = &[
    (
        "HOST",
        "what listens on 127.0.0.1 can't be reached in a pod",
    ),
    ("WORKERS", "the default is one per core of the node"),
    (
        "SHUTDOWN_DELAY",
        "callers must be told to leave: docs/adr/0017",
    ),
    ("LOG_FORMAT", "for whoever collects logs"),
    ("PUBLIC_URL", "the Service's name, not that of a pod"),
];

/// The lines `NAME=value` of a file of settings. Those behind a `#` are examples.
fn settings(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let named = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let pairs = pairs.filter(|(name, _)| !name.is_empty() && named(name));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The keys `NAME: value` of a manifest.
fn secret_names(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
    let named = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let names = lines.map(|(name, _)| name).filter(|name| named(name));
    names.map(str::to_owned).collect()
}

/// ConfigMap, Secret and exceptions are together what tokend reads, and the ConfigMap has the defaults.
fn check_kubernetes_settings(
    known: &BTreeSet<String>,
    example: &str,
    config_map: &str,
    secret: &str,
) -> Vec<String> {
    let (example, config_map) = (settings(example), settings(config_map));
    let secret = secret_names(secret);
    let mut told: BTreeSet<String> = config_map.keys().chain(&secret).cloned().collect();
    let exceptions = NOT_ON_KUBERNETES.iter().map(|(name, _)| *name);
    told.extend(exceptions.map(str::to_owned));
    let mut wrong = Vec::new();
    // A path to a secret, for those who mount it in place of the variable.
    let by_file = |name: &str| {
        name.strip_suffix("_FILE")
            .is_some_and(|it| secret.contains(it))
    };
    let missing = known.difference(&told).filter(|name| !by_file(name));
    wrong.extend(missing.map(|name| format!("k8s/base/tokend.env: {name} is missing")));
    let unknown = told.difference(known);
    wrong.extend(unknown.map(|name| format!("k8s: tokend does not know {name}")));
    let twice = config_map.keys().filter(|name| secret.contains(*name));
    wrong.extend(twice.map(|name| format!("k8s: {name} is in ConfigMap and Secret")));
    for (name, value) in &config_map {
        let own = OWN_ON_KUBERNETES.iter().any(|(own, _)| own == name);
        if (example.get(name) == Some(value)) == own {
            let what = if own { "is" } else { "is not" };
            wrong.push(format!(
                "k8s/base/tokend.env: {name}={value} {what} the default"
            ));
        }
    }
    wrong
}

#[test]
fn config_map_secret_and_env_example_agree_with_env() {
    assert_clean(&check_kubernetes_settings(
        &tokend::config::variable_names(),
        &read(".env.example"),
        &read("k8s/base/tokend.env"),
        &read("k8s/overlays/production/secret.example.yaml"),
    ));
}

#[test]
fn a_setting_that_kubernetes_lacks_is_found() {
    let names = [
        "DATA_DIR",
        "JWT_PRIVATE_KEY_FILE",
        "PORT",
        "HOST",
        "REDIS_URL",
        "REDIS_URL_FILE",
    ];
    let known: BTreeSet<String> = names.map(str::to_owned).into();
    let example = "PORT=3000\nHOST=127.0.0.1\n# WORKERS=2\n";
    let (config_map, secret) = (
        "# Words\nPORT=3000\nHOST=0.0.0.0\n",
        "kind: Secret\n  REDIS_URL: x\n",
    );
    let check = |known: &BTreeSet<String>, config_map: &str, secret: &str| {
        check_kubernetes_settings(known, example, config_map, secret).len()
    };
    assert_eq!(check(&known, config_map, secret), 0);
    assert_eq!(check(&known, config_map, ""), 2);
    assert_eq!(check(&known, "PORT=3000\n", secret), 1);
    assert_eq!(check(&known, "PORT=80\nHOST=0.0.0.0\n", secret), 1);
    assert_eq!(check(&known, "PORT=3000\nHOST=127.0.0.1\n", secret), 1);
    assert_eq!(check(&known, config_map, "REDIS_URL: x\nHOST: y\n"), 1);
    let fewer = known
        .iter()
        .filter(|name| *name != "PORT")
        .cloned()
        .collect();
    assert_eq!(check(&fewer, config_map, secret), 1);
}

/// The rules as they stand behind `spec:` in a `PrometheusRule`: two further in.
fn check_prometheus_rule(rules: &str, manifest: &str) -> Vec<String> {
    let from = rules.find("groups:\n").unwrap_or(rules.len());
    let lines = rules[from..].lines().map(|line| match line {
        "" => String::new(),
        line => format!("  {line}"),
    });
    let wanted: Vec<_> = lines.collect();
    let spec = manifest.split_once("\nspec:\n").unwrap_or_default().1;
    if !wanted.is_empty() && wanted.iter().eq(spec.lines()) {
        return Vec::new();
    }
    let what = "k8s/components/monitoring/prometheus-rule.yaml does not have the rules of grafana/rules/tokend.yaml";
    vec![format!("{what}: run scripts/prometheus-rule.sh")]
}

#[test]
fn the_operator_gets_the_rules_that_prometheus_gets() {
    assert_clean(&check_prometheus_rule(
        &read("grafana/rules/tokend.yaml"),
        &read("k8s/components/monitoring/prometheus-rule.yaml"),
    ));
}

#[test]
fn a_rule_that_the_operator_does_not_get_is_found() {
    let rules = "# Words\ngroups:\n  - name: a\n\n  - name: b\n";
    let manifest = "kind: PrometheusRule\nspec:\n  groups:\n    - name: a\n\n    - name: b\n";
    assert_eq!(check_prometheus_rule(rules, manifest), Vec::<String>::new());
    for (rules, manifest) in [
        ("groups:\n  - name: a\n", manifest),
        (
            rules,
            "kind: PrometheusRule\nspec:\n  groups:\n    - name: a\n",
        ),
        (rules, "kind: PrometheusRule\n"),
        ("", ""),
    ] {
        assert_eq!(
            check_prometheus_rule(rules, manifest).len(),
            1,
            "{manifest}"
        );
    }
}
