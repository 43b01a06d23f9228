//! Revocations of tokens that a replica with other settings has made: they do nothing, and are counted.

use serde_json::json;
use tokend::token::{Flow, Metadata};

use super::{Server, flows};
use crate::harness::Fixture;

impl Server {
    fn foreign(&self, route: &str) -> u64 {
        let count = &self.fixture.metrics.foreign_tokens;
        count.with_label_values(&[route]).get()
    }
}

/// A server with `ann`, and another one on the same data with these settings.
async fn two(settings: &[(&str, &str)]) -> (Server, Server) {
    let here = Server::with_ann().await;
    let there = Server::with_settings(here.fixture.replica().await, settings).await;
    (here, there)
}

#[tokio::test]
async fn a_token_of_an_unknown_key_is_not_revoked_and_counted_on_each_route() {
    let secret = "of-another-replica".repeat(2);
    let others = ["SECRET_KEY", "REFRESH_TOKEN_SECRET", "JWT_SECRET"];
    let (here, there) = two(&others.map(|name| (name, secret.as_str()))).await;
    let tokens = here.login().await;
    there.logout(&tokens.refresh).await;
    assert_eq!(there.foreign("/auth/logout"), 1);
    for token in [&tokens.refresh, &tokens.access] {
        assert_eq!(there.revoke(token).await, json!({"revoked": false}));
        there.revoke_standard(token).await;
    }
    assert_eq!(there.foreign("/token/revoke"), 2);
    assert_eq!(there.foreign("/oauth/revoke"), 2);
    let family = here
        .fixture
        .store
        .create_family(Flow::OneTime, None, Metadata::default());
    let (family, _) = family.await.expect("created").expect("not full");
    let one_time = flows().one_time.expect("it is on").sign(&family);
    there.drop_token(&one_time).await;
    assert_eq!(there.foreign("/token"), 1);
    // Nothing of all that did anything.
    assert!(here.is_valid(&tokens.access).await);
    assert!(here.is_active(&one_time).await);
    here.refresh(&tokens.refresh).await;
}

#[tokio::test]
async fn an_access_token_of_another_issuer_or_audience_is_not_revoked_and_counted() {
    for other in [
        ("PUBLIC_URL", "https://other.test"),
        ("JWT_AUDIENCE", "other"),
    ] {
        let (here, there) = two(&[other]).await;
        let access = here.login().await.access;
        assert_eq!(there.revoke(&access).await, json!({"revoked": false}));
        there.revoke_standard(&access).await;
        let counts = ["/token/revoke", "/oauth/revoke"].map(|route| there.foreign(route));
        assert_eq!(counts, [1, 1], "{other:?}");
        assert!(here.is_valid(&access).await);
    }
}

#[tokio::test]
async fn tokens_that_are_ours_and_what_is_no_token_are_not_counted() {
    let server = Server::with_ann().await;
    let tokens = server.login().await;
    for token in ["x", "1.2.3.4.5", "a.b.c", "754321:x"] {
        server.logout(token).await;
        server.revoke(token).await;
        server.revoke_standard(token).await;
    }
    server.revoke_standard(&tokens.refresh).await;
    // Dead, and by a key that is known.
    server.logout(&tokens.refresh).await;
    server.revoke(&tokens.access).await;
    for route in ["/auth/logout", "/token/revoke", "/oauth/revoke", "/token"] {
        assert_eq!(server.foreign(route), 0, "{route}");
    }
    let told = Fixture::new().await.metrics.render();
    assert!(
        !told.contains("tokend_foreign_tokens_total{"),
        "no server, no series"
    );
    assert!(
        server
            .fixture
            .metrics
            .render()
            .contains("tokend_foreign_tokens_total{route=\"/token\"} 0")
    );
}
