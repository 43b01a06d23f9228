//! Where the data lies: whether partitions and slots are where they are looked for.

use super::facts::Facts;
use super::{Finding, Grade};
use crate::store::keys::SCHEMA;
use crate::store::writes::Refusal;

/// The number of partitions that the data set was made with, and ours; and whether it has moved to another key schema.
pub(super) fn layout(
    (theirs, superseded_by): (Option<u32>, Option<u32>),
    ours: u32,
    tags: &[&str],
) -> Finding {
    if let Some(newer) = superseded_by {
        let found = format!("moved to key schema {newer}; this tokend knows schema {SCHEMA}");
        return Finding::new("layout", Grade::Fail, found).mend("run the newer tokend");
    }
    match theirs {
        None => Finding::new("layout", Grade::Info, "nothing of tokend is there yet"),
        Some(theirs) if theirs == ours => {
            let found = format!("{ours} partitions: {}", tags.join(" "));
            Finding::new("layout", Grade::Ok, found)
        }
        Some(theirs) => {
            let found = format!("PARTITIONS is {ours}, the data set was made with {theirs}");
            Finding::new("layout", Grade::Fail, found).mend(format!("set PARTITIONS={theirs}"))
        }
    }
}

/// A Cluster is asked as one, has an owner for each slot, and goes on where it can.
pub(super) fn cluster(facts: &Facts, as_one: bool, uncovered: usize) -> Option<Finding> {
    let found = |grade, found: &str| Finding::new("cluster", grade, found);
    if !facts.clustered {
        return None;
    }
    Some(if !as_one {
        found(
            Grade::Fail,
            "a node of a Redis Cluster, taken for a single Redis",
        )
        .mend("write redis-cluster:// in REDIS_URL")
    } else if uncovered > 0 {
        found(Grade::Fail, &format!("{uncovered} slots have no primary"))
            .mend("redis-cli --cluster fix HOST:PORT")
    } else if facts.full_coverage.as_deref() == Some("yes") {
        found(
            Grade::Warn,
            "while one primary is away, all refuse everything",
        )
        .mend(
            "CONFIG SET cluster-require-full-coverage no on each node, and the same in redis.conf",
        )
    } else {
        found(Grade::Ok, "each slot has a primary")
    })
}

/// By a write that changes nothing.
pub(super) fn takes_writes(refusal: Option<Refusal>) -> Finding {
    match refusal {
        None => Finding::new("writes", Grade::Ok, "taken"),
        Some(Refusal { why, .. }) => Finding::new("writes", Grade::Fail, format!("refused: {why}")),
    }
}
