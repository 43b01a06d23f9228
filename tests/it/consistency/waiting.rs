//! Who waits: the line, what is known of each waiter, and what they are offered.

use std::collections::{BTreeMap, BTreeSet};

use fred::prelude::*;

use super::{FREE, HELD, Partition, Records, show};
use crate::harness::Fixture;
use crate::verbs::policy;

/// Bytes of a waiter before the token that it is offered: ticket (7), ms until which it is alive (6).
const HEAD_BYTES: usize = 13;

pub fn before_nul(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes[..end.unwrap_or(bytes.len())].to_vec()
}

/// A waiter as the scripts pack it.
pub fn packed(ticket: u64, alive_ms: u64, token: &str) -> Vec<u8> {
    let mut packed = ticket.to_be_bytes()[1..].to_vec();
    packed.extend(&alive_ms.to_be_bytes()[2..]);
    packed.extend(token.as_bytes());
    packed.push(0);
    packed
}

fn alive_ms(packed: &[u8]) -> u64 {
    let digits = packed[7..HEAD_BYTES].iter();
    digits.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// The line is exactly the waiters that have no offer; an offer is known on both its sides; and nobody who is alive
/// waits while a token is free.
pub fn check_line(
    partition: &Partition,
    pool: &str,
    now: u64,
    records: &Records,
    wrong: &mut Vec<String>,
) {
    let pairs = |kind: &str| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let key = partition.get(format!("{kind}:{pool}").as_str());
        key.map(|key| key.pairs()).unwrap_or_default()
    };
    let waiters = pairs("waiters");
    let line: BTreeSet<Vec<u8>> = pairs("queue").into_keys().collect();
    let offer = |packed: &Vec<u8>| before_nul(&packed[HEAD_BYTES..]);
    let no_offer = waiters
        .iter()
        .filter(|(_, packed)| offer(packed).is_empty());
    let no_offer: BTreeSet<Vec<u8>> = no_offer.map(|(waiter, _)| waiter.clone()).collect();
    for waiter in line.symmetric_difference(&no_offer) {
        let told = show(waiter);
        wrong.push(format!("{pool}: {told}: the line and the waiter disagree"));
    }
    let mut offers = BTreeMap::new();
    for (token, record) in records {
        if let Some(waiter) = &record.waiter {
            offers.insert(waiter.clone(), token.clone());
            if record.state != HELD {
                wrong.push(format!("{pool}: {}: offered, not held", show(token)));
            }
        }
    }
    for (waiter, packed) in &waiters {
        let told = offer(packed);
        if !told.is_empty() && offers.remove(waiter).as_ref() != Some(&told) {
            let (waiter, token) = (show(waiter), show(&told));
            wrong.push(format!("{pool}: {token}: not offered to {waiter}"));
        }
    }
    for (waiter, token) in offers {
        let (waiter, token) = (show(&waiter), show(&token));
        wrong.push(format!(
            "{pool}: {token}: offered to {waiter}, who does not know"
        ));
    }
    let alive = line
        .iter()
        .filter(|id| waiters.get(*id).is_some_and(|w| alive_ms(w) >= now));
    let free = records.values().filter(|record| record.state == FREE);
    let (alive, free) = (alive.count(), free.count());
    if alive > 0 && free > 0 {
        wrong.push(format!("{pool}: {alive} wait while {free} are free"));
    }
}

#[tokio::test]
async fn planted_inconsistencies_of_a_line_are_found() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    f.store.stop().await;
    let prefix = f.prefix_of(&p).await;
    let alive = packed(7, u64::MAX >> 16, "");
    let offered = packed(8, u64::MAX >> 16, "a");
    let waiters = format!("{prefix}:waiters:seats");
    let queue = format!("{prefix}:queue:seats");
    let check = async |told: &str| {
        let found = f.inconsistencies().await;
        assert!(
            found.iter().any(|it| it.contains(told)),
            "{told}: {found:#?}"
        );
    };
    for (waiter, packed) in [("w1", alive), ("w2", offered)] {
        let _: () = f
            .redis
            .hset(&waiters, (waiter, packed))
            .await
            .expect("HSET");
    }
    check("w1: the line and the waiter disagree").await;
    check("a: not offered to w2").await;
    check("waiters:seats: never leaves").await;
    for (score, waiter) in [(7.0, "w1"), (9.0, "nobody")] {
        let member = (score, waiter);
        let _: () = f
            .redis
            .zadd(&queue, None, None, false, false, member)
            .await
            .expect("ZADD");
    }
    check("nobody: the line and the waiter disagree").await;
    check("1 wait while 1 are free").await;
    check("queue:seats: never leaves").await;
}
