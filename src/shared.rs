//! Which settings all replicas of a data set must have alike, and which may differ.
//!
//! Each variable stands in exactly one of the two tables: `tests/tidy/settings.rs` compares them with what tokend reads.
//! To add one: a line here.

use std::fmt::Display;
use std::time::Duration;

use crate::config::{Config, CorsOrigins};
use crate::flows::{Flows, Sessions};
use crate::store::{Durability, Shared};
use crate::token::rotating::Keys;
use crate::token::{KeyIds, Setting, Settings};

/// What the replica says of a setting. `None`: it does not use it, so others may have what they like.
type Say = fn(&Config, &Flows) -> Option<Setting>;

/// Settings that decide what all replicas together promise. None of them says a secret: keys say their ids, which every
/// token has in clear text.
#[rustfmt::skip] // a row each
pub const EQUAL: &[(&str, Say)] = &[
    // The replica that started last decides the policy of `default`: they would take turns.
    ("TOKEN_LIFETIME", |config, _| seconds(config.default_policy.lifetime_ms)),
    ("KEEP_ALIVE_LIMIT", |config, _| seconds(config.default_policy.idle_limit_ms)),
    ("TOKEN_UNBLOCK_LIFETIME", |config, _| seconds(config.default_policy.cooldown_ms)),
    ("MAX_TOKENS", |config, _| value(&config.default_policy.max_tokens)),
    // The flows' policies likewise.
    ("TOKEN_TTL_MINUTES", |config, _| value(&(config.flows.limits.temporary.lifetime_ms / 60_000))),
    ("TEMPORARY_MAX", |config, _| value(&config.flows.limits.temporary.max)),
    ("ONE_TIME_LIFETIME", |config, flows| {
        one_time(flows)?;
        duration(config.flows.limits.one_time.lifetime_ms)
    }),
    ("ONE_TIME_MAX", |config, flows| one_time(flows).and_then(|_| value(&config.flows.limits.one_time.max))),
    ("UNIFIED_MAX", |config, _| value(&config.flows.limits.unified.max)),
    ("SESSION_LIFETIME", |config, flows| {
        sessions(flows)?;
        seconds(config.flows.limits.session.lifetime_ms)
    }),
    ("SESSION_MAX", |config, flows| sessions(flows).and_then(|_| value(&config.flows.limits.session.max))),
    ("ACCESS_TOKEN_LIFETIME", |config, flows| {
        sessions(flows)?;
        value(&config.flows.access_token_lifetime.as_secs())
    }),
    ("ROTATION_RETRY", |config, flows| {
        one_time(flows).map(drop).or(sessions(flows).map(drop))?;
        value(&config.flows.rotation_retry.as_secs())
    }),
    // What one replica signs, each other one must verify, or a logout there does nothing.
    ("SECRET_KEY", |_, flows| keys(one_time(flows).map(Keys::ids))),
    ("REFRESH_TOKEN_SECRET", |_, flows| keys(sessions(flows).map(|it| it.refresh.ids()))),
    ("JWT_PRIVATE_KEY_FILE", |_, flows| keys(sessions(flows).map(|it| it.jwt.ids_of_files()))),
    ("JWT_SECRET", |_, flows| keys(sessions(flows).map(|it| it.jwt.ids_of_secrets()))),
    // An access token of another issuer or audience is refused.
    ("PUBLIC_URL", |_, flows| sessions(flows).and_then(|_| value(&flows.public_url))),
    ("JWT_AUDIENCE", |config, flows| sessions(flows).and_then(|_| value(&config.flows.audience))),
    // An answer must not depend on which replica gives it.
    ("INTROSPECT_KINDS", |config, _| list(config.flows.introspect_kinds.iter().map(|it| it.name()))),
    ("CORS_ORIGINS", |config, _| match &config.flows.cors_origins {
        CorsOrigins::Any => value(&"*"),
        CorsOrigins::Only(origins) => list(origins),
    }),
    // All count failed logins in one place: by the same address.
    ("TRUSTED_PROXIES", |config, _| list(&config.flows.trusted_proxies)),
    // An acknowledged change has survived the same on each replica.
    ("DURABILITY", |config, _| value(&match config.durability {
        Durability::Memory => "memory",
        Durability::Replicated { .. } => "replicated",
    })),
    ("WAIT_REPLICAS", |config, _| match config.durability {
        Durability::Memory => None,
        Durability::Replicated { replicas, .. } => value(&replicas),
    }),
];

/// Settings that each replica may have for itself, by the reason.
#[rustfmt::skip] // a row each
pub const MAY_DIFFER: &[(&str, &[&str])] = &[
    ("they say which data set it is: with others, replicas are apart (TokendReplicasApart)", &["REDIS_URL", "KEY_PREFIX", "DATA_DIR"]),
    ("another number is refused at the start", &["PARTITIONS"]),
    ("they say where a value comes from; the value itself is compared", &[
        "REDIS_URL_FILE", "SECRET_KEY_FILE", "REFRESH_TOKEN_SECRET_FILE", "JWT_SECRET_FILE",
        "OTEL_EXPORTER_OTLP_HEADERS_FILE", "OTEL_EXPORTER_OTLP_TRACES_HEADERS_FILE",
    ]),
    ("the wait for replicas depends on where this one runs; what they confirm does not", &["WAIT_TIMEOUT_MS"]),
    ("where it listens, and how fast it works", &["HOST", "PORT", "WORKERS", "SHUTDOWN_DELAY"]),
    ("an RSA key verifies by both algorithms", &["JWT_RSA_ALGORITHM"]),
    ("what its log says", &["LOG_LEVEL", "LOG_FORMAT"]),
    ("a look at the data by one replica is enough", &["DUMP"]),
    ("words on pages for people", &["APP_TITLE", "APP_DESCRIPTION"]),
    ("where its traces go", &[
        "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER",
        "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE",
    ]),
];

/// What a replica of that name says of its settings.
#[must_use]
pub fn shared(name: String, config: &Config, flows: &Flows) -> Shared {
    Shared::new(name, settings(config, flows))
}

fn settings(config: &Config, flows: &Flows) -> Settings {
    let said = EQUAL.iter().filter_map(|(variable, say)| {
        let setting = say(config, flows)?;
        Some(((*variable).to_owned(), setting))
    });
    said.collect()
}

/// The name of this machine or pod, and the port: where an operator finds the replica.
#[must_use]
pub fn replica_name(port: u16) -> String {
    let machine = rustix::system::uname();
    format!("{}:{port}", machine.nodename().to_string_lossy())
}

fn one_time(flows: &Flows) -> Option<&Keys> {
    flows.one_time.as_ref().ok()
}

fn sessions(flows: &Flows) -> Option<&Sessions> {
    flows.sessions.as_ref().ok()
}

fn value(value: &dyn Display) -> Option<Setting> {
    Some(Setting::Value(value.to_string()))
}

fn duration(ms: u64) -> Option<Setting> {
    value(&humantime::format_duration(Duration::from_millis(ms)))
}

fn seconds(ms: u64) -> Option<Setting> {
    value(&Duration::from_millis(ms).as_secs_f64())
}

/// In an order of its own: that of the setting means nothing.
fn list(items: impl IntoIterator<Item = impl ToString>) -> Option<Setting> {
    let mut items: Vec<_> = items.into_iter().map(|it| it.to_string()).collect();
    items.sort();
    value(&if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(",")
    })
}

/// A flow that is off has no keys, which agrees with none that is on.
fn keys(ids: Option<KeyIds>) -> Option<Setting> {
    Some(Setting::Keys(ids.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// For each variable another value than the default, or than what `BASE` says.
    const OTHER: &[(&str, &str)] = &[
        ("TOKEN_LIFETIME", "61.5"),
        ("KEEP_ALIVE_LIMIT", "0"),
        ("TOKEN_UNBLOCK_LIFETIME", "1"),
        ("MAX_TOKENS", "7"),
        ("TOKEN_TTL_MINUTES", "61"),
        ("TEMPORARY_MAX", "7"),
        ("ONE_TIME_LIFETIME", "90min"),
        ("ONE_TIME_MAX", "7"),
        ("UNIFIED_MAX", "7"),
        ("SESSION_LIFETIME", "61"),
        ("SESSION_MAX", "7"),
        ("ACCESS_TOKEN_LIFETIME", "61"),
        ("ROTATION_RETRY", "61"),
        ("SECRET_KEY", "another-secret-of-thirty-two-bytes"),
        ("REFRESH_TOKEN_SECRET", "another-secret-of-thirty-two-bytes"),
        ("JWT_SECRET", "another-secret-of-thirty-two-bytes"),
        ("PUBLIC_URL", "https://b.example"),
        ("JWT_AUDIENCE", "b"),
        ("INTROSPECT_KINDS", "access"),
        ("CORS_ORIGINS", "*"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("DURABILITY", "memory"),
        ("WAIT_REPLICAS", "2"),
    ];
    /// With every flow on.
    const BASE: &[(&str, &str)] = &[
        ("SECRET_KEY", "one-time-secret-of-thirty-two-bytes"),
        ("REFRESH_TOKEN_SECRET", "refresh-secret-of-thirty-two-bytes"),
        ("JWT_SECRET", "access-secret-of-thirty-two-bytes.."),
        ("DURABILITY", "replicated"),
    ];

    fn said(settings: &[(&str, &str)]) -> Settings {
        let set = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let variables: BTreeMap<_, _> = settings.iter().map(set).collect();
        let config = Config::from_vars(variables).expect("a configuration");
        let url = "http://localhost:3000".to_owned();
        let flows = Flows::new(config.flows.clone(), url, None).expect("flows");
        super::settings(&config, &flows)
    }

    fn differing(one: &Settings, other: &Settings) -> Vec<String> {
        let differs = |name: &&String| {
            let both = one.get(*name).zip(other.get(*name));
            both.is_some_and(|(one, other)| !one.agrees(other))
        };
        one.keys().filter(differs).cloned().collect()
    }

    #[test]
    fn each_variable_that_must_be_equal_shows_where_it_differs_and_shows_itself_alone() {
        let base = said(BASE);
        for (variable, _) in EQUAL {
            // Its value is a file: tests/it/process/settings.rs.
            if *variable == "JWT_PRIVATE_KEY_FILE" {
                continue;
            }
            let other = OTHER.iter().find(|(name, _)| name == variable);
            let other = other.unwrap_or_else(|| panic!("another value for {variable}"));
            let changed = said(&[BASE, &[*other]].concat());
            assert_eq!(differing(&base, &changed), [*variable]);
            assert_eq!(differing(&changed, &base), [*variable]);
        }
    }

    #[test]
    fn no_secret_is_said() {
        let text = format!("{:?}", said(BASE));
        assert!(!text.contains("secret-of"), "{text}");
    }

    #[test]
    fn what_a_flow_uses_may_differ_where_it_is_off() {
        let one = said(&[("PUBLIC_URL", "https://a.example")]);
        let other = said(&[
            ("PUBLIC_URL", "https://b.example"),
            ("JWT_AUDIENCE", "b"),
            ("ROTATION_RETRY", "61"),
            ("ONE_TIME_LIFETIME", "90min"),
            ("ONE_TIME_MAX", "7"),
            ("SESSION_LIFETIME", "61"),
            ("SESSION_MAX", "7"),
        ]);
        assert_eq!(differing(&one, &other), Vec::<String>::new());
        let on = said(BASE);
        let keys = ["JWT_SECRET", "REFRESH_TOKEN_SECRET", "SECRET_KEY"];
        let missing: Vec<_> = differing(&one, &on)
            .into_iter()
            .filter(|name| keys.contains(&name.as_str()))
            .collect();
        assert_eq!(missing, keys, "on here, and off there");
    }
}
