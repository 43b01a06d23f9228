use serde_json::json;
use tokend::store::{ExchangeRequest, GRACE_MS};
use tokend::token::rotating::{ROTATION_RETRY_DEFAULT, Rotating};
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

pub fn metadata(value: &serde_json::Value) -> Metadata {
    serde_json::from_str(&value.to_string()).expect("an object")
}

impl Fixture {
    pub async fn family(&self, flow: Flow, meta: serde_json::Value) -> Rotating {
        let made = self.store.create_family(flow, None, metadata(&meta)).await;
        made.expect("created").expect("not full").0
    }

    /// Exchanges that number of the family as one-time tokens are.
    pub async fn exchange(
        &self,
        family: &Rotating,
        number: u64,
        meta: serde_json::Value,
    ) -> ExchangeOutcome {
        self.exchange_as(family, number, meta, true, false).await
    }

    /// The same as refresh tokens are.
    pub async fn refresh(&self, family: &Rotating, number: u64) -> ExchangeOutcome {
        self.exchange_as(family, number, json!({}), false, true)
            .await
    }

    pub async fn exchange_as(
        &self,
        family: &Rotating,
        number: u64,
        meta: serde_json::Value,
        renew: bool,
        revoke_on_reuse: bool,
    ) -> ExchangeOutcome {
        let number = Fence::parse(number).expect("a number");
        let request = ExchangeRequest {
            token: Rotating {
                number,
                ..family.clone()
            },
            metadata: metadata(&meta),
            retry: ROTATION_RETRY_DEFAULT,
            renew,
            revoke_on_reuse,
        };
        let flow = if revoke_on_reuse {
            Flow::Session
        } else {
            Flow::OneTime
        };
        self.store.exchange(flow, &request).await.expect("exchange")
    }

    pub async fn alive(&self, flow: Flow, family: &Rotating) -> Option<BearerView> {
        let found = self
            .store
            .inspect_family(flow, family.partition, &family.family)
            .await;
        found.expect("inspect")
    }

    pub async fn let_grace_pass(&self, flow: Flow) {
        let grace = std::time::Duration::from_millis(GRACE_MS + 200);
        self.pass(&PoolName::of_flow(flow), grace).await;
    }

    pub async fn let_retry_pass(&self, flow: Flow) {
        let retry = ROTATION_RETRY_DEFAULT + std::time::Duration::from_millis(200);
        self.pass(&PoolName::of_flow(flow), retry).await;
    }
}

/// The number and the metadata that an exchange gave.
pub fn given(outcome: &ExchangeOutcome) -> (u64, serde_json::Value) {
    match outcome {
        ExchangeOutcome::Exchanged(it) => {
            let metadata = serde_json::to_string(&it.metadata).expect("JSON");
            (
                it.number.get(),
                serde_json::from_str(&metadata).expect("JSON"),
            )
        }
        other => panic!("not exchanged: {other:?}"),
    }
}

#[tokio::test]
async fn the_number_goes_up_and_new_members_win() {
    let f = Fixture::new().await;
    let family = f
        .family(Flow::OneTime, json!({"a": 1, "b": {"c": []}}))
        .await;
    let first = f.exchange(&family, 1, json!({"a": null, "d": "x"})).await;
    assert_eq!(
        given(&first),
        (2, json!({"a": null, "b": {"c": []}, "d": "x"}))
    );
    let second = f.exchange(&family, 2, json!({})).await;
    assert_eq!(
        given(&second),
        (3, json!({"a": null, "b": {"c": []}, "d": "x"}))
    );
    assert_eq!(
        f.alive(Flow::OneTime, &family)
            .await
            .map(|it| it.number.get()),
        Some(3)
    );
    f.assert_consistent().await;
}

#[tokio::test]
async fn values_are_kept_byte_for_byte() {
    let f = Fixture::new().await;
    let text = r#"{"big":12345678901234567890,"huge":1e400,"o":{},"a":[],"n":null,"deep":{"x":[1, 2.0,{"ü":"é\u00e9"}]},"":""}"#;
    let meta: Metadata = serde_json::from_str(text).expect("an object");
    let made = f
        .store
        .create_family(Flow::OneTime, None, meta.clone())
        .await;
    let (token, _) = made.expect("created").expect("not full");
    let request = ExchangeRequest {
        token,
        metadata: Metadata::default(),
        retry: ROTATION_RETRY_DEFAULT,
        renew: true,
        revoke_on_reuse: false,
    };
    match f.store.exchange(Flow::OneTime, &request).await {
        Ok(ExchangeOutcome::Exchanged(it)) => assert_eq!(it.metadata, meta),
        other => panic!("not exchanged: {other:?}"),
    }
}

#[tokio::test]
async fn a_retry_in_time_gets_the_same_successor_and_its_metadata_is_ignored() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let first = f.exchange(&family, 1, json!({"a": 2})).await;
    let retry = f.exchange(&family, 1, json!({"a": 3})).await;
    assert_eq!(given(&retry), given(&first));
    // The answer was lost and Redis was away for longer than the grace: the successor was never exchanged.
    f.let_grace_pass(Flow::OneTime).await;
    let late = f.exchange(&family, 1, json!({"a": 4})).await;
    assert_eq!(given(&late), given(&first));
    f.let_retry_pass(Flow::OneTime).await;
    assert_eq!(
        f.exchange(&family, 1, json!({})).await,
        ExchangeOutcome::Spent
    );
    // Nothing was revoked: the successor is good.
    assert_eq!(given(&f.exchange(&family, 2, json!({})).await).0, 3);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_hundred_parallel_exchanges_have_one_successor() {
    let f = Fixture::new().await;
    let other = f.replica().await;
    let family = f.family(Flow::OneTime, json!({})).await;
    let calls = (0..100).map(|n| {
        let (f, family) = (if n % 2 == 0 { &f } else { &other }, &family);
        async move { f.exchange(family, 1, json!({"n": n})).await }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let first = given(&outcomes[0]);
    assert_eq!(first.0, 2);
    assert!(outcomes.iter().all(|it| given(it) == first), "{outcomes:?}");
}

#[tokio::test]
async fn a_lifetime_restarts_where_it_is_to_and_a_session_keeps_its_end() {
    let f = Fixture::new().await;
    let one_time = f.family(Flow::OneTime, json!({})).await;
    let session = f.family(Flow::Session, json!({})).await;
    let end = |view: Option<BearerView>| view.expect("alive").expires_at_ms;
    let before = end(f.alive(Flow::OneTime, &one_time).await);
    f.pass(&PoolName::of_flow(Flow::OneTime), secs(3_600)).await;
    f.exchange(&one_time, 1, json!({})).await;
    assert!(end(f.alive(Flow::OneTime, &one_time).await) >= before);
    let before = end(f.alive(Flow::Session, &session).await);
    given(&f.refresh(&session, 1).await);
    assert_eq!(end(f.alive(Flow::Session, &session).await), before);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_used_number_that_comes_back_after_the_time_for_retries_revokes_a_session() {
    let f = Fixture::new().await;
    let session = f.family(Flow::Session, json!({})).await;
    given(&f.refresh(&session, 1).await);
    f.let_grace_pass(Flow::Session).await;
    assert_eq!(given(&f.refresh(&session, 1).await).0, 2);
    f.let_retry_pass(Flow::Session).await;
    assert_eq!(f.refresh(&session, 1).await, ExchangeOutcome::Reused);
    assert_eq!(f.alive(Flow::Session, &session).await, None);
    assert_eq!(f.refresh(&session, 2).await, ExchangeOutcome::Absent);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_number_whose_successor_was_exchanged_revokes_a_session_although_there_is_time_for_retries()
 {
    let f = Fixture::new().await;
    let session = f.family(Flow::Session, json!({})).await;
    given(&f.refresh(&session, 1).await);
    given(&f.refresh(&session, 2).await);
    f.let_grace_pass(Flow::Session).await;
    assert_eq!(f.refresh(&session, 1).await, ExchangeOutcome::Reused);
    assert_eq!(f.alive(Flow::Session, &session).await, None);
}

#[tokio::test]
async fn in_the_grace_an_older_number_revokes_nothing_unless_it_is_far_behind() {
    let f = Fixture::new().await;
    let session = f.family(Flow::Session, json!({})).await;
    for number in 1..=9 {
        given(&f.refresh(&session, number).await);
    }
    // Number 10 is current. A retry that was overtaken is told so.
    assert_eq!(f.refresh(&session, 2).await, ExchangeOutcome::Spent);
    assert_eq!(given(&f.refresh(&session, 9).await).0, 10);
    // Who goes on rotating does not keep the rightful holder inside the grace.
    assert_eq!(f.refresh(&session, 1).await, ExchangeOutcome::Reused);
    assert_eq!(f.refresh(&session, 10).await, ExchangeOutcome::Absent);
}

#[tokio::test]
async fn too_much_metadata_is_refused_and_the_token_stays_good() {
    let f = Fixture::new().await;
    let family = f
        .family(Flow::OneTime, json!({"a": "x".repeat(40_000)}))
        .await;
    let more = json!({"b": "x".repeat(40_000)});
    assert_eq!(
        f.exchange(&family, 1, more).await,
        ExchangeOutcome::TooLarge
    );
    let less = json!({"a": "", "b": "x".repeat(40_000)});
    assert_eq!(given(&f.exchange(&family, 1, less).await).0, 2);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_family_that_is_deleted_lapsed_or_another_data_sets_is_absent() {
    let f = Fixture::new().await;
    let family = f.family(Flow::OneTime, json!({"a": 1})).await;
    let foreign = Rotating {
        partition: 99,
        ..family.clone()
    };
    assert_eq!(
        f.exchange(&foreign, 1, json!({})).await,
        ExchangeOutcome::Absent
    );
    // A number that nobody was given: Redis has lost an exchange.
    assert_eq!(
        f.exchange(&family, 7, json!({})).await,
        ExchangeOutcome::Absent
    );
    let deleted = f
        .store
        .delete_family(Flow::OneTime, family.partition, &family.family);
    assert_eq!(deleted.await, Ok(true));
    assert_eq!(
        f.exchange(&family, 1, json!({})).await,
        ExchangeOutcome::Absent
    );
    let lapsed = f.family(Flow::OneTime, json!({"a": 1})).await;
    f.pass(&PoolName::of_flow(Flow::OneTime), secs(2 * 3_600 + 1))
        .await;
    assert_eq!(
        f.exchange(&lapsed, 1, json!({})).await,
        ExchangeOutcome::Absent
    );
    f.assert_consistent().await;
}
