//! What Redis holds of one pool, and the scripts, as `lua/prelude.lua` and the verbs behind it have them: the same
//! order of the same steps, with small numbers. A planted bug is a line of it that is wrong.

mod verbs;

use crate::bug::Bug;

pub const TOKENS: usize = 2;
/// Width of a bucket of the wheel.
pub const TICK: u8 = 2;
/// A deadline further away than this waits in a coarse bucket, which begins at a multiple of it.
const FINE: u8 = 4;
/// No deadline lies in a later bucket.
const TICKS: usize = 16;
/// Fences that one unit of time has room for, where fences follow the clock. More than a run grants.
const FENCES_PER_UNIT: u8 = 8;

/// A pool's policy, and what may befall it.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub cooldown: u8,
    /// 0 for never.
    pub idle_limit: u8,
    pub deleted_on_lapse: bool,
    /// Whether fences follow the clock, as they do, or are dense, which leaves fewer states.
    pub clocked_fences: bool,
    pub bug: Option<Bug>,
}

impl Rules {
    pub fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Free,
    Held,
    Cooling,
}

/// A packed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    pub state: State,
    pub fence: u8,
    /// 0 for none.
    pub deadline: u8,
    /// The bucket in which its entry lies, 0 for none.
    pub due: u8,
}

/// One token within one call: as it was stored, and as it stands now, settled.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    stored: Option<Record>,
    /// Whether settling it has changed it, so that it is to be written whatever the verb answers.
    dirty: bool,
    pub state: Option<State>,
    pub fence: u8,
    pub deadline: u8,
    due: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Whole units. A deadline has passed when the clock has reached it.
    pub clock: u8,
    /// 0 where there is no pool.
    pub generation: u8,
    pub records: [Option<Record>; TOKENS],
    /// The free set, a bit for each token.
    pub free: u8,
    /// The buckets, a bit for each token.
    pub wheel: [u8; TICKS],
    /// The wheel's index: a bit for each bucket that is not empty.
    pub ticks: u32,
    /// When the pool's turn comes, if ever.
    pub turn: Option<u8>,
    pub last_fence: u8,
    /// What the idempotency key was answered with: token and fence.
    pub remembered: Option<(usize, u8)>,
}

/// What a script answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing that a caller would act upon.
    Done,
    Granted {
        token: usize,
        fence: u8,
    },
    /// The grant that the key was answered with before.
    Replayed,
    Refused,
}

pub fn members(set: u8) -> impl Iterator<Item = usize> {
    (0..TOKENS).filter(move |token| set & (1 << token) != 0)
}

impl Redis {
    pub fn new() -> Self {
        Self {
            clock: 1,
            generation: 1,
            records: [None; TOKENS],
            free: 0,
            wheel: [0; TICKS],
            ticks: 0,
            turn: None,
            last_fence: 0,
            remembered: None,
        }
    }

    /// As the scripts round it: what is before it has passed.
    fn now(&self) -> u8 {
        self.clock + 1
    }

    fn lowest(&self) -> Option<u8> {
        (self.ticks != 0).then(|| self.ticks.trailing_zeros() as u8)
    }

    /// `get`: reads and settles.
    pub fn get(&self, rules: &Rules, token: usize) -> Token {
        let stored = self.records[token];
        let mut t = Token {
            stored,
            dirty: false,
            state: stored.map(|it| it.state),
            fence: stored.map_or(0, |it| it.fence),
            deadline: stored.map_or(0, |it| it.deadline),
            due: stored.map_or(0, |it| it.due),
        };
        while t.state.is_some() && t.deadline > 0 && t.deadline < self.now() {
            let passed = t.deadline;
            t.dirty = true;
            match t.state {
                Some(State::Held) if rules.deleted_on_lapse => t.become_absent(),
                Some(State::Held) => t.release(rules, passed),
                Some(State::Cooling) => t.become_free(rules, passed),
                _ => t.become_absent(),
            }
        }
        t
    }

    /// `place`: puts a deadline on the wheel, unless the entry that is there comes up in time.
    fn place(&mut self, rules: &Rules, token: usize, t: &mut Token) {
        if t.deadline == 0 {
            return;
        }
        let mut tick = t.deadline.div_ceil(TICK);
        if t.deadline - self.now().min(t.deadline) > FINE {
            tick = t.deadline / FINE * (FINE / TICK);
        }
        let kept = rules.has(Bug::EarlierDeadlineKeepsItsEntry) && t.due > 0;
        if kept || (t.due > 0 && t.due <= tick) {
            return;
        }
        self.leave(token, t.due);
        self.wheel[usize::from(tick)] |= 1 << token;
        self.ticks |= 1 << tick;
        let moment = tick * TICK;
        self.turn = Some(self.turn.map_or(moment, |turn| turn.min(moment)));
        t.due = tick;
    }

    fn leave(&mut self, token: usize, tick: u8) {
        if tick > 0 {
            self.wheel[usize::from(tick)] &= !(1 << token);
            if self.wheel[usize::from(tick)] == 0 {
                self.ticks &= !(1 << tick);
            }
        }
    }

    /// `flush_pool`, for one token that was touched.
    pub fn flush(&mut self, rules: &Rules, token: usize, mut t: Token) {
        let bit = 1 << token;
        match t.state {
            Some(State::Free) => self.free |= bit,
            _ => self.free &= !bit,
        }
        let Some(state) = t.state else {
            self.records[token] = None;
            if !rules.has(Bug::StaleEntryBringsItsTokenBack) {
                self.leave(token, t.due);
            }
            return;
        };
        self.place(rules, token, &mut t);
        self.records[token] = Some(Record {
            state,
            fence: t.fence,
            deadline: t.deadline,
            due: t.due,
        });
    }

    fn refuse(&mut self, rules: &Rules, token: usize, t: Token) -> Answer {
        self.flush_settled(rules, token, t);
        Answer::Refused
    }

    fn flush_settled(&mut self, rules: &Rules, token: usize, t: Token) {
        if t.dirty {
            self.flush(rules, token, t);
        }
    }

    /// One entry that `sweep_pool` has popped.
    fn sweep_entry(&mut self, rules: &Rules, token: usize, tick: u8) {
        let mut t = self.get(rules, token);
        let Some(stored) = t.stored else {
            if rules.has(Bug::StaleEntryBringsItsTokenBack) {
                t.become_free(rules, self.clock);
                self.flush(rules, token, t);
            }
            return;
        };
        if rules.has(Bug::SweepTrustsTheEntry) && t.state == Some(State::Held) {
            t.release(rules, self.clock);
        } else if stored.due != tick {
            return self.flush_settled(rules, token, t); // stale
        }
        if !rules.has(Bug::SweepDropsWhatIsNotDue) {
            t.due = 0;
        }
        self.flush(rules, token, t);
    }

    /// `sweep_pool`: at most `budget` entries, of a bucket with several the one that is `first` before the others.
    fn sweep_pool(&mut self, rules: &Rules, budget: u32, first: usize) {
        let mut swept = 0;
        let mut lowest = self.lowest();
        while let Some(tick) = lowest.filter(|tick| tick * TICK < self.now() && swept < budget) {
            let bucket = self.wheel[usize::from(tick)];
            let ask = (budget - swept) as usize;
            let order = [first, 1 - first];
            let popped: Vec<usize> = order
                .into_iter()
                .filter(|token| bucket & (1 << token) != 0)
                .take(ask)
                .collect();
            for token in &popped {
                self.wheel[usize::from(tick)] &= !(1 << token);
            }
            if popped.len() < ask {
                self.ticks &= !(1 << tick);
            }
            for &token in &popped {
                self.sweep_entry(rules, token, tick);
            }
            swept += popped.len().max(1) as u32;
            lowest = self.lowest();
        }
        let turn = |tick: u8| {
            if tick * TICK < self.now() {
                self.clock
            } else {
                tick * TICK
            }
        };
        self.turn = lowest.map(turn);
    }

    /// `sweep`, where the pool's turn has come.
    pub fn sweep(&mut self, rules: &Rules, budget: u32, first: usize) {
        if self.turn.is_some_and(|turn| turn <= self.clock) {
            self.sweep_pool(rules, budget, first);
        }
    }

    /// `settle_due`: to the very moment, the bucket that no sweep has come to yet included.
    fn settle_due(&mut self, rules: &Rules) {
        const ALL: u32 = 100;
        self.sweep_pool(rules, ALL, 0);
        let bucket = self.wheel[usize::from(self.clock.div_ceil(TICK))];
        for token in members(bucket) {
            let t = self.get(rules, token);
            self.flush_settled(rules, token, t);
        }
    }
}

impl Token {
    fn become_free(&mut self, rules: &Rules, since: u8) {
        self.state = Some(State::Free);
        self.deadline = if rules.idle_limit > 0 {
            since + rules.idle_limit
        } else {
            0
        };
    }

    /// It leaves its holder: it cools, or is free at once.
    fn release(&mut self, rules: &Rules, since: u8) {
        if rules.cooldown == 0 {
            return self.become_free(rules, since);
        }
        self.state = Some(State::Cooling);
        self.deadline = since + rules.cooldown;
    }

    fn become_absent(&mut self) {
        (self.state, self.fence, self.deadline) = (None, 0, 0);
    }
}
