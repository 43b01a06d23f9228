//! What can happen to the flows' pools: every way in which metadata could be left behind, caps and their shares,
//! large metadata, policies that other replicas change, a registry that is lost, a Redis that is full.

use fred::prelude::*;
use futures_util::future::join_all;
use serde_json::json;
use tokend::store::{Durability, StoreConfig};
use tokend::token::bearer;
use tokend::token::rotating::new_family;
use tokend::token::*;

use crate::harness::*;
use crate::scripts::exchange::given;
use crate::verbs::*;

const HOURS_2: u64 = 2 * 3_600;

fn one_time() -> PoolName {
    PoolName::of_flow(Flow::OneTime)
}

impl Fixture {
    /// The shards of a flow that are there.
    pub async fn keys_of(&self, flow: Flow) -> Vec<String> {
        let pool = flow.pool_name();
        let pattern = format!("{}:1:{{*}}:pool:{pool}", self.config.key_prefix);
        self.keys(&pattern).await
    }

    async fn metadata_keys(&self) -> Vec<String> {
        let pattern = format!("{}:1:*:meta:*", self.config.key_prefix);
        self.keys(&pattern).await
    }

    /// A data set with that many partitions, whose one-time tokens have that cap.
    pub async fn with_cap(partitions: u32, max: u64) -> Self {
        let mut flows = FlowsLimits::DEFAULT;
        flows.one_time.max = max;
        Self::with(StoreConfig {
            url: redis_url().await.to_owned(),
            key_prefix: new_namespace(),
            partitions,
            default_policy: Policy::FOR_DEFAULT_POOL,
            flows,
            durability: Durability::Memory,
        })
        .await
    }

    async fn create(&self) -> bool {
        let made = self
            .store
            .create_family(Flow::OneTime, None, Metadata::default());
        made.await.expect("create").is_some()
    }
}

#[tokio::test]
async fn metadata_goes_with_its_token_on_every_way_out() {
    let f = Fixture::new().await;
    let meta = json!({"a": 1});
    let gone = f.family(Flow::OneTime, meta.clone()).await;
    let deleted = f
        .store
        .delete_family(Flow::OneTime, gone.partition, &gone.family);
    assert_eq!(deleted.await, Ok(true));
    assert!(f.metadata_keys().await.is_empty(), "deleted");

    f.family(Flow::OneTime, meta.clone()).await;
    f.pass(&one_time(), secs(HOURS_2 + 1)).await;
    eventually("swept", async || f.metadata_keys().await.is_empty()).await;

    let revoked = f.family(Flow::Session, meta.clone()).await;
    given(&f.refresh(&revoked, 1).await);
    f.let_retry_pass(Flow::Session).await;
    assert_eq!(f.refresh(&revoked, 1).await, ExchangeOutcome::Reused);
    assert!(f.metadata_keys().await.is_empty(), "revoked");
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_lapse_that_an_exchange_finds_takes_the_metadata_along() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let other = f.replica().await;
    f.store.stop().await; // the sweeper must not be first
    other.store.stop().await;
    f.pass(&one_time(), secs(HOURS_2 + 1)).await;
    let prefix = shard_prefix(&f, family.partition).await;
    let none: &[(&str, &str)] = &[];
    let items = [(family.family.as_str(), none); 2];
    let replies = raw_exchanges(&f, &prefix, &items).await;
    assert_eq!(replies, ["absent", "absent"]);
    assert!(f.metadata_keys().await.is_empty());
    f.assert_structure().await;
}

/// The prefix of a partition of the one-time flow, found by whose shard it is.
async fn shard_prefix(f: &Fixture, partition: usize) -> String {
    let tag = format!("{{p{partition}.");
    let keys = f.keys_of(Flow::OneTime).await;
    let key = keys.iter().find(|key| key.contains(&tag)).expect("a shard");
    key.split_once("}:").expect("a hash tag").0.to_owned() + "}"
}

/// Exchanges of number 1 of these families as items of one call: the tags answered.
async fn raw_exchanges(
    f: &Fixture,
    prefix: &str,
    items: &[(&str, &[(&str, &str)])],
) -> Vec<String> {
    let field = async |name: &str| -> String {
        let key = format!("{prefix}:pool:_one_time");
        f.redis.hget(key, name).await.expect("hget")
    };
    let (generation, version) = (field("generation").await, field("version").await);
    let mut args = Vec::new();
    for (family, fields) in items {
        let head = [
            "_one_time",
            &generation,
            &version,
            family,
            "1",
            "60000",
            "10000",
            "renew",
            "revoke",
        ];
        args.extend(head.map(str::to_owned));
        args.push(fields.len().to_string());
        args.extend(
            fields
                .iter()
                .flat_map(|(n, v)| [(*n).to_owned(), (*v).to_owned()]),
        );
    }
    let keys = vec![prefix.to_owned(), format!("{prefix}:guard")];
    let replies = f.try_raw("exchange", keys, args).await.expect("it runs");
    replies.into_iter().map(|reply| reply.tag).collect()
}

#[tokio::test]
async fn one_call_may_exchange_a_family_many_times_and_its_items_see_each_other() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, json!({})).await;
    let prefix = shard_prefix(&f, family.partition).await;
    let fields: &[(&str, &str)] = &[("a", "1")];
    let items = [
        (family.family.as_str(), fields),
        (family.family.as_str(), &[("a", "2")]),
    ];
    assert_eq!(
        raw_exchanges(&f, &prefix, &items).await,
        ["rotated", "replayed"]
    );
    let replayed = given(&f.exchange(&family, 1, json!({})).await);
    assert_eq!(replayed, (2, json!({"a": 1})));
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_bad_item_anywhere_in_a_call_leaves_everything_as_it_was() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let prefix = shard_prefix(&f, family.partition).await;
    let (_, before) = f.dump().await;
    let good = [
        "_one_time",
        "1",
        "1",
        family.family.as_str(),
        "1",
        "60000",
        "10000",
        "renew",
        "",
        "1",
        "a",
        "2",
    ];
    let heads = ["x", "1", "60000", "10000", "renew", "", "0"];
    let mistakes = [
        (1, ""),
        (1, "x"),
        (2, "x"),
        (3, "x"),
        (6, "x"),
        (6, "9"),
        (6, ""),
    ];
    for (at, bad) in mistakes {
        let mut item = heads;
        item[at] = bad;
        let args = good
            .iter()
            .chain(["_one_time", "1", "1"].iter())
            .chain(item.iter());
        let args = args.map(ToString::to_string).collect();
        let keys = vec![prefix.clone(), format!("{prefix}:guard")];
        assert!(
            f.try_raw("exchange", keys, args).await.is_err(),
            "{at} {bad:?}"
        );
    }
    let (_, after) = f.dump().await;
    for (name, key) in &before {
        if !name.ends_with(":alarm") {
            assert_eq!(
                after.get(name).map(crate::raw::Key::bytes),
                Some(key.bytes()),
                "{name}"
            );
        }
    }
}

/// As many members as fit: names of two characters.
#[tokio::test]
async fn nine_thousand_members_are_one_object() {
    const MEMBERS: usize = 9_000;
    let f = Fixture::new().await;
    let printable = || ' '..='~';
    let names = printable().flat_map(|a| printable().map(move |b| format!("{a}{b}")));
    let members = names.take(MEMBERS).map(|name| (name, json!(1)));
    let family = f
        .family(Flow::OneTime, serde_json::Value::Object(members.collect()))
        .await;
    let (number, there) = given(&f.exchange(&family, 1, json!({"aa": 2})).await);
    assert_eq!(
        (number, &there["aa"], &there["\"\\"]),
        (2, &json!(2), &json!(1))
    );
    assert_eq!(there.as_object().map(serde_json::Map::len), Some(MEMBERS));
    let mut shown = 0;
    let walk = f
        .store
        .walk(Flow::OneTime, |view| shown += view.metadata.len());
    walk.await.expect("walk");
    assert_eq!(shown, MEMBERS);
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_call_reads_a_bounded_amount_of_metadata_and_asks_for_the_rest_again() {
    let f = Fixture::with_cap(1, 100).await;
    let large = json!({"a": "x".repeat(60_000)});
    let families = join_all((0..12).map(|_| f.family(Flow::OneTime, large.clone()))).await;
    let prefix = shard_prefix(&f, 0).await;
    let none: &[(&str, &str)] = &[];
    let items: Vec<_> = families
        .iter()
        .map(|it| (it.family.as_str(), none))
        .collect();
    let tags = raw_exchanges(&f, &prefix, &items).await;
    let done = tags.iter().filter(|tag| *tag == "rotated").count();
    assert!((1..12).contains(&done), "{tags:?}");
    assert!(tags[done..].iter().all(|tag| tag == "again"), "{tags:?}");
    // The store does ask again.
    let rest = families.iter().map(|it| f.exchange(it, 1, json!({})));
    assert!(
        join_all(rest)
            .await
            .iter()
            .all(|outcome| given(outcome).0 == 2)
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_cap_is_spread_over_the_partitions_to_the_last_token() {
    for (partitions, max) in [(4, 1), (4, 3), (3, 7), (1, 5), (16, 16)] {
        let f = Fixture::with_cap(partitions, max).await;
        for _ in 0..max {
            assert!(f.create().await, "{max} in {partitions}");
        }
        assert!(!f.create().await, "more than {max} in {partitions}");
        f.assert_consistent().await;
    }
}

#[tokio::test]
async fn a_lower_cap_keeps_what_there_is_and_makes_room_as_it_goes() {
    let f = Fixture::with_cap(2, 6).await;
    for _ in 0..6 {
        assert!(f.create().await);
    }
    let mut config = f.config.clone();
    config.flows.one_time.max = 2;
    let lower = Fixture::with(config).await;
    assert!(!lower.create().await && !f.create().await);
    f.pass(&one_time(), secs(HOURS_2 + 1)).await;
    assert!(f.create().await && lower.create().await && !f.create().await);
    f.assert_consistent().await;
}

#[tokio::test]
async fn shards_that_outlive_their_entry_take_the_next_policy() {
    let f = Fixture::with_cap(2, 2).await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    for max in [3, 4] {
        let mut config = f.config.clone();
        config.flows.one_time.max = max;
        Fixture::with(config).await.store.stop().await;
    }
    let registry = format!("{}:1:pools", f.config.key_prefix);
    let () = f.redis.hdel(registry, "_one_time").await.expect("hdel");
    let mut config = f.config.clone();
    config.flows.one_time.max = 8;
    let later = Fixture::with(config).await;
    for _ in 0..7 {
        assert!(later.create().await, "the cap is 8 now");
    }
    assert!(!later.create().await);
    // What was given out is good for everybody.
    assert_eq!(
        given(&f.exchange(&family, 1, json!({})).await),
        (2, json!({"a": 1}))
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_shard_that_is_lost_is_made_again_and_leaves_no_metadata() {
    let f = Fixture::with_cap(1, 5_000).await;
    let made = (0..1_200).map(|_| f.family(Flow::OneTime, json!({"a": 1})));
    let families = join_all(made).await;
    let prefix = shard_prefix(&f, 0).await;
    let () = f
        .redis
        .del(format!("{prefix}:pool:_one_time"))
        .await
        .expect("del");
    assert_eq!(
        f.exchange(&families[0], 1, json!({})).await,
        ExchangeOutcome::Absent
    );
    assert!(f.create().await);
    assert!(f.metadata_keys().await.is_empty());
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_loss_of_all_data_tokens_are_absent_and_new_ones_are_made() {
    let Some(redis) = OwnRedis::start(&[]).await else {
        return skip("flows, FLUSHALL", "no redis-server");
    };
    let f = Fixture::on(&redis.url).await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let () = f.redis.flushall(false).await.expect("flushall");
    assert_eq!(
        f.exchange(&family, 1, json!({})).await,
        ExchangeOutcome::Absent
    );
    assert_eq!(f.alive(Flow::OneTime, &family).await, None);
    let again = f.family(Flow::OneTime, json!({})).await;
    given(&f.exchange(&again, 1, json!({})).await);
    f.store.list_pools().await.expect("default is made again");
    f.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_makes_no_tokens_but_exchanges_and_deletes_them() {
    let Some(redis) = OwnRedis::start(&["--maxmemory-policy", "noeviction"]).await else {
        return skip("flows, full", "no redis-server");
    };
    let f = Fixture::on(&redis.url).await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let gone = f.family(Flow::OneTime, json!({"a": 1})).await;
    let () = f
        .redis
        .config_set("maxmemory", "1")
        .await
        .expect("CONFIG SET");
    let refused = f
        .store
        .create_family(Flow::OneTime, None, Metadata::default())
        .await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
    let opaque = f
        .store
        .create_opaque(Flow::Temporary, bearer::temporary, None, None)
        .await;
    assert!(
        matches!(opaque, Err(StoreError::Unavailable(_))),
        "{opaque:?}"
    );
    let exchanged = f.exchange(&family, 1, json!({"b": 2})).await;
    assert_eq!(given(&exchanged), (2, json!({"a": 1, "b": 2})));
    let deleted = f
        .store
        .delete_family(Flow::OneTime, gone.partition, &gone.family);
    assert_eq!(deleted.await, Ok(true));
    let () = f
        .redis
        .config_set("maxmemory", "0")
        .await
        .expect("CONFIG SET");
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_partition_that_this_data_set_does_not_have_is_absent() {
    let f = Fixture::new().await;
    for partition in [PARTITIONS as usize, usize::MAX] {
        let family = new_family();
        let found = f
            .store
            .inspect_family(Flow::Session, partition, &family)
            .await;
        assert_eq!(found, Ok(None));
        let deleted = f
            .store
            .delete_family(Flow::Session, partition, &family)
            .await;
        assert_eq!(deleted, Ok(false));
    }
}

#[tokio::test]
async fn a_lifetime_that_was_shortened_brings_a_renewed_deadline_forward() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let mut config = f.config.clone();
    config.flows.one_time.lifetime_ms = 5_000;
    let shorter = Fixture::with(config).await;
    given(&shorter.exchange(&family, 1, json!({})).await);
    f.assert_consistent().await;
    f.pass(&one_time(), secs(6)).await;
    eventually("swept", async || f.metadata_keys().await.is_empty()).await;
    f.assert_consistent().await;
}
