//! What Prometheus sees. Each metric's help text is here and nowhere else; labels come only from
//! route patterns, fixed sets and pool names, never from tokens or holders.

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
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

/// Every metric of one process. Tests make one each, so nothing is global.
pub struct Metrics {
    registry: Registry,
    pub http_request_duration: HistogramVec,
    pub transitions: IntCounterVec,
    pub pool_tokens: IntGaugeVec,
    pub waiters: IntGaugeVec,
    pub release_lag: HistogramVec,
    pub sweeps: IntCounterVec,
    pub batch_size: HistogramVec,
    pub store_call_duration: HistogramVec,
    pub store_errors: IntCounterVec,
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
        Self {
            http_request_duration: histogram(
                r,
                "tokend_http_request_duration_seconds",
                "Time from the head of a request to its answer.",
                HTTP_BUCKETS,
                &["route", "method", "status"],
            ),
            transitions: counter(
                r,
                "tokend_transitions_total",
                "Answers of the store by pool, verb and outcome; verb settle counts deadlines that passed: lapsed, cooled, idle, missed (an offer that no waiter took).",
                &["pool", "verb", "outcome"],
            ),
            pool_tokens: gauge(
                r,
                "tokend_pool_tokens",
                "Tokens of a pool by state, read from Redis at each scrape (every replica reports the same).",
                &["pool", "state"],
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
            registry,
        }
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
        let kind = match error {
            StoreError::Unavailable(_) => "unavailable",
            StoreError::OutcomeUnknown(_) => "unknown",
            StoreError::Protocol(_) => "protocol",
        };
        self.store_errors.with_label_values(&[kind]).inc();
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
