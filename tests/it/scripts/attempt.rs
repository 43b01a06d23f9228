use fred::prelude::*;

use crate::harness::*;
use crate::raw::Tagged;

const WINDOW_MS: u64 = 900_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// A call as the binding makes it; small numbers where a test fills something.
#[derive(Clone, Copy)]
struct Call {
    verb: &'static str,
    entries: u64,
    user: &'static str,
    site: &'static str,
}

impl Call {
    const fn of(verb: &'static str, user: &'static str, site: &'static str) -> Self {
        Self {
            verb,
            entries: 5_000,
            user,
            site,
        }
    }

    fn args(self) -> Vec<String> {
        let pair = format!("{} at {}", self.user, self.site);
        let (entries, window) = (self.entries.to_string(), WINDOW_MS.to_string());
        let known_ms = (30 * DAY_MS).to_string();
        [
            self.verb, &window, &entries, self.user, "20", &pair, "10", self.site, "3", &known_ms,
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Fixture {
    async fn attempt_keys(&self) -> Vec<String> {
        let prefix = self.prefixes().await.remove(0);
        vec![prefix.clone(), format!("{prefix}:guard")]
    }

    async fn attempt_with(&self, args: Vec<String>) -> Tagged {
        let replies = self.try_raw("attempt", self.attempt_keys().await, args);
        replies.await.expect("the script runs").remove(0)
    }

    async fn attempt(&self, call: Call) -> Tagged {
        self.attempt_with(call.args()).await
    }

    /// Of an address over all users.
    async fn attempt_of_address(&self, verb: &str) -> Tagged {
        let args = [
            verb, "900000", "5000", "here", "50", "", "10", "here", "3", "1",
        ];
        self.attempt_with(args.map(str::to_owned).to_vec()).await
    }

    /// Plants failures of `ann at here`, each so many milliseconds ago.
    async fn plant(&self, ago_ms: &[u64]) {
        let (now, prefix) = (self.now_ms().await, self.attempt_keys().await.remove(0));
        for ago in ago_ms {
            let at = now - ago;
            let key = format!("{prefix}:attempts:{}", at / WINDOW_MS);
            let before: Option<Vec<u8>> = self.redis.hget(&key, "ann at here").await.expect("hget");
            let mut packed = before.unwrap_or_default();
            packed.extend_from_slice(&at.to_be_bytes()[2..]);
            let pair = ("ann at here", packed.as_slice());
            let _: () = self.redis.hset(&key, pair).await.expect("hset");
            let _: () = self.redis.expire(&key, 1_800, None).await.expect("expire");
        }
    }

    async fn known(&self, user: &str) -> String {
        let prefix = self.attempt_keys().await.remove(0);
        format!("{prefix}:known:{user}")
    }
}

const LOOK: Call = Call::of("look", "ann", "here");
const FAIL: Call = Call::of("fail", "ann", "here");
const PASS: Call = Call::of("pass", "ann", "here");

fn within(reply: &Tagged) -> bool {
    reply.tag == "within"
}

/// Which limit, and ms until the next try.
fn over(reply: &Tagged) -> (String, u64) {
    assert_eq!(reply.tag, "over", "{reply:?}");
    (reply.text(0), reply.int(1))
}

#[tokio::test]
async fn failures_are_counted_up_to_the_limit_and_no_further() {
    let f = Fixture::new().await;
    assert!(within(&f.attempt(LOOK).await));
    for _ in 1..=10 {
        assert!(within(&f.attempt(FAIL).await));
    }
    for call in [LOOK, FAIL, PASS, LOOK] {
        let (limit, ms) = over(&f.attempt(call).await);
        assert_eq!(limit, "pair", "{}", call.verb);
        assert!((1..=WINDOW_MS).contains(&ms), "{ms}");
    }
    let (_, keys) = f.dump().await;
    let kept = keys.iter().filter(|(name, _)| name.contains(":attempts:"));
    let kept: Vec<_> = kept.map(|(_, key)| key).collect();
    assert!(kept.iter().all(|key| (1..=1_800_000).contains(&key.ttl_ms)));
    let of_pair = kept.iter().flat_map(|key| key.bytes());
    let bytes: usize = of_pair
        .map(|bytes| bytes.len())
        .filter(|len| len % 6 == 0)
        .sum();
    assert!(bytes <= 12 * 6, "not one more is kept: {bytes}");
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_login_that_passes_forgets_the_failures_and_no_other_does() {
    let f = Fixture::new().await;
    f.plant(&[WINDOW_MS - 10_000; 9]).await;
    assert!(within(&f.attempt(LOOK).await));
    assert!(within(&f.attempt(PASS).await));
    assert!(within(&f.attempt(PASS).await), "a retry");
    for _ in 1..=10 {
        assert!(within(&f.attempt(FAIL).await));
    }
    assert_eq!(over(&f.attempt(PASS).await).0, "pair");
}

#[tokio::test]
async fn only_the_last_15_minutes_count() {
    let f = Fixture::new().await;
    let mut ago = vec![WINDOW_MS + 1_000, WINDOW_MS + 1, WINDOW_MS];
    ago.extend([WINDOW_MS - 60_000; 9]);
    f.plant(&ago).await;
    assert!(within(&f.attempt(FAIL).await));
    let (limit, ms) = over(&f.attempt(LOOK).await);
    assert_eq!(limit, "pair");
    assert!(ms <= 60_000, "until the oldest of them is 15 min old");
}

#[tokio::test]
async fn failures_of_a_user_from_many_addresses_count_together_and_then_one_is_tried_at_a_time() {
    const SITES: [&str; 25] = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r",
        "s", "t", "u", "v", "w", "x", "y",
    ];
    let f = Fixture::new().await;
    let mut counted = 0;
    for site in SITES {
        counted += u64::from(within(&f.attempt(Call::of("fail", "ann", site)).await));
    }
    assert_eq!(counted, 20);
    for verb in ["look", "fail", "pass"] {
        let (limit, ms) = over(&f.attempt(Call::of(verb, "ann", "z")).await);
        assert_eq!(limit, "shared", "{verb}");
        assert!((1..=WINDOW_MS / 20).contains(&ms), "{ms}");
    }
    assert!(within(&f.attempt(Call::of("look", "bob", "z")).await));
    // 45 s later there is one try, and no second one.
    let prefix = f.attempt_keys().await.remove(0);
    let index = f.now_ms().await / WINDOW_MS;
    let at = f.now_ms().await + WINDOW_MS - WINDOW_MS / 20;
    for index in [index, index - 1] {
        let key = format!("{prefix}:attempts:{index}");
        let pair = ("ann", &at.to_be_bytes()[2..]);
        let _: () = f.redis.hset(&key, pair).await.expect("hset");
        let _: () = f.redis.expire(&key, 1_800, None).await.expect("expire");
    }
    assert!(within(&f.attempt(Call::of("fail", "ann", "z")).await));
    assert_eq!(
        over(&f.attempt(Call::of("fail", "ann", "z")).await).0,
        "shared"
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_address_where_the_user_has_logged_in_has_its_own_count_alone() {
    let f = Fixture::new().await;
    let reply = f.attempt(PASS).await;
    assert_eq!(
        (within(&reply), reply.int(0)),
        (true, 0),
        "known from now on"
    );
    for site in ["a", "b"] {
        for _ in 0..10 {
            assert!(within(&f.attempt(Call::of("fail", "ann", site)).await));
        }
    }
    assert_eq!(
        over(&f.attempt(Call::of("pass", "ann", "c")).await).0,
        "shared"
    );
    for call in [LOOK, FAIL, PASS] {
        let reply = f.attempt(call).await;
        assert_eq!((within(&reply), reply.int(0)), (true, 1), "{}", call.verb);
    }
    // And no failure there is one of all addresses.
    for _ in 0..10 {
        assert!(within(&f.attempt(FAIL).await));
    }
    let reply = f.attempt(FAIL).await;
    assert_eq!((over(&reply).0.as_str(), reply.int(2)), ("pair", 1));
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_address_is_known_for_30_days_and_few_of_a_user_are() {
    let f = Fixture::new().await;
    let (now, known) = (f.now_ms().await, f.known("ann").await);
    for (site, at) in [("old", now - 30 * DAY_MS), ("here", now - 29 * DAY_MS)] {
        let member = (
            f64::from(u32::try_from(at / 1_000).expect("short")) * 1_000.0,
            site,
        );
        let _: () = f
            .redis
            .zadd(&known, None, None, false, false, member)
            .await
            .expect("zadd");
    }
    let is_known = async |site| f.attempt(Call::of("look", "ann", site)).await.int(0) == 1;
    assert!(is_known("here").await && !is_known("old").await);
    for site in ["a", "b", "c"] {
        assert!(within(&f.attempt(Call::of("pass", "ann", site)).await));
    }
    assert!(!is_known("here").await && is_known("a").await && is_known("c").await);
    let count: u64 = f.redis.zcard(&known).await.expect("zcard");
    let ttl: i64 = f.redis.pttl(&known).await.expect("pttl");
    assert_eq!(count, 3);
    assert!((1..=30 * 24 * 3_600_000).contains(&ttl), "{ttl}");
    f.assert_consistent().await;
}

#[tokio::test]
async fn an_address_has_a_limit_over_all_users() {
    let f = Fixture::new().await;
    for _ in 0..50 {
        assert!(within(&f.attempt_of_address("fail").await));
    }
    for verb in ["look", "fail"] {
        let (limit, ms) = over(&f.attempt_of_address(verb).await);
        assert_eq!(limit, "shared", "{verb}");
        assert!((1..=WINDOW_MS / 50).contains(&ms), "{ms}");
    }
}

#[tokio::test]
async fn names_that_are_made_up_replace_counts_and_do_not_add_to_them() {
    let f = Fixture::new().await;
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    for user in NAMES {
        let call = Call {
            entries: 8,
            ..Call::of("fail", user, "here")
        };
        assert!(within(&f.attempt(call).await));
    }
    let prefix = f.attempt_keys().await.remove(0);
    for key in f.keys(&format!("{prefix}:attempts:*")).await {
        let count: u64 = f.redis.hlen(&key).await.expect("hlen");
        assert!(count <= 8, "{count} in {key}");
    }
    assert_eq!(f.keys(&format!("{prefix}:known:*")).await, [""; 0]);
}
