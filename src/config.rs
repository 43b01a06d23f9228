//! The settings, from the environment and from `.env`.
//!
//! Everything is read and checked before anything starts, and all mistakes are reported at once: the
//! variable, the rule, and the value if it can't hold a secret. The real environment wins over
//! `.env`; a variable that is set but empty counts as not given.
//!
//! To add a variable: a field in `Env`, a line in [`Config::from_vars`], a paragraph in
//! `.env.example` (a test compares the names).

pub(crate) mod dotenv;
mod durability;
mod env;
mod flows;
mod mistake;
mod names;
mod redis_url;
#[cfg(test)]
mod tests;
mod traces;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::env::Env;
pub use self::env::variable_names;
pub use self::flows::{CorsOrigins, FlowSettings, Secrets, one_time_lifetime};
use self::mistake::Reader;
pub use self::mistake::{ConfigError, Mistake};
pub use self::redis_url::RedisUrl;
pub use self::traces::{Endpoint, Exporting, SecretHeaders, TraceSampler, TraceSettings};
use crate::store::{Durability, StoreConfig};
use crate::telemetry::{Format, LogFilter};
use crate::token::{PARTITIONS_MAX, Policy};

/// Most threads; more than any machine has cores is a slip of the finger.
const WORKERS_MAX: usize = 1024;
/// Longest wait between "not ready" and closing the listener, in seconds: it has to fit, with the
/// draining that follows, into the 10 s that a shutdown may take.
const SHUTDOWN_DELAY_S_MAX: f64 = 5.0;
/// Most characters of `KEY_PREFIX`: it is part of every key, so it is paid for in memory.
const KEY_PREFIX_CHARS_MAX: usize = 64;
/// What tokend runs with. Every value is valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// `REDIS_URL`; `None`: the embedded Redis.
    pub redis_url: Option<RedisUrl>,
    /// `TOKEN_LIFETIME`, `KEEP_ALIVE_LIMIT`, `MAX_TOKENS`, `TOKEN_UNBLOCK_LIFETIME`: the policy of
    /// pool `default`.
    pub default_policy: Policy,
    /// What the bearer flows need.
    pub flows: FlowSettings,
    /// `LOG_LEVEL`.
    pub log_filter: LogFilter,
    /// `LOG_FORMAT`.
    pub log_format: Format,
    /// `HOST`: an IP address or a name that resolves to one.
    pub host: String,
    /// `PORT`; 0: any free one.
    pub port: u16,
    /// `DATA_DIR`.
    pub data_dir: PathBuf,
    /// `PARTITIONS`.
    pub partitions: u32,
    /// `KEY_PREFIX`.
    pub key_prefix: String,
    /// `DURABILITY`, `WAIT_REPLICAS`, `WAIT_TIMEOUT_MS`.
    pub durability: Durability,
    /// Where traces go; `None`: off.
    pub traces: Option<TraceSettings>,
    /// `WORKERS`.
    pub workers: usize,
    /// `SHUTDOWN_DELAY`.
    pub shutdown_delay: Duration,
    /// Sentences for the log: names that may be misspelt, lines of `.env` that were passed over.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads the process's environment and `.env` in the working directory.
    ///
    /// # Errors
    /// With every mistake found.
    pub fn load() -> Result<Self, ConfigError> {
        Self::read(std::env::vars_os(), Path::new("."))
    }

    fn read(
        real: impl Iterator<Item = (OsString, OsString)>,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        let known = variable_names();
        let mut mistakes = Vec::new();
        let mut environment = BTreeMap::new();
        for (name, value) in real {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(environment.insert(name, value)),
                Err(_) if known.contains(&name) => {
                    mistakes.push(Mistake::new(&name, "must be UTF-8 text".to_owned()));
                }
                Err(_) => {}
            }
        }
        let is_ours = |name: &str| known.contains(name);
        let file = dotenv::read(directory, is_ours, |name| environment.get(name).cloned());
        mistakes.extend(file.mistakes);
        let (mut vars, others): (BTreeMap<_, _>, BTreeMap<_, _>) = file
            .variables
            .into_iter()
            .partition(|(name, _)| is_ours(name));
        let (ours, strange): (BTreeMap<_, _>, BTreeMap<_, _>) =
            environment.into_iter().partition(|(name, _)| is_ours(name));
        vars.extend(ours);
        let unknown = others.iter().chain(&strange);
        let unknown = unknown.map(|(name, value)| (name.as_str(), value.as_str()));
        let near = names::near_misses(unknown, &known, &vars);
        mistakes.extend(near.mistakes);
        let mut warnings = near.warnings;
        warnings.extend(file.passed_over.iter().map(|line| {
            format!(".env, line {line}: ignored: it cannot be read and sets no variable of tokend")
        }));
        match Self::from_vars(vars) {
            Ok(config) if mistakes.is_empty() => Ok(Self { warnings, ..config }),
            Ok(_) => Err(ConfigError(mistakes)),
            Err(ConfigError(more)) => {
                mistakes.extend(more);
                Err(ConfigError(mistakes))
            }
        }
    }

    /// What these variables mean; names that tokend does not know are passed over.
    ///
    /// # Errors
    /// With every mistake found.
    pub fn from_vars(vars: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let known = variable_names();
        let vars = vars.into_iter().filter(|(name, _)| known.contains(name));
        // Each field takes any text and the names are distinct, so this can't fail.
        let env: Env = envy::from_iter(vars).unwrap_or_default();
        let mut read = Reader::default();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = read.take("WORKERS", env.workers.clone(), cores, |text| {
            whole(text, 1, WORKERS_MAX)
        });
        let config = Self {
            redis_url: {
                let given = read.or_file("REDIS_URL", &env.redis_url, &env.redis_url_file);
                read.secret(given, RedisUrl::parse)
            },
            default_policy: default_policy(&env, &mut read),
            flows: FlowSettings::read(&env, &mut read, workers.min(cores)),
            durability: durability::read(&env, &mut read),
            traces: traces::read(&env, &mut read),
            log_filter: read.take(
                "LOG_LEVEL",
                env.log_level,
                LogFilter::default(),
                LogFilter::parse,
            ),
            log_format: read.take("LOG_FORMAT", env.log_format, Format::Auto, Format::parse),
            host: read.take("HOST", env.host, "127.0.0.1".to_owned(), host),
            port: read.take("PORT", env.port, 3000, |text| whole(text, 0, u16::MAX)),
            data_dir: read.take("DATA_DIR", env.data_dir, "./data".into(), path),
            partitions: read.take("PARTITIONS", env.partitions, 16, |text| {
                whole(text, 1, PARTITIONS_MAX)
            }),
            key_prefix: read.take(
                "KEY_PREFIX",
                env.key_prefix,
                "tokend".to_owned(),
                key_prefix,
            ),
            workers,
            shutdown_delay: read.take(
                "SHUTDOWN_DELAY",
                env.shutdown_delay,
                Duration::from_secs(1),
                shutdown_delay,
            ),
            warnings: Vec::new(),
        };
        if read.mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(read.mistakes))
        }
    }

    /// What the store needs, with the URL of the Redis that is really used.
    #[must_use]
    pub fn store(&self, url: String) -> StoreConfig {
        StoreConfig {
            url,
            key_prefix: self.key_prefix.clone(),
            partitions: self.partitions,
            default_policy: self.default_policy.clone(),
            flows: self.flows.limits,
            durability: self.durability,
        }
    }
}

/// The policy of pool `default`: each variable is put into a policy that is valid so far, and the
/// policy's own rules judge it.
fn default_policy(env: &Env, read: &mut Reader) -> Policy {
    let judged = |policy: Policy| match policy.mistakes().first() {
        Some((_, why)) => Err(why.to_string()),
        None => Ok(policy),
    };
    let policy = Policy::FOR_DEFAULT_POOL;
    let policy = read.take(
        "TOKEN_LIFETIME",
        env.token_lifetime.clone(),
        policy.clone(),
        |text| {
            let lifetime_ms = seconds_to_ms(text)?;
            judged(Policy {
                lifetime_ms,
                ..policy
            })
        },
    );
    let policy = read.take(
        "KEEP_ALIVE_LIMIT",
        env.keep_alive_limit.clone(),
        policy.clone(),
        |text| {
            let idle_limit_ms = seconds_to_ms(text)?;
            judged(Policy {
                idle_limit_ms,
                ..policy
            })
        },
    );
    let cooldown = env.token_unblock_lifetime.clone();
    let policy = read.take("TOKEN_UNBLOCK_LIFETIME", cooldown, policy.clone(), |text| {
        let cooldown_ms = seconds_to_ms(text)?;
        judged(Policy {
            cooldown_ms,
            ..policy
        })
    });
    read.take(
        "MAX_TOKENS",
        env.max_tokens.clone(),
        policy.clone(),
        |text| {
            let max_tokens = whole(text, 1, Policy::MAX_TOKENS_MAX)?;
            judged(Policy {
                max_tokens,
                ..policy
            })
        },
    )
}

/// Seconds with or without a fraction, as whole milliseconds. Only "0" is 0: what is shorter than a
/// millisecond must not turn into "none".
fn seconds_to_ms(text: &str) -> Result<u64, String> {
    let seconds: f64 = text.parse().unwrap_or(f64::NAN);
    if !seconds.is_finite() || seconds < 0.0 {
        return Err("must be a number of seconds without a unit, such as 60 or 1.5".to_owned());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates
    let ms = (seconds * 1_000.0).round() as u64;
    Ok(if seconds > 0.0 { ms.max(1) } else { 0 })
}

fn whole<T: std::str::FromStr + PartialOrd + fmt::Display + Copy>(
    text: &str,
    min: T,
    max: T,
) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!("must be a whole number from {min} to {max}")),
    }
}

fn shutdown_delay(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=SHUTDOWN_DELAY_S_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!("must be 0 to {SHUTDOWN_DELAY_S_MAX} seconds")),
    }
}

/// Whether a name resolves is found out when the listener is bound.
fn host(text: &str) -> Result<String, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let plain = |c: char| c.is_ascii_alphanumeric() || ".:-_%".contains(c);
    if !bare.is_empty() && bare.chars().all(plain) {
        Ok(bare.to_owned())
    } else {
        Err("must be an IP address such as 0.0.0.0 or ::, or a host name".to_owned())
    }
}

/// A path is shown in logs, so a URL or a key that was put in its place must not pass for one.
fn path(text: &str) -> Result<PathBuf, String> {
    if text.contains("://") || text.chars().any(char::is_control) {
        return Err("must be the path of a file or directory, not a URL or a text".to_owned());
    }
    Ok(PathBuf::from(text))
}

/// Braces would make a hash tag of their own, and `*?[]\` mean something in key patterns.
fn key_prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if text.len() <= KEY_PREFIX_CHARS_MAX && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "must be 1 to {KEY_PREFIX_CHARS_MAX} characters of A-Z, a-z, 0-9 and ._:-"
        ))
    }
}
