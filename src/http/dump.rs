//! `HEAD /dump`: what the one-time tokens that are alive carry, written to the log. Never what could be used:
//! neither tokens nor the names of their lines.

use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::{HttpResponse, web};

use super::answer::Timestamp;
use super::one_time;
use super::problem::Problem;
use crate::flows::Flows;
use crate::store::Store;
use crate::token::{BearerView, Flow};

/// Where it is asked for. Only there with `DUMP`.
pub const PATH: &str = "/dump";

/// Whether a walk is under way in this process: one at a time, or whoever repeats the request faster than a
/// walk ends would load Redis without limit.
#[derive(Debug, Default)]
pub struct Dumping(AtomicBool);

/// A walk that is under way, until dropped.
struct Walk(web::Data<Dumping>);

impl Walk {
    fn begin(dumping: web::Data<Dumping>) -> Option<Self> {
        let begun = !dumping.0.swap(true, Ordering::AcqRel);
        begun.then(|| Self(dumping))
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// `HEAD /dump`: begins to write, and answers at once.
///
/// # Errors
/// `flow-off`.
pub async fn dump_tokens(
    flows: web::Data<Flows>,
    store: web::Data<Store>,
    dumping: web::Data<Dumping>,
) -> Result<HttpResponse, Problem> {
    one_time::keys(&flows)?;
    match Walk::begin(dumping) {
        Some(walk) => {
            // It ends with this worker, should that stop first.
            tokio::spawn(show_all(Store::clone(&store), walk));
        }
        None => tracing::info!("a dump of the one-time tokens is under way already"),
    }
    Ok(HttpResponse::Accepted().finish())
}

async fn show_all(store: Store, _walk: Walk) {
    let mut shown = 0_u64;
    let ended = store.walk(Flow::OneTime, |token| {
        show(token);
        shown += 1;
    });
    match ended.await {
        Ok(()) => tracing::info!(shown, "all one-time tokens are shown"),
        Err(error) => tracing::warn!("the dump of the one-time tokens ended early: {error}"),
    }
}

fn show(token: &BearerView) {
    // Names and JSON texts always make JSON again.
    let meta = serde_json::to_string(&token.metadata).unwrap_or_default();
    let (meta, expires_at) = (one_line(&meta), Timestamp(token.expires_at_ms));
    tracing::info!(%meta, %expires_at, "one-time token");
}

/// The same JSON without control characters: a caller's metadata must not make lines of its own in the log, nor
/// steer a terminal. Outside strings JSON has none but spaces; inside, it can escape them.
fn one_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\n' | '\r' | '\t' => line.push(' '),
            // Some readers of logs end a line at these two as well.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                line.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_dump_is_one_line_and_the_same_json() {
        let meta = "{\"a\": [1,\r\n\t2], \"b\u{9b}2J\": \"\u{7f}\u{85}\u{2028}é\"}";
        let line = one_line(meta);
        assert!(
            !line.chars().any(|c| c.is_control() || c == '\u{2028}'),
            "{line}"
        );
        let same: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            same,
            json!({"a": [1, 2], "b\u{9b}2J": "\u{7f}\u{85}\u{2028}é"})
        );
    }

    #[test]
    fn one_walk_at_a_time() {
        let dumping = web::Data::new(Dumping::default());
        let first = Walk::begin(dumping.clone());
        assert!(first.is_some());
        assert!(Walk::begin(dumping.clone()).is_none());
        drop(first);
        assert!(Walk::begin(dumping).is_some());
    }
}
