//! What can happen next.

use super::{LONG, Replica, SHORT, Scope, World};
use crate::bug::Bug;
use crate::redis::TOKENS;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    Tick,
    Generate(usize),
    Assign {
        first: usize,
        lifetime: u8,
        keyed: bool,
    },
    /// The answer reaches the caller.
    Told(usize),
    /// The caller has gone: the replica gives the grant back by its fence.
    GiveBack(usize),
    /// The replica dies, and what it knew with it.
    Crash(usize),
    /// By a caller that names its grant, the n-th that was told; by one that names none.
    KeepAlive {
        grant: Option<usize>,
        token: usize,
        lifetime: u8,
    },
    Unblock {
        grant: Option<usize>,
        token: usize,
    },
    Delete(usize),
    Sweep {
        budget: u32,
        first: usize,
    },
    DropPool,
    MakePool,
    Lose,
    ListDue,
    ReleaseListed(usize),
}

impl World {
    pub fn actions(&self, scope: &Scope, actions: &mut Vec<Action>) {
        if self.broken.is_some() {
            return;
        }
        if self.redis.clock < scope.clock_max {
            actions.push(Action::Tick);
        }
        self.pool_actions(scope, actions);
        if self.redis.generation == 0 {
            return;
        }
        let idle = self.replicas.contains(&Replica::Idle);
        if idle && scope.rules.has(Bug::SweepInTwoCalls) {
            actions.push(Action::ListDue);
        }
        for token in 0..TOKENS {
            if self.added < scope.adds_max {
                actions.push(Action::Generate(token));
            }
            actions.push(Action::Delete(token));
            for budget in [1, 2] {
                actions.push(Action::Sweep {
                    budget,
                    first: token,
                });
            }
            if idle && self.granted < scope.grants_max {
                self.assigns(scope, token, actions);
            }
            actions.push(Action::Unblock { grant: None, token });
            for lifetime in [SHORT, LONG] {
                let grant = None;
                actions.push(Action::KeepAlive {
                    grant,
                    token,
                    lifetime,
                });
            }
        }
        for (n, grant) in self.told.iter().enumerate() {
            let (grant, token) = (Some(n), grant.token);
            actions.push(Action::Unblock { grant, token });
            for lifetime in [SHORT, LONG] {
                actions.push(Action::KeepAlive {
                    grant,
                    token,
                    lifetime,
                });
            }
        }
    }

    /// What concerns replicas, and the pool as a whole.
    fn pool_actions(&self, scope: &Scope, actions: &mut Vec<Action>) {
        for (n, replica) in self.replicas.iter().enumerate() {
            match replica {
                Replica::Idle => {}
                Replica::Granted { keyed, .. } => {
                    actions.extend([Action::Told(n), Action::Crash(n)]);
                    if !keyed {
                        actions.push(Action::GiveBack(n));
                    }
                }
                Replica::Listed(_) => actions.extend([Action::ReleaseListed(n), Action::Crash(n)]),
            }
        }
        if scope.loses && !self.lost && self.redis.clock < scope.clock_max {
            actions.push(Action::Lose);
        }
        if self.redis.generation == 0 {
            actions.push(Action::MakePool);
        } else if scope.drops && self.redis.generation == 1 {
            actions.push(Action::DropPool);
        }
    }

    fn assigns(&self, scope: &Scope, first: usize, actions: &mut Vec<Action>) {
        for lifetime in [SHORT, LONG] {
            for keyed in [false, true] {
                if !keyed || scope.keys {
                    actions.push(Action::Assign {
                        first,
                        lifetime,
                        keyed,
                    });
                }
            }
        }
    }
}
