//! Whose child a request is: W3C Trace Context (<https://www.w3.org/TR/trace-context/>).

#[cfg(test)]
mod tests;

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// Most characters of `tracestate` that go on, as many as W3C asks for: each span holds a copy while it is queued.
const STATE_MAX: usize = 512;
/// Longer members of it go first.
const MEMBER_LONG: usize = 128;
/// `00-`, 32 digits, `-`, 16, `-` and 2.
const PARENT_LENGTH: usize = 55;

/// The two headers, as one value each.
struct Headers<'a> {
    traceparent: &'a str,
    tracestate: Option<String>,
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The caller's context, or an empty one: then a trace begins. `header` gives all headers of that name, `None` for one that
/// is no text.
pub(super) fn caller<'a, I>(header: impl Fn(&'static str) -> I) -> Context
where
    I: Iterator<Item = Option<&'a str>>,
{
    let nobody = Context::new();
    let mut parents = header("traceparent");
    let (Some(Some(traceparent)), None) = (parents.next(), parents.next()) else {
        return nobody;
    };
    if !well_formed(traceparent) {
        return nobody;
    }
    // Several are one list.
    let states: Option<Vec<_>> = header("tracestate").collect();
    let headers = Headers {
        traceparent,
        tracestate: states.map(|all| shortened(&all.join(","))),
    };
    TraceContextPropagator::new().extract_with_context(&nobody, &headers)
}

/// What the propagator takes too easily: it reads numbers, of any length and with a sign.
fn well_formed(traceparent: &str) -> bool {
    let bytes = traceparent.as_bytes();
    let Some((head, rest)) = bytes.split_at_checked(PARENT_LENGTH) else {
        return false;
    };
    let digits = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let shaped = head.iter().enumerate().all(|(at, byte)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => digits(byte),
    });
    // Later versions may say more behind that.
    let ended = rest.is_empty() || (!head.starts_with(b"00") && rest.starts_with(b"-"));
    shaped && ended && !head.starts_with(b"ff")
}

/// Without the members that are too much: long ones first, then from the end.
fn shortened(state: &str) -> String {
    let members = state.split(',').map(|it| it.trim_matches([' ', '\t']));
    let mut members: Vec<_> = members.filter(|it| !it.is_empty()).collect();
    let length = |members: &[&str]| members.iter().map(|it| it.len() + 1).sum::<usize>();
    while length(&members) > STATE_MAX + 1 {
        let long = members.iter().rposition(|it| it.len() > MEMBER_LONG);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    members.join(",")
}
