//! Histories with planted violations: each rule finds its own.

use std::time::{Duration, Instant};

use tokend::token::*;

use super::{Did, Event, History};
use crate::harness::token;

/// A history in which each call takes a millisecond; times in milliseconds from the first.
struct Script {
    zero: Instant,
    history: History,
}

impl Script {
    fn new() -> Self {
        Self {
            zero: Instant::now(),
            history: History::default(),
        }
    }

    fn at(mut self, ms: u64, did: Did) -> Self {
        let start = self.zero + Duration::from_millis(ms);
        self.history.events.push(Event {
            start,
            end: start + Duration::from_millis(1),
            replica: 0,
            did,
        });
        self
    }

    fn grant(self, ms: u64, value: &str, fence: u64, lifetime_ms: u64) -> Self {
        let grant = Grant {
            token: token(value),
            fence: Fence::parse(fence).expect("a fence"),
            expires_at_ms: 1_000_000 + ms + lifetime_ms,
            expires_in_ms: lifetime_ms,
            holder: None,
        };
        self.at(ms, Did::Granted(grant))
    }

    fn kept(self, ms: u64, value: &str, fence: u64, lifetime_ms: u64) -> Self {
        let did = Did::Kept {
            token: token(value),
            fence: Fence::parse(fence).expect("a fence"),
            expires_at_ms: 1_000_000 + ms + lifetime_ms,
            expires_in_ms: lifetime_ms,
        };
        self.at(ms, did)
    }

    fn released(self, ms: u64, value: &str) -> Self {
        let token = token(value);
        self.at(ms, Did::Released { token, fence: None })
    }

    fn lost(self, ms: u64, value: &str, fence: u64) -> Self {
        let did = Did::Lost {
            token: token(value),
            fence: Fence::parse(fence).expect("a fence"),
        };
        self.at(ms, did)
    }

    fn counted(self, ms: u64, free: u64, held: u64, cooling: u64) -> Self {
        let counts = PoolCounts {
            free,
            held,
            cooling,
        };
        self.at(ms, Did::Counted(counts))
    }

    fn generated(self, ms: u64, values: &[&str]) -> Self {
        self.at(
            ms,
            Did::Generated(values.iter().map(|v| token(v)).collect()),
        )
    }

    /// Exactly the violations whose text starts so.
    fn finds(&self, expected: &[&str]) {
        let found = self.history.violations(3);
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    }
}

#[test]
fn a_right_history_has_no_violations() {
    Script::new()
        .generated(0, &["a", "b", "c"])
        .grant(10, "a", 1, 1_000)
        .kept(500, "a", 1, 1_000)
        .grant(1_600, "a", 2, 1_000)
        .released(1_700, "a")
        .grant(1_710, "a", 3, 1_000)
        .lost(1_720, "a", 2)
        .at(1_800, Did::Deleted(token("a")))
        .at(1_810, Did::Absent(token("a")))
        .generated(1_820, &["d"])
        .counted(2_000, 3, 0, 0)
        .finds(&[]);
}

#[test]
fn two_holders_are_found() {
    let script = Script::new()
        .grant(0, "a", 1, 1_000)
        .grant(500, "a", 2, 1_000);
    script.finds(&["two holders for", "two holders by Redis's clock"]);
}

#[test]
fn two_holders_are_found_behind_a_keep_alive() {
    let script = Script::new()
        .grant(0, "a", 1, 1_000)
        .kept(900, "a", 1, 1_000)
        .grant(1_500, "a", 2, 1_000);
    script.finds(&["two holders for", "two holders by Redis's clock"]);
}

#[test]
fn one_millisecond_too_early_is_found_by_the_clock_of_redis() {
    let mut script = Script::new()
        .grant(0, "a", 1, 1_000)
        .grant(1_000, "a", 2, 1_000);
    script.finds(&[]);
    let Did::Granted(grant) = &mut script.history.events[1].did else {
        panic!("a grant");
    };
    grant.expires_at_ms -= 1;
    script.finds(&["two holders by Redis's clock"]);
}

#[test]
fn a_release_that_is_over_does_not_excuse_a_later_grant() {
    let script = Script::new()
        .released(0, "a")
        .grant(10, "a", 1, 1_000)
        .grant(20, "a", 2, 1_000);
    script.finds(&["two holders for", "two holders by Redis's clock"]);
}

#[test]
fn a_fence_granted_twice_is_found() {
    let script = Script::new()
        .grant(0, "a", 1, 1_000)
        .grant(0, "b", 1, 1_000);
    script.finds(&["a fence granted twice"]);
}

#[test]
fn falling_fences_are_found() {
    let script = Script::new()
        .grant(0, "a", 5, 1_000)
        .released(10, "a")
        .grant(20, "a", 4, 1_000);
    script.finds(&["two holders by Redis's clock", "fences fall"]);
}

#[test]
fn a_resurrection_is_found() {
    let deleted = || Script::new().at(0, Did::Deleted(token("a")));
    deleted()
        .kept(10, "a", 1, 1_000)
        .finds(&["deleted, and there again"]);
    deleted()
        .grant(10, "a", 1, 1_000)
        .finds(&["deleted, and there again", "granted after its deletion"]);
    deleted()
        .at(0, Did::Deleted(token("a")))
        .finds(&["deleted twice", "deleted twice"]);
}

#[test]
fn an_early_end_is_found() {
    let script = Script::new().grant(0, "a", 1, 1_000).lost(990, "a", 1);
    script.finds(&["early"]);
    let script = Script::new().grant(0, "a", 1, 1_000).lost(1_000, "a", 1);
    script.finds(&[]);
}

#[test]
fn a_passed_cap_is_found() {
    let script = Script::new()
        .generated(0, &["a", "b"])
        .generated(10, &["c", "d"]);
    script.finds(&["4 tokens in a pool of 3"]);
    let script = Script::new()
        .at(0, Did::MaybeGenerated(9))
        .counted(10, 2, 1, 1);
    script.finds(&["PoolCounts"]);
}

#[test]
fn a_lost_token_is_found() {
    let script = Script::new()
        .generated(0, &["a", "b", "c"])
        .counted(10, 1, 1, 0);
    script.finds(&["3 to 3 generated"]);
    let script = Script::new().generated(0, &["a", "b"]).counted(10, 1, 1, 1);
    script.finds(&["2 to 2 generated"]);
}
