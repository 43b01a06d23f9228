//! How spans leave: in batches, from a thread of their own, through a bounded queue. A collector that is away, slow or
//! refuses costs spans, which are counted, and one line in the log when that begins and one when it ends.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Compression, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use prometheus::IntCounter;
use tokio::runtime::Handle;

use crate::cli::client::{install_tls, is_loopback, root_cause};
use crate::config::{Exporting, TraceSampler, TraceSettings};
use crate::metrics::Metrics;
use crate::version::VERSION;

/// While spans do not fit into the queue, the log says so this often.
const FULL_TOLD_EVERY: Duration = Duration::from_mins(1);
/// Most links of a span: a call carries up to 1,000 items, each perhaps another request's.
const LINKS_MAX: u32 = 1_000;

pub(super) fn start(
    settings: &TraceSettings,
    metrics: &Metrics,
) -> Result<SdkTracerProvider, String> {
    let refused = |error: &dyn fmt::Display| format!("traces: {error}");
    let broken = Arc::default();
    let client = OnRuntime::new(settings, Arc::clone(&broken));
    let client = client.map_err(|error| refused(&root_cause(&error)))?;
    let Exporting {
        headers,
        gzip,
        timeout,
    } = &settings.exporting;
    let mut builder = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(&settings.endpoint)
        .with_timeout(*timeout)
        .with_headers(headers.expose().clone());
    if *gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    let exporter = builder.build().map_err(|error| refused(&error))?;
    let queued = Arc::new(AtomicUsize::new(0));
    let dropped = |why| metrics.spans_dropped.with_label_values(&[why]);
    let exporter = Told {
        exporter,
        host: settings.host(),
        broken,
        queued: queued.clone(),
        dropped: dropped("export"),
        failing: AtomicBool::new(false),
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue_max)
        .with_scheduled_delay(settings.delay)
        .build();
    let processor = Bounded {
        processor: BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build(),
        queued,
        queued_max: settings.queue_max,
        dropped: dropped("queue"),
        told: Mutex::default(),
    };
    Ok(SdkTracerProvider::builder()
        .with_sampler(sampler(settings))
        .with_max_links_per_span(LINKS_MAX)
        .with_resource(resource(settings))
        .with_span_processor(processor)
        .build())
}

fn sampler(settings: &TraceSettings) -> Sampler {
    let root = match settings.sampler {
        TraceSampler::On => Sampler::AlwaysOn,
        TraceSampler::Off => Sampler::AlwaysOff,
        TraceSampler::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
    };
    if settings.parent_based {
        Sampler::ParentBased(Box::new(root))
    } else {
        root
    }
}

/// Who sends: what we know of ourselves, unless the settings know better.
fn resource(settings: &TraceSettings) -> Resource {
    let given = settings.attributes.iter();
    let given = given.map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.version", VERSION),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
            KeyValue::new("telemetry.sdk.language", "rust"),
            KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        ])
        .with_attributes(given)
        .with_service_name(settings.service_name.clone())
        .build()
}

/// Why the last try to send had no answer; none where it had one.
type Broken = Arc<Mutex<Option<String>>>;

/// The HTTP client that tokend has anyway, on the runtime that it needs: the thread that exports is outside of it.
#[derive(Debug)]
struct OnRuntime {
    http: reqwest::Client,
    runtime: Handle,
    broken: Broken,
}

impl OnRuntime {
    fn new(settings: &TraceSettings, broken: Broken) -> Result<Self, reqwest::Error> {
        install_tls();
        let url = reqwest::Url::parse(&settings.endpoint).ok();
        let loopback = url.is_some_and(|url| url.host_str().is_some_and(is_loopback));
        let mut builder = reqwest::Client::builder()
            .timeout(settings.exporting.timeout)
            .redirect(reqwest::redirect::Policy::none());
        if loopback {
            // No proxy can reach our own loopback.
            builder = builder.no_proxy();
        }
        Ok(Self {
            http: builder.build()?,
            runtime: Handle::current(),
            broken,
        })
    }
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let sent = self
            .runtime
            .spawn(async move { http.send_bytes(request).await });
        let sent = sent.await?;
        // The exporter says no more than that the network failed.
        let why = sent.as_ref().err().map(|error| {
            let ours = error.downcast_ref::<reqwest::Error>();
            ours.map_or_else(|| error.to_string(), root_cause)
        });
        *locked(&self.broken) = why;
        sent
    }
}

/// The exporter, and a word about how it fares.
#[derive(Debug)]
struct Told {
    exporter: opentelemetry_otlp::SpanExporter,
    /// Where the collector is.
    host: String,
    broken: Broken,
    queued: Arc<AtomicUsize>,
    dropped: IntCounter,
    failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.queued.fetch_sub(spans, Ordering::AcqRel);
        let failed = result.is_err();
        if failed {
            self.dropped.inc_by(spans as u64);
        }
        if self.failing.swap(failed, Ordering::AcqRel) != failed {
            match &result {
                Err(error) => {
                    let why = locked(&self.broken).take();
                    let why = why.unwrap_or_else(|| error.to_string());
                    tracing::warn!(
                        "traces: spans are lost, counted in tokend_spans_dropped_total: {}: {why}",
                        self.host
                    );
                }
                Ok(()) => tracing::info!("traces: {} takes spans again", self.host),
            }
        }
        result
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queue's bound, kept here and not by the processor behind it, which does not say what it drops.
#[derive(Debug)]
struct Bounded {
    processor: BatchSpanProcessor,
    /// Ended and not exported yet: queued, or in the batch that is under way.
    queued: Arc<AtomicUsize>,
    queued_max: usize,
    dropped: IntCounter,
    /// When the log last said so.
    told: Mutex<Option<Instant>>,
}

impl Bounded {
    fn drop_one(&self) {
        self.dropped.inc();
        let mut told = locked(&self.told);
        if told.is_none_or(|at| at.elapsed() >= FULL_TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(
                "traces: the queue of {} spans is full, what does not fit is lost and counted in \
                 tokend_spans_dropped_total: keep fewer (OTEL_TRACES_SAMPLER), or set OTEL_BSP_MAX_QUEUE_SIZE",
                self.queued_max
            );
        }
    }
}

impl SpanProcessor for Bounded {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queued.fetch_add(1, Ordering::AcqRel) < self.queued_max {
            self.processor.on_end(span);
        } else {
            self.queued.fetch_sub(1, Ordering::AcqRel);
            self.drop_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.processor.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.processor.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.processor.set_resource(resource);
    }
}
