//! `inspect`: how a token stands now. See `lua/inspect.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::reply::Reply;
use super::shard::Shard;
use crate::token::{InspectOutcome, State, StoreError, TokenValue, TokenView};

pub(super) struct Inspect {
    pub shard: Shard,
    pub token: TokenValue,
}

impl Verb for Inspect {
    type Outcome = InspectOutcome;
    const NAME: &'static str = "inspect";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn encode(&self, args: &mut Vec<Value>) {
        args.push(self.token.as_str().into());
    }

    fn decode(&self, mut reply: Reply, _now_ms: u64) -> Result<InspectOutcome, StoreError> {
        match reply.tag.as_str() {
            "found" => view(self.token.clone(), &mut reply).map(InspectOutcome::Found),
            "absent" => Ok(InspectOutcome::TokenNotFound),
            _ => reply.unknown(),
        }
    }
}

/// A token's state, fence, deadline, since and holder, as `inspect` and `list` tell them.
pub(super) fn view(token: TokenValue, reply: &mut Reply) -> Result<TokenView, StoreError> {
    let state = reply.state()?;
    let fence = reply.int()?;
    let expires_at_ms = reply.int_or_none()?;
    let since_ms = reply.int()?;
    Ok(TokenView {
        token,
        state,
        fence,
        holder: reply.holder()?,
        expires_at_ms,
        granted_at_ms: Some(since_ms).filter(|_| state == State::Held),
    })
}
