//! `unblock`: take a token back from its holder. See `lua/unblock.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::reply::Reply;
use super::shard::{Shard, number_or_zero, token_weight};
use crate::token::{Fence, State, StoreError, TokenValue, UnblockOutcome};

pub(super) struct Unblock {
    shard: Shard,
    token: TokenValue,
    fence: Option<Fence>,
    /// Straight to free: nobody has used it, so it need not cool.
    direct: bool,
}

impl Unblock {
    pub fn new(shard: Shard, token: TokenValue, fence: Option<Fence>) -> Self {
        Self {
            shard,
            token,
            fence,
            direct: false,
        }
    }

    /// A grant that nobody was told of.
    pub fn give_back(shard: Shard, token: TokenValue, fence: Fence) -> Self {
        Self {
            shard,
            token,
            fence: Some(fence),
            direct: true,
        }
    }
}

impl Verb for Unblock {
    type Outcome = UnblockOutcome;
    const NAME: &'static str = "unblock";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        token_weight(&self.token)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        args.push(self.token.as_str().into());
        args.push(number_or_zero(self.fence.map(Fence::get)));
        args.push(if self.direct { "direct" } else { "" }.into());
    }

    fn decode(&self, mut reply: Reply, _now_ms: u64) -> Result<UnblockOutcome, StoreError> {
        match reply.tag.as_str() {
            "cooling" | "free" => Ok(UnblockOutcome::Released {
                state: if reply.tag == "free" {
                    State::Free
                } else {
                    State::Cooling
                },
                available_at_ms: reply.int()?,
            }),
            "not_held" => Ok(UnblockOutcome::NotHeld {
                state: reply.state()?,
            }),
            "lease_lost" => Ok(UnblockOutcome::LeaseLost),
            "absent" => Ok(UnblockOutcome::TokenNotFound),
            _ => reply.unknown(),
        }
    }
}
