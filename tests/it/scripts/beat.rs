use std::collections::{BTreeMap, BTreeSet};

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

    fn settings_key(&self) -> String {
        let prefix = &self.config.key_prefix;
        format!("{prefix}:1:{{{prefix}:1:replicas}}:settings")
    }

    /// What the replicas have said of their settings, by replica.
    pub async fn said_settings(&self) -> BTreeMap<String, String> {
        let said = self.redis.hgetall(self.settings_key()).await;
        said.expect("hgetall")
    }

    /// Who is alive, by a beat of that replica.
    async fn beat(&self, replica: &str, leaves: bool) -> BTreeSet<String> {
        self.beat_with(replica, leaves, "").await.0
    }

    /// The same by a beat that says settings; and whether the replica was not known.
    async fn beat_with(
        &self,
        replica: &str,
        leaves: bool,
        settings: &str,
    ) -> (BTreeSet<String>, bool) {
        let args = [
            replica,
            &ALIVE_MS.to_string(),
            if leaves { "1" } else { "0" },
            settings,
        ];
        let args = args.map(str::to_owned).to_vec();
        let keys = vec![self.replicas_key(), self.settings_key()];
        let replies = self.try_raw("beat", keys, args).await;
        let reply = replies.expect("the script runs").remove(0);
        assert_eq!(reply.tag, "alive");
        let names = reply.fields[0].clone().into_array().into_iter();
        let names = names.map(|name| name.into_string().expect("a name"));
        (names.collect(), reply.fields[1].as_u64() == Some(1))
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

#[tokio::test]
async fn what_a_replica_says_of_its_settings_stays_until_it_is_gone() {
    let f = quiet().await;
    assert!(f.beat_with("a", false, "one").await.1, "nobody knew it");
    assert!(!f.beat_with("a", false, "").await.1);
    f.beat_with("b", false, "two").await;
    let both = [("a", "one"), ("b", "two")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let both = BTreeMap::from(both);
    assert_eq!(f.said_settings().await, both);
    f.beat("a", false).await;
    assert_eq!(f.said_settings().await, both, "it has not said them again");
    f.alive_until("a", f.past_ms().await).await;
    f.beat("b", false).await;
    assert_eq!(f.said_settings().await.len(), 1);
    assert!(
        f.beat_with("a", false, "").await.1,
        "it must say them again"
    );
    f.beat("b", true).await;
    assert_eq!(f.said_settings().await.len(), 0);
}

#[tokio::test]
async fn settings_of_one_that_an_older_version_has_dropped_go_when_another_joins() {
    let f = quiet().await;
    f.beat_with("a", false, "one").await;
    // The older script knows the list alone.
    let _: () = f.redis.zrem(f.replicas_key(), "a").await.expect("zrem");
    f.beat("b", false).await;
    assert_eq!(f.said_settings().await.len(), 1);
    f.beat_with("c", false, "three").await;
    let left: Vec<_> = f.said_settings().await.into_keys().collect();
    assert_eq!(left, ["c"]);
}
