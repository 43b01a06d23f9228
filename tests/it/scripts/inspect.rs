use tokend::store::AssignRequest;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

#[tokio::test]
async fn it_tells_each_state() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 20), &["a"]).await;
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!(
        (view.state, view.fence, view.holder),
        (State::Free, 0, None)
    );
    assert!(view.expires_at_ms.is_some() && view.granted_at_ms.is_none());

    let request = AssignRequest {
        holder: holder("me"),
        ..any()
    };
    let grant = f.granted(&p, request).await;
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!((view.state, view.fence), (State::Held, grant.fence.get()));
    assert_eq!(
        (view.holder, view.expires_at_ms),
        (holder("me"), Some(grant.expires_at_ms))
    );

    f.unblock(&p, "a", None).await;
    let view = f.look(&p, "a").await.expect("there");
    assert_eq!(
        (view.state, view.fence),
        (State::Cooling, grant.fence.get())
    );
    assert_eq!((view.holder, view.granted_at_ms), (None, None));
    f.assert_consistent().await;
}

#[tokio::test]
async fn one_that_is_not_there_is_absent() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    assert_eq!(f.look(&p, "a").await, None);
    assert_eq!(f.raw("inspect", &p, &[&["a", ""]]).await[0].tag, "absent");
}

#[tokio::test]
async fn another_generation_is_stale() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    assert_eq!(
        f.raw_at("inspect", &p, 1, 0, &[&["a", ""]]).await[0].tag,
        "stale"
    );
}

#[tokio::test]
async fn what_has_passed_has_happened_and_nothing_is_written() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 300, 20), &["a"]).await;
    f.grant(&p).await;
    let f = f.without_sweeper().await;
    let stored = |keys: &std::collections::BTreeMap<String, crate::raw::Key>| {
        let lasting = keys.iter().filter(|(_, key)| key.ttl_ms < 0);
        lasting
            .map(|(name, key)| {
                (
                    name.clone(),
                    key.bytes()
                        .into_iter()
                        .collect::<std::collections::BTreeSet<_>>(),
                )
            })
            .collect::<Vec<_>>()
    };
    for (seconds, expected) in [(61, "cooling"), (20, "free"), (300, "absent")] {
        f.pass(&p, secs(seconds)).await;
        let before = stored(&f.dump().await.1);
        let reply = f.raw("inspect", &p, &[&["a", ""]]).await.remove(0);
        match expected {
            "absent" => assert_eq!(reply.tag, "absent"),
            state => assert_eq!(
                (reply.tag.as_str(), reply.text(0).as_str()),
                ("found", state)
            ),
        }
        assert_eq!(stored(&f.dump().await.1), before);
    }
    f.assert_structure().await;
}
