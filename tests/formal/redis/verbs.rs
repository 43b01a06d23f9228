//! The verbs' scripts, on top of what they share.

use super::{Answer, FENCES_PER_UNIT, Redis, Rules, State, TICK, TICKS, members};
use crate::bug::Bug;

impl Redis {
    /// `take`: a free token, `first` before the others. What turns out to be idle too long is deleted.
    fn take(&mut self, rules: &Rules, first: usize) -> Option<usize> {
        for token in [first, 1 - first] {
            if self.free & (1 << token) == 0 {
                continue;
            }
            let t = self.get(rules, token);
            if t.state == Some(State::Free) || rules.has(Bug::AssignDoesNotSettle) {
                return Some(token);
            }
            self.flush(rules, token, t);
        }
        None
    }

    pub fn assign(&mut self, rules: &Rules, first: usize, lifetime: u8, keyed: bool) -> Answer {
        if keyed && let Some((token, fence)) = self.remembered {
            let t = self.get(rules, token);
            let held = t.state == Some(State::Held) && t.fence == fence;
            if !rules.has(Bug::RetryIsGrantedAnew) {
                self.flush_settled(rules, token, t);
                return if held {
                    Answer::Replayed
                } else {
                    Answer::Refused
                };
            }
        }
        let mut taken = self.take(rules, first);
        if taken.is_none() {
            self.settle_due(rules);
            taken = self.take(rules, first);
        }
        let Some(token) = taken else {
            return Answer::Refused;
        };
        let mut t = self.get(rules, token);
        let clocked = if rules.clocked_fences && !rules.has(Bug::FenceIgnoresTheClock) {
            self.clock * FENCES_PER_UNIT
        } else {
            0
        };
        self.last_fence = clocked.max(self.last_fence + 1);
        (t.state, t.fence) = (Some(State::Held), self.last_fence);
        t.deadline = self.now() + lifetime;
        self.flush(rules, token, t);
        if keyed {
            self.remembered = Some((token, t.fence));
        }
        Answer::Granted {
            token,
            fence: t.fence,
        }
    }

    /// `fence` 0 for none.
    pub fn keep_alive(&mut self, rules: &Rules, token: usize, fence: u8, lifetime: u8) -> Answer {
        let mut t = self.get(rules, token);
        if fence > 0 && (t.state != Some(State::Held) || t.fence != fence) {
            return self.refuse(rules, token, t);
        }
        match t.state {
            Some(State::Held) => t.deadline = self.now() + lifetime,
            Some(State::Free) => t.become_free(rules, self.now()),
            _ => return self.refuse(rules, token, t),
        }
        self.flush(rules, token, t);
        Answer::Done
    }

    /// `fence` 0 for none; `direct` is straight to free.
    pub fn unblock(&mut self, rules: &Rules, token: usize, fence: u8, direct: bool) -> Answer {
        let mut t = self.get(rules, token);
        let another = fence > 0 && t.fence != fence && !rules.has(Bug::UnblockIgnoresTheFence);
        if t.state != Some(State::Held) || another {
            return self.refuse(rules, token, t);
        }
        if direct {
            t.become_free(rules, self.now());
        } else {
            t.release(rules, self.now());
        }
        self.flush(rules, token, t);
        Answer::Done
    }

    pub fn delete(&mut self, rules: &Rules, token: usize) {
        let mut t = self.get(rules, token);
        if t.state.is_none() {
            return;
        }
        t.become_absent();
        if rules.has(Bug::DeleteLeavesTheRecord) {
            self.free &= !(1 << token);
        } else {
            self.flush(rules, token, t);
        }
    }

    /// Whether it was added.
    pub fn generate(&mut self, rules: &Rules, token: usize) -> bool {
        let mut t = self.get(rules, token);
        if t.state.is_some() {
            return false;
        }
        self.flush(rules, token, t); // what was found idle no longer counts
        t.stored = None;
        t.due = 0;
        t.become_free(rules, self.now());
        self.flush(rules, token, t);
        true
    }

    /// `drop_pool`. The fence outlives it.
    pub fn drop_pool(&mut self, rules: &Rules) {
        let last_fence = if rules.has(Bug::FenceGoesWithItsPool) {
            0
        } else {
            self.last_fence
        };
        *self = Self {
            clock: self.clock,
            generation: 0,
            last_fence,
            ..Self::new()
        };
    }

    /// Redis comes back empty. That takes time.
    pub fn lose_everything(&mut self, rules: &Rules) {
        self.drop_pool(rules);
        self.last_fence = 0;
        self.clock += 1;
    }

    /// `stale` to whoever means another generation.
    pub fn knows(&self, generation: u8) -> bool {
        generation > 0 && self.generation == generation
    }

    /// The first half of a sweep that is made in two calls, by planted bug: who is due?
    pub fn list_due(&self) -> u8 {
        let due = |tick: &usize| (*tick as u8) * TICK < self.now();
        let buckets = (0..TICKS).filter(due).map(|tick| self.wheel[tick]);
        buckets.fold(0, |all, bucket| all | bucket)
    }

    /// The second half: all that were due are released.
    pub fn release_listed(&mut self, rules: &Rules, listed: u8) {
        for token in members(listed) {
            let mut t = self.get(rules, token);
            if t.state == Some(State::Held) {
                t.release(rules, self.clock);
                self.flush(rules, token, t);
            }
        }
    }
}
