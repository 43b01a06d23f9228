//! Redis as it is: scripts called past the store, and all keys of a namespace at one moment.

use std::collections::{BTreeMap, BTreeSet};

use fred::prelude::*;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand, Value};
use tokend::token::PoolName;

use crate::harness::Fixture;

/// A script as the store composes it: the prelude behind the first line, but for those that touch no
/// partition.
pub fn source(script: &str) -> String {
    let lua = concat!(env!("CARGO_MANIFEST_DIR"), "/lua");
    let read = |name: &str| std::fs::read_to_string(format!("{lua}/{name}.lua")).expect("a script");
    let text = read(script);
    if ["beat", "register", "layout", "set_user"].contains(&script) {
        return text;
    }
    let (first, rest) = text.split_once('\n').expect("a first line");
    format!("{first}\n{}\n{rest}", read("prelude"))
}

/// One reply: its tag and its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Tagged {
    pub tag: String,
    pub fields: Vec<Value>,
}

impl Tagged {
    /// The field as a number.
    pub fn int(&self, field: usize) -> u64 {
        self.fields[field].as_u64().expect("a number")
    }

    pub fn text(&self, field: usize) -> String {
        self.fields[field].as_string().expect("a text")
    }
}

/// One key as the dump shows it.
#[derive(Debug, Clone)]
pub struct Key {
    pub kind: String,
    pub ttl_ms: i64,
    pub content: Vec<Value>,
}

impl Key {
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        let values = self.content.iter();
        values.map(|v| bytes(v).to_vec()).collect()
    }

    /// A hash's fields or a sorted set's scores, by field or member.
    pub fn pairs(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let flat = self.bytes();
        let pairs = flat.chunks(2);
        pairs.map(|p| (p[0].clone(), p[1].clone())).collect()
    }
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::Bytes(bytes) => bytes,
        Value::String(text) => text.as_bytes(),
        other => panic!("neither bytes nor text: {other:?}"),
    }
}

pub fn number(text: &[u8]) -> f64 {
    let text = std::str::from_utf8(text).expect("UTF-8");
    text.parse().expect("a number")
}

fn arguments(pool: &PoolName, generation: u64, version: u64, items: &[&[&str]]) -> Vec<String> {
    let mut args = Vec::new();
    for item in items {
        args.extend([
            pool.to_string(),
            generation.to_string(),
            version.to_string(),
        ]);
        args.extend(item.iter().map(ToString::to_string));
    }
    args
}

impl Fixture {
    /// The prefix of the partition that a pool lies in.
    pub async fn prefix_of(&self, pool: &PoolName) -> String {
        let pattern = format!("{}:1:{{*}}:pool:{pool}", self.config.key_prefix);
        let keys = self.keys(&pattern).await;
        let key = keys.first().expect("the pool has a shard");
        key.split_once("}:").expect("a hash tag").0.to_owned() + "}"
    }

    /// A field of the pool's shard, as a number; 0 where it has none.
    pub async fn shard_field(&self, pool: &PoolName, field: &str) -> u64 {
        let key = format!("{}:pool:{pool}", self.prefix_of(pool).await);
        let value: Option<u64> = self.redis.hget(key, field).await.expect("hget");
        value.unwrap_or(0)
    }

    /// Calls a script with the partition's keys and these arguments; an error is Redis's own text.
    pub async fn try_raw(
        &self,
        script: &str,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<Vec<Tagged>, String> {
        self.try_source(source(script), keys, args).await
    }

    async fn try_source(
        &self,
        source: String,
        keys: Vec<String>,
        args: Vec<String>,
    ) -> Result<Vec<Tagged>, String> {
        let answer: Result<Value, _> = self.redis.eval(source, keys, args).await;
        let answer = answer.map_err(|error| error.details().to_owned())?;
        let replies = answer.into_array().swap_remove(2).into_array();
        let tagged = |reply: Value| {
            let mut fields = reply.into_array();
            let tag = fields.remove(0).as_string().expect("a tag");
            Tagged { tag, fields }
        };
        Ok(replies.into_iter().map(tagged).collect())
    }

    /// Calls a partition's script about one pool; each item is what comes behind pool, generation and
    /// version, which are the shard's own.
    pub async fn raw(&self, script: &str, pool: &PoolName, items: &[&[&str]]) -> Vec<Tagged> {
        let (generation, version) = (
            self.shard_field(pool, "generation").await,
            self.shard_field(pool, "version").await,
        );
        self.raw_at(script, pool, generation, version, items).await
    }

    /// The same with offers, and waiters, that live for an hour: only the time that the test lets pass ends them.
    pub async fn patient(&self, script: &str, pool: &PoolName, items: &[&[&str]]) -> Vec<Tagged> {
        let (generation, version) = (
            self.shard_field(pool, "generation").await,
            self.shard_field(pool, "version").await,
        );
        let text = source(script);
        let source = text.replace("OFFER_MS = 2000", "OFFER_MS = 3600000");
        let source = source.replace("QUEUE_MS = 10000", "QUEUE_MS = 7200000");
        assert!(
            source.len() > text.len() + 4,
            "the prelude names them otherwise"
        );
        let args = arguments(pool, generation, version, items);
        let keys = self.partition_keys(pool).await;
        let replies = self.try_source(source, keys, args).await;
        replies.expect("the script runs")
    }

    /// The same with a generation and a version of the test's choice.
    pub async fn raw_at(
        &self,
        script: &str,
        pool: &PoolName,
        generation: u64,
        version: u64,
        items: &[&[&str]],
    ) -> Vec<Tagged> {
        let args = arguments(pool, generation, version, items);
        let keys = self.partition_keys(pool).await;
        let replies = self.try_raw(script, keys, args).await;
        replies.expect("the script runs")
    }

    /// A partition's two declared names.
    pub async fn partition_keys(&self, pool: &PoolName) -> Vec<String> {
        let prefix = self.prefix_of(pool).await;
        vec![prefix.clone(), format!("{prefix}:guard")]
    }

    /// Redis's clock (ms), and every key of the namespace: those of one primary all at one moment. Of several
    /// primaries the latest clock.
    pub async fn dump(&self) -> (u64, BTreeMap<String, Key>) {
        if !self.redis.is_clustered() {
            return self.dump_of(&self.redis).await;
        }
        let (mut latest, mut all) = (0, BTreeMap::new());
        for primary in self.primaries().await {
            let primary = self.redis.with_cluster_node(primary);
            let (now, keys) = self.dump_of(&primary).await;
            latest = latest.max(now);
            all.extend(keys);
        }
        (latest, all)
    }

    /// The primaries of a Cluster.
    async fn primaries(&self) -> BTreeSet<Server> {
        let ask = CustomCommand::new_static("CLUSTER", ClusterHash::Random, false);
        let slots: Value = self.redis.custom(ask, vec!["SLOTS"]).await.expect("slots");
        let ranges = slots.into_array().into_iter().map(Value::into_array);
        // The first and the last slot, then who has them: the primary before its replicas.
        let primaries = ranges.map(|range| {
            let primary = range[2].clone().into_array();
            let port = primary[1]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok());
            let host = primary[0].as_string().expect("a host");
            Server::new(host, port.expect("a port"))
        });
        primaries.collect()
    }

    async fn dump_of(&self, primary: &impl ClientLike) -> (u64, BTreeMap<String, Key>) {
        let pattern = format!("{}:1:*", self.config.key_prefix);
        let eval = CustomCommand::new_static("EVAL", ClusterHash::Random, false);
        let args = vec![include_str!("dump.lua"), "0", &pattern];
        let answer: Value = primary.custom(eval, args).await.expect("dump");
        let mut values = answer.into_array().into_iter();
        let now = values.next().and_then(|now| now.as_u64()).expect("a clock");
        let keys = values.map(|entry| {
            let mut entry = entry.into_array();
            let content = entry.pop().expect("content").into_array();
            let key = Key {
                kind: entry[1].as_string().expect("a type"),
                ttl_ms: entry[2].as_i64().expect("a TTL"),
                content,
            };
            (entry[0].as_string().expect("a name"), key)
        });
        (now, keys.collect())
    }

    /// Names of the namespace's keys that stay: those that leave by themselves (a tombstone, an alarm,
    /// idempotency keys) are not among them, nor is the one that comes with a replica's first beat.
    pub async fn lasting_keys(&self) -> Vec<String> {
        let (_, keys) = self.dump().await;
        let lasting = keys.into_iter().filter(|(_, key)| key.ttl_ms < 0);
        let names = lasting.map(|(name, _)| name);
        names.filter(|name| !name.ends_with(":replicas")).collect()
    }
}

#[tokio::test]
async fn a_dump_has_the_keys_of_every_primary() {
    let f = Fixture::new().await;
    let name = |n: usize| format!("{}:1:spread-{n}", f.config.key_prefix);
    // Without a hash tag each has a slot of its own: three primaries all get some.
    let spread: BTreeSet<String> = (0..100).map(name).collect();
    for key in &spread {
        let set: Result<(), _> = f.redis.set(key, "1", None, None, false).await;
        set.expect("set");
    }
    let (_, keys) = f.dump().await;
    let missing: Vec<_> = spread
        .iter()
        .filter(|key| !keys.contains_key(*key))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
