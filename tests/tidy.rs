//! Tests about the repository itself. No Redis needed. Each check is a function from texts to a list of
//! what is wrong, so that it can be shown a planted violation; to add one, write it and its two tests.

#[path = "tidy/boundaries.rs"]
mod boundaries;
#[path = "tidy/keys.rs"]
mod keys;
#[path = "tidy/kubernetes.rs"]
mod kubernetes;
#[path = "tidy/leftovers.rs"]
mod leftovers;
#[path = "tidy/metrics.rs"]
mod metrics;
#[path = "tidy/scripts.rs"]
mod scripts;
#[path = "tidy/settings.rs"]
mod settings;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/version.rs"]
mod version;

use std::path::{Path, PathBuf};

/// A file of the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn lies_in(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file of the repository that people write. Assets are others' work, as they released it.
fn sources() -> Vec<Source> {
    const SKIPPED: &[&str] = &[
        "target",
        ".git",
        "data",
        "tools",
        "assets",
        "Cargo.lock",
        "artifacts",
        "corpus",
    ];
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a readable folder");
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).expect("inside");
                let path = path.to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    found
}

/// Those of Rust in these folders.
fn rust_in(folders: &[&str]) -> Vec<Source> {
    let mut rust = sources();
    rust.retain(|source| source.is_rust() && source.lies_in(folders));
    rust
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(root().join(path));
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Its lines that are no comments, by number.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn assert_clean(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
