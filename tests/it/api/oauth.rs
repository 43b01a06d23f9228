//! The standards: introspection, revocation, keys and metadata, for every kind of token.

use reqwest::Method;
use serde_json::{Value, json};
use tokend::token::rotating::Rotating;
use tokend::token::{Fence, Flow, Metadata, bearer};

use super::{Answer, Server, answer, flows, flows_with};
use crate::harness::{Fixture, holder};

impl Server {
    pub async fn form(&self, path: &str, body: &str) -> Answer {
        let request = self.request(Method::POST, path).body(body.to_owned());
        let form = "application/x-www-form-urlencoded;charset=UTF-8";
        answer(request.header("content-type", form)).await
    }

    pub async fn introspect(&self, token: &str) -> Value {
        let told = self.form("/oauth/introspect", &encode(token)).await;
        assert_eq!(told.header("cache-control"), Some("no-store"));
        told.json(200)
    }

    /// As RFC 7009 has it.
    pub async fn revoke_standard(&self, token: &str) {
        let told = self.form("/oauth/revoke", &encode(token)).await;
        assert_eq!((told.status, told.body.as_str()), (200, ""));
        assert_eq!(told.header("cache-control"), Some("no-store"));
    }
}

/// A form with the token and a hint that is wrong, which must not matter.
fn encode(token: &str) -> String {
    let token: String = token
        .bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect();
    format!("token={token}&token_type_hint=whatever&client_id=tests")
}

/// One token of each kind, with what introspection tells of it beside its times.
async fn one_of_each(server: &Server) -> Vec<(String, Value)> {
    let store = &server.fixture.store;
    let opaque = async |flow, make, subject| {
        let made = store.create_opaque(flow, make, subject, None).await;
        made.expect("created").expect("not full").0
    };
    let temporary = opaque(Flow::Temporary, bearer::temporary, None).await;
    let unified = opaque(Flow::Unified, bearer::random, holder("ann@host")).await;
    let family = store.create_family(Flow::OneTime, None, Metadata::default());
    let (family, _) = family.await.expect("created").expect("not full");
    let one_time = flows().one_time.expect("it is on").sign(&family);
    let session = server.login().await;
    let claims = server.validate(&session.access).await["claims"].clone();
    let access = json!({
        "kind": "access", "sub": "ann", "token_type": "Bearer",
        "iss": claims["iss"], "aud": claims["aud"], "jti": claims["jti"],
    });
    vec![
        (temporary, json!({"kind": "temporary"})),
        (unified, json!({"kind": "unified", "sub": "ann@host"})),
        (one_time, json!({"kind": "one_time"})),
        (session.access, access),
        (session.refresh, json!({"kind": "refresh", "sub": "ann"})),
    ]
}

#[tokio::test]
async fn every_kind_of_token_can_be_introspected_and_revoked() {
    let server = Server::with_ann().await;
    let twin = server.twin().await;
    let lifetimes_s = [3_600, 24 * 3_600, 2 * 3_600, 900, 30 * 24 * 3_600];
    // The last one's session is the access token's too.
    for ((token, mut expected), lifetime_s) in
        one_of_each(&server).await.into_iter().zip(lifetimes_s)
    {
        let mut told = twin.introspect(&token).await;
        if told == json!({"active": false}) {
            assert_eq!(expected["kind"], "refresh", "{token}");
            continue;
        }
        let mut take = |name: &str| told[name].take().as_u64().expect("seconds");
        let lived_s = take("exp") - take("iat");
        assert!((lifetime_s - 1..=lifetime_s).contains(&lived_s), "{told}");
        expected["active"] = json!(true);
        told.as_object_mut()
            .expect("an object")
            .retain(|_, it| !it.is_null());
        assert_eq!(told, expected);
        twin.revoke_standard(&token).await;
        assert_eq!(server.introspect(&token).await, json!({"active": false}));
        twin.revoke_standard(&token).await;
    }
    let refresh = server.login().await.refresh;
    assert_eq!(server.introspect(&refresh).await["kind"], "refresh");
    twin.revoke_standard(&refresh).await;
    assert_eq!(server.introspect(&refresh).await, json!({"active": false}));
}

#[tokio::test]
async fn only_the_current_number_of_a_family_is_active() {
    let server = Server::with_ann().await;
    let first = server.login().await;
    let second = server.refresh(&first.refresh).await;
    // Within the grace, too: it can be exchanged, but not used.
    assert_eq!(
        server.introspect(&first.refresh).await,
        json!({"active": false})
    );
    assert_eq!(server.introspect(&second.refresh).await["active"], true);
    let store = &server.fixture.store;
    let family = store.create_family(Flow::OneTime, None, Metadata::default());
    let (family, _) = family.await.expect("created").expect("not full");
    let keys = flows().one_time.expect("it is on");
    let ahead = Rotating {
        number: Fence::parse(2).expect("a number"),
        ..family.clone()
    };
    assert_eq!(
        server.introspect(&keys.sign(&ahead)).await,
        json!({"active": false})
    );
    assert_eq!(
        server.introspect(&keys.sign(&family)).await["kind"],
        "one_time"
    );
}

#[tokio::test]
async fn what_is_no_token_is_inactive_and_revoked_already() {
    let server = Server::start().await;
    let long = "x".repeat(100_000);
    for token in [
        "x",
        "754321:x",
        "a.b.c",
        "1.2.3.4.5",
        "....",
        "..",
        "ä",
        "\u{0}",
        &long,
    ] {
        assert_eq!(
            server.introspect(token).await,
            json!({"active": false}),
            "{token}"
        );
        server.revoke_standard(token).await;
    }
}

#[tokio::test]
async fn the_tokens_of_a_flow_that_is_off_are_inactive() {
    let server = Server::with_ann().await;
    let tokens = one_of_each(&server).await;
    let off = [
        ("SECRET_KEY", ""),
        ("REFRESH_TOKEN_SECRET", ""),
        ("JWT_SECRET", ""),
    ];
    let fixture = server.fixture.replica().await;
    let without = Server::with_flows(fixture, |_| flows_with(&off)).await;
    for (token, expected) in tokens {
        let opaque = ["temporary", "unified"].contains(&expected["kind"].as_str().expect("text"));
        assert_eq!(
            without.introspect(&token).await["active"],
            opaque,
            "{expected}"
        );
        assert_eq!(
            server.introspect(&token).await["active"],
            true,
            "{expected}"
        );
    }
}

#[tokio::test]
async fn mistakes_have_the_members_of_both_formats() {
    let server = Server::start().await;
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        for body in [
            "",
            "token=",
            "Token=a",
            "token=a&token=b",
            "token=a&x=1&x=2",
            "token=%zz",
        ] {
            let told = server
                .form(path, body)
                .await
                .problem("invalid-request", 400);
            assert_eq!(told["error"], "invalid_request", "{body}");
            assert!(told["error_description"].is_string());
        }
        let query = server.form(&format!("{path}?token=a"), "token=a").await;
        assert_eq!(
            query.problem("invalid-request", 400)["error"],
            "invalid_request"
        );
        let told = server.post(path, json!({"token": "a"})).await;
        let told = told.problem("unsupported-media-type", 415);
        assert_eq!(told["error"], "invalid_request");
        let bare = answer(server.request(Method::POST, path)).await;
        assert_eq!(
            bare.problem("unsupported-media-type", 415)["error"],
            "invalid_request"
        );
        server.get(path).await.problem("method-not-allowed", 405);
    }
}

#[tokio::test]
async fn the_metadata_says_where_everything_is() {
    let fixture = Fixture::new().await;
    let server = Server::with_flows(fixture, |_| {
        flows_with(&[("PUBLIC_URL", "https://tokens.example/base/")])
    });
    let server = server.await;
    let told = server.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(told.header("cache-control"), Some("public, max-age=300"));
    let expected = json!({
        "issuer": "https://tokens.example/base",
        "jwks_uri": "https://tokens.example/base/.well-known/jwks.json",
        "introspection_endpoint": "https://tokens.example/base/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint": "https://tokens.example/base/oauth/revoke",
        "revocation_endpoint_auth_methods_supported": ["none"],
        "access_token_signing_alg_values_supported": ["HS256"],
        "service_documentation": "https://tokens.example/base/reference",
        "response_types_supported": [],
        "grant_types_supported": [],
    });
    assert_eq!(told.json(200), expected);
    let keys = server.get("/.well-known/jwks.json").await;
    assert_eq!(keys.header("cache-control"), Some("public, max-age=300"));
    // A shared secret is nobody's to fetch.
    assert_eq!(keys.json(200), json!({"keys": []}));
}
