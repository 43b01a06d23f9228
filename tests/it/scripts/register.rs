use fred::prelude::*;

use crate::harness::*;
use crate::raw::Tagged;

impl Fixture {
    async fn register(&self, expected: &str, generation: &str, rest: &str) -> Tagged {
        let keys = vec![format!("{}:1:pools", self.config.key_prefix)];
        let args = ["made-up", expected, generation, rest];
        let args = args.map(str::to_owned).to_vec();
        let replies = self.try_raw("register", keys, args).await;
        replies.expect("the script runs").remove(0)
    }

    async fn made_up(&self) -> Option<String> {
        let key = format!("{}:1:pools", self.config.key_prefix);
        self.redis.hget(key, "made-up").await.expect("hget")
    }
}

#[tokio::test]
async fn an_entry_is_stored_where_there_was_none_with_a_generation_from_the_clock() {
    let f = Fixture::new().await;
    let before = f.now_ms().await;
    let reply = f.register("", "0", "1 deleting {}").await;
    assert_eq!(reply.tag, "stored");
    // What scripts call now is the millisecond that has not ended yet.
    assert!(reply.int(0) >= (before - 1) * 1_000, "microseconds");
    assert_eq!(
        f.made_up().await,
        Some(format!("{} 1 deleting {{}}", reply.int(0)))
    );
    // A retry.
    assert_eq!(f.register("", "0", "1 deleting {}").await.tag, "conflict");
}

#[tokio::test]
async fn an_entry_is_changed_or_removed_only_if_it_is_what_was_read() {
    let f = Fixture::new().await;
    let reply = f.register("", "7", "1 deleting {}").await;
    assert_eq!((reply.tag.as_str(), reply.int(0)), ("stored", 7));
    assert_eq!(
        f.register("6 1 deleting {}", "7", "x").await.tag,
        "conflict"
    );
    assert_eq!(
        f.register("7 1 deleting {}", "7", "2 deleting {}")
            .await
            .tag,
        "stored"
    );
    assert_eq!(
        f.register("7 1 deleting {}", "-1", "").await.tag,
        "conflict"
    );
    assert_eq!(f.register("7 2 deleting {}", "-1", "").await.tag, "removed");
    assert_eq!(f.made_up().await, None);
    assert_eq!(
        f.register("7 2 deleting {}", "-1", "").await.tag,
        "conflict"
    );
}

#[tokio::test]
async fn generations_keep_all_their_digits() {
    let f = Fixture::new().await;
    f.register("", "1790000000000001", "1 deleting {}").await;
    assert_eq!(
        f.made_up().await.as_deref(),
        Some("1790000000000001 1 deleting {}")
    );
}
