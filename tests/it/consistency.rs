//! What must be true of a data set at every moment, whatever happened to it: checked on a dump, by
//! code that shares nothing with the scripts.

mod flows;
mod reservations;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};

use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};
use tokend::token::PoolName;

use crate::harness::{Fixture, eventually};
use crate::raw::{Key, number};
use crate::verbs::policy;

const FREE: u8 = 1;
const HELD: u8 = 2;
/// Added to the state of a token that has metadata.
const HAS_META: u8 = 16;
/// Added to the state of a token that is held for a waiter.
const OFFERED: u8 = 32;
/// Bytes of a record before the holder's label.
const HEAD_BYTES: usize = 25;
const TICK_MS: u64 = 100;
/// Kinds of key that belong to one pool, and of which type they are.
const POOL_KINDS: &[(&str, &str)] = &[
    ("pool", "hash"),
    ("free", "set"),
    ("records", "hash"),
    ("ticks", "zset"),
    ("due", "set"),
    ("idem", "hash"),
    ("reserved", "hash"),
    ("meta", "hash"),
    ("queue", "zset"),
    ("waiters", "hash"),
];
/// Kinds of key that belong to the partition.
const PARTITION_KINDS: &[(&str, &str)] = &[
    ("turns", "zset"),
    ("fence", "string"),
    ("alarm", "string"),
    ("attempts", "hash"),
    ("known", "zset"),
];

struct Record {
    state: u8,
    has_meta: bool,
    deadline: u64,
    due: u64,
    /// Who it is offered to.
    waiter: Option<Vec<u8>>,
}

/// A pool's records by token.
type Records = BTreeMap<Vec<u8>, Record>;

impl Record {
    /// `state fence deadline due since`, big-endian in 1, 7, 6, 5 and 6 bytes, then the holder; where it is
    /// offered, the waiter and a NUL before that.
    fn parse(packed: &[u8]) -> Self {
        let int = |from: usize, to: usize| {
            let digits = packed[from..to].iter();
            digits.fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Self {
            state: packed[0] % HAS_META,
            has_meta: packed[0] & HAS_META > 0,
            deadline: int(8, 14),
            due: int(14, 19),
            waiter: (packed[0] & OFFERED > 0).then(|| waiting::before_nul(&packed[HEAD_BYTES..])),
        }
    }
}

/// The keys of one partition, by what stands behind the prefix.
type Partition<'a> = BTreeMap<&'a str, &'a Key>;

impl Fixture {
    /// Fails the test unless every structural invariant holds at this moment, and the alarm is set soon.
    pub async fn assert_consistent(&self) {
        self.assert_structure().await;
        // It has rung at this very moment, perhaps, and the sweep that sets it again is on its way.
        eventually(
            "every partition with something pending has an alarm",
            async || self.unalarmed().await.is_empty(),
        )
        .await;
    }

    /// The same without the alarm, which only a sweeper sets again once it has rung.
    pub async fn assert_structure(&self) {
        let wrong = self.inconsistencies().await;
        assert!(wrong.is_empty(), "inconsistent: {wrong:#?}");
    }

    /// The same, but for a free set into which the test put what does not belong there.
    pub async fn assert_structure_but_free(&self, pool: &PoolName) {
        let mut wrong = self.inconsistencies().await;
        let planted =
            |told: &String| told.contains(&format!(" {pool}: ")) && told.contains("the free set");
        wrong.retain(|told| !planted(told));
        assert!(wrong.is_empty(), "inconsistent: {wrong:#?}");
    }

    pub async fn inconsistencies(&self) -> Vec<String> {
        let (now, keys) = self.dump().await;
        let (partitions, others) = split(&keys);
        let mut wrong = Vec::new();
        let root = format!("{}:1:", self.config.key_prefix);
        for name in others {
            let settings = format!("{{{root}replicas}}:settings");
            let known = ["pools", "layout", "replicas", "users", &settings];
            if !known.contains(&name.strip_prefix(&root).unwrap_or(name)) {
                wrong.push(format!("{name}: an unknown key"));
            }
        }
        for (prefix, partition) in partitions {
            for found in check_partition(&partition, now) {
                wrong.push(format!("{prefix} {found}"));
            }
        }
        if let Some(registry) = keys.get(&format!("{root}pools")) {
            let partitions: Vec<_> = split(&keys).0.into_values().collect();
            for (name, entry) in registry.pairs() {
                let (name, entry) = (show(&name), show(&entry));
                flows::check_flow(
                    self.config.partitions,
                    &partitions,
                    &name,
                    &entry,
                    &mut wrong,
                );
            }
        }
        wrong
    }

    /// Partitions in which something is pending, and no alarm is set for it.
    async fn unalarmed(&self) -> Vec<String> {
        let (now, keys) = self.dump().await;
        let late = |partition: &Partition| {
            let turns = partition.get("turns")?.pairs();
            let first = turns.values().map(|score| number(score)).reduce(f64::min)?;
            let at = (first * TICK_MS as f64).ceil().max((now + TICK_MS) as f64);
            let set = partition.get("alarm").map(|key| number(&key.bytes()[0]));
            (set.is_none_or(|set| set > at)).then_some(())
        };
        let partitions = split(&keys).0.into_iter();
        partitions
            .filter_map(|(prefix, partition)| late(&partition).map(|()| prefix))
            .collect()
    }
}

fn split(keys: &BTreeMap<String, Key>) -> (BTreeMap<String, Partition<'_>>, Vec<&str>) {
    let mut partitions: BTreeMap<String, Partition> = BTreeMap::new();
    let mut others = Vec::new();
    for (name, key) in keys {
        match name.split_once("}:") {
            Some((prefix, rest)) if rest != "settings" => {
                partitions
                    .entry(prefix.to_owned() + "}")
                    .or_default()
                    .insert(rest, key);
            }
            _ => others.push(name.as_str()),
        }
    }
    (partitions, others)
}

fn check_partition(partition: &Partition, now: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut live = BTreeSet::new();
    for (name, key) in partition {
        if let Some(pool) = name.strip_prefix("pool:") {
            let fields = key.pairs();
            let gone = fields.contains_key(b"gone".as_slice());
            if gone && key.ttl_ms < 0 {
                wrong.push(format!("{name}: a tombstone for ever"));
            }
            if !gone {
                live.insert(pool);
                check_pool(partition, pool, now, &mut wrong);
            }
        }
    }
    for (name, key) in partition {
        let mut parts = name.split(':');
        let kind = parts.next().unwrap_or_default();
        let of_pool = POOL_KINDS.iter().any(|(known, _)| *known == kind);
        let mut known = POOL_KINDS.iter().chain(PARTITION_KINDS);
        if !known.any(|known| *known == (kind, key.kind.as_str())) {
            wrong.push(format!(
                "{name}: an unknown key, or not of its type: {}",
                key.kind
            ));
        }
        // `idem:<window>:<pool>`, else the pool comes first.
        let pool = if kind == "idem" {
            parts.nth(1)
        } else {
            parts.next()
        };
        let owned = pool.is_none_or(|pool| live.contains(pool) || kind == "pool");
        if of_pool && !owned {
            wrong.push(format!("{name}: a leftover of a pool that is gone"));
        }
        let mut expiring = "idem reserved alarm attempts known queue waiters".split(' ');
        if expiring.any(|it| it == kind) && key.ttl_ms < 0 {
            wrong.push(format!("{name}: never leaves"));
        }
        if kind == "reserved" {
            reservations::check_reservations(name, key, now, &mut wrong);
        }
    }
    if let Some(turns) = partition.get("turns") {
        for pool in turns.pairs().keys() {
            let pool = String::from_utf8_lossy(pool).into_owned();
            if !live.contains(pool.as_str()) {
                wrong.push(format!("turns: {pool} is gone"));
            }
        }
    }
    wrong
}

fn check_pool(partition: &Partition, pool: &str, now: u64, wrong: &mut Vec<String>) {
    let key = format!("records:{pool}");
    let packed = partition.get(key.as_str()).map(|key| key.pairs());
    let records = packed.unwrap_or_default().into_iter();
    let records = records
        .map(|(token, packed)| (token, Record::parse(&packed)))
        .collect();
    check_states(partition, pool, &records, wrong);
    check_wheel(partition, pool, &records, wrong);
    check_metadata(partition, pool, &records, wrong);
    check_turn(partition, pool, now, wrong);
    waiting::check_line(partition, pool, now, &records, wrong);
}

fn show(token: &[u8]) -> String {
    String::from_utf8_lossy(token).into_owned()
}

fn ticks(partition: &Partition, pool: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let key = partition.get(format!("ticks:{pool}").as_str());
    key.map(|key| key.pairs()).unwrap_or_default()
}

fn check_states(partition: &Partition, pool: &str, records: &Records, wrong: &mut Vec<String>) {
    let free = partition.get(format!("free:{pool}").as_str());
    let free: BTreeSet<_> = free.map(|key| key.bytes()).into_iter().flatten().collect();
    let said_free = records.iter().filter(|(_, record)| record.state == FREE);
    let said_free: BTreeSet<Vec<u8>> = said_free.map(|(token, _)| token.clone()).collect();
    for token in free.symmetric_difference(&said_free) {
        let told = show(token);
        wrong.push(format!(
            "{pool}: {told}: the free set and the record disagree"
        ));
    }
    let held = records.values().filter(|r| r.state == HELD).count();
    let fields = partition[format!("pool:{pool}").as_str()].pairs();
    let counted = fields
        .get(b"held".as_slice())
        .map_or(0.0, |text| number(text));
    if held as f64 != counted {
        wrong.push(format!("{pool}: {held} held, {counted} counted"));
    }
    if fields
        .get(b"born".as_slice())
        .is_some_and(|born| born == b"held")
        && held < records.len()
    {
        wrong.push(format!(
            "{pool}: a token that is not held, where all are born so"
        ));
    }
}

/// Each token that says it has metadata has it, and nothing else has.
fn check_metadata(partition: &Partition, pool: &str, records: &Records, wrong: &mut Vec<String>) {
    let prefix = format!("meta:{pool}:");
    let stored = partition
        .keys()
        .filter_map(|name| name.strip_prefix(&prefix));
    let stored: BTreeSet<Vec<u8>> = stored.map(|token| token.as_bytes().to_vec()).collect();
    let said = records.iter().filter(|(_, record)| record.has_meta);
    let said: BTreeSet<Vec<u8>> = said.map(|(token, _)| token.clone()).collect();
    for token in stored.symmetric_difference(&said) {
        let told = show(token);
        wrong.push(format!(
            "{pool}: {told}: its metadata and the record disagree"
        ));
    }
}

fn check_wheel(partition: &Partition, pool: &str, records: &Records, wrong: &mut Vec<String>) {
    let ticks = ticks(partition, pool);
    let mut entries: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    for (name, key) in partition {
        let Some(tick) = name.strip_prefix(&format!("due:{pool}:")) else {
            continue;
        };
        if ticks.get(tick.as_bytes()).map(|score| number(score)) != Some(number(tick.as_bytes())) {
            wrong.push(format!("{name}: not in the index"));
        }
        for token in key.bytes() {
            let tick = number(tick.as_bytes()) as u64;
            entries.entry(token).or_default().push(tick);
        }
    }
    for (token, record) in records {
        let at = entries.remove(token).unwrap_or_default();
        let wanted: &[u64] = if record.due > 0 { &[record.due] } else { &[] };
        if at != wanted {
            let told = show(token);
            wrong.push(format!(
                "{pool}: {told}: entries at {at:?}, due at {wanted:?}"
            ));
        }
        let late = record.due == 0 || record.due > record.deadline.div_ceil(TICK_MS);
        if record.deadline > 0 && late {
            let (told, due, deadline) = (show(token), record.due, record.deadline);
            wrong.push(format!("{pool}: {told}: due {due}, deadline {deadline}"));
        }
    }
    for (token, at) in entries {
        wrong.push(format!(
            "{pool}: {}: entries of no record at {at:?}",
            show(&token)
        ));
    }
}

fn check_turn(partition: &Partition, pool: &str, now: u64, wrong: &mut Vec<String>) {
    let ticks = ticks(partition, pool);
    let lowest = ticks.values().map(|score| number(score)).reduce(f64::min);
    if let Some(lowest) = lowest {
        let turns = partition
            .get("turns")
            .map(|key| key.pairs())
            .unwrap_or_default();
        let turn = turns.get(pool.as_bytes()).map(|score| number(score));
        // A pool that is behind schedule goes behind the others that are: its turn is now.
        let latest = lowest.max(now as f64 / TICK_MS as f64);
        if turn.is_none_or(|turn| turn > latest) {
            wrong.push(format!("{pool}: turn {turn:?}, lowest tick {lowest}"));
        }
    }
}

#[tokio::test]
async fn planted_inconsistencies_are_found() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 300, 20), &["a", "b", "c"])
        .await;
    f.grant(&p).await;
    f.assert_consistent().await;
    f.store.stop().await;
    let prefix = f.prefix_of(&p).await;
    plant_all(
        &f,
        &prefix,
        &[
            "SADD free:seats nobody",
            "HINCRBY pool:seats held 1",
            "SADD due:seats:5 a",
            "ZADD turns 99999999999 seats",
            "SADD due:seats:7 nobody",
            "SET surprise 1",
            "HSET records:gone a b",
            "PERSIST alarm",
            "DEL free:seats",
            "HSET reserved:seats nobody 99999999999999_1",
        ],
    )
    .await;
}

/// Each of these commands makes something wrong that was not before.
async fn plant_all(f: &Fixture, prefix: &str, plants: &[&str]) {
    let mut before = f.inconsistencies().await.len();
    for plant in plants {
        let mut words = plant.split(' ').map(str::to_owned);
        let command = words.next().expect("a command");
        let key = format!("{prefix}:{}", words.next().expect("a key"));
        let args: Vec<String> = std::iter::once(key).chain(words).collect();
        let command = CustomCommand::new(command, ClusterHash::FirstKey, false);
        let _: Value = f.redis.custom(command, args).await.expect(plant);
        let found = f.inconsistencies().await;
        assert!(found.len() > before, "{plant}: {found:#?}");
        before = found.len();
    }
}
