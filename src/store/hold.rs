//! The reservations of one call over several shards, and who lets go of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use super::Inner;
use super::reserve::{Reserve, Wanted};
use super::shard::Shard;
use crate::traces::Caller;

/// Reservations of one name. What is not kept is let go of, however the call ends; if even that can't be sent, it
/// lapses.
pub(super) struct Hold {
    inner: Arc<Inner>,
    shards: Vec<Shard>,
    pub id: String,
    pub ttl_ms: u64,
    /// Numbers of the shards that were asked.
    pub asked: BTreeSet<usize>,
    pub kept: bool,
}

impl Hold {
    pub fn new(inner: &Arc<Inner>, shards: Vec<Shard>, ttl_ms: u64) -> Self {
        Self {
            inner: inner.clone(),
            shards,
            id: format!("{:032x}", rand::random::<u128>()),
            ttl_ms,
            asked: BTreeSet::new(),
            kept: false,
        }
    }

    pub async fn let_go(mut self) {
        let undo = self.undo();
        // A task of its own: whoever waits here may leave.
        let _ = self
            .inner
            .runtime
            .spawn(Caller::current().carry(undo))
            .await;
    }

    fn undo(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let inner = self.inner.clone();
        let asked = std::mem::take(&mut self.asked);
        let items = asked.into_iter().map(|number| Reserve {
            shard: self.shards[number].clone(),
            id: self.id.clone(),
            ttl_ms: 0,
            wanted: Wanted::Nothing,
        });
        let items: Vec<_> = items.collect();
        async move {
            let calls = items
                .into_iter()
                .map(|item| inner.batchers.reserve[item.shard.partition].submit(item));
            join_all(calls).await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.kept && !self.asked.is_empty() {
            let undo = self.undo();
            let undo = Caller::current().carry(undo);
            self.inner.runtime.clone().spawn(undo);
        }
    }
}
