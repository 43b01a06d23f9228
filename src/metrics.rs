//! What Prometheus sees. Each metric's help text is here and nowhere else; labels come only from
//! route patterns, fixed sets and pool names, never from tokens or holders.

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::token::StoreError;
use crate::version::{REVISION, VERSION};

/// Seconds from a deadline to the stored change. The objective is p99 ≤ 0.25.
const RELEASE_LAG_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];
/// Seconds of a store call: loopback answers in a tenth of a millisecond, the limit is 1 s.
const STORE_CALL_BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];
/// Seconds of a request: the answer comes within 2 s, whatever Redis does, but where a caller waits for a token.
const HTTP_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
    60.0,
];
/// Items of a batch, up to the limit of 1,000.
const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0,
];

/// Why a pool refused: the label `verb` of `tokend_refusals_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No token to grant.
    Assign,
    /// No room for new tokens.
    Generate,
}

impl Refused {
    fn as_str(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Generate => "generate",
        }
    }
}

/// Every metric of one process. Tests make one each, so nothing is global.
pub struct Metrics {
    registry: Registry,
    pub http_request_duration: HistogramVec,
    pub http_problems: IntCounterVec,
    pub transitions: IntCounterVec,
    pub refusals: IntCounterVec,
    pub pool_tokens: IntGaugeVec,
    pub pool_tokens_max: IntGaugeVec,
    pub waiters: IntGaugeVec,
    pub release_lag: HistogramVec,
    pub sweeps: IntCounterVec,
    pub batch_size: HistogramVec,
    pub store_call_duration: HistogramVec,
    pub store_errors: IntCounterVec,
    pub redis_primaries: IntGaugeVec,
    pub replicas: IntGauge,
    pub settings_differ: IntGaugeVec,
    pub foreign_tokens: IntCounterVec,
    pub ready: IntGauge,
    pub spans_dropped: IntCounterVec,
    pub login_refusals: IntCounterVec,
}

fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let metric = HistogramVec::new(opts, labels).expect("a valid metric");
    registry
        .register(Box::new(metric.clone()))
        .expect("registered once");
    metric
}

fn counter(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric");
    registry
        .register(Box::new(metric.clone()))
        .expect("registered once");
    metric
}

fn gauge(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect("a valid metric");
    registry
        .register(Box::new(metric.clone()))
        .expect("registered once");
    metric
}

fn plain_gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let metric = IntGauge::new(name, help).expect("a valid metric");
    registry
        .register(Box::new(metric.clone()))
        .expect("registered once");
    metric
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// # Panics
    /// Never: names and labels are constants.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry
            .register(Box::new(
                prometheus::process_collector::ProcessCollector::for_self(),
            ))
            .expect("registered once");
        gauge(
            &registry,
            "tokend_build_info",
            "1, labelled with the version of this build and the commit that it was made from.",
            &["version", "revision"],
        )
        .with_label_values(&[VERSION, REVISION])
        .set(1);
        let r = &registry;
        let metrics = Self {
            http_request_duration: histogram(
                r,
                "tokend_http_request_duration_seconds",
                "Time from the head of a request to its answer.",
                HTTP_BUCKETS,
                &["route", "method", "status"],
            ),
            http_problems: counter(
                r,
                "tokend_http_problems_total",
                "Requests answered with a problem, by the last part of its type.",
                &["problem"],
            ),
            transitions: counter(
                r,
                "tokend_transitions_total",
                "Answers of the store by pool, verb and outcome; verb settle counts deadlines that passed: lapsed, cooled, idle, missed (an offer that no waiter took).",
                &["pool", "verb", "outcome"],
            ),
            refusals: counter(
                r,
                "tokend_refusals_total",
                "Requests that a pool refused: assign, no token was available (after waiting, if the caller waited); generate, no room for more.",
                &["pool", "verb"],
            ),
            pool_tokens: gauge(
                r,
                "tokend_pool_tokens",
                "Tokens of a pool by state, read from Redis at each scrape (every replica reports the same).",
                &["pool", "state"],
            ),
            pool_tokens_max: gauge(
                r,
                "tokend_pool_tokens_max",
                "Most tokens that a pool may hold, over all states (every replica reports the same).",
                &["pool"],
            ),
            waiters: gauge(
                r,
                "tokend_waiters",
                "Requests that wait on this replica for a token of a pool.",
                &["pool"],
            ),
            release_lag: histogram(
                r,
                "tokend_release_lag_seconds",
                "Time from a deadline to the moment the token's stored state changed.",
                RELEASE_LAG_BUCKETS,
                &["pool"],
            ),
            sweeps: counter(
                r,
                "tokend_sweeps_total",
                "Sweeps by what woke them: a keyspace event or the timer.",
                &["trigger"],
            ),
            batch_size: histogram(
                r,
                "tokend_batch_size",
                "Items per script call.",
                BATCH_BUCKETS,
                &["verb"],
            ),
            store_call_duration: histogram(
                r,
                "tokend_store_call_duration_seconds",
                "Time of a script call, from sending to its answer.",
                STORE_CALL_BUCKETS,
                &["script"],
            ),
            store_errors: counter(
                r,
                "tokend_store_errors_total",
                "Calls of the store that failed, by kind: unavailable (not run), unknown (may have run), protocol (a bug).",
                &["kind"],
            ),
            redis_primaries: gauge(
                r,
                "tokend_redis_primaries",
                "Redis primaries that this replica knows, by state, looked at in each scrape: up, it answers and is ready for us; down. Both are 0 where none is known.",
                &["state"],
            ),
            replicas: plain_gauge(
                r,
                "tokend_replicas",
                "Replicas on this Redis that this one knows to be alive, itself included; 0 while it has not heard for 600 ms.",
            ),
            settings_differ: gauge(
                r,
                "tokend_settings_differ",
                "Living replicas whose setting differs from this one's, by its variable, of settings that must be the same on all.",
                &["variable"],
            ),
            foreign_tokens: counter(
                r,
                "tokend_foreign_tokens_total",
                "Revocations that did nothing, by route: no key of this replica has signed the token, or it names another issuer or audience.",
                &["route"],
            ),
            ready: plain_gauge(
                r,
                "tokend_ready",
                "1 if this replica can serve now, as /readyz says; else 0.",
            ),
            spans_dropped: counter(
                r,
                "tokend_spans_dropped_total",
                "Spans of traces that were lost, by why: queue (it was full), export (the collector did not take them).",
                &["reason"],
            ),
            login_refusals: counter(
                r,
                "tokend_login_refusals_total",
                "Logins refused before their password counted, by limit: pair (failures of a user from an address), user (of a user from all unknown addresses), address (from an address), queue (too many were waiting).",
                &["limit"],
            ),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Makes every series whose labels are known before anything happens, or the first of its kind would come with
    /// its series and no rate would show it.
    fn begin_at_zero(&self) {
        for trigger in ["event", "timer"] {
            self.sweeps.with_label_values(&[trigger]);
        }
        for kind in ["unavailable", "unknown", "protocol"] {
            self.store_errors.with_label_values(&[kind]);
        }
        for reason in ["queue", "export"] {
            self.spans_dropped.with_label_values(&[reason]);
        }
        for limit in ["pair", "user", "address", "queue"] {
            self.login_refusals.with_label_values(&[limit]);
        }
        self.set_primaries(0, 0);
    }

    /// Counts a login that a limit refused.
    pub fn login_refused(&self, limit: &str) {
        self.login_refusals.with_label_values(&[limit]).inc();
    }

    /// How many primaries are there, and how many are away.
    pub fn set_primaries(&self, up: usize, down: usize) {
        for (state, count) in [("up", up), ("down", down)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.redis_primaries.with_label_values(&[state]).set(count);
        }
    }

    /// Makes a pool's refusals begin at 0, before there are any.
    pub fn expect_refusals(&self, pool: &str, kinds: &[Refused]) {
        for kind in kinds {
            self.refusals.with_label_values(&[pool, kind.as_str()]);
        }
    }

    /// Counts a request that a pool had nothing, or no room, for.
    pub fn refused(&self, pool: &str, kind: Refused) {
        self.refusals
            .with_label_values(&[pool, kind.as_str()])
            .inc();
    }

    /// Counts deadlines that a call settled: pool, kind (`lapsed`, `cooled`, `idle`, `missed`) and each one's lag.
    pub fn settled(&self, settled: &[(&str, &str, &[u64])]) {
        for (pool, kind, lags_ms) in settled {
            self.transitions
                .with_label_values(&[pool, "settle", kind])
                .inc_by(lags_ms.len() as u64);
            let lag = self.release_lag.with_label_values(&[*pool]);
            for ms in *lags_ms {
                lag.observe(*ms as f64 / 1_000.0);
            }
        }
    }

    /// Drops the series of a pool that is gone, or a service that makes a pool per job would keep them all.
    pub fn forget_pool(&self, pool: &str) {
        let _ = self.release_lag.remove_label_values(&[pool]);
        let _ = self.waiters.remove_label_values(&[pool]);
        for kind in [Refused::Assign, Refused::Generate] {
            let _ = self.refusals.remove_label_values(&[pool, kind.as_str()]);
        }
        for family in self.transitions.collect() {
            for metric in family.get_metric() {
                let label = |name: &str| {
                    let labels = metric.get_label().iter();
                    let mut found = labels.filter(|label| label.name() == name);
                    found.next().map_or("", |label| label.value())
                };
                if label("pool") == pool {
                    let series = [pool, label("verb"), label("outcome")];
                    let _ = self.transitions.remove_label_values(&series);
                }
            }
        }
    }

    /// Counts a call that got no answer, whether it was sent or not.
    pub fn store_failed(&self, error: &StoreError) {
        self.store_errors.with_label_values(&[error.kind()]).inc();
    }

    /// The Prometheus text format, version 0.0.4.
    ///
    /// # Panics
    /// Never: the encoder writes to memory.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to memory");
        String::from_utf8(text).expect("Prometheus text is UTF-8")
    }
}
