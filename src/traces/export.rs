//! How spans leave: in batches, from a thread of their own, through a bounded queue. A collector that is away, slow or
//! refuses costs spans, which are counted, and one line in the log when that begins and one when it ends.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanLimits, SpanProcessor,
};
use prometheus::IntCounter;

use super::client::{Broken, OnRuntime};
use crate::cli::client::root_cause;
use crate::config::{TraceSampler, TraceSettings};
use crate::metrics::Metrics;
use crate::version::VERSION;

/// While spans do not fit into the queue, the log says so this often.
const FULL_TOLD_EVERY: Duration = Duration::from_mins(1);
/// Most spans that are sent at once: the specification's default.
const BATCH_SPANS_MAX: usize = 512;
/// What a span holds. A call carries up to 1,000 items, each perhaps another request's: so many links. The others are the
/// specification's defaults.
const LIMITS: SpanLimits = SpanLimits {
    max_links_per_span: 1_000,
    max_attributes_per_span: 128,
    max_events_per_span: 128,
    max_attributes_per_event: 128,
    max_attributes_per_link: 128,
};

pub(super) fn start(
    settings: &TraceSettings,
    metrics: &Metrics,
) -> Result<SdkTracerProvider, String> {
    let refused = |error: &dyn fmt::Display| format!("traces: {error}");
    let broken = Arc::default();
    let client = OnRuntime::new(settings, Arc::clone(&broken));
    let client = client.map_err(|error| refused(&root_cause(&error)))?;
    // What is not set here, it reads from the process's environment, behind the settings.
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(settings.endpoint.expose())
        .with_timeout(settings.exporting.timeout)
        .build()
        .map_err(|error| refused(&error))?;
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
        .with_max_export_batch_size(BATCH_SPANS_MAX)
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
        .with_span_limits(LIMITS)
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

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
