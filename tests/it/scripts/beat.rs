use std::collections::BTreeSet;

use fred::prelude::*;

use crate::harness::*;

const ALIVE_MS: u64 = 60_000;

impl Fixture {
    fn replicas_key(&self) -> String {
        format!("{}:1:replicas", self.config.key_prefix)
    }

    /// Who is said to be alive, as it is stored.
    pub async fn replicas(&self) -> BTreeSet<String> {
        let key = self.replicas_key();
        let members: Vec<String> = self
            .redis
            .zrange(key, 0, -1, None, false, None, false)
            .await
            .expect("zrange");
        members.into_iter().collect()
    }

    /// Who is alive, by a beat of that replica.
    async fn beat(&self, replica: &str, leaves: bool) -> BTreeSet<String> {
        let args = [
            replica,
            &ALIVE_MS.to_string(),
            if leaves { "1" } else { "0" },
        ];
        let args = args.map(str::to_owned).to_vec();
        let replies = self.try_raw("beat", vec![self.replicas_key()], args).await;
        let reply = replies.expect("the script runs").remove(0);
        assert_eq!(reply.tag, "alive");
        let names = reply.fields[0].clone().into_array().into_iter();
        names
            .map(|name| name.into_string().expect("a name"))
            .collect()
    }

    /// A ms that is over for the scripts: `now_ms` is the one behind that which runs.
    async fn past_ms(&self) -> u64 {
        self.now_ms().await - 2
    }

    /// Writes until when a replica is alive.
    async fn alive_until(&self, replica: &str, at_ms: u64) {
        let entry = (at_ms as f64, replica);
        let _: () = self
            .redis
            .zadd(self.replicas_key(), None, None, false, false, entry)
            .await
            .expect("zadd");
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A data set that no replica beats on.
async fn quiet() -> Fixture {
    let f = Fixture::new().await.without_sweeper().await;
    let _: () = f.redis.del(f.replicas_key()).await.expect("del");
    f
}

#[tokio::test]
async fn each_is_told_of_all_that_are_alive() {
    let f = quiet().await;
    assert_eq!(f.beat("a", false).await, names(&["a"]));
    assert_eq!(f.beat("b", false).await, names(&["a", "b"]));
    // A retry.
    assert_eq!(f.beat("b", false).await, names(&["a", "b"]));
    assert_eq!(f.replicas().await, names(&["a", "b"]));
}

#[tokio::test]
async fn one_that_says_nothing_for_too_long_is_dropped_and_may_come_back() {
    let f = quiet().await;
    f.beat("a", false).await;
    f.beat("b", false).await;
    f.alive_until("a", f.past_ms().await).await;
    assert_eq!(f.beat("b", false).await, names(&["b"]));
    assert_eq!(f.replicas().await, names(&["b"]));
    assert_eq!(f.beat("a", false).await, names(&["a", "b"]));
}

#[tokio::test]
async fn an_entry_by_a_clock_that_was_ahead_is_dropped() {
    let f = quiet().await;
    let now = f.now_ms().await;
    f.alive_until("a", now + 10 * ALIVE_MS).await;
    f.alive_until("b", now + 10 * ALIVE_MS).await;
    assert_eq!(f.beat("b", false).await, names(&["b"]));
    assert_eq!(f.replicas().await, names(&["b"]));
}

#[tokio::test]
async fn one_that_leaves_is_gone_at_once() {
    let f = quiet().await;
    f.beat("a", false).await;
    f.beat("b", false).await;
    assert_eq!(f.beat("a", true).await, names(&["b"]));
    assert_eq!(f.beat("a", true).await, names(&["b"]));
    assert_eq!(f.replicas().await, names(&["b"]));
    assert_eq!(f.beat("b", true).await, names(&[]));
    assert_eq!(f.replicas().await, names(&[]));
}

#[tokio::test]
async fn any_number_of_dead_ones_is_dropped() {
    let f = quiet().await;
    let past = f.past_ms().await as f64;
    let dead: Vec<_> = (0..2_500).map(|n| (past, format!("dead-{n}"))).collect();
    let _: () = f
        .redis
        .zadd(f.replicas_key(), None, None, false, false, dead)
        .await
        .expect("zadd");
    for _ in 0..3 {
        assert_eq!(f.beat("a", false).await, names(&["a"]));
    }
    assert_eq!(f.replicas().await, names(&["a"]));
}
