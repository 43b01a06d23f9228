use fred::prelude::*;
use serde_json::{Value, json};

use crate::harness::*;
use crate::raw::Tagged;

impl Fixture {
    fn users_key(&self) -> String {
        format!("{}:1:users", self.config.key_prefix)
    }

    async fn set_user(&self, verb: &str, items: &[[&str; 3]]) -> Tagged {
        let mut args = vec![verb.to_owned()];
        args.extend(items.iter().flatten().map(ToString::to_string));
        let replies = self.try_raw("set_user", vec![self.users_key()], args).await;
        replies.expect("the script runs").remove(0)
    }

    async fn stored_user(&self, name: &str) -> Option<Value> {
        let text: Option<String> = self.redis.hget(self.users_key(), name).await.expect("hget");
        text.map(|text| serde_json::from_str(&text).expect("JSON"))
    }

    /// Its epoch, after a look at its tag.
    async fn epoch(&self, verb: &str, item: [&str; 3]) -> u64 {
        let reply = self.set_user(verb, &[item]).await;
        assert_eq!(reply.tag, "set", "{verb}: {reply:?}");
        reply.int(0)
    }
}

fn refused(names: &[&str]) -> Tagged {
    Tagged {
        tag: "refused".to_owned(),
        fields: names.iter().map(|name| (*name).into()).collect(),
    }
}

#[tokio::test]
async fn each_password_has_a_greater_epoch_and_a_rehash_has_none() {
    let f = Fixture::new().await;
    // The clock of the scripts is up to a millisecond ahead of the moment.
    let before_us = (f.now_ms().await - 1) * 1_000;
    let added = f.epoch("add", ["ann", "$hash/1\"", ""]).await;
    assert!(added >= before_us);
    let expected = json!({"epoch": added, "password_hash": "$hash/1\""});
    assert_eq!(f.stored_user("ann").await, Some(expected));
    let set = f.epoch("set", ["ann", "2", ""]).await;
    assert!(set > added);
    assert_eq!(f.epoch("rehash", ["ann", "3", "2"]).await, set);
    let expected = json!({"epoch": set, "password_hash": "3"});
    assert_eq!(f.stored_user("ann").await, Some(expected));
    let put = f.epoch("put", ["ann", "4", ""]).await;
    assert!(put > set);
    f.assert_consistent().await;
}

#[tokio::test]
async fn who_stands_against_it_is_named_and_nothing_is_done() {
    let f = Fixture::new().await;
    f.epoch("add", ["ann", "1", ""]).await;
    for (verb, names) in [("set", ["bob"]), ("delete", ["bob"]), ("add", ["ann"])] {
        let both = [["ann", "2", ""], ["bob", "2", ""]];
        assert_eq!(f.set_user(verb, &both).await, refused(&names), "{verb}");
        assert_eq!(f.set_user(verb, &both).await, refused(&names), "a retry");
    }
    assert_eq!(
        f.set_user("rehash", &[["ann", "2", "0"]]).await,
        refused(&["ann"])
    );
    assert_eq!(
        f.set_user("rehash", &[["bob", "2", ""]]).await,
        refused(&["bob"])
    );
    assert_eq!(
        f.stored_user("ann").await.expect("ann")["password_hash"],
        "1"
    );
    assert_eq!(f.stored_user("bob").await, None);
    let both = [["ann", "2", ""], ["bob", "2", ""]];
    assert_eq!(f.set_user("put", &both).await.tag, "set");
    assert_eq!(
        f.stored_user("bob").await.expect("bob")["password_hash"],
        "2"
    );
}

#[tokio::test]
async fn who_is_added_anew_is_somebody_else_even_if_the_clock_went_back() {
    let f = Fixture::new().await;
    let first = f.epoch("add", ["ann", "1", ""]).await;
    // The clock was an hour ahead then.
    let ahead = first + 3_600_000_000;
    let pair = ("", ahead.to_string());
    let _: () = f.redis.hset(f.users_key(), pair).await.expect("hset");
    f.epoch("delete", ["ann", "", ""]).await;
    assert_eq!(f.stored_user("ann").await, None);
    assert!(f.epoch("add", ["ann", "1", ""]).await > ahead);
}

#[tokio::test]
async fn epochs_keep_all_their_digits() {
    let f = Fixture::new().await;
    let pair = ("", "8000000000000000");
    let _: () = f.redis.hset(f.users_key(), pair).await.expect("hset");
    assert_eq!(
        f.epoch("add", ["ann", "1", ""]).await,
        8_000_000_000_000_001
    );
    assert_eq!(
        f.epoch("rehash", ["ann", "2", "1"]).await,
        8_000_000_000_000_001
    );
    assert_eq!(
        f.stored_user("ann").await.expect("ann")["epoch"],
        8_000_000_000_000_001_u64
    );
}
