use crate::harness::*;
use std::time::Duration;
use tokend::token::*;

#[tokio::test(flavor = "multi_thread")]
async fn smoke() {
    let f = Fixture::new().await;
    let p = f
        .filled(
            "seats",
            PolicyPatch {
                cooldown_ms: Some(5000),
                ..Default::default()
            },
            &["a", "b", "c"],
        )
        .await;
    assert_eq!(f.counts(&p).await, (3, 0, 0));
    let g = f.grant(&p).await;
    println!("{g:?}");
    assert_eq!(f.counts(&p).await, (2, 1, 0));
    println!("{:?}", f.store.inspect(&p, &g.token).await);
    println!(
        "{:?}",
        f.store.keep_alive(&p, &g.token, Some(g.fence), None).await
    );
    println!("{:?}", f.store.unblock(&p, &g.token, Some(g.fence)).await);
    assert_eq!(f.counts(&p).await, (2, 0, 1));
    f.grant(&p).await;
    f.grant(&p).await;
    println!("{:?}", f.assign(&p, any()).await);
    f.pass(&p, Duration::from_secs(6)).await;
    f.grant(&p).await;
    f.pass(&p, Duration::from_secs(61)).await;
    eventually("swept", async || f.counts(&p).await == (2, 0, 1)).await;
    f.pass(&p, Duration::from_secs(6)).await;
    eventually("swept", async || f.counts(&p).await == (3, 0, 0)).await;
    println!("{:?}", f.store.list_tokens(&p, None, None, 2).await);
    println!("{:?}", f.store.delete(&p, &g.token).await);
    println!("{:?}", f.store.list_pools().await);
    println!("{:?}", f.store.delete_pool(&p).await);
    println!("{:?}", f.store.inspect(&p, &g.token).await);
    println!("{:?}", f.keys(&format!("{}*", f.config.key_prefix)).await);
    println!("{:?}", f.generate(&PoolName::default_pool(), 3).await);
    println!("{:?}", f.grant(&PoolName::default_pool()).await);
    println!(
        "{}",
        f.metrics
            .render()
            .lines()
            .filter(|l| l.contains("transitions")
                || l.contains("lag_seconds_b")
                || l.contains("sweeps"))
            .collect::<Vec<_>>()
            .join("\n")
    );
}
