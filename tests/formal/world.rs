//! Redis, two replicas and their callers, and everything that can happen next.
//!
//! A message may be as late as it likes. Whatever a caller once knew enough to say may reach Redis at any later
//! moment, after any others, so what was sent and is not executed needs no state of its own. What does need one is an
//! answer that is not received: a grant that nobody was told of.

mod actions;

pub use actions::Action;

use crate::redis::{Answer, Redis, Rules, TOKENS};
use crate::truth::{Invariant, Must, judge};

const REPLICAS: usize = 2;
const SHORT: u8 = 1;
/// Long enough for a coarse bucket.
const LONG: u8 = 6;

/// How far a run goes, and what may happen in it.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub rules: Rules,
    pub clock_max: u8,
    pub grants_max: u8,
    /// Tokens added, those made again after a delete included.
    pub adds_max: u8,
    /// Whether the pool may be deleted and made again.
    pub drops: bool,
    /// Whether Redis may come back empty.
    pub loses: bool,
    /// Whether assigns come with an idempotency key too.
    pub keys: bool,
}

/// A replica between its call and what it makes of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Replica {
    Idle,
    /// Executed in Redis; the answer is on its way to the replica, or from there to the caller.
    Granted {
        grant: Grant,
        keyed: bool,
    },
    /// By planted bug: it knows which tokens were due.
    Listed(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    token: usize,
    fence: u8,
    generation: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub redis: Redis,
    must: [Must; TOKENS],
    replicas: [Replica; REPLICAS],
    /// Grants that callers were told of. One that has ended stays: its holder may have slept.
    told: Vec<Grant>,
    /// All fences that were ever granted, a bit for each.
    fences: u128,
    granted: u8,
    added: u8,
    lost: bool,
    keyed: bool,
    pub broken: Option<Invariant>,
    /// What happened on the way here from the world before.
    pub seen: u8,
}

/// Bits of `World::seen`: a space in which these never happen proves little.
pub mod seen {
    pub const LAPSE: u8 = 1;
    pub const UNTOLD_LAPSE: u8 = 2;
    pub const GIVEN_BACK: u8 = 4;
    pub const LATE_REFUSED: u8 = 8;
    pub const REPLAYED: u8 = 16;
    pub const EARLIER: u8 = 32;
    /// What every space must have.
    pub const ALWAYS: u8 = LAPSE | UNTOLD_LAPSE | GIVEN_BACK | LATE_REFUSED | EARLIER;
}

impl World {
    pub fn new() -> Self {
        Self {
            redis: Redis::new(),
            must: [Must::Absent; TOKENS],
            replicas: [Replica::Idle; REPLICAS],
            told: Vec::new(),
            fences: 0,
            granted: 0,
            added: 0,
            lost: false,
            keyed: false,
            broken: None,
            seen: 0,
        }
    }

    /// The world after an action; none if nothing has changed.
    pub fn after(&self, scope: &Scope, action: Action) -> Option<Self> {
        let mut next = self.clone();
        next.act(&scope.rules, action);
        next.replicas.sort_unstable(); // which is which makes no difference
        if next.broken.is_none() {
            next.broken = judge(&scope.rules, &next.redis, &next.must);
        }
        (next != *self).then_some(next)
    }

    fn act(&mut self, rules: &Rules, action: Action) {
        match action {
            Action::Tick => self.tick(rules, 1),
            Action::Generate(token) => {
                if self.redis.generate(rules, token) {
                    self.added += 1;
                    self.must[token] = Must::free(rules, self.redis.clock + 1);
                }
            }
            Action::Assign {
                first,
                lifetime,
                keyed,
            } => self.assign(rules, first, lifetime, keyed),
            Action::Told(n) => {
                if let Replica::Granted { grant, .. } = self.replicas[n] {
                    self.told.push(grant);
                    self.told.sort_unstable();
                }
                self.replicas[n] = Replica::Idle;
            }
            Action::GiveBack(n) => {
                if let Replica::Granted { grant, .. } = self.replicas[n] {
                    self.seen |= seen::GIVEN_BACK;
                    self.unblock(rules, grant.token, Some(grant), true);
                }
                self.replicas[n] = Replica::Idle;
            }
            Action::Crash(n) => self.replicas[n] = Replica::Idle,
            Action::KeepAlive {
                grant,
                token,
                lifetime,
            } => {
                self.keep_alive(rules, token, grant.map(|n| self.told[n]), lifetime);
            }
            Action::Unblock { grant, token } => {
                self.unblock(rules, token, grant.map(|n| self.told[n]), false);
            }
            Action::Delete(token) => {
                self.redis.delete(rules, token);
                self.must[token] = Must::Absent;
            }
            Action::Sweep { budget, first } => self.redis.sweep(rules, budget, first),
            Action::DropPool => {
                self.redis.drop_pool(rules);
                self.must = [Must::Absent; TOKENS];
                self.keyed = false;
            }
            Action::MakePool => self.redis.generation = if self.lost { 3 } else { 2 },
            Action::Lose => {
                self.redis.lose_everything(rules);
                self.must = [Must::Absent; TOKENS];
                (self.lost, self.keyed) = (true, false);
            }
            Action::ListDue => self.busy(Replica::Listed(self.redis.list_due())),
            Action::ReleaseListed(n) => {
                if let Replica::Listed(listed) = self.replicas[n] {
                    self.redis.release_listed(rules, listed);
                }
                self.replicas[n] = Replica::Idle;
            }
        }
    }

    fn busy(&mut self, with: Replica) {
        let idle = self.replicas.iter_mut().find(|it| **it == Replica::Idle);
        *idle.expect("only asked where one is idle") = with;
    }

    fn tick(&mut self, rules: &Rules, by: u8) {
        self.redis.clock += by;
        for must in &mut self.must {
            let now = must.at(rules, self.redis.clock);
            if let Must::Held { fence, .. } = *must
                && now != *must
            {
                self.seen |= seen::LAPSE;
                if !self.told.iter().any(|it| it.fence == fence) {
                    self.seen |= seen::UNTOLD_LAPSE;
                }
            }
            *must = now;
        }
    }

    fn assign(&mut self, rules: &Rules, first: usize, lifetime: u8, keyed: bool) {
        let (token, fence) = match self.redis.assign(rules, first, lifetime, keyed) {
            Answer::Granted { token, fence } => (token, fence),
            Answer::Replayed => {
                self.seen |= seen::REPLAYED;
                return;
            }
            _ => return,
        };
        let again = self.fences & (1 << fence) != 0;
        self.broken = match self.must[token] {
            Must::Held { .. } => Some(Invariant::OneHolder),
            Must::Absent => Some(Invariant::DeletedStaysDeleted),
            Must::Cooling { .. } => Some(Invariant::Settled),
            Must::Free { .. } if again => Some(Invariant::NoFenceTwice),
            Must::Free { .. } if keyed && self.keyed => Some(Invariant::OneGrantPerKey),
            Must::Free { .. } => None,
        };
        self.fences |= 1 << fence;
        self.granted += 1;
        self.keyed |= keyed;
        let until = self.redis.clock + 1 + lifetime;
        self.must[token] = Must::Held { fence, until };
        let generation = self.redis.generation;
        let grant = Grant {
            token,
            fence,
            generation,
        };
        self.busy(Replica::Granted { grant, keyed });
    }

    fn keep_alive(&mut self, rules: &Rules, token: usize, grant: Option<Grant>, lifetime: u8) {
        if grant.is_some_and(|it| !self.redis.knows(it.generation)) {
            return;
        }
        let fence = grant.map_or(0, |it| it.fence);
        let answer = self.redis.keep_alive(rules, token, fence, lifetime);
        let now = self.redis.clock + 1;
        match self.must[token] {
            Must::Held { fence: held, until } if fence == 0 || held == fence => {
                if now + lifetime < until {
                    self.seen |= seen::EARLIER;
                }
                let until = now + lifetime;
                self.must[token] = Must::Held { fence: held, until };
                if answer == Answer::Refused {
                    self.broken = Some(Invariant::NeverEarly);
                }
            }
            Must::Free { .. } if fence == 0 => self.must[token] = Must::free(rules, now),
            _ => self.must_be_refused(fence, answer),
        }
    }

    fn unblock(&mut self, rules: &Rules, token: usize, grant: Option<Grant>, direct: bool) {
        if grant.is_some_and(|it| !self.redis.knows(it.generation)) {
            return;
        }
        let fence = grant.map_or(0, |it| it.fence);
        let answer = self.redis.unblock(rules, token, fence, direct);
        let now = self.redis.clock + 1;
        match self.must[token] {
            Must::Held { fence: held, .. } if fence == 0 || held == fence => {
                let after = if direct { Must::free } else { Must::let_go };
                self.must[token] = after(rules, now);
                if answer == Answer::Refused {
                    self.broken = Some(Invariant::NeverEarly);
                }
            }
            _ => self.must_be_refused(fence, answer),
        }
    }

    /// A caller whose grant has ended has no say.
    fn must_be_refused(&mut self, fence: u8, answer: Answer) {
        if fence > 0 && answer == Answer::Refused {
            self.seen |= seen::LATE_REFUSED;
        }
        if fence > 0 && answer != Answer::Refused {
            self.broken = Some(Invariant::OnlyTheHolderLetsGo);
        }
    }
}
