//! The line itself, one step at a time and without any clock but the one that the test moves: each call gives
//! offers, and waiters, an hour to live.

use fred::prelude::*;
use tokend::token::*;

use crate::harness::*;
use crate::raw::Tagged;
use crate::verbs::*;

/// Most that may wait for one pool in one partition.
const WAITERS_MAX: usize = 10_000;
/// Waiters that one call takes out of a line at most.
const HAND_OVER_MAX: usize = 1_000;
/// Longer than a waiter that nobody hears of, or an offer that nobody takes.
const DEAD_S: u64 = 3_601;

/// What a step names behind pool, generation and version.
#[derive(Clone, Copy)]
pub struct Step<'a> {
    pub key: &'a str,
    pub print: &'a str,
    pub waiter: &'a str,
    pub how: &'a str,
    pub ticket: u64,
    pub offer: (&'a str, u64),
}

pub fn stay(waiter: &str) -> Step<'_> {
    Step {
        key: "",
        print: "",
        waiter,
        how: "wait",
        ticket: 0,
        offer: ("", 0),
    }
}

fn leave(waiter: &str) -> Step<'_> {
    Step {
        how: "leave",
        ..stay(waiter)
    }
}

fn abandon(waiter: &str) -> Step<'_> {
    Step {
        how: "abandon",
        ..stay(waiter)
    }
}

impl<'a> Step<'a> {
    pub fn take(self, fence: u64) -> Self {
        Self {
            offer: ("a", fence),
            ..self
        }
    }

    pub fn args(&self) -> Vec<String> {
        let (token, fence) = self.offer;
        let texts = [self.key, self.print, "pod-1", "0", self.waiter, self.how];
        let mut args = texts.map(str::to_owned).to_vec();
        args.extend([self.ticket.to_string(), token.to_owned(), fence.to_string()]);
        args
    }
}

/// One data set whose only replica has stopped: nothing happens but what the test calls.
pub struct Line {
    pub f: Fixture,
    pub pool: PoolName,
}

impl Line {
    /// A pool of these tokens, all held, and these waiters in line.
    pub async fn new(patch: PolicyPatch, tokens: &[&str], waiters: &[&str]) -> Self {
        let f = Fixture::new().await;
        let pool = f.filled("seats", patch, tokens).await;
        for _ in tokens {
            f.grant(&pool).await;
        }
        let f = f.without_sweeper().await;
        let line = Self { f, pool };
        for waiter in waiters {
            line.expect(stay(waiter), "waiting").await;
        }
        line
    }

    pub async fn call(&self, script: &str, args: &[&str]) -> Tagged {
        self.f.patient(script, &self.pool, &[args]).await.remove(0)
    }

    pub async fn steps(&self, steps: &[Step<'_>]) -> Vec<Tagged> {
        let args: Vec<_> = steps.iter().map(Step::args).collect();
        let items: Vec<Vec<&str>> = args
            .iter()
            .map(|item| item.iter().map(String::as_str).collect())
            .collect();
        let items: Vec<&[&str]> = items.iter().map(Vec::as_slice).collect();
        self.f.patient("wait", &self.pool, &items).await
    }

    pub async fn step(&self, step: Step<'_>) -> Tagged {
        let reply = self.steps(&[step]).await.remove(0);
        self.f.assert_structure().await;
        reply
    }

    pub async fn expect(&self, step: Step<'_>, tag: &str) -> Tagged {
        let reply = self.step(step).await;
        assert_eq!(reply.tag, tag, "{}: {reply:?}", step.waiter);
        reply
    }

    /// The fence of the offer of `a` that it has.
    async fn offered(&self, waiter: &str) -> u64 {
        let reply = self.expect(stay(waiter), "offered").await;
        assert_eq!(reply.text(0), "a");
        reply.int(1)
    }

    /// Takes `a` back from whoever holds it.
    pub async fn unblock(&self) -> Tagged {
        let reply = self.call("unblock", &["a", "0", ""]).await;
        self.f.assert_structure().await;
        reply
    }

    /// An assign that does not wait.
    async fn assign(&self, token: &str) -> Tagged {
        let reply = self
            .call("assign", &["", "", "", "0", token, "0", ""])
            .await;
        self.f.assert_structure().await;
        reply
    }

    /// State and holder of `a`.
    pub async fn state(&self) -> (String, String) {
        let seen = self.call("inspect", &["a", ""]).await;
        match seen.tag.as_str() {
            "found" => (seen.text(0), seen.text(4)),
            tag => (tag.to_owned(), String::new()),
        }
    }

    async fn sweep(&self) {
        let keys = self.f.partition_keys(&self.pool).await;
        let args = vec!["1000".to_owned()];
        self.f.try_raw("sweep", keys, args).await.expect("sweep");
        self.f.assert_structure().await;
    }

    async fn pass(&self, seconds: u64) {
        self.f.pass(&self.pool, secs(seconds)).await;
    }
}

/// No cooldown and a lease of 2 h: nothing passes by itself.
pub fn lasting_policy() -> PolicyPatch {
    policy(7_200, 0, 0)
}

fn held_by(holder: &str) -> (String, String) {
    ("held".to_owned(), holder.to_owned())
}

#[tokio::test]
async fn what_comes_free_is_offered_to_the_first_and_its_lease_begins_when_it_is_taken() {
    let line = Line::new(lasting_policy(), &["a"], &["w1", "w2"]).await;
    assert_eq!(line.unblock().await.tag, "free");
    assert_eq!(line.state().await, held_by("pod-1"));
    let fence = line.offered("w1").await;
    line.expect(stay("w2"), "waiting").await;
    line.pass(3_000).await; // the offer's own time
    let before = line.f.now_ms().await;
    let taken = line.expect(stay("w1").take(fence), "granted").await;
    assert_eq!((taken.text(0).as_str(), taken.int(1)), ("a", fence));
    assert!(taken.int(2) >= before + 7_200_000);
    assert_eq!(taken.text(3), "pod-1");
    // RETRY: where that answer was lost, its fence finds it.
    assert_eq!(line.step(stay("w1").take(fence)).await, taken);
    line.expect(stay("w2"), "waiting").await;
}

#[tokio::test]
async fn who_does_not_wait_does_not_overtake() {
    let line = Line::new(policy(7_200, 0, 20), &["a"], &["w1"]).await;
    assert_eq!(line.unblock().await.tag, "cooling");
    line.pass(21).await;
    // It has come free, and nobody has noticed yet: these do, and it goes to the waiter.
    assert_eq!(line.assign("").await.tag, "empty");
    line.offered("w1").await;
    let again = Line::new(policy(7_200, 0, 20), &["a"], &["w1"]).await;
    again.unblock().await;
    again.pass(21).await;
    assert_eq!(again.assign("a").await.tag, "not_free");
    again.offered("w1").await;
}

#[tokio::test]
async fn the_dead_are_passed_over_and_forgotten() {
    let line = Line::new(lasting_policy(), &["a"], &["w1", "w2"]).await;
    line.pass(DEAD_S).await;
    line.expect(stay("w3"), "waiting").await;
    line.unblock().await;
    line.offered("w3").await;
    let key = format!("{}:waiters:seats", line.f.prefix_of(&line.pool).await);
    let known: Vec<String> = line.f.redis.hkeys(&key).await.expect("HKEYS");
    assert_eq!(known, ["w3"]);
}

#[tokio::test]
async fn an_offer_that_is_not_taken_goes_straight_to_the_next_and_then_to_free() {
    let delete = PolicyPatch {
        on_lapse: Some(OnLapse::Delete),
        ..policy(86_400, 0, 7_200)
    };
    let line = Line::new(delete, &["a"], &["w1"]).await;
    let held = line.call("inspect", &["a", ""]).await.int(1);
    let direct = line
        .call("unblock", &["a", &held.to_string(), "direct"])
        .await;
    assert_eq!(direct.tag, "free");
    line.offered("w1").await;
    line.pass(1_000).await;
    line.expect(stay("w2"), "waiting").await;
    line.pass(DEAD_S - 1_000).await; // w2 was heard of since
    line.sweep().await;
    line.offered("w2").await;
    // Whoever missed an offer has lost its place, unless it knows its ticket.
    line.expect(stay("w1"), "waiting").await;
    line.expect(abandon("w1"), "left").await;
    line.pass(DEAD_S).await;
    line.sweep().await;
    assert_eq!(line.state().await.0, "free");
}

#[tokio::test]
async fn who_leaves_takes_what_it_is_offered_and_who_is_gone_gives_it_back() {
    let line = Line::new(lasting_policy(), &["a"], &["w1", "w2", "w3"]).await;
    line.expect(leave("w3"), "left").await;
    line.unblock().await;
    line.expect(abandon("w1"), "left").await;
    let taken = line.expect(leave("w2"), "granted").await;
    assert_eq!(line.state().await, held_by("pod-1"));
    // Gone before it could be told: its fence gives it back, once.
    let told = taken.int(1);
    line.expect(abandon("w2").take(told), "left").await;
    assert_eq!(line.state().await.0, "free");
    line.assign("").await;
    line.expect(abandon("w2").take(told), "left").await;
    assert_eq!(line.state().await, held_by(""));
    line.expect(leave("nobody"), "left").await;
}

#[tokio::test]
async fn an_offered_token_that_is_deleted_or_taken_back_leaves_its_waiter_in_its_place() {
    let line = Line::new(lasting_policy(), &["a"], &["w1", "w2"]).await;
    line.unblock().await;
    let first = line.offered("w1").await;
    assert_eq!(line.unblock().await.tag, "free");
    let second = line.offered("w1").await;
    assert!(second > first);
    assert_eq!(line.call("delete", &["a"]).await.tag, "deleted");
    line.f.assert_structure().await;
    line.expect(stay("w1").take(second), "waiting").await;
    line.expect(stay("w2"), "waiting").await;
    let made = ["", "", "", "", "0", "0", "1", "a"];
    assert_eq!(line.call("generate", &made).await.tag, "added");
    line.f.assert_structure().await;
    line.offered("w1").await;
    line.expect(stay("w2"), "waiting").await;
}

#[tokio::test]
async fn keeping_an_offer_alive_does_not_make_it_a_lease() {
    let line = Line::new(lasting_policy(), &["a"], &["w1"]).await;
    line.unblock().await;
    let offer = line.call("inspect", &["a", ""]).await;
    let kept = line.call("keep_alive", &["a", "0", "86400000"]).await;
    assert_eq!((kept.tag.as_str(), kept.int(1)), ("kept", offer.int(2)));
    line.f.assert_structure().await;
    line.offered("w1").await;
}

#[tokio::test]
async fn a_place_that_was_lost_is_taken_again_with_its_ticket() {
    let line = Line::new(lasting_policy(), &["a"], &[]).await;
    let first = line.expect(stay("w1"), "waiting").await.int(0);
    let second = line.expect(stay("w2"), "waiting").await.int(0);
    assert!(first < second);
    assert_eq!(line.step(stay("w1")).await.int(0), first);
    let prefix = line.f.prefix_of(&line.pool).await;
    let keys = ["queue", "waiters"].map(|kind| format!("{prefix}:{kind}:seats"));
    let _: () = line.f.redis.del(keys.to_vec()).await.expect("DEL");
    for (waiter, ticket) in [("w2", second), ("w1", first)] {
        let again = Step {
            ticket,
            ..stay(waiter)
        };
        assert_eq!(line.expect(again, "waiting").await.int(0), ticket);
    }
    line.unblock().await;
    line.offered("w1").await;
}

#[tokio::test]
async fn whatever_frees_a_token_hands_it_over() {
    // A cooldown that passes, and a lease that lapses, found by a sweep, a count or the next in line.
    for (cooldown, found_by) in [(0, "sweep"), (20, "sweep"), (20, "count"), (20, "wait")] {
        let line = Line::new(policy(600, 0, cooldown), &["a"], &["w1"]).await;
        line.pass(600 + cooldown + 1).await;
        match found_by {
            "sweep" => line.sweep().await,
            "count" => drop(line.call("count", &[]).await),
            _ => drop(line.call("inspect", &["a", ""]).await),
        }
        if found_by == "wait" {
            // One that is idle so long is deleted: settled, but not served, by whoever only looks.
            line.sweep().await;
        }
        line.f.assert_structure().await;
        line.offered("w1").await;
    }
}

#[tokio::test]
async fn a_line_is_bounded_and_the_dead_make_room() {
    let line = Line::new(lasting_policy(), &["a"], &[]).await;
    let names: Vec<String> = (0..WAITERS_MAX).map(|n| format!("w{n}")).collect();
    for chunk in names.chunks(500) {
        let steps: Vec<_> = chunk.iter().map(|name| stay(name)).collect();
        let replies = line.steps(&steps).await;
        assert!(replies.iter().all(|reply| reply.tag == "waiting"));
    }
    line.expect(stay("more"), "full").await;
    line.expect(stay("w17"), "waiting").await;
    line.pass(DEAD_S).await;
    line.expect(stay("more"), "waiting").await;
    line.expect(stay("and more"), "waiting").await;
}

#[tokio::test]
async fn a_call_hands_over_so_much_and_the_next_one_goes_on() {
    let line = Line::new(lasting_policy(), &["a"], &[]).await;
    let names: Vec<String> = (0..=HAND_OVER_MAX).map(|n| format!("dead{n}")).collect();
    let dead: Vec<_> = names.iter().map(|name| stay(name)).collect();
    line.steps(&dead).await;
    line.pass(DEAD_S).await;
    line.expect(stay("w1"), "waiting").await;
    let reply = line.call("unblock", &["a", "0", ""]).await;
    assert_eq!(reply.tag, "free");
    assert_eq!(line.state().await.0, "free");
    // Not to the one who comes now: first to who waits.
    assert_eq!(line.assign("").await.tag, "empty");
    line.offered("w1").await;
}

#[tokio::test]
async fn a_pool_that_is_made_again_has_no_line() {
    let line = Line::new(lasting_policy(), &["a"], &["w1"]).await;
    let keys = line.f.partition_keys(&line.pool).await;
    let generation = line.f.shard_field(&line.pool, "generation").await;
    let args = vec!["seats".to_owned(), generation.to_string()];
    let dropped = line.f.try_raw("drop_pool", keys, args).await;
    assert_eq!(dropped.expect("drop")[0].tag, "dropped");
    line.f.assert_structure().await;
    line.expect(stay("w1"), "stale").await;
}
