//! What the environment says of the bearer flows: lifetimes, caps, secrets, and how they face the web.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::env::Env;
use super::{Reader, path, whole};
use crate::auth::jwt::RsaAlgorithm;
use crate::token::rotating::{ROTATION_RETRY_DEFAULT, SECRET_BYTES_MIN};
use crate::token::text::visible;
use crate::token::{FlowLimits, FlowsLimits, Invalid, Kind, Policy};

const MINUTE_MS: u64 = 60_000;
/// `ONE_TIME_LIFETIME`: half an hour to four days.
const ONE_TIME_MS: std::ops::RangeInclusive<u64> = 30 * MINUTE_MS..=96 * 60 * MINUTE_MS;
/// Longest life of an access token. Every check asks whether its session was revoked, but a service that checks
/// the signature alone has nothing else than this.
const ACCESS_TOKEN_S_MAX: u64 = 24 * 3_600;
/// `ROTATION_RETRY`: not below the grace in which nothing is revoked, and not much above the outages that retries
/// outlive: for this long a stolen token that was exchanged is as good as its successor.
const ROTATION_RETRY_S: std::ops::RangeInclusive<u64> = 10..=600;
const MINUTES_MAX: u64 = 30 * 24 * 60;
const DAYS_30_S: u64 = 30 * 24 * 3_600;
const NO_ORIGINS: CorsOrigins = CorsOrigins::Only(Vec::new());
/// Most characters of a title or a description: they are part of every page.
const TITLE_CHARS_MAX: usize = 2_000;

/// One variable's secrets: the first signs, all verify. Never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub Vec<Vec<u8>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// Separated by commas.
    fn parse(text: &str) -> Result<Self, String> {
        let long = |it: &str| it.len() >= SECRET_BYTES_MIN;
        let secrets = each(text, |it| long(it).then(|| it.as_bytes().to_vec()));
        secrets.map(Self).map_err(|item| {
            format!(
                "must be at least {SECRET_BYTES_MIN} bytes, as `openssl rand -base64 48` prints (several separated by commas, each as long): item {item} has fewer"
            )
        })
    }
}

/// The paths of key files. Debug counts them: a key may have been put in the place of a path.
#[derive(Clone, Default)]
pub struct KeyFiles(pub Vec<PathBuf>);

impl fmt::Debug for KeyFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files", self.0.len())
    }
}

impl KeyFiles {
    /// Separated by commas.
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("-----BEGIN") {
            return Err(
                "must be the path of a PEM file, and holds a key: write the key to a file"
                    .to_owned(),
            );
        }
        let paths = each(text, |part| path(part).ok().filter(|_| !part.is_empty()));
        paths.map(Self).map_err(|item| {
            format!("must be paths of PEM files, separated by commas: item {item} is not a path")
        })
    }
}

/// The items of a list separated by commas; the error is the number of the first bad one, from 1.
fn each<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, usize> {
    let items = text.split(',').map(str::trim).zip(1..);
    items
        .map(|(item, number)| parse(item).ok_or(number))
        .collect()
}

/// The settings of the flows. Every value is valid.
#[derive(Debug, Clone)]
pub struct FlowSettings {
    /// `TOKEN_TTL_MINUTES`, `ONE_TIME_LIFETIME`, `SESSION_LIFETIME`, and `TEMPORARY_MAX`, `ONE_TIME_MAX`,
    /// `UNIFIED_MAX`, `SESSION_MAX`.
    pub limits: FlowsLimits,
    /// `DUMP`.
    pub dump: bool,
    /// `SECRET_KEY`; empty: not given.
    pub one_time_secrets: Secrets,
    /// `REFRESH_TOKEN_SECRET`; empty: not given.
    pub refresh_secrets: Secrets,
    /// `JWT_SECRET`; empty: not given.
    pub jwt_secrets: Secrets,
    /// `JWT_PRIVATE_KEY_FILE`; empty: not given.
    pub jwt_key_files: KeyFiles,
    /// `JWT_RSA_ALGORITHM`.
    pub jwt_rsa_algorithm: RsaAlgorithm,
    /// `PUBLIC_URL`, without a slash at its end; `None`: not given.
    pub public_url: Option<String>,
    /// `JWT_AUDIENCE`.
    pub audience: String,
    /// `ACCESS_TOKEN_LIFETIME`.
    pub access_token_lifetime: Duration,
    /// `ROTATION_RETRY`.
    pub rotation_retry: Duration,
    /// `INTROSPECT_KINDS`.
    pub introspect_kinds: BTreeSet<Kind>,
    /// `TRUSTED_PROXIES`.
    pub trusted_proxies: Vec<IpNet>,
    /// `APP_TITLE`.
    pub title: String,
    /// `APP_DESCRIPTION`.
    pub description: String,
    /// `CORS_ORIGINS`.
    pub cors_origins: CorsOrigins,
    /// How many passwords are verified at once: `WORKERS`, but no more than there are cores.
    pub passwords_at_once: usize,
}

/// Which pages of other origins may call this service from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Each of these; none where empty.
    Only(Vec<String>),
    /// Any.
    Any,
}

impl FlowSettings {
    pub(super) fn read(env: &Env, read: &mut Reader, passwords_at_once: usize) -> Self {
        Self {
            limits: limits(env, read),
            dump: read.take("DUMP", env.dump.clone(), false, switch),
            one_time_secrets: secrets(read, "SECRET_KEY", &env.secret_key, &env.secret_key_file),
            refresh_secrets: secrets(
                read,
                "REFRESH_TOKEN_SECRET",
                &env.refresh_token_secret,
                &env.refresh_token_secret_file,
            ),
            jwt_secrets: secrets(read, "JWT_SECRET", &env.jwt_secret, &env.jwt_secret_file),
            jwt_key_files: read.take(
                "JWT_PRIVATE_KEY_FILE",
                env.jwt_private_key_file.clone(),
                KeyFiles::default(),
                KeyFiles::parse,
            ),
            jwt_rsa_algorithm: read.take(
                "JWT_RSA_ALGORITHM",
                env.jwt_rsa_algorithm.clone(),
                RsaAlgorithm::Rs256,
                rsa_algorithm,
            ),
            public_url: read.take("PUBLIC_URL", env.public_url.clone(), None, |text| {
                public_url(text).map(Some)
            }),
            audience: read.take(
                "JWT_AUDIENCE",
                env.jwt_audience.clone(),
                "tokend".to_owned(),
                audience,
            ),
            access_token_lifetime: read.take(
                "ACCESS_TOKEN_LIFETIME",
                env.access_token_lifetime.clone(),
                Duration::from_secs(15 * 60),
                |text| whole(text, 1, ACCESS_TOKEN_S_MAX).map(Duration::from_secs),
            ),
            rotation_retry: read.take(
                "ROTATION_RETRY",
                env.rotation_retry.clone(),
                ROTATION_RETRY_DEFAULT,
                rotation_retry,
            ),
            introspect_kinds: read.take(
                "INTROSPECT_KINDS",
                env.introspect_kinds.clone(),
                BTreeSet::from([Kind::Access, Kind::Unified]),
                introspect_kinds,
            ),
            trusted_proxies: read.take(
                "TRUSTED_PROXIES",
                env.trusted_proxies.clone(),
                Vec::new(),
                networks,
            ),
            title: read.take("APP_TITLE", env.app_title.clone(), "tokend".to_owned(), line),
            description: read.take(
                "APP_DESCRIPTION",
                env.app_description.clone(),
                "Hands out tokens over HTTP, each to at most one holder at a time, and takes them back.".to_owned(),
                line,
            ),
            passwords_at_once,
            cors_origins: read.take("CORS_ORIGINS", env.cors_origins.clone(), NO_ORIGINS, cors_origins),
        }
    }
}

fn secrets(
    read: &mut Reader,
    variable: &str,
    value: &Option<String>,
    file: &Option<String>,
) -> Secrets {
    let given = read.or_file(variable, value, file);
    read.secret(given, Secrets::parse).unwrap_or_default()
}

fn rsa_algorithm(text: &str) -> Result<RsaAlgorithm, String> {
    match text.to_ascii_uppercase().as_str() {
        "RS256" => Ok(RsaAlgorithm::Rs256),
        "PS256" => Ok(RsaAlgorithm::Ps256),
        _ => Err("must be RS256 or PS256".to_owned()),
    }
}

fn limits(env: &Env, read: &mut Reader) -> FlowsLimits {
    let default = FlowsLimits::DEFAULT;
    let mut max = |variable, given: &Option<String>, default: FlowLimits| {
        read.take(variable, given.clone(), default.max, |text| {
            whole(text, 1, Policy::MAX_TOKENS_MAX)
        })
    };
    let mut limits = default;
    limits.temporary.max = max("TEMPORARY_MAX", &env.temporary_max, default.temporary);
    limits.one_time.max = max("ONE_TIME_MAX", &env.one_time_max, default.one_time);
    limits.unified.max = max("UNIFIED_MAX", &env.unified_max, default.unified);
    limits.session.max = max("SESSION_MAX", &env.session_max, default.session);
    limits.temporary.lifetime_ms = read.take(
        "TOKEN_TTL_MINUTES",
        env.token_ttl_minutes.clone(),
        default.temporary.lifetime_ms,
        |text| whole(text, 1, MINUTES_MAX).map(|minutes| minutes * MINUTE_MS),
    );
    limits.one_time.lifetime_ms = read.take(
        "ONE_TIME_LIFETIME",
        env.one_time_lifetime.clone(),
        default.one_time.lifetime_ms,
        |text| {
            one_time_lifetime(text)
                .map(|lifetime| u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX))
        },
    );
    limits.session.lifetime_ms = read.take(
        "SESSION_LIFETIME",
        env.session_lifetime.clone(),
        default.session.lifetime_ms,
        |text| whole(text, 60, DAYS_30_S).map(|seconds| seconds * 1_000),
    );
    limits
}

/// `90min`, `2h`, or plain seconds: 30 minutes to 96 hours.
///
/// # Errors
/// When it is not a duration or out of range.
pub fn one_time_lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    lifetime
        .filter(|lifetime| {
            u64::try_from(lifetime.as_millis()).is_ok_and(|ms| ONE_TIME_MS.contains(&ms))
        })
        .ok_or_else(|| "must be 30min to 96h, such as 90min or 2h".to_owned())
}

pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn line(text: &str) -> Result<String, String> {
    if text.chars().count() > TITLE_CHARS_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "must be one line of at most {TITLE_CHARS_MAX} characters"
        ));
    }
    Ok(text.to_owned())
}

fn rotation_retry(text: &str) -> Result<Duration, String> {
    let (min, max) = ROTATION_RETRY_S.into_inner();
    whole(text, min, max).map(Duration::from_secs)
}

fn introspect_kinds(text: &str) -> Result<BTreeSet<Kind>, String> {
    Kind::parse_list(text).map_err(|Invalid(why)| why)
}

/// Other services compare it byte by byte, so it must look like what it is.
fn audience(text: &str) -> Result<String, String> {
    let text = line(text)?;
    visible(&text, "an audience").map_err(|Invalid(why)| why)?;
    Ok(text)
}

/// The issuer of tokens (RFC 8414, section 2): no query and no fragment.
fn public_url(text: &str) -> Result<String, String> {
    let bare = text.trim_end_matches('/');
    let known = bare.starts_with("http://") || bare.starts_with("https://");
    let parsed = reqwest::Url::parse(bare).ok().filter(|url| {
        known
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
    });
    match parsed {
        Some(_) => Ok(bare.to_owned()),
        None => Err(
            "must be a URL such as https://tokens.example.com, without user, password, query and fragment"
                .to_owned(),
        ),
    }
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let network = |part: &str| {
        let address = || part.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        part.parse::<IpNet>().ok().or_else(address)
    };
    each(text, network).map_err(|item| {
        format!(
            "must be addresses or networks such as 10.0.0.0/8,192.0.2.1: item {item} is neither"
        )
    })
}

fn cors_origins(text: &str) -> Result<CorsOrigins, String> {
    if text == "*" {
        return Ok(CorsOrigins::Any);
    }
    let origin = |part: &str| {
        let part = part.trim_end_matches('/');
        let url = reqwest::Url::parse(part).ok()?;
        // Exactly as a browser writes it: scheme, host, port and nothing else.
        (url.origin().ascii_serialization() == part).then(|| part.to_owned())
    };
    each(text, origin).map(CorsOrigins::Only).map_err(|item| {
        format!(
            "must be * or origins such as https://app.example.com,http://localhost:8080: item {item} is not an origin (in lower case, without path and default port)"
        )
    })
}
