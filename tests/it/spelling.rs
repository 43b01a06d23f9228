//! One value has one spelling: new tokens are stored in NFC, and what older versions stored stays reachable.

use tokend::store::AssignRequest;
use tokend::token::*;

use crate::harness::*;
use crate::verbs::*;

const COMPOSED: &str = "Caf\u{e9}-1";
const DECOMPOSED: &str = "Cafe\u{301}-1";

impl Fixture {
    /// Stores values as an older version did: as they were given.
    async fn stored_before(&self, pool: &PoolName, values: &[&str]) {
        let count = values.len().to_string();
        let mut item = vec!["", "", "", "", "0", "0", &count];
        item.extend(values);
        let replies = self.raw("generate", pool, &[&item]).await;
        assert_eq!(replies[0].tag, "added");
    }

    async fn total(&self, pool: &PoolName) -> u64 {
        let view = self.store.show_pool(pool).await.expect("an answer");
        view.expect("the pool").counts.total()
    }

    /// Every verb that names a token, with this name, on a token that is free.
    async fn reaches(&self, pool: &PoolName, name: &str, stored: &str) {
        let view = self.look(pool, name).await.expect(name);
        assert_eq!(view.token.as_str(), stored, "inspect");
        let grant = self.granted(pool, named(name)).await;
        assert_eq!(grant.token.as_str(), stored, "assign");
        let fence = Some(grant.fence);
        let kept = self.keep(pool, name, fence, None).await;
        assert!(matches!(kept, KeepAliveOutcome::Kept { .. }), "{kept:?}");
        let done = self.unblock(pool, name, fence).await;
        assert!(matches!(done, UnblockOutcome::Released { .. }), "{done:?}");
        let gone = self.delete(pool, name).await;
        assert_eq!(gone, DeleteOutcome::Deleted, "delete");
        assert_eq!(self.state(pool, stored).await, None);
    }
}

fn added(tokens: &[&str], existing: u64) -> GenerateOutcome {
    GenerateOutcome::Added {
        tokens: tokens.iter().map(|value| token(value)).collect(),
        existing,
        born: None,
    }
}

#[tokio::test]
async fn a_value_is_stored_in_nfc_and_counted_once() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    let told = f.import(&p, &[DECOMPOSED, COMPOSED, "a"]).await;
    assert_eq!(told, added(&[COMPOSED, "a"], 1));
    assert_eq!(f.import(&p, &[DECOMPOSED]).await, added(&[], 1));
    assert_eq!(f.total(&p).await, 2);
    f.reaches(&p, DECOMPOSED, COMPOSED).await;
    f.import(&p, &[DECOMPOSED]).await;
    f.reaches(&p, COMPOSED, COMPOSED).await;
    f.assert_consistent().await;
}

#[tokio::test]
async fn what_an_older_version_stored_is_reached_as_it_is_stored() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    for value in [
        DECOMPOSED,
        "seat-1 ",
        " seat-1",
        " ",
        "seat\u{200b}-1",
        "\u{feff}seat-1",
        "\u{2028}",
    ] {
        f.stored_before(&p, &[value]).await;
        f.reaches(&p, value, value).await;
    }
    f.assert_consistent().await;
}

#[tokio::test]
async fn each_of_two_spellings_is_its_own_token() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.stored_before(&p, &[COMPOSED, DECOMPOSED]).await;
    let composed = f.granted(&p, named(COMPOSED)).await;
    let decomposed = f.granted(&p, named(DECOMPOSED)).await;
    assert_ne!(composed.fence, decomposed.fence);
    f.unblock(&p, DECOMPOSED, Some(decomposed.fence)).await;
    assert_eq!(f.state(&p, COMPOSED).await, Some(State::Held));
    assert_eq!(f.state(&p, DECOMPOSED).await, Some(State::Free));
    f.delete(&p, DECOMPOSED).await;
    // Now the name means the other one.
    let view = f.look(&p, DECOMPOSED).await.expect("the other");
    assert_eq!(view.fence, composed.fence.get());
}

#[tokio::test]
async fn an_import_that_is_repeated_adds_no_second_spelling() {
    let f = Fixture::new().await;
    let p = f.pool("seats", policy(60, 0, 0)).await;
    f.stored_before(&p, &[DECOMPOSED, "a"]).await;
    let told = f.import(&p, &[DECOMPOSED, "a", "e\u{301}"]).await;
    assert_eq!(told, added(&["\u{e9}"], 2));
    assert_eq!(f.total(&p).await, 3);
    let again = f.generate_keyed(&p, these(&[DECOMPOSED, "b"]), "k").await;
    assert_eq!(again, added(&["b"], 1));
    f.delete(&p, DECOMPOSED).await;
    let replayed = f.generate_keyed(&p, these(&[DECOMPOSED, "b"]), "k").await;
    assert_eq!(replayed, again, "a retry finds the first answer");
    f.assert_consistent().await;
}

#[tokio::test]
async fn spellings_meet_over_shards_too() {
    let f = Fixture::new().await;
    let patch = PolicyPatch {
        shards: Some(PARTITIONS),
        ..policy(60, 0, 0)
    };
    let p = f.pool("seats", patch).await;
    let values: Vec<_> = (0..50).map(|n| format!("e\u{301}{n}")).collect();
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    let composed: Vec<_> = (0..50).map(|n| format!("\u{e9}{n}")).collect();
    let composed: Vec<_> = composed.iter().map(String::as_str).collect();
    assert_eq!(f.import(&p, &values).await, added(&composed, 0));
    let keyed = f.generate_keyed(&p, these(&values), "k").await;
    assert_eq!(keyed, added(&[], 50));
    for (given, stored) in values.iter().zip(&composed) {
        f.reaches(&p, given, stored).await;
    }
    f.import(&p, &values).await;
    let request = AssignRequest {
        key: key("one"),
        ..named(values[0])
    };
    let grant = f.granted(&p, request.clone()).await;
    assert_eq!(grant.token.as_str(), composed[0]);
    assert_eq!(f.granted(&p, request).await.fence, grant.fence);
    f.assert_consistent().await;
}

#[tokio::test]
async fn a_label_that_an_older_version_stored_is_told_as_it_is() {
    let f = Fixture::new().await;
    let p = f.filled("seats", policy(60, 0, 0), &["a"]).await;
    let label = "pod\u{200b}-1 ";
    let item = ["", "", label, "0", "a", "0", ""];
    assert_eq!(f.raw("assign", &p, &[&item]).await[0].tag, "granted");
    let view = f.look(&p, "a").await.expect("a token");
    assert_eq!(view.holder.expect("a holder").as_str(), label);
}
