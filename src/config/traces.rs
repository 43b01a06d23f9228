//! Where traces go, and which: the variables of the OpenTelemetry specification
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>), as far as they make sense here.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderName, HeaderValue};

use super::env::Env;
use super::flows::switch;
use super::{Reader, whole};

/// What the specification puts behind the endpoint that is for all signals.
const PATH: &str = "v1/traces";
/// Most milliseconds between two exports: longer ones only keep more in memory.
const DELAY_MS_MAX: u64 = 60_000;
/// Most spans in the queue: about a kilobyte each.
const QUEUE_MAX: usize = 100_000;

/// What tracing runs with. Every value is valid.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` and `v1/traces`.
    pub endpoint: String,
    /// `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: SecretHeaders,
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
    /// Where the collector is, without what may be secret in its URL.
    #[must_use]
    pub fn host(&self) -> String {
        reqwest::Url::parse(&self.endpoint)
            .map(|url| url.origin().ascii_serialization())
            .unwrap_or_default()
    }
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

/// Headers for the collector, as they were given. They tend to hold a key: never shown.
#[derive(Clone, Default)]
pub struct SecretHeaders(HashMap<String, String>);

impl SecretHeaders {
    /// By name, percent-encoded.
    #[must_use]
    pub fn expose(&self) -> &HashMap<String, String> {
        &self.0
    }
}

impl fmt::Debug for SecretHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} headers", self.0.len())
    }
}

/// `None`: off. What only matters where it is on is not looked at then: platforms put these variables into every
/// service, and a protocol that we do not speak must not keep one from starting that exports nothing.
pub(super) fn read(env: &Env, read: &mut Reader) -> Option<TraceSettings> {
    let endpoint = target(env, read)?;
    protocols(env, read);
    let headers = read.secret(
        "OTEL_EXPORTER_OTLP_HEADERS",
        env.otel_exporter_otlp_headers.clone(),
        headers,
    );
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
        headers: headers.unwrap_or_default(),
        service_name,
        attributes,
        sampler,
        parent_based,
        delay: Duration::from_millis(delay),
        queue_max,
    })
}

/// Where to, unless somebody says no.
fn target(env: &Env, read: &mut Reader) -> Option<String> {
    let disabled = env.otel_sdk_disabled.clone();
    let disabled = read.take("OTEL_SDK_DISABLED", disabled, false, switch);
    let exported = env.otel_traces_exporter.clone();
    let exported = read.take("OTEL_TRACES_EXPORTER", exported, true, exporter);
    let everything = read.secret(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        env.otel_exporter_otlp_endpoint.clone(),
        |text| endpoint(text).map(|base| format!("{}/{PATH}", base.trim_end_matches('/'))),
    );
    let traces = read.secret(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        env.otel_exporter_otlp_traces_endpoint.clone(),
        endpoint,
    );
    traces.or(everything).filter(|_| exported && !disabled)
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

/// Only one can be spoken. The variable for all signals may name another where the one for traces names that.
fn protocols(env: &Env, read: &mut Reader) {
    let spoken = "must be http/protobuf, which a collector takes on port 4318; grpc and http/json are not supported";
    let judge = |text: &str| {
        (text == "http/protobuf")
            .then_some(())
            .ok_or_else(|| spoken.to_owned())
    };
    let of_traces = env.otel_exporter_otlp_traces_protocol.clone();
    let of_traces = of_traces.filter(|text| !text.trim().is_empty());
    if of_traces.is_some() {
        return read.take("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", of_traces, (), judge);
    }
    let everything = env.otel_exporter_otlp_protocol.clone();
    read.take("OTEL_EXPORTER_OTLP_PROTOCOL", everything, (), judge);
}

fn exporter(text: &str) -> Result<bool, String> {
    match text {
        "otlp" => Ok(true),
        "none" => Ok(false),
        _ => Err("must be otlp or none".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let url = reqwest::Url::parse(text).ok();
    let good = |url: &reqwest::Url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none()
    };
    match url.filter(good) {
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

fn headers(text: &str) -> Result<SecretHeaders, String> {
    let header = |(name, value): (&str, &str)| {
        HeaderName::from_bytes(name.as_bytes()).ok()?;
        HeaderValue::from_str(&decoded(value)?).ok()?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    let all = pairs(text).and_then(|all| all.into_iter().map(header).collect());
    all.map(SecretHeaders).ok_or_else(|| {
        "must be headers such as name=value,name2=value2, values percent-encoded".to_owned()
    })
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
