//! What must be: every token with the state that it has at this very moment, as if each deadline acted by itself
//! when it comes. No wheel, no sweep, no record: that these change nothing is what is proved.

use crate::redis::{Redis, Rules, State, TICK, TOKENS};

/// The invariants of ARCHITECTURE.md by their numbers, and what the wheel must keep for them to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// 1
    OneHolder,
    /// 1: of all grants that ever were
    NoFenceTwice,
    /// 2
    NothingLost,
    /// 3
    DeletedStaysDeleted,
    /// 4
    OnlyTheHolderLetsGo,
    /// 5
    NeverEarly,
    /// 6, as far as it is not about speed: what is due is found by sweeps alone
    NotForgotten,
    /// 9
    OneGrantPerKey,
    /// The free set is exactly the tokens whose record says free.
    FreeSet,
    /// What is stored, settled, is what must be.
    Settled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Must {
    Absent,
    /// `until` 0 is for ever.
    Free {
        until: u8,
    },
    Held {
        fence: u8,
        until: u8,
    },
    Cooling {
        until: u8,
    },
}

impl Must {
    pub fn free(rules: &Rules, since: u8) -> Self {
        let until = if rules.idle_limit > 0 {
            since + rules.idle_limit
        } else {
            0
        };
        Self::Free { until }
    }

    pub fn let_go(rules: &Rules, since: u8) -> Self {
        if rules.cooldown > 0 {
            return Self::Cooling {
                until: since + rules.cooldown,
            };
        }
        Self::free(rules, since)
    }

    /// Every deadline acts when the clock reaches it.
    pub fn at(self, rules: &Rules, clock: u8) -> Self {
        let next = match self {
            Self::Held { until, .. } if until <= clock && rules.deleted_on_lapse => Self::Absent,
            Self::Held { until, .. } if until <= clock => Self::let_go(rules, until),
            Self::Cooling { until } if until <= clock => Self::free(rules, until),
            Self::Free { until } if until > 0 && until <= clock => Self::Absent,
            _ => return self,
        };
        next.at(rules, clock)
    }
}

/// What is wrong with what Redis holds, if anything.
pub fn judge(rules: &Rules, redis: &Redis, must: &[Must; TOKENS]) -> Option<Invariant> {
    let mut free = 0;
    for (token, &must) in must.iter().enumerate() {
        if let Some(wrong) = compare(rules, redis, token, must) {
            return Some(wrong);
        }
        if let Some(record) = redis.records[token] {
            free |= u8::from(record.state == State::Free) << token;
        }
    }
    if free != redis.free {
        return Some(Invariant::FreeSet);
    }
    let forgotten = (0..TOKENS).any(|token| is_forgotten(redis, token));
    (forgotten || !sweeps_find_all(rules, redis)).then_some(Invariant::NotForgotten)
}

fn compare(rules: &Rules, redis: &Redis, token: usize, must: Must) -> Option<Invariant> {
    let is = redis.get(rules, token);
    let stands = match is.state {
        None => Must::Absent,
        Some(State::Free) => Must::Free { until: is.deadline },
        Some(State::Held) => Must::Held {
            fence: is.fence,
            until: is.deadline,
        },
        Some(State::Cooling) => Must::Cooling { until: is.deadline },
    };
    if stands == must {
        return None;
    }
    Some(match (must, stands) {
        (Must::Absent, _) => Invariant::DeletedStaysDeleted,
        (Must::Held { fence, .. }, Must::Held { fence: other, .. }) if fence != other => {
            Invariant::OneHolder
        }
        (Must::Held { until, .. }, Must::Held { until: other, .. }) if other > until => {
            Invariant::Settled
        }
        (_, Must::Absent) => Invariant::NothingLost,
        (Must::Held { .. }, _) => Invariant::NeverEarly,
        _ => Invariant::Settled,
    })
}

/// A deadline must have an entry in its bucket, not later than itself, and the bucket its place in the index, and
/// the pool its turn.
fn is_forgotten(redis: &Redis, token: usize) -> bool {
    let Some(record) = redis.records[token] else {
        return false;
    };
    if record.deadline == 0 && record.due == 0 {
        return false;
    }
    let in_time =
        record.due > 0 && (record.deadline == 0 || record.due <= record.deadline.div_ceil(TICK));
    let entered = redis.wheel[usize::from(record.due)] & (1 << token) != 0;
    let indexed = redis.ticks & (1 << record.due) != 0;
    let moment = (record.due * TICK).max(redis.clock);
    !(in_time && entered && indexed && redis.turn.is_some_and(|turn| turn <= moment))
}

/// Whether sweeps alone, an entry at a time, bring everything to where it must be by now, to the tick.
fn sweeps_find_all(rules: &Rules, redis: &Redis) -> bool {
    /// Two tokens in a few buckets each: far more than it takes.
    const SWEEPS_MAX: u32 = 12;
    let mut redis = redis.clone();
    for _ in 0..SWEEPS_MAX {
        redis.sweep(rules, 1, 0);
    }
    let due = |deadline: u8| deadline > 0 && deadline.div_ceil(TICK) * TICK <= redis.clock;
    !redis.records.iter().flatten().any(|it| due(it.deadline))
}
