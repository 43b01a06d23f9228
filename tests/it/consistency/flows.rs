//! What must be true of the flows' pools besides: they lie in all partitions at once.

use fred::prelude::*;
use tokend::token::{Flow, PoolName};

use super::{Partition, plant_all, show};
use crate::harness::Fixture;
use crate::raw::number;

/// A flow has a shard in every partition, all of its entry's making, and their shares are its cap.
pub fn check_flow(
    count: u32,
    partitions: &[Partition],
    name: &str,
    entry: &str,
    wrong: &mut Vec<String>,
) {
    let Some(flow) = PoolName::parse_stored(name)
        .ok()
        .and_then(|pool| pool.flow())
    else {
        return;
    };
    let parts: Vec<&str> = entry.splitn(4, ' ').collect();
    let policy: serde_json::Value = serde_json::from_str(parts[3]).expect("a policy");
    let shard = format!("pool:{}", flow.pool_name());
    let shards: Vec<_> = partitions
        .iter()
        .filter_map(|p| p.get(shard.as_str()))
        .collect();
    if shards.len() != count as usize {
        wrong.push(format!(
            "{name}: {} shards in {count} partitions",
            shards.len()
        ));
    }
    let sum: f64 = shards
        .iter()
        .map(|shard| number(&shard.pairs()[b"max_tokens".as_slice()]))
        .sum();
    if policy["max_tokens"].as_f64() != Some(sum) {
        wrong.push(format!(
            "{name}: shares of {sum}, a cap of {}",
            policy["max_tokens"]
        ));
    }
    for shard in shards {
        let fields = shard.pairs();
        let said = |field: &str| fields.get(field.as_bytes()).map(|text| show(text));
        for (field, expected) in [
            ("generation", parts[0].to_owned()),
            ("version", parts[1].to_owned()),
            ("lifetime", policy["lifetime_ms"].to_string()),
            ("on_lapse", "delete".to_owned()),
            ("born", "held".to_owned()),
        ] {
            if said(field).as_ref() != Some(&expected) {
                wrong.push(format!(
                    "{name}: {field} is {:?}, not {expected}",
                    said(field)
                ));
            }
        }
    }
}

#[tokio::test]
async fn planted_inconsistencies_of_a_flow_are_found() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, serde_json::json!({"a": 1})).await;
    f.assert_consistent().await;
    f.store.stop().await;
    let keys = f.keys_of(Flow::OneTime).await;
    let tag = format!("{{p{}.", family.partition);
    let key = keys
        .iter()
        .find(|key| key.contains(&tag))
        .expect("its shard");
    let prefix = key.split_once("}:").expect("a hash tag").0.to_owned() + "}";
    let id = family.family.as_str();
    plant_all(
        &f,
        &prefix,
        &[
            "HSET meta:_one_time:nobody a 1",
            &format!("DEL meta:_one_time:{id}"),
            "HINCRBY pool:_one_time max_tokens 1",
            "HSET pool:_one_time lifetime 1",
            "HSET pool:_one_time born free",
            "HINCRBY pool:_one_time version -1",
        ],
    )
    .await;
    // Free, where all are born held: state 1, and nothing pending.
    let free = [[1_u8].as_slice(), &[0; 24]].concat();
    let before = f.inconsistencies().await.len();
    let () = f
        .redis
        .hset(format!("{prefix}:pool:_one_time"), ("born", "held"))
        .await
        .expect("hset");
    let () = f
        .redis
        .hset(
            format!("{prefix}:records:_one_time"),
            ("free", free.as_slice()),
        )
        .await
        .expect("hset");
    let () = f
        .redis
        .sadd(format!("{prefix}:free:_one_time"), "free")
        .await
        .expect("sadd");
    let found = f.inconsistencies().await;
    assert!(
        found.iter().any(|told| told.contains("all are born so")),
        "{found:#?}"
    );
    assert!(found.len() >= before, "{found:#?}");
    let () = f
        .redis
        .del(format!("{prefix}:pool:_one_time"))
        .await
        .expect("del");
    let found = f.inconsistencies().await;
    assert!(
        found.iter().any(|told| told.contains("1 shards in 2")),
        "{found:#?}"
    );
}
