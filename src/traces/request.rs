//! The span of a request, and how those who work for the request find it.

use std::fmt::Display;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::context;

/// Names and attributes are those of the semantic conventions for HTTP servers
/// (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), but for `url.path`: a path may hold a token, and
/// `http.route` says what is known of it.
pub struct RequestSpan {
    ids: SpanContext,
    /// Where its trace is kept: one that is not costs a few numbers by chance, and no more.
    kept: Option<Context>,
}

impl RequestSpan {
    pub(super) fn start<'a, I>(
        tracer: &SdkTracer,
        method: &'static str,
        route: Option<&str>,
        header: impl Fn(&'static str) -> I,
    ) -> Self
    where
        I: Iterator<Item = Option<&'a str>>,
    {
        let parent = context::caller(header);
        // Whether it is kept is decided by its trace's id and its parent, so all else can come after.
        let builder = SpanBuilder::from_name("").with_kind(SpanKind::Server);
        let mut span = tracer.build_with_context(builder, &parent);
        let ids = span.span_context().clone();
        if !ids.is_sampled() {
            return Self { ids, kept: None };
        }
        describe(&mut span, method, route);
        // The tracer goes along, for those who work for the request.
        let kept = parent
            .with_value(tracer.clone())
            .with_value(PoolNoted::default());
        let kept = Some(kept.with_span(span));
        Self { ids, kept }
    }

    /// Trace and span, in hexadecimal: for the log.
    #[must_use]
    pub fn ids(&self) -> (impl Display + use<>, impl Display + use<>) {
        (self.ids.trace_id(), self.ids.span_id())
    }

    /// The value of the `traceresponse` header (<https://w3c.github.io/trace-context/#traceresponse-header>).
    #[must_use]
    pub fn traceresponse(&self) -> String {
        let (trace, span) = self.ids();
        let kept = u8::from(self.ids.is_sampled());
        format!("00-{trace}-{span}-{kept:02x}")
    }

    /// Ends it. `problem` is the kind of problem that was answered.
    pub fn end(&self, status: u16, problem: Option<&'static str>) {
        let Some(kept) = &self.kept else { return };
        let span = kept.span();
        span.set_attribute(KeyValue::new(
            "http.response.status_code",
            i64::from(status),
        ));
        if let Some(problem) = problem {
            span.set_attribute(KeyValue::new("tokend.problem", problem));
        }
        // A 4xx is not the server's error, the conventions say.
        if status >= 500 {
            let error = problem.map_or_else(|| status.to_string().into(), Value::from);
            span.set_attribute(KeyValue::new("error.type", error));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

fn describe(span: &mut Span, method: &'static str, route: Option<&str>) {
    // What the conventions call a method that they do not know.
    let known = method != "OTHER";
    let shown = if known { method } else { "HTTP" };
    match route {
        Some(route) => span.update_name(format!("{shown} {route}")),
        None => span.update_name(shown),
    }
    let method = if known { method } else { "_OTHER" };
    span.set_attribute(KeyValue::new("http.request.method", method));
    span.set_attribute(KeyValue::new("url.scheme", "http"));
    if let Some(route) = route {
        span.set_attribute(KeyValue::new("http.route", route.to_owned()));
    }
}

/// Whether the span has its pool: a second `set_attribute` is a second attribute, and a span has room for 128.
#[derive(Clone, Default)]
struct PoolNoted(Arc<AtomicBool>);

/// For whom something is done: a request that is sampled, or nobody that a trace tells of.
#[derive(Clone, Default)]
pub struct Caller(Option<Context>);

impl Caller {
    /// The request that this code runs for.
    #[must_use]
    pub fn current() -> Self {
        let sampled = |context: &Context| {
            context.has_active_span() && context.span().span_context().is_sampled()
        };
        Self(Context::map_current(|context| {
            sampled(context).then(|| context.clone())
        }))
    }

    pub(super) fn context(&self) -> Option<&Context> {
        self.0.as_ref()
    }

    /// Notes a pool that exists: what a path says may be anything. Once; a request may need many calls.
    pub fn note_pool(&self, pool: &str) {
        let Some(context) = &self.0 else { return };
        let noted = context.get::<PoolNoted>();
        if noted.is_some_and(|it| !it.0.swap(true, Ordering::Relaxed)) {
            let pool = KeyValue::new("tokend.pool", pool.to_owned());
            context.span().set_attribute(pool);
        }
    }

    /// Does something in this caller's name.
    pub fn run<T>(&self, what: impl FnOnce() -> T) -> T {
        let _entered = self.0.clone().map(Context::attach);
        what()
    }

    /// The same for a task of its own, which the request does not wait for.
    pub fn carry<F: Future>(self, work: F) -> Within<Pin<Box<F>>> {
        Within {
            work: Some(Box::pin(work)),
            context: self.0,
        }
    }
}

/// Makes `work` the request's: whatever it does, and whatever is undone when it is dropped.
pub fn within<F: Future + Unpin>(span: Option<&RequestSpan>, work: F) -> Within<F> {
    Within {
        work: Some(work),
        context: span.and_then(|span| span.kept.clone()),
    }
}

/// See [`within`].
pub struct Within<F> {
    work: Option<F>,
    context: Option<Context>,
}

impl<F: Future + Unpin> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<F::Output> {
        let _entered = self.context.clone().map(Context::attach);
        match &mut self.work {
            Some(work) => Pin::new(work).poll(task),
            None => Poll::Pending, // only while it is being dropped
        }
    }
}

impl<F> Drop for Within<F> {
    fn drop(&mut self) {
        let _entered = self.context.clone().map(Context::attach);
        self.work = None;
    }
}
