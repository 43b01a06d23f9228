//! `keep_alive`: restart a lease or an idle clock. See `lua/keep_alive.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::reply::Reply;
use super::shard::{Shard, number_or_zero, token_weight};
use crate::token::{Fence, KeepAliveOutcome, StoreError, TokenValue};

pub(super) struct KeepAlive {
    pub shard: Shard,
    pub token: TokenValue,
    pub fence: Option<Fence>,
    pub lifetime_ms: Option<u64>,
}

impl Verb for KeepAlive {
    type Outcome = KeepAliveOutcome;
    const NAME: &'static str = "keep_alive";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        token_weight(&self.token)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        args.push(self.token.as_str().into());
        args.push(number_or_zero(self.fence.map(Fence::get)));
        args.push(number_or_zero(self.lifetime_ms));
    }

    fn decode(&self, mut reply: Reply, now_ms: u64) -> Result<KeepAliveOutcome, StoreError> {
        match reply.tag.as_str() {
            "kept" => {
                let state = reply.state()?;
                let expires_at_ms = reply.int_or_none()?;
                Ok(KeepAliveOutcome::Kept {
                    state,
                    expires_at_ms,
                    expires_in_ms: expires_at_ms.map(|at| at.saturating_sub(now_ms)),
                })
            }
            "not_held" => Ok(KeepAliveOutcome::NotHeld {
                state: reply.state()?,
            }),
            "lease_lost" => Ok(KeepAliveOutcome::LeaseLost),
            "absent" => Ok(KeepAliveOutcome::TokenNotFound),
            _ => reply.unknown(),
        }
    }
}
