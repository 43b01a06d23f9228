//! The state machine of a pool, written down a second time: plain data, no wheel, no scripts, no Redis.
//!
//! Each method is given the moment at which Redis ran the call and the answer that the store gave. It
//! changes the state as the call must have, or says what it expected instead. Time is virtual: Redis's
//! clock plus all that the test has let pass, so a deadline is one number for as long as it stands.

use std::collections::BTreeMap;

use tokend::store::{AssignRequest, NewTokens};
use tokend::token::*;

/// Length of the windows in which idempotency keys are kept; a key is found in its own and the next.
const KEY_WINDOW_MS: u64 = 600_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub state: State,
    pub fence: u64,
    /// `None`: nothing is pending.
    pub deadline: Option<u64>,
    pub since: u64,
    pub holder: Option<Holder>,
}

/// What a kept idempotency key was first used for.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Assign {
        request: String,
        token: TokenValue,
        fence: u64,
    },
    Generate {
        request: String,
        tokens: Vec<TokenValue>,
        existing: u64,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub policy: Policy,
    pub tokens: BTreeMap<TokenValue, Record>,
    /// Virtual minus real time.
    pub shifted: u64,
    fence_last: u64,
    /// `(verb, key)` → the window it was kept in, as seen from now, and what for.
    keys: BTreeMap<(&'static str, IdempotencyKey), (u64, Kept)>,
}

/// What was expected instead of the answer.
pub type Check = Result<(), String>;

/// What generate answers where tokens are born free.
fn added(tokens: Vec<TokenValue>, existing: u64) -> GenerateOutcome {
    GenerateOutcome::Added {
        tokens,
        existing,
        born: None,
    }
}

fn expect<T: std::fmt::Debug + PartialEq>(expected: &T, answer: &T) -> Check {
    if expected == answer {
        Ok(())
    } else {
        Err(format!("expected {expected:?}"))
    }
}

impl Model {
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            tokens: BTreeMap::new(),
            shifted: 0,
            fence_last: 0,
            keys: BTreeMap::new(),
        }
    }

    /// The pool was deleted and made again: only fences go on.
    pub fn made_again(&mut self, policy: Policy) {
        *self = Self {
            fence_last: self.fence_last,
            shifted: self.shifted,
            ..Self::new(policy)
        };
    }

    pub fn pass(&mut self, ms: u64) {
        self.shifted += ms;
        for (window, _) in self.keys.values_mut() {
            *window -= ms / KEY_WINDOW_MS;
        }
    }

    fn freed(&self, fence: u64, since: u64) -> Record {
        let idle = self.policy.idle_limit_ms;
        Record {
            state: State::Free,
            fence,
            deadline: (idle > 0).then_some(since + idle),
            since,
            holder: None,
        }
    }

    fn released(&self, fence: u64, since: u64) -> Record {
        match self.policy.cooldown_ms {
            0 => self.freed(fence, since),
            cooldown => Record {
                state: State::Cooling,
                fence,
                deadline: Some(since + cooldown),
                since,
                holder: None,
            },
        }
    }

    /// What a deadline that has passed made of a token; `None`: absent.
    fn fallen_due(&self, record: &Record, deadline: u64, now: u64) -> Option<Record> {
        match (record.state, self.policy.on_lapse) {
            (State::Held, OnLapse::Delete) => None,
            (State::Held, OnLapse::Recycle) => Some(self.released(record.fence, deadline)),
            (State::Cooling, _) => Some(self.freed(record.fence, deadline)),
            (State::Free, _) => {
                // The limit is read again when it comes due.
                let again = self.freed(record.fence, record.since);
                again.deadline.is_none_or(|at| at >= now).then_some(again)
            }
        }
    }

    pub fn settle(&mut self, now: u64) {
        for token in self.tokens.keys().cloned().collect::<Vec<_>>() {
            while let Some(record) = self.tokens.get(&token) {
                let Some(deadline) = record.deadline.filter(|at| *at < now) else {
                    break;
                };
                match self.fallen_due(record, deadline, now) {
                    Some(next) => self.tokens.insert(token.clone(), next),
                    None => self.tokens.remove(&token),
                };
            }
        }
    }

    fn recall(&self, now: u64, verb: &'static str, key: Option<&IdempotencyKey>) -> Option<&Kept> {
        let (kept_in, kept) = self.keys.get(&(verb, key?.clone()))?;
        let window = (now - self.shifted) / KEY_WINDOW_MS;
        (window - kept_in <= 1).then_some(kept)
    }

    fn keep(&mut self, now: u64, verb: &'static str, key: Option<&IdempotencyKey>, kept: Kept) {
        if let Some(key) = key {
            let window = (now - self.shifted) / KEY_WINDOW_MS;
            self.keys.insert((verb, key.clone()), (window, kept));
        }
    }

    pub fn counts(&self) -> PoolCounts {
        let count = |state| self.tokens.values().filter(|r| r.state == state).count() as u64;
        PoolCounts {
            free: count(State::Free),
            held: count(State::Held),
            cooling: count(State::Cooling),
        }
    }

    /// As `inspect` tells it, in Redis's time.
    pub fn view(&self, token: &TokenValue) -> Option<TokenView> {
        let record = self.tokens.get(token)?;
        Some(TokenView {
            token: token.clone(),
            state: record.state,
            fence: record.fence,
            holder: record.holder.clone(),
            expires_at_ms: record.deadline.map(|at| at - self.shifted),
            granted_at_ms: (record.state == State::Held).then(|| record.since - self.shifted),
        })
    }

    /// `took`: for how long before or after this moment another shard may have been asked.
    pub fn assign(
        &mut self,
        now: u64,
        took: u64,
        request: &AssignRequest,
        answer: &AssignOutcome,
    ) -> Check {
        self.settle(now);
        let said = format!(
            "{:?} {:?} {:?}",
            request.holder, request.lifetime_ms, request.token
        );
        match self.recall(now, "assign", request.key.as_ref()) {
            None => {}
            Some(Kept::Assign { request, .. }) if *request != said => {
                return expect(&AssignOutcome::IdempotencyMismatch, answer);
            }
            Some(Kept::Assign { token, fence, .. }) => {
                let still = self.tokens.get(token);
                let Some(record) = still.filter(|r| r.state == State::Held && r.fence == *fence)
                else {
                    return expect(&AssignOutcome::LeaseLost, answer);
                };
                let grant = self.grant(now, token, record);
                return expect(&AssignOutcome::Granted(grant), answer);
            }
            Some(Kept::Generate { .. }) => unreachable!("kept under another verb"),
        }
        match answer {
            AssignOutcome::Granted(grant) => self.granted(now, request, grant, said),
            AssignOutcome::Empty { retry_after_ms } => {
                self.empty(now, took, request, *retry_after_ms)
            }
            other => self.refused(now, request, other),
        }
    }

    fn grant(&self, now: u64, token: &TokenValue, record: &Record) -> Grant {
        let deadline = record.deadline.expect("a held token has a deadline");
        Grant {
            token: token.clone(),
            fence: Fence::parse(record.fence).expect("a fence"),
            expires_at_ms: deadline - self.shifted,
            expires_in_ms: deadline - now,
            holder: record.holder.clone(),
        }
    }

    fn granted(&mut self, now: u64, request: &AssignRequest, grant: &Grant, said: String) -> Check {
        if request.token.as_ref().is_some_and(|t| *t != grant.token) {
            return Err("another token than the one named".to_owned());
        }
        let before = self.tokens.get(&grant.token).map(|record| record.state);
        if before != Some(State::Free) {
            return Err(format!("granted a token that was {before:?}"));
        }
        let fence = grant.fence.get();
        if fence <= self.fence_last {
            return Err(format!("a fence above {}", self.fence_last));
        }
        self.fence_last = fence;
        let lifetime = request.lifetime_ms.unwrap_or(self.policy.lifetime_ms);
        let limit = Some(self.policy.max_hold_ms).filter(|limit| *limit > 0);
        let record = Record {
            state: State::Held,
            fence,
            deadline: Some(now + limit.map_or(lifetime, |limit| lifetime.min(limit))),
            since: now,
            holder: request.holder.clone(),
        };
        let expected = self.grant(now, &grant.token, &record);
        self.tokens.insert(grant.token.clone(), record);
        let kept = Kept::Assign {
            request: said,
            token: grant.token.clone(),
            fence,
        };
        self.keep(now, "assign", request.key.as_ref(), kept);
        expect(&expected, grant)
    }

    fn empty(
        &self,
        now: u64,
        took: u64,
        request: &AssignRequest,
        retry_after_ms: Option<u64>,
    ) -> Check {
        if request.token.is_some() {
            return Err("a named token's own answer".to_owned());
        }
        if self.counts().free > 0 {
            return Err(format!("{} are free", self.counts().free));
        }
        // The hint is one of the deadlines that free a token (not always the first); none only if the
        // pool is empty.
        let mut deadlines = self.tokens.values().filter_map(|record| record.deadline);
        let hinted = match retry_after_ms {
            None => self.tokens.is_empty(),
            Some(hint) => deadlines.any(|at| (at - now).abs_diff(hint) <= took),
        };
        if hinted {
            Ok(())
        } else {
            Err(format!("another hint at {now}: {:?}", self.tokens))
        }
    }

    fn refused(&self, now: u64, request: &AssignRequest, answer: &AssignOutcome) -> Check {
        let Some(token) = &request.token else {
            return Err("a grant, or empty".to_owned());
        };
        let expected = match self.tokens.get(token) {
            None => AssignOutcome::TokenNotFound,
            Some(record) if record.state == State::Free => {
                return Err("a grant: it is free".to_owned());
            }
            Some(record) => {
                let cools = match record.state {
                    State::Held => self.policy.cooldown_ms,
                    State::Free | State::Cooling => 0,
                };
                let deadline = record.deadline.expect("a deadline");
                AssignOutcome::NotFree {
                    state: record.state,
                    retry_after_ms: deadline + cools - now,
                }
            }
        };
        expect(&expected, answer)
    }

    /// Whether these fit into the shares of the shards in which they lie.
    fn fits(&self, new: &[TokenValue]) -> bool {
        (0..self.policy.shards).all(|shard| {
            let here = new
                .iter()
                .filter(|token| token.shard(self.policy.shards) == shard);
            let here = here.count() as u64;
            here == 0 || here <= self.room(shard)
        })
    }

    /// How many more all shards would take.
    fn rooms(&self) -> u64 {
        (0..self.policy.shards).map(|shard| self.room(shard)).sum()
    }

    /// How many more a shard's share of the cap would take.
    fn room(&self, shard: u32) -> u64 {
        let (cap, shards) = (self.policy.max_tokens, self.policy.shards);
        let share = cap / u64::from(shards) + u64::from(u64::from(shard) < cap % u64::from(shards));
        let here = self
            .tokens
            .keys()
            .filter(|token| token.shard(shards) == shard);
        share.saturating_sub(here.count() as u64)
    }

    /// `at`: when each shard added what lies there.
    pub fn generate(
        &mut self,
        at: [u64; 2],
        request: &NewTokens,
        key: Option<&IdempotencyKey>,
        answer: &GenerateOutcome,
    ) -> Check {
        let now = at[0];
        self.settle(now);
        let said = format!("{request:?}");
        match self.recall(now, "generate", key) {
            None => {}
            Some(Kept::Generate { request, .. }) if *request != said => {
                return expect(&GenerateOutcome::IdempotencyMismatch, answer);
            }
            Some(Kept::Generate {
                tokens, existing, ..
            }) => {
                let (tokens, existing) = (tokens.clone(), *existing);
                return expect(&added(tokens, existing), answer);
            }
            Some(Kept::Assign { .. }) => unreachable!("kept under another verb"),
        }
        let mut new = Vec::new();
        let mut existing = 0;
        match (request, answer) {
            (NewTokens::Import(wished), _) => {
                for token in wished.iter().map(NewToken::value) {
                    if self.tokens.contains_key(token) || new.contains(token) {
                        existing += 1;
                    } else {
                        new.push(token.clone());
                    }
                }
            }
            (NewTokens::Generate(count), GenerateOutcome::Added { tokens, .. }) => {
                new.clone_from(tokens);
                if new.len() != *count {
                    return Err(format!("{count} tokens"));
                }
            }
            (NewTokens::Generate(count), _) => {
                new = (0..*count).map(|_| TokenValue::generate()).collect();
            }
        }
        let (total, max_tokens) = (self.counts().total(), self.policy.max_tokens);
        let made = matches!(answer, GenerateOutcome::Added { .. });
        let fits = match request {
            NewTokens::Generate(count) if !made => *count as u64 <= self.rooms(),
            _ => self.fits(&new),
        };
        if !fits {
            return expect(&GenerateOutcome::PoolFull { max_tokens, total }, answer);
        }
        for token in &new {
            if self.tokens.contains_key(token) {
                return Err(format!("{token} only once"));
            }
            let at = at[token.shard(self.policy.shards) as usize];
            self.tokens.insert(token.clone(), self.freed(0, at));
        }
        let kept = Kept::Generate {
            request: said,
            tokens: new.clone(),
            existing,
        };
        self.keep(now, "generate", key, kept);
        let tokens = new;
        expect(&added(tokens, existing), answer)
    }

    fn lost(record: &Record, fence: Option<Fence>) -> bool {
        fence.is_some_and(|f| record.state != State::Held || record.fence != f.get())
    }

    pub fn keep_alive(
        &mut self,
        now: u64,
        token: &TokenValue,
        fence: Option<Fence>,
        lifetime_ms: Option<u64>,
        answer: &KeepAliveOutcome,
    ) -> Check {
        self.settle(now);
        let Some(record) = self.tokens.get(token).cloned() else {
            return expect(&KeepAliveOutcome::TokenNotFound, answer);
        };
        if Self::lost(&record, fence) {
            return expect(&KeepAliveOutcome::LeaseLost, answer);
        }
        let kept = match record.state {
            State::Cooling => {
                let state = State::Cooling;
                return expect(&KeepAliveOutcome::NotHeld { state }, answer);
            }
            State::Free => self.freed(record.fence, now),
            State::Held => {
                let mut until = now + lifetime_ms.unwrap_or(self.policy.lifetime_ms);
                if self.policy.max_hold_ms > 0 {
                    // Clamped, but never to before what the holder was told.
                    let limit = record.since + self.policy.max_hold_ms;
                    until = until.min(limit.max(record.deadline.expect("a deadline")));
                }
                Record {
                    deadline: Some(until),
                    ..record
                }
            }
        };
        let expected = KeepAliveOutcome::Kept {
            state: kept.state,
            expires_at_ms: kept.deadline.map(|at| at - self.shifted),
            expires_in_ms: kept.deadline.map(|at| at - now),
        };
        self.tokens.insert(token.clone(), kept);
        expect(&expected, answer)
    }

    pub fn unblock(
        &mut self,
        now: u64,
        token: &TokenValue,
        fence: Option<Fence>,
        answer: &UnblockOutcome,
    ) -> Check {
        self.settle(now);
        let Some(record) = self.tokens.get(token).cloned() else {
            return expect(&UnblockOutcome::TokenNotFound, answer);
        };
        if Self::lost(&record, fence) {
            return expect(&UnblockOutcome::LeaseLost, answer);
        }
        let state = record.state;
        if state != State::Held {
            return expect(&UnblockOutcome::NotHeld { state }, answer);
        }
        let released = self.released(record.fence, now);
        let expected = UnblockOutcome::Released {
            state: released.state,
            available_at_ms: now - self.shifted
                + match released.state {
                    State::Cooling => self.policy.cooldown_ms,
                    State::Free | State::Held => 0,
                },
        };
        self.tokens.insert(token.clone(), released);
        expect(&expected, answer)
    }

    pub fn delete(&mut self, now: u64, token: &TokenValue, answer: &DeleteOutcome) -> Check {
        self.settle(now);
        let expected = match self.tokens.remove(token) {
            Some(_) => DeleteOutcome::Deleted,
            None => DeleteOutcome::TokenNotFound,
        };
        expect(&expected, answer)
    }

    pub fn put(&mut self, now: u64, patch: &PolicyPatch) {
        self.settle(now);
        self.policy = self.policy.with(patch);
    }
}
