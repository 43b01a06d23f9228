use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn it_counts_each_state() {
    let f = Fixture::new().await;
    let p = f
        .filled("seats", policy(60, 0, 20), &["a", "b", "c", "d"])
        .await;
    f.granted(&p, named("a")).await;
    f.granted(&p, named("b")).await;
    f.granted(&p, named("c")).await;
    f.unblock(&p, "c", None).await;
    let reply = f.raw("count", &p, &[&[]]).await.remove(0);
    assert_eq!(reply.tag, "counted");
    assert_eq!((reply.int(0), reply.int(1), reply.int(2)), (1, 2, 4));
    assert_eq!(f.counts(&p).await, (1, 2, 1));
    let view = f.store.show_pool(&p).await.expect("show").expect("there");
    assert_eq!(view.counts.total(), 4);
    f.assert_consistent().await;
}

#[tokio::test]
async fn what_is_due_is_settled_first() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a", "b"]).await;
    f.grant(&p).await;
    let f = f.without_sweeper().await;
    f.pass(&p, secs(61)).await;
    for _ in 0..2 {
        let reply = f.raw("count", &p, &[&[]]).await.remove(0);
        assert_eq!((reply.int(0), reply.int(1), reply.int(2)), (2, 0, 2));
    }
    f.assert_structure().await;
}

#[tokio::test]
async fn it_settles_a_bounded_number() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.generate(&p, 250).await;
    let any: &[&str] = &["", "", "", "0", "", "0", ""];
    let f = f.without_sweeper().await;
    f.raw("assign", &p, &[any; 250]).await;
    f.pass(&p, secs(61)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(f.raw("count", &p, &[&[]]).await[0].int(1));
    }
    assert_eq!(held, [150, 50, 0]);
    f.assert_structure().await;
}

#[tokio::test]
async fn another_generation_is_stale_and_the_other_pools_are_counted() {
    let f = Fixture::new().await;
    let p = f.filled("a", policy(60, 0, 0), &["x"]).await;
    let replies = f.raw_at("count", &p, 1, 0, &[&[]]).await;
    assert_eq!(replies[0].tag, "stale");
    f.filled("a-b", policy(60, 0, 0), &["x", "y"]).await;
    let views = f.store.list_pools().await.expect("list");
    let told: Vec<_> = views
        .iter()
        .map(|v| (v.name.as_str(), v.counts.free))
        .collect();
    assert_eq!(told, [("a", 1), ("a-b", 2), ("default", 0)]);
}

#[tokio::test]
async fn pools_whose_names_begin_alike_do_not_meet() {
    let f = Fixture::new().await;
    let names = ["a", "a-", "a-b", "a-b-c", "ab", "free", "pool", "due", "0"];
    for name in names {
        let p = f.filled(name, policy(60, 300, 20), &["x", "y", name]).await;
        f.granted(&p, named("x")).await;
    }
    let p = pool("a");
    f.delete(&p, "a").await;
    f.pass(&p, secs(61)).await;
    for name in names {
        let expected = if name == "a" { (1, 0, 1) } else { (2, 1, 0) };
        assert_eq!(f.counts(&pool(name)).await, expected, "{name}");
    }
    f.assert_consistent().await;
    f.store.delete_pool(&p).await.expect("delete");
    for name in &names[1..] {
        assert_eq!(f.counts(&pool(name)).await, (2, 1, 0), "{name}");
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn the_gauges_are_the_counts() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 20), &["a", "b"]).await;
    f.grant(&p).await;
    f.store.refresh_gauges().await;
    let gauge = |state: State| {
        let labels = ["seats", state.as_str()];
        f.metrics.pool_tokens.with_label_values(&labels).get()
    };
    let seen = [State::Free, State::Held, State::Cooling].map(gauge);
    assert_eq!(seen, [1, 1, 0]);
}
