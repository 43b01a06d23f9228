//! The span of a script call.

use std::time::SystemTime;

use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

use super::Caller;

/// What is known of a call when it is sent.
pub struct Sent {
    /// The script: the verb.
    pub script: &'static str,
    /// Where; `None`: outside of all partitions.
    pub partition: Option<usize>,
    /// How many items it carries, 0 where it has none.
    pub items: usize,
    /// The primary that it goes to: host, and port where it has one.
    pub server: Option<(String, u16)>,
}

impl Sent {
    /// By the semantic conventions for Redis (<https://opentelemetry.io/docs/specs/semconv/database/redis/>); what they
    /// have no name for is `tokend.…`.
    fn builder(&self) -> SpanBuilder {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let mut attributes = vec![
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.operation.name", "EVALSHA"),
            KeyValue::new("db.stored_procedure.name", self.script),
        ];
        if self.items > 0 {
            attributes.push(KeyValue::new("tokend.batch.size", number(self.items)));
        }
        let partition = self.partition.map(number);
        attributes.extend(partition.map(|it| KeyValue::new("tokend.partition", it)));
        if let Some((address, port)) = &self.server {
            attributes.push(KeyValue::new("server.address", address.clone()));
            // A socket in the file system has none.
            let port = (*port != 0).then(|| i64::from(*port));
            attributes.extend(port.map(|port| KeyValue::new("server.port", port)));
        }
        SpanBuilder::from_name(self.script)
            .with_kind(SpanKind::Client)
            .with_attributes(attributes)
    }
}

/// A call under way. Dropped, it ends.
pub struct CallSpan(Option<Span>);

impl CallSpan {
    /// A call that is sent for these callers. It is the child of the first of them who is sampled, and linked with all of
    /// them where there are several, in both directions; none is sampled: no span, and `sent` is not asked.
    pub fn start<'a>(
        callers: impl IntoIterator<Item = &'a Caller>,
        sent: impl FnOnce() -> Sent,
    ) -> Self {
        let mut callers = callers.into_iter().filter_map(Caller::context);
        let Some(first) = callers.next() else {
            return Self(None);
        };
        let Some(tracer) = first.get::<SdkTracer>() else {
            return Self(None);
        };
        let others: Vec<_> = callers.collect();
        let mut builder = sent().builder();
        if !others.is_empty() {
            let all = std::iter::once(first).chain(others.iter().copied());
            let links = all.map(|it| Link::with_context(bare(it.span().span_context())));
            builder = builder.with_links(links.collect());
        }
        let span = tracer.build_with_context(builder, first);
        // Most who look at a trace are shown what it links to, and few what links to it.
        for other in others {
            let ours = bare(span.span_context());
            other.span().add_link(ours, Vec::new());
        }
        Self(Some(span))
    }

    /// Ends it; `error` is a word from a fixed set.
    pub fn end(self, error: Option<&'static str>) {
        if let (Some(mut span), Some(error)) = (self.0, error) {
            fail(&mut span, error);
        }
    }
}

/// For a link: without the caller's `tracestate`, of which each of a thousand links would hold a copy.
fn bare(ids: &SpanContext) -> SpanContext {
    let (trace, span, remote) = (ids.trace_id(), ids.span_id(), ids.is_remote());
    SpanContext::new(trace, span, ids.trace_flags(), remote, TraceState::NONE)
}

/// No description: what Redis or the client says of an error may quote what was sent.
fn fail(span: &mut Span, error: &'static str) {
    span.set_attribute(KeyValue::new("error.type", error));
    span.set_status(Status::error(""));
}

/// A sweep that is over.
pub struct Swept {
    /// When it was sent, by [`super::Traces::clock`].
    pub since: SystemTime,
    /// What was called.
    pub sent: Sent,
    /// What woke it.
    pub trigger: &'static str,
    /// How many entries it settled.
    pub entries: u64,
    /// A word from a fixed set for what went wrong.
    pub error: Option<&'static str>,
}

/// A trace of its own: no request asked for it.
pub(super) fn tell_sweep(tracer: &SdkTracer, swept: &Swept) {
    let builder = swept.sent.builder().with_start_time(swept.since);
    let mut span = tracer.build_with_context(builder, &Context::new());
    span.set_attribute(KeyValue::new("tokend.sweep.trigger", swept.trigger));
    let entries = i64::try_from(swept.entries).unwrap_or(i64::MAX);
    span.set_attribute(KeyValue::new("tokend.sweep.entries", entries));
    if let Some(error) = swept.error {
        fail(&mut span, error);
    }
}
