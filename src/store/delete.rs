//! `delete`: remove a token for good. See `lua/delete.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::reply::Reply;
use super::shard::{Shard, token_weight};
use crate::token::{DeleteOutcome, StoreError, TokenValue};

pub(super) struct Delete {
    pub shard: Shard,
    pub token: TokenValue,
}

impl Verb for Delete {
    type Outcome = DeleteOutcome;
    const NAME: &'static str = "delete";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        token_weight(&self.token)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        args.push(self.token.as_str().into());
    }

    fn decode(&self, reply: Reply, _now_ms: u64) -> Result<DeleteOutcome, StoreError> {
        match reply.tag.as_str() {
            "deleted" => Ok(DeleteOutcome::Deleted),
            "absent" => Ok(DeleteOutcome::TokenNotFound),
            _ => reply.unknown(),
        }
    }
}
