//! What is true at the moment of a scrape: asked of Redis then, not kept.

use std::time::Duration;

use fred::interfaces::ClientLike;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Inner, PROBE_MS_MAX, Store};
use crate::metrics::Refused;
use crate::token::{PoolView, State};

/// Whether this replica can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Redis answers.
    pub redis: bool,
    /// Scripts are loaded and the layout agrees.
    pub scripts: bool,
}

/// What one primary answers.
struct Look {
    answers: bool,
    /// It answers, and is what we need.
    usable: bool,
    /// And takes writes.
    up: bool,
}

/// Asks every primary that is known, `PROBE_MS_MAX` at most.
async fn look_at_primaries(inner: &Inner) -> Vec<Look> {
    let limit = Duration::from_millis(PROBE_MS_MAX);
    let nodes = inner.redis.nodes();
    let looks = nodes.iter().map(async |node| {
        let ping = node.client().ping::<()>(None);
        let answers = matches!(timeout(limit, ping).await, Ok(Ok(())));
        let usable = answers && node.is_usable();
        Look {
            answers,
            usable,
            up: usable && !node.refuses_writes(),
        }
    });
    join_all(looks).await
}

fn readiness(inner: &Inner, found: &[Look]) -> Readiness {
    let most =
        |is: fn(&Look) -> bool| found.iter().filter(|look| is(look)).count() * 2 > found.len();
    Readiness {
        redis: most(|look| look.answers),
        scripts: inner.prepared() && most(|look| look.usable),
    }
}

impl Store {
    /// Whether Redis answers, within `PROBE_MS_MAX`: more than half of its primaries. Where one of several is away,
    /// the pools on the others must stay within reach.
    pub async fn readiness(&self) -> Readiness {
        readiness(&self.inner, &look_at_primaries(&self.inner).await)
    }

    /// Sets the gauges that tell of Redis and of what lies there, within `PROBE_MS_MAX`, and says whether this replica
    /// can serve. Of pools that could not be asked for in time it tells nothing: a gap in a graph is honest, an old
    /// value is not.
    pub async fn refresh_gauges(&self) -> Readiness {
        let inner = &self.inner;
        let limit = Duration::from_millis(PROBE_MS_MAX);
        let views = timeout(limit, self.all_pools());
        let (found, views) = futures_util::join!(look_at_primaries(inner), views);
        let up = found.iter().filter(|look| look.up).count();
        inner.metrics.set_primaries(up, found.len() - up);
        let replicas = i64::try_from(inner.duty.alive()).unwrap_or(i64::MAX);
        inner.metrics.replicas.set(replicas);
        inner.metrics.pool_tokens.reset();
        inner.metrics.pool_tokens_max.reset();
        for view in views.ok().and_then(Result::ok).unwrap_or_default() {
            set_pool(inner, &view);
        }
        readiness(inner, &found)
    }
}

fn set_pool(inner: &Inner, view: &PoolView) {
    let (metrics, pool) = (&inner.metrics, view.name.as_str());
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (state, count) in [
        (State::Free, view.counts.free),
        (State::Held, view.counts.held),
        (State::Cooling, view.counts.cooling),
    ] {
        let gauge = &metrics.pool_tokens;
        gauge
            .with_label_values(&[pool, state.as_str()])
            .set(number(count));
    }
    let most = &metrics.pool_tokens_max;
    most.with_label_values(&[pool])
        .set(number(view.policy.max_tokens));
    // A flow's tokens are born held: nobody assigns them.
    let both = [Refused::Generate, Refused::Assign];
    let kinds = &both[..if view.name.flow().is_some() { 1 } else { 2 }];
    metrics.expect_refusals(pool, kinds);
    // It may have been deleted here since it was read: whoever deletes forgets it first, and then its series.
    if !inner.registry.knows(&view.name) {
        metrics.forget_pool(pool);
    }
}
