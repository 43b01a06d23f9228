//! The dashboards fit the schema that Grafana publishes, and have what a reader at night needs.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::machine::repository;
use crate::support::{Directory, skip};

const DASHBOARDS: &[&str] = &[
    "grafana/dashboards/overview.json",
    "grafana/dashboards/pool.json",
];
/// Kinds of panel that Grafana has dropped, or will.
const ANGULAR: &[&str] = &["graph", "singlestat", "table-old", "grafana-piechart-panel"];

fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(repository(path)).expect("a dashboard");
    serde_json::from_str(&text).expect("JSON")
}

/// Whether they fit, and what was said. None where the schema can't be had, which is said.
fn fit(test: &str, files: &[String]) -> Option<(bool, String)> {
    let made = Command::new("bash")
        .arg(repository("scripts/python-client.sh"))
        .arg("tests/dashboards/requirements.txt")
        .output()
        .expect("bash runs");
    if !made.status.success() {
        skip(test, String::from_utf8_lossy(&made.stderr).trim());
        return None;
    }
    let python = String::from_utf8(made.stdout).expect("a path");
    let ran = Command::new(python.trim())
        .arg(repository("tests/dashboards/fit.py"))
        .args(files)
        .output()
        .expect("it runs");
    let told = [ran.stdout, ran.stderr].concat();
    Some((
        ran.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    ))
}

#[test]
fn the_dashboards_fit_grafanas_schema() {
    let files: Vec<_> = DASHBOARDS
        .iter()
        .map(|path| repository(path).display().to_string())
        .collect();
    let test = "the_dashboards_fit_grafanas_schema";
    let Some((fits, told)) = fit(test, &files) else {
        return;
    };
    assert!(fits, "{told}");
    // And what does not fit is found.
    let directory = Directory::new();
    let planted: [fn(&mut Value); 3] = [
        |it| it["panels"][1]["options"]["graphMood"] = "area".into(),
        |it| it["panels"][1]["fieldConfig"]["defaults"]["units"] = "s".into(),
        |it| it["templating"]["list"][0]["lable"] = "x".into(),
    ];
    for (n, plant) in planted.iter().enumerate() {
        let mut dashboard = read(DASHBOARDS[0]);
        plant(&mut dashboard);
        let file = directory.write(&format!("{n}.json"), &dashboard.to_string());
        let (fits, told) = fit(test, &[file.display().to_string()]).expect("it is there");
        assert!(!fits, "planted {n}: {told}");
    }
}

/// The variables that choose an installation, and let several be chosen: their pools would be taken for each other.
fn merging(dashboard: &Value) -> Vec<String> {
    let all = dashboard["templating"]["list"].as_array();
    let choose = all.expect("variables").iter().filter(|it| {
        let of_installation = it["name"] == "namespace" || it["name"] == "job";
        of_installation && (it["multi"] != false || it["includeAll"] != false)
    });
    choose.map(|it| it["name"].to_string()).collect()
}

/// What is wrong with a dashboard's panels.
fn faults(dashboard: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().unwrap_or_default();
        let mut must = |good: bool, what: &str| {
            if !good {
                wrong.push(format!("{title}: {what}"));
            }
        };
        must(ids.insert(panel["id"].as_u64()), "its id is taken");
        let kind = panel["type"].as_str().unwrap_or_default();
        must(!ANGULAR.contains(&kind), "an old kind of panel");
        if kind == "row" {
            continue;
        }
        must(
            panel["description"]
                .as_str()
                .is_some_and(|it| it.len() > 20),
            "no description",
        );
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        must(unit.is_string(), "no unit");
        must(
            panel["datasource"]["uid"] == "${datasource}",
            "another data source",
        );
        let mapped = panel["fieldConfig"]["defaults"]["mappings"].as_array();
        let maps =
            |what| mapped.is_some_and(|all| all.iter().any(|it| it["options"]["match"] == what));
        let (says_idle, says_nothing) = (maps("nan"), maps("null"));
        // Or what is no more looks well.
        must(kind != "stat" || says_nothing, "green without data");
        for target in panel["targets"].as_array().expect("targets") {
            must(
                target["datasource"]["uid"] == "${datasource}",
                "another data source",
            );
            let expr = target["expr"].as_str().unwrap_or_default();
            must(expr.contains("$job"), "asks for every job");
            let merges = [" max(", "(max(", "max by (pool"].iter();
            must(
                !expr.starts_with("max(") && !merges.clone().any(|it| expr.contains(it)),
                "the most of several installations",
            );
            let is_now = target["instant"] == true && target["range"] == false;
            must(kind != "stat" || is_now, "shows the past");
            let of_rate = ["rate(", "increase("].iter().any(|it| expr.contains(it));
            must(
                !of_rate || expr.contains("[$__rate_interval]"),
                "a fixed interval",
            );
            // Of nothing, a share and a quantile are no number.
            let is_of_some = [") / ", "histogram_quantile("]
                .iter()
                .any(|it| expr.contains(it));
            must(kind != "stat" || !is_of_some || says_idle, "NaN when idle");
        }
    }
    wrong
}

#[test]
fn every_panel_says_what_it_shows() {
    for path in DASHBOARDS {
        let dashboard = read(path);
        assert_eq!(faults(&dashboard), Vec::<String>::new(), "{path}");
        for (name, value) in [("description", ""), ("type", "graph"), ("id", "")] {
            let mut planted = dashboard.clone();
            planted["panels"][1][name] = value.into();
            planted["panels"][2][name] = value.into();
            assert_ne!(faults(&planted), Vec::<String>::new(), "{path}: {name}");
        }
        let mut planted = dashboard.clone();
        let panels = planted["panels"].as_array_mut().expect("panels");
        for panel in panels {
            panel["fieldConfig"]["defaults"]["mappings"] = Value::Null;
        }
        assert_ne!(faults(&planted), Vec::<String>::new(), "{path}: NaN");
        let plant = |name: &str, value: Value| {
            let mut planted = dashboard.clone();
            planted["panels"][1]["targets"][0][name] = value;
            assert_eq!(faults(&planted).len(), 1, "{path}: {name}");
        };
        plant("range", true.into());
        plant("expr", "max(a{job=\"$job\"})".into());
        plant("expr", "sum(max by (pool) (a{job=\"$job\"}))".into());
        assert_eq!(merging(&dashboard), Vec::<String>::new(), "{path}");
        let mut planted = dashboard.clone();
        planted["templating"]["list"][1]["includeAll"] = true.into();
        assert_eq!(merging(&planted).len(), 1, "{path}");
    }
    let uids: Vec<_> = DASHBOARDS
        .iter()
        .map(|path| read(path)["uid"].clone())
        .collect();
    assert_eq!(
        uids,
        ["tokend-overview", "tokend-pool"],
        "links of others lead there"
    );
}
