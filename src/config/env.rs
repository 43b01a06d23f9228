//! The variables' names and meaning.

use std::collections::BTreeSet;

use serde::Deserialize;

/// The variables as they stand in the environment. Texts all, so that every mistake is found and not
/// only the first; [`Config`](super::Config) is what they mean.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Env {
    /// `REDIS_URL`: where Redis is; empty: tokend runs one itself, in `DATA_DIR`.
    pub redis_url: Option<String>,
    /// `REDIS_URL_FILE`: a file with the value of `REDIS_URL`.
    pub redis_url_file: Option<String>,
    /// `TOKEN_LIFETIME`: seconds after which a lease of pool `default` lapses, unless kept alive.
    pub token_lifetime: Option<String>,
    /// `KEEP_ALIVE_LIMIT`: seconds after which a free token of pool `default` that nobody kept alive
    /// is deleted; 0: never.
    pub keep_alive_limit: Option<String>,
    /// `MAX_TOKENS`: most tokens that pool `default` may hold.
    pub max_tokens: Option<String>,
    /// `TOKEN_UNBLOCK_LIFETIME`: seconds after which a token of pool `default` that left its holder is
    /// assignable again; 0: at once.
    pub token_unblock_lifetime: Option<String>,
    /// `LOG_LEVEL`: a level or `tracing` filter directives.
    pub log_level: Option<String>,
    /// `LOG_FORMAT`: `auto`, `pretty` or `json`.
    pub log_format: Option<String>,
    /// `HOST`: the address to listen on.
    pub host: Option<String>,
    /// `PORT`: the TCP port to listen on.
    pub port: Option<String>,
    /// `DATA_DIR`: where the embedded Redis keeps its data.
    pub data_dir: Option<String>,
    /// `PARTITIONS`: over how many hash tags the keys are spread; fixed at first start.
    pub partitions: Option<String>,
    /// `KEY_PREFIX`: the first part of every key in Redis.
    pub key_prefix: Option<String>,
    /// `DURABILITY`: `memory` or `replicated`: what an acknowledged write has survived.
    pub durability: Option<String>,
    /// `WAIT_REPLICAS`: how many Redis replicas must have a write, where it is replicated.
    pub wait_replicas: Option<String>,
    /// `WAIT_TIMEOUT_MS`: milliseconds that a write waits for them.
    pub wait_timeout_ms: Option<String>,
    /// `WORKERS`: threads for HTTP, as many for Redis, and passwords verified at once.
    pub workers: Option<String>,
    /// `SHUTDOWN_DELAY`: seconds between answering "not ready" and closing the listener.
    pub shutdown_delay: Option<String>,
    /// `TOKEN_TTL_MINUTES`: minutes that a temporary token lives.
    pub token_ttl_minutes: Option<String>,
    /// `TEMPORARY_MAX`: most temporary tokens alive at once.
    pub temporary_max: Option<String>,
    /// `ONE_TIME_LIFETIME`: how long a one-time token lives, as `90min` or `2h`.
    pub one_time_lifetime: Option<String>,
    /// `ONE_TIME_MAX`: most one-time tokens alive at once.
    pub one_time_max: Option<String>,
    /// `DUMP`: whether `HEAD /dump` is there.
    pub dump: Option<String>,
    /// `UNIFIED_MAX`: most unified tokens alive at once.
    pub unified_max: Option<String>,
    /// `SESSION_LIFETIME`: seconds after its login that a session ends.
    pub session_lifetime: Option<String>,
    /// `SESSION_MAX`: most sessions alive at once.
    pub session_max: Option<String>,
    /// `ACCESS_TOKEN_LIFETIME`: seconds that an access token lives.
    pub access_token_lifetime: Option<String>,
    /// `ROTATION_RETRY`: seconds for which a retry of an exchange or refresh gets the same successor.
    pub rotation_retry: Option<String>,
    /// `SECRET_KEY`: signs one-time tokens; several separated by commas, the first signs, all verify.
    pub secret_key: Option<String>,
    /// `SECRET_KEY_FILE`: a file with the value of `SECRET_KEY`.
    pub secret_key_file: Option<String>,
    /// `REFRESH_TOKEN_SECRET`: signs refresh tokens; several as above.
    pub refresh_token_secret: Option<String>,
    /// `REFRESH_TOKEN_SECRET_FILE`: a file with the value of `REFRESH_TOKEN_SECRET`.
    pub refresh_token_secret_file: Option<String>,
    /// `JWT_SECRET`: signs access tokens by HS256; several as above.
    pub jwt_secret: Option<String>,
    /// `JWT_SECRET_FILE`: a file with the value of `JWT_SECRET`.
    pub jwt_secret_file: Option<String>,
    /// `JWT_PRIVATE_KEY_FILE`: PEM files that sign access tokens by EdDSA, ES256, RS256 or PS256; several as above.
    pub jwt_private_key_file: Option<String>,
    /// `JWT_RSA_ALGORITHM`: `RS256` or `PS256`: by which RSA keys sign.
    pub jwt_rsa_algorithm: Option<String>,
    /// `PUBLIC_URL`: where the service is seen from outside: the issuer of its tokens.
    pub public_url: Option<String>,
    /// `JWT_AUDIENCE`: whom access tokens are for.
    pub jwt_audience: Option<String>,
    /// `INTROSPECT_KINDS`: kinds of tokens that introspection calls active without a hint.
    pub introspect_kinds: Option<String>,
    /// `TRUSTED_PROXIES`: networks whose X-Forwarded-For is believed.
    pub trusted_proxies: Option<String>,
    /// `APP_TITLE`: heads the documentation pages.
    pub app_title: Option<String>,
    /// `APP_DESCRIPTION`: what stands below it.
    pub app_description: Option<String>,
    /// `CORS_ORIGINS`: origins whose pages may call this service; `*`: any.
    pub cors_origins: Option<String>,
    /// `OTEL_SDK_DISABLED`: whether tracing is off whatever else says.
    pub otel_sdk_disabled: Option<String>,
    /// `OTEL_TRACES_EXPORTER`: `otlp`, or `none` for no traces.
    pub otel_traces_exporter: Option<String>,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: the collector; traces go to `v1/traces` below it.
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`: the whole URL that traces go to, instead.
    pub otel_exporter_otlp_traces_endpoint: Option<String>,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL`: only `http/protobuf`.
    pub otel_exporter_otlp_protocol: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`: the same, for traces alone.
    pub otel_exporter_otlp_traces_protocol: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS`: headers for the collector; may hold a key.
    pub otel_exporter_otlp_headers: Option<String>,
    /// `OTEL_EXPORTER_OTLP_HEADERS_FILE`: a file with the value of `OTEL_EXPORTER_OTLP_HEADERS`.
    pub otel_exporter_otlp_headers_file: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_HEADERS`: those for traces, instead.
    pub otel_exporter_otlp_traces_headers: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_HEADERS_FILE`: a file with the value of `OTEL_EXPORTER_OTLP_TRACES_HEADERS`.
    pub otel_exporter_otlp_traces_headers_file: Option<String>,
    /// `OTEL_EXPORTER_OTLP_COMPRESSION`: `gzip` or `none`.
    pub otel_exporter_otlp_compression: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_COMPRESSION`: the same, for traces alone.
    pub otel_exporter_otlp_traces_compression: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TIMEOUT`: milliseconds that a batch is tried for.
    pub otel_exporter_otlp_timeout: Option<String>,
    /// `OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`: the same, for traces alone.
    pub otel_exporter_otlp_traces_timeout: Option<String>,
    /// `OTEL_SERVICE_NAME`: as whom traces show this service.
    pub otel_service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`: what else they say of it.
    pub otel_resource_attributes: Option<String>,
    /// `OTEL_TRACES_SAMPLER`: which traces are kept.
    pub otel_traces_sampler: Option<String>,
    /// `OTEL_TRACES_SAMPLER_ARG`: which part of them, for `traceidratio`.
    pub otel_traces_sampler_arg: Option<String>,
    /// `OTEL_BSP_SCHEDULE_DELAY`: milliseconds between two exports.
    pub otel_bsp_schedule_delay: Option<String>,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`: most spans that wait for one.
    pub otel_bsp_max_queue_size: Option<String>,
}

/// The names of all variables that tokend reads: the fields of `Env`, in capitals.
#[must_use]
pub fn variable_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    // The deserializer fails once it has seen the names, which is all that is asked of it.
    let _ = Env::deserialize(FieldNames(&mut names));
    names
}

/// A deserializer that holds nothing and notes which fields it is asked for.
struct FieldNames<'a>(&'a mut BTreeSet<String>);

impl<'de> serde::Deserializer<'de> for FieldNames<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend(fields.iter().map(|f| f.to_uppercase()));
        Err(serde::de::Error::custom("only the names are wanted"))
    }

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
