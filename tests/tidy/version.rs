//! The version stands in several files, and a release must not forget one.

use super::{assert_clean, read};

/// Where it stands, and what before it.
const PLACES: &[(&str, &str)] = &[
    ("Dockerfile", "ARG VERSION="),
    ("k8s/base/deployment.yaml", "image: tokend:"),
    ("k8s/base/kustomization.yaml", "app.kubernetes.io/version: "),
    ("k8s/overlays/production/kustomization.yaml", "newTag: "),
];

fn check_version(path: &str, text: &str, before: &str) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("{before}{version}");
    let told = text
        .lines()
        .any(|it| it.trim().trim_start_matches("- ") == line);
    if told {
        return Vec::new();
    }
    vec![format!("{path}: no line `{line}`, as Cargo.toml has it")]
}

#[test]
fn the_version_is_the_same_everywhere() {
    let wrong = PLACES.iter();
    let wrong: Vec<_> = wrong
        .flat_map(|(path, before)| check_version(path, &read(path), before))
        .collect();
    assert_clean(&wrong);
}

#[test]
fn another_version_is_found() {
    let version = env!("CARGO_PKG_VERSION");
    let with = |version: &str| check_version("a", &format!("  tag: {version}\n"), "tag: ");
    assert!(with(version).is_empty());
    assert_eq!(with("0.0.9").len(), 1);
    assert_eq!(with(&format!("{version}.1")).len(), 1);
}
