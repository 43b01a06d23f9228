//! Waiters with an idempotency key: the key is the waiter, so its requests stand in one place and find one grant;
//! and what no waiter could mean.

use fred::prelude::*;

use super::wait::{Line, Step, lasting_policy, stay};

fn keyed<'a>(key: &'a str, print: &'a str) -> Step<'a> {
    Step {
        key,
        print,
        ..stay("k1")
    }
}

#[tokio::test]
async fn requests_with_one_key_are_one_waiter_and_find_one_grant() {
    let line = Line::new(lasting_policy(), &["a", "b"], &[]).await;
    let asked = keyed("job", "print");
    let place = line.expect(asked, "waiting").await;
    assert_eq!(line.step(asked).await, place);
    line.unblock().await;
    let fence = line.offered_to(asked).await;
    // Both take it in one call, and a third one comes later.
    let both = line.steps(&[asked.take(fence), asked.take(fence)]).await;
    assert_eq!((both[0].tag.as_str(), &both[0]), ("granted", &both[1]));
    line.f.assert_structure().await;
    assert_eq!(line.step(asked).await, both[0]);
    assert_eq!(line.step(keyed("job", "other")).await.tag, "mismatch");
    line.unblock().await;
    line.expect(asked, "lease_lost").await;
}

impl Line {
    async fn offered_to(&self, step: Step<'_>) -> u64 {
        self.expect(step, "offered").await.int(1)
    }
}

#[tokio::test]
async fn a_key_that_was_granted_meanwhile_leaves_the_line() {
    let line = Line::new(lasting_policy(), &["a", "b"], &[]).await;
    let asked = keyed("job", "print");
    line.expect(asked, "waiting").await;
    line.unblock().await;
    line.offered_to(asked).await;
    // Another way to the same grant: as an assign remembers it.
    let held = line.call("inspect", &["b", ""]).await.int(1);
    let window = line.f.now_ms().await / 1_000 / 600;
    let prefix = line.f.prefix_of(&line.pool).await;
    let key = format!("{prefix}:idem:{window}:seats");
    let kept = ("assign:job", format!("print {held} b"));
    let _: () = line.f.redis.hset(&key, kept).await.expect("HSET");
    let _: () = line
        .f
        .redis
        .expire(&key, 1_200, None)
        .await
        .expect("EXPIRE");
    let found = line.expect(asked, "granted").await;
    assert_eq!((found.text(0).as_str(), found.int(1)), ("b", held));
    assert_eq!(line.state().await.0, "free");
}

#[tokio::test]
async fn a_number_that_is_none_writes_nothing() {
    let line = Line::new(lasting_policy(), &["a"], &[]).await;
    let keys = line.f.partition_keys(&line.pool).await;
    let good = stay("w1").args();
    for at in [3, 6, 8] {
        let mut item = good.clone();
        item[at] = "x".to_owned();
        let (generation, version) = (
            line.f.shard_field(&line.pool, "generation").await,
            line.f.shard_field(&line.pool, "version").await,
        );
        let mut args = Vec::new();
        for item in [good.clone(), item] {
            args.extend([
                "seats".to_owned(),
                generation.to_string(),
                version.to_string(),
            ]);
            args.extend(item);
        }
        assert!(line.f.try_raw("wait", keys.clone(), args).await.is_err());
    }
    let prefix = line.f.prefix_of(&line.pool).await;
    let there: i64 = line
        .f
        .redis
        .exists(format!("{prefix}:queue:seats"))
        .await
        .expect("EXISTS");
    assert_eq!(there, 0);
}
