//! A formal model of the wheel and the fence: every order of everything that two replicas, their callers, the clock
//! and a few crashes can do to a pool of two tokens, within bounds, and that the invariants hold in each state.
//!
//! `redis.rs` is the scripts, `truth.rs` what must be, `world.rs` what can happen, `bug.rs` what is planted to see
//! that it would be found. `make formal` goes further than `make test` does. `rotation.rs` is a model of its own: tokens
//! that are exchanged for a successor.
//!
//! Left out: the alarm (a doorbell), batches (a script of several items is several scripts behind each other),
//! metadata, `max_hold`, the cap, and tokens born held.

// Numbers here are tiny.
#![allow(clippy::cast_possible_truncation)]

mod bug;
mod redis;
mod rotation;
mod truth;
mod world;

use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use bug::Bug;
use redis::Rules;
use stateright::{Checker, HasDiscoveries, Model, Property};
use truth::Invariant;
use world::{Action, Scope, World, seen};

/// All that can happen within a scope.
struct Space {
    scope: Scope,
    /// Bits of `seen`.
    seen: AtomicU8,
}

impl Model for Space {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.scope, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.after(&self.scope, action)?;
        self.seen.fetch_or(next.seen, Ordering::Relaxed);
        next.seen = 0;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let holds = |_: &Self, world: &World| world.broken.is_none();
        vec![Property::always(HOLDS, holds)]
    }
}

const HOLDS: &str = "every invariant holds";
/// The machine that all this was measured on has as many.
const THREADS: usize = 2;

/// Goes through all that a model can do, and prints past the harness's capture how much that was: that is what the
/// proof is worth. `broken` reads a state. The path to the first broken state is as short as can be.
fn search<M, I>(
    what: &str,
    model: M,
    broken: impl Fn(&M::State) -> Option<I>,
) -> (impl Checker<M>, Option<I>, Vec<M::Action>)
where
    M: Model + Send + Sync + 'static,
    M::State: std::fmt::Debug + std::hash::Hash + Clone + PartialEq + Send + Sync,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync,
    I: std::fmt::Debug,
{
    let start = Instant::now();
    let checker = model.checker().threads(THREADS);
    let checker = checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let path = checker.discovery(HOLDS);
    let found = path.as_ref().and_then(|path| broken(path.last_state()));
    let actions = path.map(stateright::Path::into_actions).unwrap_or_default();
    let _ = writeln!(
        std::io::stderr(),
        "formal: {what}: {} states, {} in {:.1?}{}",
        checker.unique_state_count(),
        found
            .as_ref()
            .map_or("all hold".to_owned(), |it| format!("{it:?} broken")),
        start.elapsed(),
        match actions.len() {
            0 => String::new(),
            steps => format!(", by {steps} steps"),
        }
    );
    (checker, found, actions)
}

fn explore(what: &str, scope: Scope) -> (u8, Option<Invariant>, Vec<Action>) {
    let seen = AtomicU8::new(0);
    let (checker, broken, path) = search(what, Space { scope, seen }, |world| world.broken);
    (checker.model().seen.load(Ordering::Relaxed), broken, path)
}

const RULES: Rules = Rules {
    cooldown: 1,
    idle_limit: 0,
    deleted_on_lapse: false,
    clocked_fences: false,
    bug: None,
};
/// Small enough for every `make test`.
const SCOPE: Scope = Scope {
    rules: RULES,
    clock_max: 5,
    grants_max: 2,
    adds_max: 2,
    drops: false,
    loses: false,
    keys: false,
};
/// Longer runs with more grants, by `make formal`.
const LARGE: Scope = Scope {
    clock_max: 6,
    grants_max: 3,
    ..SCOPE
};
const LARGE_VARIABLE: &str = "TOKEND_FORMAL_LARGE";

fn base() -> Scope {
    if std::env::var_os(LARGE_VARIABLE).is_some() {
        LARGE
    } else {
        SCOPE
    }
}

fn holds(what: &str, scope: Scope, also_seen: u8) {
    let (seen, broken, path) = explore(what, scope);
    assert_eq!(broken, None, "by {path:#?}");
    let expected = seen::ALWAYS | also_seen;
    assert_eq!(seen & expected, expected, "too little happens");
}

#[test]
fn every_invariant_holds_where_tokens_cool() {
    holds("cooldown", base(), 0);
}

#[test]
fn every_invariant_holds_where_idle_tokens_are_deleted() {
    let rules = Rules {
        cooldown: 0,
        idle_limit: 2,
        ..RULES
    };
    holds("idle limit", Scope { rules, ..base() }, 0);
}

#[test]
fn every_invariant_holds_where_lapsed_tokens_are_deleted() {
    let rules = Rules {
        deleted_on_lapse: true,
        ..RULES
    };
    holds("deleted on lapse", Scope { rules, ..base() }, 0);
}

#[test]
fn every_invariant_holds_where_a_pool_is_deleted_and_made_again() {
    let scope = Scope {
        drops: true,
        clock_max: base().clock_max - 1,
        ..base()
    };
    holds("pool made again", scope, 0);
}

#[test]
fn no_fence_is_granted_twice_where_redis_comes_back_empty() {
    let rules = Rules {
        clocked_fences: true,
        ..RULES
    };
    let scope = Scope {
        rules,
        loses: true,
        clock_max: base().clock_max - 2,
        ..base()
    };
    holds("data lost", scope, 0);
}

#[test]
fn a_retry_with_a_key_is_never_granted_twice() {
    let scope = Scope {
        keys: true,
        clock_max: base().clock_max - 2,
        ..base()
    };
    holds("idempotency keys", scope, seen::REPLAYED);
}

/// The smallest scope in which a bug can show.
fn scope_for(bug: Bug) -> Scope {
    let idle = bug == Bug::AssignDoesNotSettle;
    let loses = bug == Bug::FenceIgnoresTheClock;
    Scope {
        rules: Rules {
            idle_limit: if idle { 2 } else { 0 },
            clocked_fences: loses,
            bug: Some(bug),
            ..RULES
        },
        clock_max: 7,
        adds_max: 3,
        drops: bug == Bug::FenceGoesWithItsPool,
        loses,
        keys: bug == Bug::RetryIsGrantedAnew,
        ..SCOPE
    }
}

#[test]
fn each_planted_bug_is_found_by_the_invariant_that_it_breaks() {
    for (bug, breaks) in Bug::ALL {
        let (_, broken, path) = explore(&format!("{bug:?}"), scope_for(bug));
        assert_eq!(broken, Some(breaks), "{bug:?}: {path:#?}");
    }
}
