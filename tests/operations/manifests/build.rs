//! From the folder `k8s` to objects: kustomize builds every overlay, every component, and all of them at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::machine::repository;
use crate::support::Directory;

/// What kustomize has built: the text, and the objects in it.
pub struct Manifests {
    pub text: String,
    pub objects: Vec<Value>,
}

impl Manifests {
    pub fn parse(text: String) -> Result<Self, String> {
        let objects = serde_saphyr::from_multiple(&text).map_err(|error| error.to_string())?;
        Ok(Self { text, objects })
    }

    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let kind = kind.to_owned();
        self.objects.iter().filter(move |it| it["kind"] == *kind)
    }

    /// The object of this kind and name.
    pub fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of_kind(kind).find(|it| it["metadata"]["name"] == name)
    }

    /// The same with another value behind a pointer into the first object of this kind (that is no dashboard); null:
    /// without it.
    pub fn with(&self, kind: &str, pointer: &str, value: Value) -> Self {
        let mut objects = self.objects.clone();
        let dashboard = |it: &Value| !it["metadata"]["labels"]["grafana_dashboard"].is_null();
        let mut fitting = objects.iter_mut().filter(|it| it["kind"] == kind);
        let object = fitting.find(|it| !dashboard(it));
        let object = object.unwrap_or_else(|| panic!("no {kind}"));
        let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
        let last = last.replace("~1", "/");
        let parent = object.pointer_mut(parent);
        match parent.unwrap_or_else(|| panic!("no {pointer}")) {
            Value::Object(members) if value.is_null() => drop(members.remove(&last)),
            Value::Object(members) => drop(members.insert(last, value)),
            Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
            other => panic!("{pointer}: {other}"),
        }
        Self {
            text: String::new(),
            objects,
        }
    }
}

/// The interpreter whose environment has `kubectl` and `kubernetes_validate`, or why there is none.
pub fn tools() -> &'static Result<PathBuf, String> {
    static TOOLS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let ran = Command::new("bash")
            .arg(repository("scripts/python-client.sh"))
            .arg("tests/manifests/requirements.txt")
            .output();
        let ran = ran.map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if ran.status.success() {
            Ok(text(&ran.stdout).into())
        } else {
            Err(text(&ran.stderr))
        }
    })
}

/// The names of the folders in one of `k8s`.
pub fn folders(of: &str) -> Vec<String> {
    let entries = std::fs::read_dir(repository("k8s").join(of)).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Builds a folder. A warning, as of what is deprecated, is an error.
fn kustomize(folder: &Path) -> Result<Manifests, String> {
    let python = tools().as_ref().map_err(Clone::clone)?;
    let ran = Command::new(python.with_file_name("kubectl"))
        .arg("kustomize")
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .expect("kubectl starts");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success() && said.is_empty(),
        "{folder:?}: {said}"
    );
    let text = String::from_utf8(ran.stdout).expect("UTF-8");
    Ok(Manifests::parse(text).unwrap_or_else(|error| panic!("{folder:?}: {error}")))
}

/// Production with these components besides its own, as somebody would list them.
fn production_with(components: &[String]) -> Result<Manifests, String> {
    let directory = Directory::new();
    let path = directory.path().canonicalize().expect("there");
    let up = "../".repeat(path.components().count() - 1);
    let root = repository("k8s").canonicalize().expect("there");
    let root = format!("{up}{}", root.to_string_lossy().trim_start_matches('/'));
    let listed = components.iter();
    let listed = listed.map(|name| format!("  - {root}/components/{name}\n"));
    let text = format!(
        "namespace: tokend\nresources:\n  - {root}/overlays/production\ncomponents:\n{}",
        listed.collect::<String>()
    );
    directory.write("kustomization.yaml", &text);
    kustomize(directory.path())
}

/// All builds by name: each overlay's, each component's on top of production, and `everything`.
pub fn builds() -> &'static Result<BTreeMap<String, Manifests>, String> {
    static BUILDS: OnceLock<Result<BTreeMap<String, Manifests>, String>> = OnceLock::new();
    BUILDS.get_or_init(|| {
        let mut builds = BTreeMap::new();
        for overlay in folders("overlays") {
            let built = kustomize(&repository("k8s/overlays").join(&overlay))?;
            builds.insert(overlay, built);
        }
        // Production has this one already.
        let mut components = folders("components");
        components.retain(|name| name != "autoscaling");
        for component in &components {
            let built = production_with(std::slice::from_ref(component))?;
            builds.insert(component.clone(), built);
        }
        builds.insert("everything".to_owned(), production_with(&components)?);
        Ok(builds)
    })
}
