//! `inspect`: how a token stands now. See `lua/inspect.lua`.

use fred::types::Value;

use super::batch::Verb;
use super::reply::{Reply, metadata};
use super::shard::{Shard, token_weight};
use crate::token::{Metadata, State, StoreError, TokenValue, TokenView};

pub(super) struct Inspect {
    pub shard: Shard,
    pub token: TokenValue,
    pub with_metadata: bool,
}

/// A token that is there.
pub(super) struct Found {
    pub view: TokenView,
    /// Empty unless it was asked for.
    pub metadata: Metadata,
    /// When Redis said so.
    pub now_ms: u64,
}

impl Verb for Inspect {
    type Outcome = Option<Found>;
    const NAME: &'static str = "inspect";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        token_weight(&self.token)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        args.push(self.token.as_str().into());
        args.push(if self.with_metadata { "meta" } else { "" }.into());
    }

    fn decode(&self, mut reply: Reply, now_ms: u64) -> Result<Option<Found>, StoreError> {
        match reply.tag.as_str() {
            "found" => {
                let view = view(self.token.clone(), &mut reply)?;
                Ok(Some(Found {
                    view,
                    metadata: metadata(reply.list()?)?,
                    now_ms,
                }))
            }
            "absent" => Ok(None),
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
