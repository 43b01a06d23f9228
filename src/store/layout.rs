//! `layout`: agree on the number of partitions. See `lua/layout.lua`.

use super::Inner;
use super::shard::number;
use crate::token::StoreError;

/// The number of partitions that this data set was made with; made now if there was none.
pub(super) async fn layout(inner: &Inner) -> Result<u64, StoreError> {
    let mine = inner.keys.partitions.len() as u64;
    let keys = vec![inner.keys.layout.clone()];
    let answer = inner
        .call(&inner.scripts.layout, keys, vec![number(mine)])
        .await?;
    let mut reply = answer.only()?;
    match reply.tag.as_str() {
        "layout" => reply.int(),
        _ => reply.unknown(),
    }
}
