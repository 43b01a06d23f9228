//! `wait`: one waiter's place in the line of one shard. See `lua/wait.lua`; `waiting.rs` has the patience.

use fred::types::Value;

use super::assign::{AssignRequest, granted};
use super::batch::Verb;
use super::reply::Reply;
use super::shard::{Shard, number, text_or_empty, token_weight};
use crate::token::{Fence, Grant, StoreError, TokenValue};

/// What a waiter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Stays in line, says that it is alive, and hears whether it has an offer.
    Stay,
    /// Its time is over: it goes, with what it is offered if it is.
    Leave,
    /// Nobody is there any more: what it is offered, or was granted just now, goes back.
    Abandon,
}

/// A place in line, as the waiter knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct Spot {
    /// The lowest is served first. A place that Redis has lost is taken again with it.
    pub ticket: u64,
    /// The token that it was offered, and the fence that the lease will have.
    pub offer: Option<(TokenValue, Fence)>,
}

pub(super) enum Waited {
    Granted(Grant, Shard),
    Offered(TokenValue, Fence),
    Waiting {
        ticket: u64,
    },
    /// As many wait as may.
    Full,
    Left,
    LeaseLost,
    IdempotencyMismatch,
}

pub(super) struct Wait {
    pub shard: Shard,
    pub request: AssignRequest,
    pub waiter: String,
    pub step: Step,
    pub spot: Spot,
}

impl Verb for Wait {
    type Outcome = Waited;
    const NAME: &'static str = "wait";

    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn weight(&self) -> usize {
        let offer = self.spot.offer.as_ref();
        offer.map_or(1, |(token, _)| token_weight(token))
    }

    fn encode(&self, args: &mut Vec<Value>) {
        self.request.encode(args);
        let step = match self.step {
            Step::Stay => "wait",
            Step::Leave => "leave",
            Step::Abandon => "abandon",
        };
        let offer = self.spot.offer.as_ref();
        args.push(self.waiter.as_str().into());
        args.push(step.into());
        args.push(number(self.spot.ticket));
        args.push(text_or_empty(offer.map(|(token, _)| token.as_str())));
        args.push(number(offer.map_or(0, |(_, fence)| fence.get())));
    }

    fn decode(&self, mut reply: Reply, now_ms: u64) -> Result<Waited, StoreError> {
        match reply.tag.as_str() {
            "granted" => {
                let grant = granted(&mut reply, now_ms)?;
                Ok(Waited::Granted(grant, self.shard.clone()))
            }
            "offered" => Ok(Waited::Offered(reply.token()?, reply.fence()?)),
            "waiting" => Ok(Waited::Waiting {
                ticket: reply.int()?,
            }),
            "full" => Ok(Waited::Full),
            "left" => Ok(Waited::Left),
            "lease_lost" => Ok(Waited::LeaseLost),
            "mismatch" => Ok(Waited::IdempotencyMismatch),
            _ => reply.unknown(),
        }
    }
}
