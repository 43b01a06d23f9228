//! Names of variables that are almost ours.
//!
//! A misspelt variable has no effect, which nobody sees until data or safety is lost: without `REDIS_URL` tokend keeps
//! its data in a Redis of its own, and restarts with none of the user's. So a near miss of such a variable is a mistake
//! while the right one is not given; one of any other is a warning.

use std::collections::{BTreeMap, BTreeSet};

use super::Mistake;

/// Without these, data is kept elsewhere, is acknowledged too early, or is signed with other keys.
const GRAVE: [&str; 8] = [
    "REDIS_URL",
    "DATA_DIR",
    "KEY_PREFIX",
    "DURABILITY",
    "SECRET_KEY",
    "REFRESH_TOKEN_SECRET",
    "JWT_SECRET",
    "JWT_PRIVATE_KEY_FILE",
];
/// Other names for ours that are no slip of the finger.
const ALIASES: [(&str, &str); 3] = [
    ("REDIS_URI", "REDIS_URL"),
    ("JWT_PRIVATE_KEY", "JWT_PRIVATE_KEY_FILE"),
    ("JWT_PRIVATE_KEY_PATH", "JWT_PRIVATE_KEY_FILE"),
];
/// Names by which other programs know a Redis. They stop nothing: one `.env` may serve a whole stack.
const HINTS: [(&str, &str); 7] = [
    ("REDIS_ADDR", "REDIS_URL"),
    ("REDIS_DSN", "REDIS_URL"),
    ("REDIS_HOST", "REDIS_URL"),
    ("REDIS_PASSWORD", "REDIS_URL"),
    ("REDIS_PASSWORD_FILE", "REDIS_URL"),
    ("REDIS_TLS_URL", "REDIS_URL"),
    ("TRUSTED_PROXY", "TRUSTED_PROXIES"),
];
/// Where another variable says that the first one is not wanted: its near miss is a warning.
const INSTEAD: [(&str, &str); 3] = [
    ("REDIS_URL", "DATA_DIR"),
    ("JWT_PRIVATE_KEY_FILE", "JWT_SECRET"),
    ("JWT_SECRET", "JWT_PRIVATE_KEY_FILE"),
];
/// Shorter names have too many neighbours: `HOST` and `POST`, `PORT` and `SORT`.
const NEIGHBOURS_CHARS_MIN: usize = 8;
/// A prefix that is not needed, and the variables of ours that have it, which other commands read.
const PREFIX: &str = "TOKEND_";
const FILE: &str = "_FILE";

/// What to do about names that are not ours but may have been meant to be.
#[derive(Debug, Default)]
pub(super) struct NearMisses {
    pub mistakes: Vec<Mistake>,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

/// Looks at the names that `given` has and tokend does not know. Values decide nothing but whether one is given.
pub(super) fn near_misses<'a>(
    unknown: impl Iterator<Item = (&'a str, &'a str)>,
    known: &BTreeSet<String>,
    given: &BTreeMap<String, String>,
) -> NearMisses {
    let is_given = |name: &str| given.get(name).is_some_and(|it| !it.trim().is_empty());
    let mut found = NearMisses::default();
    for (name, value) in unknown {
        if value.trim().is_empty() || is_service_link(name, value) {
            continue;
        }
        let Some(meant) = meant(name, known) else {
            continue;
        };
        // The form with _FILE gives the variable too.
        let bare = meant.strip_suffix(FILE).filter(|it| known.contains(*it));
        let bare = bare.unwrap_or(meant);
        let given = |name: &str| is_given(name) || is_given(&format!("{name}{FILE}"));
        let missing = !given(bare) && !is_given(meant);
        let hint = HINTS.iter().any(|(hint, _)| *hint == name);
        if hint && !missing {
            continue;
        }
        let mut others = INSTEAD.iter().filter(|(of, _)| *of == bare);
        let wanted = missing && !hint && !others.any(|(_, other)| given(other));
        let why = if name.strip_suffix(FILE) == Some(meant) {
            format!("is not read: {meant} has no form with {FILE}, set {meant} itself")
        } else {
            format!("is not read: write {meant} instead")
        };
        if wanted && GRAVE.contains(&bare) {
            found.mistakes.push(Mistake::new(
                name,
                format!("{why}; if it is another program's, keep it out of tokend's environment"),
            ));
        } else {
            found.warnings.push(format!("{name} {why}"));
        }
    }
    found
}

/// What Kubernetes and Docker put into the environment for a service that is called `tokend`.
fn is_service_link(name: &str, value: &str) -> bool {
    name.contains("_SERVICE_") || value.starts_with("tcp://") || value.starts_with("udp://")
}

/// The variable of ours that a name was meant to be.
fn meant<'a>(name: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let plain = plain(name);
    let mut aliases = ALIASES.iter().chain(&HINTS);
    let alias = aliases.find(|(alias, _)| *alias == plain);
    let ours = |name: &str| known.get(name).map(String::as_str);
    alias
        .and_then(|(_, meant)| ours(meant))
        .or_else(|| plain.strip_prefix(PREFIX).and_then(ours))
        .or_else(|| plain.strip_suffix(FILE).and_then(ours))
        .or_else(|| {
            let mut near = known.iter().filter(|ours| is_near(&plain, ours));
            near.next().map(String::as_str)
        })
}

fn plain(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

/// Whether one slip makes the one of the other: a character too many, missing, wrong or swapped, or the underscores.
fn is_near(name: &str, ours: &str) -> bool {
    if ours.len() < NEIGHBOURS_CHARS_MIN {
        return name == ours && ours.contains('_');
    }
    name.replace('_', "") == ours.replace('_', "") || strsim::osa_distance(name, ours) <= 1
}

#[cfg(test)]
mod tests {
    use super::super::variable_names;
    use super::*;

    fn found(name: &str, value: &str, given: &[(&str, &str)]) -> NearMisses {
        let given = given
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        near_misses(
            [(name, value)].into_iter(),
            &variable_names(),
            &given.collect(),
        )
    }

    #[test]
    fn a_name_by_which_others_know_a_redis_is_a_warning_where_ours_is_missing() {
        for (name, right, given) in [
            ("REDIS_HOST", "REDIS_URL", None),
            ("REDIS_PASSWORD_FILE", "REDIS_URL", None),
            ("TRUSTED_PROXY", "TRUSTED_PROXIES", None),
            ("REDIS_URI", "REDIS_URL", Some(("DATA_DIR", "/data"))),
            (
                "JWT_PRIVATE_KEY",
                "JWT_PRIVATE_KEY_FILE",
                Some(("JWT_SECRET", "s")),
            ),
        ] {
            let found = found(name, "hush", given.as_slice());
            assert!(found.mistakes.is_empty(), "{name}: {found:?}");
            assert!(found.warnings[0].contains(right), "{name}: {found:?}");
        }
        let given = [("REDIS_URL", "redis://a")];
        assert!(found("REDIS_HOST", "a", &given).warnings.is_empty());
    }

    #[test]
    fn a_near_miss_of_what_guards_data_or_safety_is_a_mistake_that_names_the_right_spelling() {
        for (name, right) in [
            ("REDIS_URI", "REDIS_URL"),
            ("REDISURL", "REDIS_URL"),
            ("redis_url", "REDIS_URL"),
            ("REDIS-URL", "REDIS_URL"),
            ("REDIS_ULR", "REDIS_URL"),
            ("TOKEND_REDIS_URL", "REDIS_URL"),
            ("REDIS_URL_FIEL", "REDIS_URL_FILE"),
            ("SECRETKEY", "SECRET_KEY"),
            ("SECRET_KEYS", "SECRET_KEY"),
            ("SECRET_KEY_FILES", "SECRET_KEY_FILE"),
            ("REFRESH_TOKEN_SECRETS", "REFRESH_TOKEN_SECRET"),
            ("JWT_SECERT", "JWT_SECRET"),
            ("JWT_PRIVATE_KEY", "JWT_PRIVATE_KEY_FILE"),
            ("JWT_PRIVATE_KEY_PATH", "JWT_PRIVATE_KEY_FILE"),
            ("DURABILTY", "DURABILITY"),
            ("DURABILITY_FILE", "DURABILITY"),
            ("KEY_PREFIX_FILE", "KEY_PREFIX"),
            ("DATADIR", "DATA_DIR"),
            ("DATA_DIR_FILE", "DATA_DIR"),
        ] {
            let found = found(name, "hush", &[]);
            let told: Vec<_> = found.mistakes.iter().map(ToString::to_string).collect();
            assert_eq!(told.len(), 1, "{name}");
            assert!(
                told[0].starts_with(name) && told[0].contains(right),
                "{told:?}"
            );
            assert!(
                !told[0].contains("hush") && found.warnings.is_empty(),
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_near_miss_of_another_variable_is_a_warning() {
        for (name, right) in [
            ("TOKEN_LIFTIME", "TOKEN_LIFETIME"),
            ("TOKEND_LOG_LEVEL", "LOG_LEVEL"),
            ("PUBLIC_URL_FILE", "PUBLIC_URL"),
            ("MAX-TOKENS", "MAX_TOKENS"),
        ] {
            let found = found(name, "x", &[]);
            assert!(found.mistakes.is_empty(), "{name}");
            assert!(
                found.warnings.iter().any(|it| it.contains(right)),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn variables_of_other_programs_and_service_links_are_neither() {
        for (name, value) in [
            ("REDIS_PORT", "tcp://10.0.0.1:6379"),
            ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
            ("REDIS_SERVICE_HOST", "10.0.0.1"),
            ("TOKEND_PORT", "tcp://10.0.0.1:3000"),
            ("TOKEND_SERVICE_PORT_HTTP", "3000"),
            ("TOKEND_URL", "http://tokend"),
            ("TOKEND_POOL", "seats"),
            ("DJANGO_SECRET_KEY", "hush"),
            ("SECRET_KEY_BASE", "hush"),
            ("XDG_DATA_DIRS", "/usr/share"),
            ("http_proxy", "http://proxy"),
            ("port", "5"),
            ("POST", "x"),
            ("HOSTNAME", "x"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("REDIS_URI", ""),
        ] {
            let found = found(name, value, &[]);
            assert!(
                found.mistakes.is_empty() && found.warnings.is_empty(),
                "{name}: {found:?}"
            );
        }
    }

    #[test]
    fn where_the_right_one_is_given_a_near_miss_is_a_warning_alone() {
        for given in [("REDIS_URL", "redis://a"), ("REDIS_URL_FILE", "/run/a")] {
            let found = found("REDIS_URI", "redis://b", &[given]);
            assert!(
                found.mistakes.is_empty() && found.warnings.len() == 1,
                "{found:?}"
            );
        }
        assert_eq!(
            found("REDIS_URI", "redis://b", &[("REDIS_URL", " ")])
                .mistakes
                .len(),
            1
        );
    }
}
