//! Each setting must be the same on all replicas, or may differ: nobody may forget to say which.

use std::collections::BTreeSet;

use tokend::shared::{EQUAL, MAY_DIFFER};

use super::assert_clean;

fn check_classes(known: &BTreeSet<String>, equal: &[&str], may_differ: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for name in equal.iter().chain(may_differ) {
        if !known.contains(*name) {
            wrong.push(format!("src/shared.rs: tokend does not read {name}"));
        }
        if !seen.insert((*name).to_owned()) {
            wrong.push(format!("src/shared.rs: {name} is there twice"));
        }
    }
    let missing = known.difference(&seen);
    wrong.extend(missing.map(|name| {
        format!("src/shared.rs: must {name} be the same on all replicas? Put it into EQUAL or MAY_DIFFER")
    }));
    wrong
}

#[test]
fn each_setting_must_be_equal_or_may_differ() {
    let equal: Vec<_> = EQUAL.iter().map(|(name, _)| *name).collect();
    let may_differ = MAY_DIFFER.iter().flat_map(|(_, names)| *names);
    let may_differ: Vec<_> = may_differ.copied().collect();
    let known = tokend::config::variable_names();
    assert_clean(&check_classes(&known, &equal, &may_differ));
    assert!(MAY_DIFFER.iter().all(|(reason, _)| reason.len() > 15));
}

#[test]
fn a_setting_in_no_class_or_in_both_is_found() {
    let known = BTreeSet::from(["A", "B"].map(str::to_owned));
    let check =
        |equal: &[&str], may_differ: &[&str]| check_classes(&known, equal, may_differ).len();
    assert_eq!(check(&["A"], &["B"]), 0);
    assert_eq!(check(&["A"], &[]), 1);
    assert_eq!(check(&["A", "B"], &["B"]), 1);
    assert_eq!(check(&["A", "B", "C"], &[]), 1);
}
