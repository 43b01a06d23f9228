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

/// In a lock file, of which cargo keeps only its own workspace's.
fn check_lock(path: &str, text: &str) -> Vec<String> {
    let locked = format!(
        "name = \"tokend\"\nversion = \"{}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let wrong = (!text.contains(&locked)).then(|| format!("{path}: another version of tokend"));
    wrong.into_iter().collect()
}

/// In instructions: each image that they name with a number.
fn check_images(path: &str, text: &str) -> Vec<String> {
    let named = text.split("tokend:").skip(1);
    let tags = named.map(|rest| {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.');
        rest[..end.unwrap_or(rest.len())].trim_end_matches('.')
    });
    let others = tags.filter(|tag| !tag.is_empty() && *tag != env!("CARGO_PKG_VERSION"));
    let wrong = others.map(|tag| format!("{path}: tokend:{tag}, which is another version"));
    wrong.collect()
}

#[test]
fn the_version_is_the_same_everywhere() {
    let wrong = PLACES.iter();
    let mut wrong: Vec<_> = wrong
        .flat_map(|(path, before)| check_version(path, &read(path), before))
        .collect();
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        wrong.extend(check_lock(lock, &read(lock)));
    }
    for page in ["README.md", "k8s/README.md"] {
        wrong.extend(check_images(page, &read(page)));
    }
    assert_clean(&wrong);
}

#[test]
fn another_version_is_found() {
    let version = env!("CARGO_PKG_VERSION");
    let with = |version: &str| check_version("a", &format!("  tag: {version}\n"), "tag: ");
    assert!(with(version).is_empty());
    assert_eq!(with("0.0.9").len(), 1);
    assert_eq!(with(&format!("{version}.1")).len(), 1);
    let lock = |version: &str| {
        check_lock(
            "a",
            &format!("name = \"tokend\"\nversion = \"{version}\"\n"),
        )
    };
    assert!(lock(version).is_empty());
    assert_eq!(lock("0.0.9").len(), 1);
    let page = |version: &str| check_images("a", &format!("`tokend:dev` as tokend:{version}."));
    assert!(page(version).is_empty());
    assert_eq!(page("0.0.9").len(), 1);
}
