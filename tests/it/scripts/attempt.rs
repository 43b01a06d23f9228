use fred::prelude::*;

use crate::harness::*;
use crate::raw::Tagged;

const WINDOW_MS: u64 = 900_000;

impl Fixture {
    async fn attempt_keys(&self) -> Vec<String> {
        let prefix = self.prefixes().await.remove(0);
        vec![prefix.clone(), format!("{prefix}:guard")]
    }

    async fn attempt(&self, verb: &str) -> Tagged {
        let args = [verb, "who", "10", "900000"].map(str::to_owned).to_vec();
        let replies = self
            .try_raw("attempt", self.attempt_keys().await, args)
            .await;
        replies.expect("the script runs").remove(0)
    }

    /// Plants failures, each so many milliseconds ago.
    async fn plant(&self, ago_ms: &[u64]) {
        let (now, prefix) = (self.now_ms().await, self.attempt_keys().await.remove(0));
        for ago in ago_ms {
            let at = now - ago;
            let key = format!("{prefix}:attempts:{}", at / WINDOW_MS);
            let before: Option<Vec<u8>> = self.redis.hget(&key, "who").await.expect("hget");
            let mut packed = before.unwrap_or_default();
            packed.extend_from_slice(&at.to_be_bytes()[2..]);
            let pair = ("who", packed.as_slice());
            let _: () = self.redis.hset(&key, pair).await.expect("hset");
            let _: () = self.redis.expire(&key, 1_800, None).await.expect("expire");
        }
    }
}

fn told(reply: &Tagged) -> (&str, u64) {
    (&reply.tag, reply.int(0))
}

#[tokio::test]
async fn failures_are_counted_up_to_the_limit_and_no_further() {
    let f = Fixture::new().await;
    assert_eq!(told(&f.attempt("look").await), ("within", 0));
    for count in 1..=10 {
        assert_eq!(told(&f.attempt("fail").await), ("within", count));
    }
    for verb in ["look", "fail", "pass", "look"] {
        let reply = f.attempt(verb).await;
        assert_eq!(reply.tag, "over", "{verb}");
        assert!((1..=WINDOW_MS).contains(&reply.int(0)), "{reply:?}");
    }
    let (_, keys) = f.dump().await;
    let kept = keys.iter().filter(|(name, _)| name.contains(":attempts:"));
    let kept: Vec<_> = kept.map(|(_, key)| key).collect();
    let bytes: usize = kept.iter().map(|key| key.bytes()[1].len()).sum();
    assert_eq!(bytes, 10 * 6, "not one more is kept");
    assert!(kept.iter().all(|key| (1..=1_800_000).contains(&key.ttl_ms)));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_login_that_passes_forgets_the_failures_and_no_other_does() {
    let f = Fixture::new().await;
    f.plant(&[WINDOW_MS - 10_000, 1_000]).await;
    assert_eq!(told(&f.attempt("fail").await), ("within", 3));
    assert_eq!(told(&f.attempt("look").await), ("within", 3));
    assert_eq!(told(&f.attempt("pass").await), ("within", 0));
    assert_eq!(told(&f.attempt("pass").await), ("within", 0), "a retry");
    assert_eq!(told(&f.attempt("look").await), ("within", 0));
    assert_eq!(told(&f.attempt("fail").await), ("within", 1));
}

#[tokio::test]
async fn only_the_last_15_minutes_count() {
    let f = Fixture::new().await;
    let mut ago = vec![WINDOW_MS + 1_000, WINDOW_MS + 1, WINDOW_MS];
    ago.extend([WINDOW_MS - 60_000; 9]);
    f.plant(&ago).await;
    assert_eq!(told(&f.attempt("look").await), ("within", 9));
    assert_eq!(told(&f.attempt("fail").await), ("within", 10));
    let reply = f.attempt("look").await;
    assert_eq!(reply.tag, "over");
    assert!(
        reply.int(0) <= 60_000,
        "until the oldest of them is 15 min old"
    );
}

#[tokio::test]
async fn each_who_counts_alone() {
    let f = Fixture::new().await;
    f.attempt("fail").await;
    let args = ["look", "another", "10", "900000"].map(str::to_owned);
    let replies = f.try_raw("attempt", f.attempt_keys().await, args.to_vec());
    assert_eq!(told(&replies.await.expect("it runs")[0]), ("within", 0));
}
