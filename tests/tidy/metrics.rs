//! What is written about metrics names those that there are: `docs/METRICS.md`, dashboards and rules.

use std::collections::{BTreeMap, BTreeSet};

use super::{Source, assert_clean, read, sources};

/// What Prometheus makes of a histogram.
const OF_HISTOGRAMS: &[&str] = &["_bucket", "_sum", "_count"];

/// Metrics by name, each with its labels, as `src/metrics.rs` makes them.
fn defined(code: &str) -> BTreeMap<String, BTreeSet<String>> {
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let mut found = BTreeMap::new();
    for rest in code.split("\"tokend_").skip(1) {
        let (name, rest) = rest.split_once('"').expect("a closing quote");
        // A call's list of labels, if it has one, is the first list behind the name.
        let labels = rest.split_once("&[").map_or("", |(_, rest)| rest);
        let labels = labels.split(']').next().unwrap_or_default();
        let labels = labels.split('"').skip(1).step_by(2).map(str::to_owned);
        found.insert(format!("tokend_{name}"), labels.collect());
    }
    found
}

/// The same as the table of `docs/METRICS.md` has it.
fn documented(doc: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = doc.lines().filter(|line| line.starts_with("| `tokend_"));
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').collect();
        (
            quoted(cells[1]).remove(0),
            quoted(cells[3]).into_iter().collect(),
        )
    })
    .collect()
}

fn check_doc(code: &str, doc: &str) -> Vec<String> {
    let (defined, documented) = (defined(code), documented(doc));
    let mut wrong = Vec::new();
    for (name, labels) in &defined {
        match documented.get(name) {
            None => wrong.push(format!("docs/METRICS.md: {name} is missing")),
            Some(told) if told != labels => {
                wrong.push(format!(
                    "docs/METRICS.md: {name} has {labels:?}, not {told:?}"
                ));
            }
            Some(_) => {}
        }
    }
    let unknown = documented
        .keys()
        .filter(|name| !defined.contains_key(*name));
    wrong.extend(unknown.map(|name| format!("docs/METRICS.md: there is no {name}")));
    wrong
}

/// Words that begin like a metric of ours and name none.
fn check_names(source: &Source, defined: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = source.text.split(|c| !word(c));
    let ours: BTreeSet<_> = words.filter(|word| word.starts_with("tokend_")).collect();
    let known = |name: &str| {
        let of_histogram = OF_HISTOGRAMS.iter().find_map(|end| name.strip_suffix(end));
        defined.contains_key(name) || of_histogram.is_some_and(|name| defined.contains_key(name))
    };
    let unknown = ours.into_iter().filter(|name| !known(name));
    unknown
        .map(|name| format!("{}: there is no {name}", source.path))
        .collect()
}

#[test]
fn metrics_md_names_every_metric_with_its_labels() {
    assert_clean(&check_doc(
        &read("src/metrics.rs"),
        &read("docs/METRICS.md"),
    ));
}

#[test]
fn what_watches_names_metrics_that_there_are() {
    let defined = defined(&read("src/metrics.rs"));
    assert!(defined.len() > 10, "{defined:?}");
    let watching = sources().into_iter().filter(|source| {
        source.lies_in(&["grafana/", "k8s/", "docs/OPERATIONS.md", "docs/METRICS.md"])
    });
    let wrong: Vec<_> = watching
        .flat_map(|source| check_names(&source, &defined))
        .collect();
    assert_clean(&wrong);
}

/// Where runbooks lie, and how each is found there.
const RUNBOOKS: &str = "https://github.com/tokend/tokend/blob/main/docs/OPERATIONS.md#";

/// What an alert lacks of what whoever is woken needs. Rules are read by the line, as they are set.
fn check_alerts(rules: &str, runbooks: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut alerts = BTreeSet::new();
    for rule in rules.split("\n      - alert: ").skip(1) {
        let (alert, rest) = rule.split_once('\n').unwrap_or((rule, ""));
        let rest = format!("{rest}\n");
        alerts.insert(alert);
        let link = format!("runbook_url: {RUNBOOKS}{}\n", alert.to_ascii_lowercase());
        for needed in ["summary: ", "description: ", "$labels.namespace", &link] {
            if !rest.contains(needed) {
                wrong.push(format!("{alert}: no {needed}"));
            }
        }
        let severities = ["severity: critical\n", "severity: warning\n"];
        if !severities.iter().any(|severity| rest.contains(severity)) {
            wrong.push(format!("{alert}: no severity"));
        }
        let section = runbooks.split(&format!("\n### {alert}\n")).nth(1);
        let section = section.unwrap_or_default().split("\n#").next();
        for part in [
            "**What it means.**",
            "**Who is affected",
            "**No incident.**",
        ] {
            if !section.unwrap_or_default().contains(part) {
                wrong.push(format!("docs/OPERATIONS.md: {alert}: no {part}"));
            }
        }
    }
    let told = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("### "));
    let unknown = told.filter(|name| name.starts_with("Tokend") && !alerts.contains(name));
    wrong.extend(unknown.map(|name| format!("docs/OPERATIONS.md: there is no alert {name}")));
    wrong
}

/// Links to a section of the runbooks that there is not.
fn check_links(source: &Source, runbooks: &str) -> Vec<String> {
    let headings = runbooks.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        line.trim_matches(['#', ' '])
            .to_lowercase()
            .replace(' ', "-")
    };
    let anchors: BTreeSet<_> = headings.map(anchor).collect();
    let links = source.text.split(RUNBOOKS).skip(1);
    let links = links.map(|rest| {
        rest.split(['"', '\n', '\'', ')'])
            .next()
            .unwrap_or_default()
    });
    links
        .filter(|link| !anchors.contains(*link))
        .map(|link| format!("{}: docs/OPERATIONS.md has no #{link}", source.path))
        .collect()
}

#[test]
fn every_alert_has_its_runbook() {
    let (rules, runbooks) = (
        read("grafana/rules/tokend.yaml"),
        read("docs/OPERATIONS.md"),
    );
    assert_clean(&check_alerts(&rules, &runbooks));
    let grafana = sources()
        .into_iter()
        .filter(|source| source.lies_in(&["grafana/"]));
    let wrong: Vec<_> = grafana
        .flat_map(|source| check_links(&source, &runbooks))
        .collect();
    assert_clean(&wrong);
}

#[test]
fn an_alert_without_its_runbook_is_found() {
    let rules = format!(
        "rules:\n      - alert: TokendA\n        severity: warning\n        summary: It.\n        \
         description: It is {{{{ $labels.namespace }}}}.\n        runbook_url: {RUNBOOKS}tokenda\n"
    );
    let runbooks = "## Alerts\n\n### TokendA\n\n**What it means.** It.\n\n**Who is affected.** You.\n\n\
        **No incident.** Never.\n";
    assert_eq!(check_alerts(&rules, runbooks), Vec::<String>::new());
    for part in [
        "severity: warning\n",
        "summary: ",
        "description: ",
        "#tokenda",
    ] {
        assert_eq!(
            check_alerts(&rules.replace(part, ""), runbooks).len(),
            1,
            "{part}"
        );
    }
    for (from, to) in [("### TokendA", "### TokendB"), ("**No incident.**", "")] {
        let planted = runbooks.replace(from, to);
        assert_ne!(
            check_alerts(&rules, &planted),
            Vec::<String>::new(),
            "{from}"
        );
    }
    let link = |to: &str| {
        check_links(
            &Source::new("a.json", &format!("\"{RUNBOOKS}{to}\"")),
            runbooks,
        )
    };
    assert_eq!(link("tokenda").len(), 0);
    assert_eq!(link("tokendc").len(), 1);
}

#[test]
fn a_metric_that_is_not_there_is_found() {
    let code = "counter(\n    r,\n    \"tokend_a_total\",\n    \"All.\",\n    &[\"pool\", \"verb\"],\n),\n\
        plain_gauge(\n    r,\n    \"tokend_b\",\n    \"It.\",\n),\n";
    let doc = "| `tokend_a_total` | counter | `pool`, `verb` | all `x` |\n| `tokend_b` | gauge | | it |\n";
    assert_eq!(check_doc(code, doc), Vec::<String>::new());
    for (from, to) in [
        ("`verb`", "`reason`"),
        ("| `tokend_b` | gauge | | it |\n", ""),
        ("`tokend_b`", "`tokend_c`"),
    ] {
        assert_ne!(
            check_doc(code, &doc.replace(from, to)),
            Vec::<String>::new(),
            "{from}"
        );
    }
    let defined = defined(code);
    let names = |text| check_names(&Source::new("grafana/a.json", text), &defined).len();
    assert_eq!(names("rate(tokend_a_total[5m]) / tokend_b_count"), 0);
    assert_eq!(names("rate(tokend_a_totals[5m])"), 1);
    assert_eq!(names("sum(tokend_c)"), 1);
    assert_eq!(names("sum(tokend:c:rate5m)"), 0);
}
