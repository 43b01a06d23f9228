//! `exchange`: rotate a family's token. See `lua/exchange.lua`.

use std::time::Duration;

use fred::types::Value;

use super::batch::Verb;
use super::reply::{Reply, metadata};
use super::shard::{Shard, encode_metadata, metadata_weight, number};
use crate::token::rotating::Rotating;
use crate::token::{ExchangeOutcome, Exchanged, Fence, Metadata, StoreError};

/// For this long after an exchange, a token that was exchanged before is refused without revoking its family: it may
/// be a retry that another request overtook.
pub const GRACE_MS: u64 = 10_000;

/// What to exchange, and how.
#[derive(Debug, Clone)]
pub struct ExchangeRequest {
    pub token: Rotating,
    /// Merged into what is there; a retry's own is ignored.
    pub metadata: Metadata,
    /// `ROTATION_RETRY`: for this long after an exchange the same token gets the same successor again, unless that
    /// successor was exchanged meanwhile.
    pub retry: Duration,
    /// Whether the successor lives a full lifetime, or as long as its family was given.
    pub renew: bool,
    /// Whether a used token that comes back too late revokes the family.
    pub revoke_on_reuse: bool,
}

pub(super) struct Exchange {
    pub shard: Shard,
    pub request: ExchangeRequest,
}

impl Verb for Exchange {
    type Outcome = ExchangeOutcome;
    const NAME: &'static str = "exchange";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        metadata_weight(&self.request.metadata)
    }

    fn encode(&self, args: &mut Vec<Value>) {
        let request = &self.request;
        args.push(request.token.family.as_str().into());
        args.push(number(request.token.number.get()));
        args.push(number(
            u64::try_from(request.retry.as_millis()).unwrap_or(u64::MAX),
        ));
        args.push(number(GRACE_MS));
        args.push(if request.renew { "renew" } else { "keep" }.into());
        args.push(
            if request.revoke_on_reuse {
                "revoke"
            } else {
                ""
            }
            .into(),
        );
        encode_metadata(&request.metadata, args);
    }

    fn decode(&self, mut reply: Reply, now_ms: u64) -> Result<ExchangeOutcome, StoreError> {
        match reply.tag.as_str() {
            "rotated" | "replayed" => {
                let (number, expires_at_ms): (Fence, u64) = (reply.fence()?, reply.int()?);
                Ok(ExchangeOutcome::Exchanged(Exchanged {
                    number,
                    expires_at_ms,
                    now_ms,
                    subject: reply.holder()?,
                    metadata: metadata(reply.list()?)?,
                }))
            }
            "spent" => Ok(ExchangeOutcome::Spent),
            "reused" => Ok(ExchangeOutcome::Reused),
            "too_large" => Ok(ExchangeOutcome::TooLarge),
            "absent" => Ok(ExchangeOutcome::Absent),
            _ => reply.unknown(),
        }
    }
}
