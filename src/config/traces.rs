//! Where traces go, and which: the variables of the OpenTelemetry specification
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>), as far as they make sense here.

mod secret;
#[cfg(test)]
mod tests;

use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

pub use self::secret::{Endpoint, SecretHeaders};
use super::env::Env;
use super::flows::switch;
use super::{Reader, whole};

/// What the specification puts behind the endpoint that is for all signals.
const PATH: &str = "v1/traces";
/// Milliseconds that a batch is tried for. Fewer than the specification's 10,000: what queues meanwhile may be lost.
const TIMEOUT_MS: u64 = 5_000;
/// Most of them.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// Most milliseconds between two exports: longer ones only keep more in memory.
const DELAY_MS_MAX: u64 = 60_000;
/// Most spans in the queue: 0.7 KB each, and up to 4.1 KB with what callers may add to one (measured; `tracestate`).
const QUEUE_MAX: usize = 100_000;

/// What tracing runs with. Every value is valid.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` and `v1/traces`.
    pub endpoint: Endpoint,
    /// How they are sent there.
    pub exporting: Exporting,
    /// `OTEL_SERVICE_NAME`, or `service.name` among the attributes, or `tokend`.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`.
    pub attributes: Vec<(String, String)>,
    /// `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`: what becomes of a trace that begins here.
    pub sampler: TraceSampler,
    /// Whether a trace that began elsewhere is what its caller made of it: `parentbased_…`.
    pub parent_based: bool,
    /// `OTEL_BSP_SCHEDULE_DELAY`.
    pub delay: Duration,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`, spans.
    pub queue_max: usize,
}

impl TraceSettings {
    /// The sampler, as the settings name it.
    #[must_use]
    pub fn sampler_name(&self) -> String {
        let based = if self.parent_based {
            "parentbased_"
        } else {
            ""
        };
        match self.sampler {
            TraceSampler::On => format!("{based}always_on"),
            TraceSampler::Off => format!("{based}always_off"),
            TraceSampler::Ratio(ratio) => format!("{based}traceidratio {ratio}"),
        }
    }

    /// Where the collector is, without what may be secret in its URL.
    #[must_use]
    pub fn host(&self) -> String {
        self.endpoint.host()
    }
}

/// How a batch is sent. Each has a variable for all signals, `OTEL_EXPORTER_OTLP_…`, and one for traces alone that wins,
/// `OTEL_EXPORTER_OTLP_TRACES_…`.
#[derive(Debug, Clone)]
pub struct Exporting {
    /// `HEADERS`.
    pub headers: SecretHeaders,
    /// `COMPRESSION`: whether it is `gzip`.
    pub gzip: bool,
    /// `TIMEOUT`: longest that a batch is tried to be sent, with all repetitions.
    pub timeout: Duration,
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TraceSampler {
    /// All.
    On,
    /// None.
    Off,
    /// This part of them, 0 to 1, by their ids: all services that keep the same part keep the same ones.
    Ratio(f64),
}

/// `None`: off. What only matters where it is on is not looked at then: platforms put these variables into every
/// service, and a protocol that we do not speak must not keep one from starting that exports nothing.
pub(super) fn read(env: &Env, read: &mut Reader) -> Option<TraceSettings> {
    let endpoint = target(env, read)?;
    let exporting = exporting(env, read);
    let attributes = read.take(
        "OTEL_RESOURCE_ATTRIBUTES",
        env.otel_resource_attributes.clone(),
        Vec::new(),
        attributes,
    );
    let named = attributes.iter().find(|(name, _)| name == "service.name");
    let named = named.map_or_else(|| "tokend".to_owned(), |(_, value)| value.clone());
    let service_name = env.otel_service_name.clone();
    let service_name = read.take("OTEL_SERVICE_NAME", service_name, named, name);
    let (sampler, parent_based) = sampling(env, read);
    let delay = env.otel_bsp_schedule_delay.clone();
    let delay = read.take("OTEL_BSP_SCHEDULE_DELAY", delay, 5_000, |text| {
        whole(text, 1, DELAY_MS_MAX)
    });
    let queue_max = env.otel_bsp_max_queue_size.clone();
    let queue_max = read.take("OTEL_BSP_MAX_QUEUE_SIZE", queue_max, 2_048, |text| {
        whole(text, 1, QUEUE_MAX)
    });
    Some(TraceSettings {
        endpoint,
        exporting,
        service_name,
        attributes,
        sampler,
        parent_based,
        delay: Duration::from_millis(delay),
        queue_max,
    })
}

/// Where to, unless somebody says no.
fn target(env: &Env, read: &mut Reader) -> Option<Endpoint> {
    let disabled = env.otel_sdk_disabled.clone();
    let disabled = read.take("OTEL_SDK_DISABLED", disabled, false, switch);
    let exported = env.otel_traces_exporter.clone();
    let exported = read.take("OTEL_TRACES_EXPORTER", exported, true, exporter);
    let everything = (
        "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
        env.otel_exporter_otlp_endpoint.clone(),
    );
    let everything = read.secret(everything, |text| endpoint(text).map(|base| below(&base)));
    let traces = (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT".to_owned(),
        env.otel_exporter_otlp_traces_endpoint.clone(),
    );
    let traces = read.secret(traces, endpoint);
    let target = traces.or(everything).map(Endpoint);
    target.filter(|_| exported && !disabled)
}

fn sampling(env: &Env, read: &mut Reader) -> (TraceSampler, bool) {
    let given = env.otel_traces_sampler_arg.clone();
    let ratio = read.take("OTEL_TRACES_SAMPLER_ARG", given, 1.0, ratio);
    let given = env.otel_traces_sampler.clone();
    let default = (TraceSampler::On, true);
    read.take("OTEL_TRACES_SAMPLER", given, default, |text| {
        sampler(text, ratio)
    })
}

fn exporting(env: &Env, read: &mut Reader) -> Exporting {
    let (name, given) = for_traces(
        "PROTOCOL",
        &env.otel_exporter_otlp_traces_protocol,
        &env.otel_exporter_otlp_protocol,
    );
    read.take(&name, given, (), protocol);
    let traces = read.or_file(
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        &env.otel_exporter_otlp_traces_headers,
        &env.otel_exporter_otlp_traces_headers_file,
    );
    let all = read.or_file(
        "OTEL_EXPORTER_OTLP_HEADERS",
        &env.otel_exporter_otlp_headers,
        &env.otel_exporter_otlp_headers_file,
    );
    let given = if traces.1.is_some() { traces } else { all };
    let headers = read.secret(given, headers);
    let (name, given) = for_traces(
        "COMPRESSION",
        &env.otel_exporter_otlp_traces_compression,
        &env.otel_exporter_otlp_compression,
    );
    let gzip = read.take(&name, given, false, compression);
    let (name, given) = for_traces(
        "TIMEOUT",
        &env.otel_exporter_otlp_traces_timeout,
        &env.otel_exporter_otlp_timeout,
    );
    let timeout = read.take(&name, given, TIMEOUT_MS, |text| {
        whole(text, 1, TIMEOUT_MS_MAX)
    });
    Exporting {
        headers: headers.unwrap_or_default(),
        gzip,
        timeout: Duration::from_millis(timeout),
    }
}

/// The variable for traces alone where it is given, with its value; else the one for all signals, whose value may not
/// suit us where the other does.
fn for_traces(
    what: &str,
    traces: &Option<String>,
    all: &Option<String>,
) -> (String, Option<String>) {
    match traces {
        Some(given) if !given.trim().is_empty() => (
            format!("OTEL_EXPORTER_OTLP_TRACES_{what}"),
            Some(given.clone()),
        ),
        _ => (format!("OTEL_EXPORTER_OTLP_{what}"), all.clone()),
    }
}

fn protocol(text: &str) -> Result<(), String> {
    match text {
        "http/protobuf" => Ok(()),
        _ => Err(
            "must be http/protobuf, which a collector takes on port 4318; grpc and http/json are not supported"
                .to_owned(),
        ),
    }
}

fn compression(text: &str) -> Result<bool, String> {
    match text {
        "gzip" => Ok(true),
        "none" => Ok(false),
        _ => Err("must be gzip or none".to_owned()),
    }
}

fn exporter(text: &str) -> Result<bool, String> {
    match text {
        "otlp" => Ok(true),
        "none" => Ok(false),
        _ => Err("must be otlp or none".to_owned()),
    }
}

/// The path goes before a query, which may be a key.
fn below(base: &str) -> String {
    let (base, query) = match base.split_once('?') {
        Some((base, query)) => (base, format!("?{query}")),
        None => (base, String::new()),
    };
    format!("{}/{PATH}{query}", base.trim_end_matches('/'))
}

fn endpoint(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok();
    // The exporter reads it by stricter rules, and would show all of it where it does not like it.
    let url = url.filter(|_| text.parse::<http::Uri>().is_ok());
    let good = |url: &reqwest::Url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none()
    };
    match url.filter(good) {
        // What sends the spans drops them without a word.
        Some(url) if !url.username().is_empty() || url.password().is_some() => Err(
            "must be without user and password: those go into OTEL_EXPORTER_OTLP_HEADERS, as \
             Authorization=Basic%20 and the base64 of user:password"
                .to_owned(),
        ),
        Some(_) => Ok(text.to_owned()),
        None => Err("must be a URL such as http://localhost:4318".to_owned()),
    }
}

/// `name=value,…`, values percent-encoded (as in W3C Baggage).
fn pairs(text: &str) -> Option<Vec<(&str, &str)>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let pairs = parts.map(|part| {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then_some((name, value.trim()))
    });
    pairs.collect()
}

fn decoded(value: &str) -> Option<String> {
    let value = percent_decode_str(value).decode_utf8().ok()?;
    (!value.chars().any(char::is_control)).then(|| value.into_owned())
}

/// Headers that are about the message or the connection: whoever sends it sets them.
const SENDERS_OWN: [HeaderName; 11] = [
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

fn headers(text: &str) -> Result<SecretHeaders, String> {
    let header = |(name, value): (&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(&decoded(value)?).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    let all = pairs(text).and_then(|all| all.into_iter().map(header).collect());
    let all: HeaderMap = all.ok_or_else(|| {
        "must be headers such as name=value,name2=value2, values percent-encoded".to_owned()
    })?;
    match SENDERS_OWN.iter().find(|own| all.contains_key(*own)) {
        Some(own) => Err(format!("must be without {own}, which tokend sets itself")),
        None => Ok(SecretHeaders(all)),
    }
}

fn attributes(text: &str) -> Result<Vec<(String, String)>, String> {
    let attribute = |(name, value): (&str, &str)| Some((decoded(name)?, decoded(value)?));
    let all = pairs(text).and_then(|all| all.into_iter().map(attribute).collect());
    all.ok_or_else(|| {
        "must be attributes such as deployment.environment.name=production,team=licences, values percent-encoded"
            .to_owned()
    })
}

fn name(text: &str) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("must be one line".to_owned());
    }
    Ok(text.to_owned())
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

fn sampler(text: &str, ratio: f64) -> Result<(TraceSampler, bool), String> {
    let (root, parent_based) = match text.strip_prefix("parentbased_") {
        Some(root) => (root, true),
        None => (text, false),
    };
    let sampler = match root {
        "always_on" => TraceSampler::On,
        "always_off" => TraceSampler::Off,
        "traceidratio" => TraceSampler::Ratio(ratio),
        _ => {
            return Err(
                "must be always_on, always_off or traceidratio, or one of these behind parentbased_"
                    .to_owned(),
            );
        }
    };
    Ok((sampler, parent_based))
}
