//! `beat`: this replica is alive, or leaves, and these others are alive. See `lua/beat.lua`.

use fred::types::Value;

use super::Inner;
use super::duty::ALIVE_MS;
use super::reply::protocol;
use super::shard::number;
use crate::token::StoreError;

/// The replicas that are alive, in no order.
pub(super) async fn beat(
    inner: &Inner,
    replica: &str,
    leaves: bool,
) -> Result<Vec<String>, StoreError> {
    let keys = vec![inner.keys.replicas.clone()];
    let args = vec![replica.into(), number(ALIVE_MS), number(u64::from(leaves))];
    let answer = inner.call(&inner.scripts.beat, keys, args).await?;
    let mut reply = answer.only()?;
    match reply.tag.as_str() {
        "alive" => {
            let names = reply.list()?.into_iter();
            let name = |value: Value| value.into_string().ok_or_else(|| protocol("a text", &()));
            names.map(name).collect()
        }
        _ => reply.unknown(),
    }
}
