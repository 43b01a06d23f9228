use std::collections::BTreeSet;

use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

impl Fixture {
    /// One sweep of the pool's partition: entries settled, whether more are due.
    pub async fn sweep(&self, pool: &PoolName, budget: u64) -> (u64, bool) {
        let keys = self.partition_keys(pool).await;
        let replies = self.try_raw("sweep", keys, vec![budget.to_string()]).await;
        let reply = replies.expect("the script runs").remove(0);
        assert_eq!(reply.tag, "swept");
        (reply.int(0), reply.int(1) > 0)
    }

    /// A pool of held tokens, all due, with nobody to sweep them.
    async fn due(&self, name: &str, count: usize) -> PoolName {
        let p = self.pool(name, policy(60, 0, 0)).await;
        self.generate(&p, count).await;
        let any: &[&str] = &["", "", "", "0", "", "0", ""];
        self.raw("assign", &p, &vec![any; count]).await;
        p
    }
}

#[tokio::test]
async fn with_nothing_due_it_sweeps_nothing() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 0), &["a", "b"]).await;
    f.grant(&p).await;
    assert_eq!(f.sweep(&p, 100).await, (0, false));
    assert_eq!(f.counts(&p).await, (1, 1, 0));
    f.assert_consistent().await;
}

#[tokio::test]
async fn it_settles_what_is_due_and_a_second_one_finds_the_rest() {
    let f = Fixture::new().await;
    let p = f.due("seats", 250).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(61)).await;
    assert_eq!(f.stored_free(&p).await, 0);
    assert_eq!(f.sweep(&p, 100).await, (100, true));
    f.assert_structure().await;
    assert_eq!(f.stored_free(&p).await, 100);
    let mut swept = 100;
    while swept < 250 {
        let (entries, more) = f.sweep(&p, 100).await;
        assert!(entries <= 100);
        assert!(more || swept + entries >= 250);
        swept += entries;
    }
    assert_eq!(f.stored_free(&p).await, 250);
    assert!(!f.sweep(&p, 100).await.1);
    f.assert_structure().await;
}

#[tokio::test]
async fn a_call_settles_fewer_long_tokens() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let long = |n| format!("{n:04}{}", "x".repeat(TOKEN_BYTES_MAX - 4));
    for part in [0..200, 200..400] {
        let tokens: Vec<_> = part.map(long).collect();
        let tokens: Vec<_> = tokens.iter().map(String::as_str).collect();
        f.import(&p, &tokens).await;
    }
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    f.raw("assign", &p, &vec![any; 400]).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(61)).await;
    // One of 4,096 bytes counts as 9 entries; 100 are taken at once.
    assert_eq!(f.sweep(&p, 1_000).await, (200, true));
    assert_eq!(f.sweep(&p, 1_000).await.0, 200);
    assert_eq!(f.stored_free(&p).await, 400);
    f.assert_structure().await;
}

#[tokio::test]
async fn one_pools_many_lapses_do_not_starve_its_neighbours() {
    let f = Fixture::new().await;
    let (mut big, mut small) = (None, Vec::new());
    // Names of one partition: the big one, and three with one token each.
    let mut prefix = None;
    for name in ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"] {
        let size = if big.is_none() { 900 } else { 1 };
        let p = f.due(name, size).await;
        let at = f.prefix_of(&p).await;
        if *prefix.get_or_insert_with(|| at.clone()) != at {
            continue;
        }
        if big.is_none() {
            big = Some(p);
        } else {
            small.push(p);
        }
    }
    let big = big.expect("the first");
    assert!(small.len() >= 2, "names spread over two partitions");
    let f = f.without_sweeper().await;
    // The big one is behind by far, so its turn is the first.
    f.pass(&big, secs(90)).await;
    for p in &small {
        f.pass(p, secs(61)).await;
    }
    assert!(f.sweep(&big, 100).await.1);
    assert!(f.stored_free(&big).await < 900);
    for p in &small {
        assert_eq!(f.stored_free(p).await, 1, "{p} had its turn");
    }
    f.assert_structure().await;
}

#[tokio::test]
async fn more_pools_due_than_share_a_call_all_get_their_turn() {
    let f = Fixture::new().await;
    let mut pools = Vec::new();
    for n in 0..50 {
        pools.push(f.due(&format!("n{n}"), 2).await);
    }
    let f = f.without_sweeper().await;
    for p in &pools {
        f.pass(p, secs(61)).await;
    }
    let mut partitions = BTreeSet::new();
    for p in &pools {
        if partitions.insert(f.prefix_of(p).await) {
            for _ in 0..10 {
                f.sweep(p, 100).await;
            }
        }
    }
    for p in &pools {
        assert_eq!(f.stored_free(p).await, 2, "{p}");
    }
    f.assert_structure().await;
}

#[tokio::test]
async fn an_entry_whose_record_is_gone_or_names_another_tick_is_dropped() {
    use fred::prelude::*;
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    f.grant(&p).await;
    let prefix = f.prefix_of(&p).await;
    let f = f.without_sweeper().await;
    let tick = f.now_ms().await / 100 - 5;
    let due = format!("{prefix}:due:{p}:{tick}");
    let _: () = f
        .redis
        .sadd(due, vec!["a", "never was"])
        .await
        .expect("sadd");
    for (key, member) in [
        ("ticks:seats", tick.to_string()),
        ("turns", "seats".to_owned()),
    ] {
        let entry = (tick as f64, member);
        let key = format!("{prefix}:{key}");
        let _: () = f
            .redis
            .zadd(key, None, None, false, false, entry)
            .await
            .expect("zadd");
    }
    assert_eq!(f.sweep(&p, 100).await, (2, false));
    assert_eq!(f.raw("count", &p, &[&[]]).await[0].int(1), 1);
    assert_eq!(
        f.raw("inspect", &p, &[&["never was", ""]]).await[0].tag,
        "absent"
    );
    f.assert_structure().await;
}

#[tokio::test]
async fn two_at_once_settle_each_deadline_once() {
    let f = Fixture::new().await;
    let p = f.due("seats", 500).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(61)).await;
    let (one, two, three) = tokio::join!(f.sweep(&p, 300), f.sweep(&p, 300), f.sweep(&p, 300));
    assert!(one.0 + two.0 + three.0 >= 500);
    assert_eq!(f.stored_free(&p).await, 500);
    f.assert_structure().await;
}

#[tokio::test]
async fn pools_that_stay_behind_go_behind_the_others() {
    let f = Fixture::new().await;
    let mut behind = vec![f.due("behind-0", 40).await];
    let prefix = f.prefix_of(&behind[0]).await;
    // More than share one call, all in one partition, the last of them with one token.
    let mut last = None;
    for n in 1.. {
        let few = behind.len() == 17;
        let p = f
            .due(&format!("behind-{n}"), if few { 1 } else { 40 })
            .await;
        if f.prefix_of(&p).await != prefix {
            continue;
        }
        if few {
            last = Some(p);
            break;
        }
        behind.push(p);
    }
    let last = last.expect("a name of the partition");
    let f = f.without_sweeper().await;
    for p in &behind {
        f.pass(p, secs(90)).await;
    }
    f.pass(&last, secs(61)).await;
    for _ in 0..3 {
        assert!(f.sweep(&last, 32).await.1);
    }
    assert_eq!(f.stored_free(&last).await, 1, "it had its turn");
    for p in &behind {
        let back = f.stored_free(p).await;
        assert!((1..40).contains(&back), "{p}: {back}");
    }
    f.assert_structure().await;
}
