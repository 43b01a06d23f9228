//! The rules are good PromQL, and every alert is tried by promtool: it fires, and it does not.

use std::process::Command;

use crate::machine::{on_path, repository};
use crate::prometheus::{RULES, shipped_rules};
use crate::support::skip;

const TESTS: &str = "grafana/rules/tests/tokend.test.yaml";
/// Of what is over before it is worth waking anybody, with looks as often as in production.
const BURSTS: &str = "grafana/rules/tests/bursts.test.yaml";

fn promtool(test: &str, arguments: &[&str]) {
    let Some(promtool) = on_path("promtool") else {
        return skip(test, "no promtool");
    };
    let done = Command::new(promtool)
        .args(arguments)
        .current_dir(repository("."))
        .output()
        .expect("promtool runs");
    let told = [done.stdout, done.stderr].concat();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&told));
}

#[test]
fn the_rules_are_good() {
    promtool("the_rules_are_good", &["check", "rules", RULES]);
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    promtool(
        "every_alert_fires_when_it_should_and_only_then",
        &["test", "rules", TESTS],
    );
}

#[test]
fn what_is_over_in_time_wakes_nobody_at_any_later_look() {
    promtool(
        "what_is_over_in_time_wakes_nobody_at_any_later_look",
        &["test", "rules", BURSTS],
    );
}

/// Alerts that are not tried both ways.
fn untried(rules: &str, tests: &str) -> Vec<String> {
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut wrong = Vec::new();
    for alert in alerts {
        let name = format!("alertname: {alert}\n");
        let cases: Vec<_> = tests.split(&name).skip(1).map(str::trim_start).collect();
        if !cases.iter().any(|case| case.starts_with("exp_alerts:\n")) {
            wrong.push(format!("{alert}: no test in which it fires"));
        }
        if !cases.iter().any(|case| case.starts_with("exp_alerts: []")) {
            wrong.push(format!("{alert}: no test in which it does not fire"));
        }
    }
    wrong
}

#[test]
fn every_alert_is_tried_both_ways() {
    let tests = std::fs::read_to_string(repository(TESTS)).expect("the tests");
    let rules = shipped_rules();
    assert!(rules.matches("- alert: ").count() > 10);
    assert_eq!(untried(&rules, &tests), Vec::<String>::new());
    let more = rules + "      - alert: TokendPlanted\n";
    assert_eq!(untried(&more, &tests).len(), 2);
}
