use std::collections::BTreeMap;

use super::*;
use crate::config::{Config, ConfigError};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");

fn config(list: &[(&str, &str)]) -> Result<Option<TraceSettings>, ConfigError> {
    let owned = list
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_vars(owned.collect::<BTreeMap<_, _>>()).map(|config| config.traces)
}

fn on(list: &[(&str, &str)]) -> TraceSettings {
    let list = [&[ENDPOINT], list].concat();
    config(&list).expect("valid").expect("on")
}

fn mistake(list: &[(&str, &str)]) -> String {
    let list = [&[ENDPOINT], list].concat();
    let error = config(&list).expect_err("a mistake");
    assert_eq!(error.0.len(), 1, "{error}");
    error.0[0].to_string()
}

#[test]
fn tracing_is_on_where_there_is_an_endpoint_and_nobody_says_no() {
    assert!(config(&[]).expect("valid").is_none());
    assert!(
        config(&[("OTEL_SERVICE_NAME", "a")])
            .expect("valid")
            .is_none()
    );
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        assert!(
            config(&[ENDPOINT, off]).expect("valid").is_none(),
            "{off:?}"
        );
    }
    let defaults = on(&[]);
    assert_eq!(defaults.service_name, "tokend");
    assert_eq!(
        (defaults.sampler, defaults.parent_based),
        (TraceSampler::On, true)
    );
}

#[test]
fn where_it_is_off_nothing_else_is_judged() {
    let wrong = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
    ];
    assert!(config(&wrong).expect("valid").is_none());
    let disabled = [ENDPOINT, ("OTEL_SDK_DISABLED", "true")];
    let disabled = [&disabled, &wrong[..]].concat();
    assert!(config(&disabled).expect("valid").is_none());
}

#[test]
fn the_endpoint_for_all_signals_is_a_base_and_the_one_for_traces_is_taken_as_it_is() {
    for (base, whole) in [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("https://c/otlp/", "https://c/otlp/v1/traces"),
        (
            "https://c/otlp/?key=a/b",
            "https://c/otlp/v1/traces?key=a/b",
        ),
        ("https://c?key=K", "https://c/v1/traces?key=K"),
    ] {
        assert_eq!(
            on(&[("OTEL_EXPORTER_OTLP_ENDPOINT", base)])
                .endpoint
                .expose(),
            whole
        );
    }
    let exact = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x");
    assert_eq!(on(&[exact]).endpoint.expose(), "http://t:1/x");
    assert_eq!(
        config(&[exact])
            .expect("valid")
            .expect("on")
            .endpoint
            .expose(),
        "http://t:1/x"
    );
    let secret = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://t:1/x?key=hush");
    assert_eq!(on(&[secret]).host(), "https://t:1");
    for bad in ["https://u:hush@t:1", "https://hush@t:1"] {
        let told = mistake(&[("OTEL_EXPORTER_OTLP_ENDPOINT", bad)]);
        assert!(
            told.contains("without user and password") && !told.contains("hush"),
            "{told}"
        );
    }
    for bad in [
        "c:4318",
        "grpc://c:4317",
        "http://",
        "ftp://u:hush@c",
        "http://c:4318/a hush",
        "http://c:4318/?key=hush\\\"<",
    ] {
        let told = mistake(&[("OTEL_EXPORTER_OTLP_ENDPOINT", bad)]);
        assert!(
            told.contains("must be a URL") && !told.contains("hush"),
            "{told}"
        );
    }
}

#[test]
fn a_protocol_that_is_not_spoken_is_a_mistake() {
    let (all, traces) = (
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    );
    for name in [all, traces] {
        for other in ["grpc", "http/json"] {
            let told = mistake(&[(name, other)]);
            assert!(
                told.starts_with(name) && told.contains("must be http/protobuf"),
                "{told}"
            );
        }
        on(&[(name, "http/protobuf")]);
    }
    on(&[(all, "grpc"), (traces, "http/protobuf")]); // the other is for metrics
}

#[test]
fn batches_are_sent_as_the_variable_for_traces_says_or_else_the_one_for_all_signals() {
    let defaults = on(&[]).exporting;
    assert!(!defaults.gzip && defaults.timeout == Duration::from_secs(5));
    let all = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
    ];
    let exporting = on(&all).exporting;
    assert!(exporting.gzip && exporting.timeout == Duration::from_millis(1500));
    assert_eq!(exporting.headers.expose()["a"], "1");
    let traces = [
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "60000"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2"),
    ];
    let exporting = on(&[&all[..], &traces].concat()).exporting;
    assert!(!exporting.gzip && exporting.timeout == Duration::from_mins(1));
    assert_eq!(exporting.headers.expose().len(), 1);
    assert_eq!(exporting.headers.expose()["b"], "2");
    for (name, bad) in [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "GZIP"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "60001"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "hush"),
    ] {
        let told = mistake(&[(name, bad)]);
        assert!(told.starts_with(name) && !told.contains("hush"), "{told}");
    }
}

#[test]
fn a_sampler_is_one_of_six_and_its_argument_a_part_of_one() {
    for (text, expected) in [
        ("always_on", (TraceSampler::On, false)),
        ("always_off", (TraceSampler::Off, false)),
        ("traceidratio", (TraceSampler::Ratio(0.25), false)),
        ("parentbased_always_on", (TraceSampler::On, true)),
        ("parentbased_always_off", (TraceSampler::Off, true)),
        (
            "parentbased_traceidratio",
            (TraceSampler::Ratio(0.25), true),
        ),
    ] {
        let settings = on(&[
            ("OTEL_TRACES_SAMPLER", text),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        assert_eq!(
            (settings.sampler, settings.parent_based),
            expected,
            "{text}"
        );
        let named = settings.sampler_name();
        assert_eq!(named.trim_end_matches(" 0.25"), text);
        assert_eq!(named.ends_with(" 0.25"), text.ends_with("ratio"), "{named}");
    }
    let whole = on(&[("OTEL_TRACES_SAMPLER", "traceidratio")]);
    assert_eq!(whole.sampler, TraceSampler::Ratio(1.0));
    for bad in ["sometimes", "jaeger_remote", "parentbased_", "ALWAYS_ON"] {
        mistake(&[("OTEL_TRACES_SAMPLER", bad)]);
    }
    for bad in ["1.1", "-0.1", "NaN", "half"] {
        mistake(&[("OTEL_TRACES_SAMPLER_ARG", bad)]);
    }
}

#[test]
fn headers_are_checked_and_never_shown() {
    let settings = on(&[(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "Authorization=Bearer%20hush, x-team=a",
    )]);
    let headers = settings.exporting.headers.expose();
    assert_eq!(headers["authorization"], "Bearer hush");
    assert_eq!(headers.len(), 2);
    assert!(!format!("{settings:?}").contains("hush"));
    for own in [
        "Content-Length",
        "host",
        "TE",
        "keep-alive",
        "content-encoding",
    ] {
        let told = mistake(&[("OTEL_EXPORTER_OTLP_HEADERS", &format!("a=1,{own}=hush"))]);
        let expected = format!("must be without {}", own.to_lowercase());
        assert!(told.contains(&expected) && !told.contains("hush"), "{told}");
    }
    for bad in ["hush", "=hush", "a b=hush", "a=hush%0A", "a=hush%FF"] {
        let told = mistake(&[("OTEL_EXPORTER_OTLP_HEADERS", bad)]);
        assert!(
            told.contains("must be headers") && !told.contains("hush"),
            "{told}"
        );
    }
}

#[test]
fn attributes_are_decoded_and_may_name_the_service() {
    let given = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=seats,team=a%2Cb");
    let settings = on(&[given]);
    assert_eq!(settings.service_name, "seats");
    assert!(
        settings
            .attributes
            .contains(&("team".to_owned(), "a,b".to_owned()))
    );
    assert_eq!(on(&[given, ("OTEL_SERVICE_NAME", "x")]).service_name, "x");
    for bad in ["team", "=a", "team=%00"] {
        mistake(&[("OTEL_RESOURCE_ATTRIBUTES", bad)]);
    }
}
