//! `beat`: this replica is alive, or leaves, and these others are alive. See `lua/beat.lua`.

use fred::types::Value;

use super::Inner;
use super::duty::ALIVE_MS;
use super::reply::protocol;
use super::shard::number;
use crate::token::StoreError;

/// What a beat answers.
pub(super) struct Heard {
    /// The replicas that are alive, in no order.
    pub alive: Vec<String>,
    /// Nobody knew of this one: what it has said of its settings may be gone.
    pub new: bool,
}

/// `settings`: what this replica says of them; empty: what it has said before.
pub(super) async fn beat(
    inner: &Inner,
    replica: &str,
    leaves: bool,
    settings: &str,
) -> Result<Heard, StoreError> {
    let keys = vec![inner.keys.replicas.clone(), inner.keys.settings.clone()];
    let leaves = number(u64::from(leaves));
    let args = vec![replica.into(), number(ALIVE_MS), leaves, settings.into()];
    let answer = inner.call(&inner.scripts.beat, keys, args).await?;
    let mut reply = answer.only()?;
    match reply.tag.as_str() {
        "alive" => {
            let names = reply.list()?.into_iter();
            let name = |value: Value| value.into_string().ok_or_else(|| protocol("a text", &()));
            Ok(Heard {
                alive: names.map(name).collect::<Result<_, _>>()?,
                new: reply.int()? == 1,
            })
        }
        _ => reply.unknown(),
    }
}
