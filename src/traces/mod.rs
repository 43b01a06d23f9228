//! Traces: what became of a request, as spans that go to an OpenTelemetry collector by OTLP. Off unless an endpoint is
//! configured, and then nothing here does anything.
//!
//! Reading order: [`Traces`] here starts and ends it; `request.rs` is the span of a request and how it reaches those
//! who work for it; `context.rs` is whose child it is; `call.rs` is the span of a script call; `export.rs` sends spans by
//! `client.rs`, drops what is too much and counts that.
//!
//! **Architecture Invariant:** only this folder names the OpenTelemetry crates. No attribute holds a token, a holder or a
//! secret: what goes into a span are route patterns, fixed words, pool names and numbers. Nothing waits for a collector.

mod call;
mod client;
mod context;
mod export;
mod request;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

pub use self::call::{CallSpan, Sent, Swept};
pub use self::request::{Caller, RequestSpan, Within, within};
use crate::config::TraceSettings;
use crate::metrics::Metrics;

/// The traces of one process. Cheap to clone; the default is off.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<On>>);

struct On {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Traces {
    /// Begins to export. Must be called within the runtime that is to carry the export.
    ///
    /// # Errors
    /// When the exporter refuses its settings.
    pub fn start(settings: &TraceSettings, metrics: &Metrics) -> Result<Self, String> {
        let provider = export::start(settings, metrics)?;
        // Lives as long as the process. The last one that is dropped would export what is queued, for up to 5 s, also
        // where a second signal asks for an end at once; `stop` is what flushes, and has a limit.
        std::mem::forget(provider.clone());
        let tracer = provider.tracer("tokend");
        Ok(Self(Some(Arc::new(On { tracer, provider }))))
    }

    /// Whether spans are made at all.
    #[must_use]
    pub fn on(&self) -> bool {
        self.0.is_some()
    }

    /// The span of a request that has just come in: a child of the caller's where its `traceparent` is one.
    /// `route` is the pattern that it matches, `header` gives all its headers of a name, `None` for one that is no text.
    /// `None` while off.
    #[must_use]
    pub fn request<'a, I>(
        &self,
        method: &'static str,
        route: Option<&str>,
        header: impl Fn(&'static str) -> I,
    ) -> Option<RequestSpan>
    where
        I: Iterator<Item = Option<&'a str>>,
    {
        let on = self.0.as_ref()?;
        Some(RequestSpan::start(&on.tracer, method, route, header))
    }

    /// When a sweep begins, for [`Self::swept`]. `None` while off.
    #[must_use]
    pub fn clock(&self) -> Option<SystemTime> {
        self.on().then(SystemTime::now)
    }

    /// Tells of a sweep, once it is known whether it is worth it.
    pub fn swept(&self, swept: &Swept) {
        if let Some(on) = &self.0 {
            call::tell_sweep(&on.tracer, swept);
        }
    }

    /// Exports what is queued, within that limit, and ends. What it can't send by then is lost.
    pub async fn stop(&self, limit: Duration) {
        let Some(on) = self.0.clone() else { return };
        let flush = move || on.provider.shutdown_with_timeout(limit);
        // It blocks.
        if let Ok(Err(error)) = tokio::task::spawn_blocking(flush).await {
            tracing::warn!("stopping: the last traces are lost: {error}");
        }
    }
}
