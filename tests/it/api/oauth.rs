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

    /// As a resource server that knows the standard alone: with a hint of another service.
    pub async fn introspect(&self, token: &str) -> Value {
        self.introspect_as(token, "whatever").await
    }

    pub async fn introspect_as(&self, token: &str, hint: &str) -> Value {
        let told = self.form("/oauth/introspect", &encode(token, hint)).await;
        assert_eq!(told.header("cache-control"), Some("no-store"));
        told.json(200)
    }

    /// Whether it is good, whatever its kind.
    pub async fn is_active(&self, token: &str) -> bool {
        let told = HINTS.iter().map(|hint| self.introspect_as(token, hint));
        let each = futures_util::future::join_all(told).await;
        each.iter().any(|told| told["active"] == true)
    }

    /// As RFC 7009 has it.
    pub async fn revoke_standard(&self, token: &str) {
        let told = self.form("/oauth/revoke", &encode(token, "whatever")).await;
        assert_eq!((told.status, told.body.as_str()), (200, ""));
        assert_eq!(told.header("cache-control"), Some("no-store"));
    }
}

const HINTS: [&str; 5] = [
    "access_token",
    "refresh_token",
    "one_time_token",
    "temporary_token",
    "unified_token",
];

/// A form with the token, a hint, and a parameter that nobody knows.
fn encode(token: &str, hint: &str) -> String {
    let token: String = token
        .bytes()
        .map(|b| match b {
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect();
    format!("token={token}&token_type_hint={hint}&client_id=tests")
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
        let hint = format!("{}_token", expected["kind"].as_str().expect("text"));
        let mut told = twin.introspect_as(&token, &hint).await;
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
        let told = server.introspect_as(&token, &hint).await;
        assert_eq!(told, json!({"active": false}));
        twin.revoke_standard(&token).await;
    }
    let refresh = server.login().await.refresh;
    assert!(server.is_active(&refresh).await);
    twin.revoke_standard(&refresh).await;
    assert!(!server.is_active(&refresh).await);
}

#[tokio::test]
async fn a_resource_server_that_looks_at_active_alone_takes_access_and_unified_tokens_and_no_other()
{
    let server = Server::with_ann().await;
    for (token, expected) in one_of_each(&server).await {
        let kind = expected["kind"].as_str().expect("text");
        let usable = ["access", "unified"].contains(&kind);
        let told = server.introspect(&token).await;
        assert_eq!(told["active"], usable, "{kind}");
        // Nothing else is said of the others, or that they are there at all.
        assert!(usable || told == json!({"active": false}), "{kind}: {told}");
        // A wrong hint hides nothing, and adds only what it names (RFC 7662, section 2.1).
        for hint in HINTS {
            let means_it = hint == format!("{kind}_token");
            let told = server.introspect_as(&token, hint).await;
            assert_eq!(told["active"], usable || means_it, "{kind} as {hint}");
        }
    }
}

#[tokio::test]
async fn a_route_for_one_kind_takes_no_other() {
    let server = Server::with_ann().await;
    for (token, expected) in one_of_each(&server).await {
        let is = |kind: &str| expected["kind"] == kind;
        assert_eq!(server.is_valid(&token).await, is("access"), "{expected}");
        let told = server.post("/app/valid", json!({"token": token})).await;
        assert_eq!(told.json(200)["status"], is("temporary"), "{expected}");
        let told = server
            .put("/token", json!({"token": token}))
            .await
            .json(200);
        assert_eq!(told.get("Ok").is_some(), is("one_time"), "{expected}");
        let told = server.try_refresh(&token).await;
        assert_eq!(told.status == 200, is("refresh"), "{expected}");
    }
}

#[tokio::test]
async fn the_setting_says_which_kinds_are_active_without_a_hint() {
    let server = Server::with_ann().await;
    let tokens = one_of_each(&server).await;
    let fixture = server.fixture.replica().await;
    let settings = [("INTROSPECT_KINDS", "refresh,one-time")];
    let other = Server::with_settings(fixture, &settings).await;
    for (token, expected) in tokens {
        let kind = expected["kind"].as_str().expect("text");
        let named = ["refresh", "one_time"].contains(&kind);
        assert_eq!(other.introspect(&token).await["active"], named, "{kind}");
    }
}

#[tokio::test]
async fn only_the_current_number_of_a_family_is_active() {
    let server = Server::with_ann().await;
    let first = server.login().await;
    let second = server.refresh(&first.refresh).await;
    // Within the grace, too: it can be exchanged, but not used.
    assert!(!server.is_active(&first.refresh).await);
    assert!(server.is_active(&second.refresh).await);
    let store = &server.fixture.store;
    let family = store.create_family(Flow::OneTime, None, Metadata::default());
    let (family, _) = family.await.expect("created").expect("not full");
    let keys = flows().one_time.expect("it is on");
    let ahead = Rotating {
        number: Fence::parse(2).expect("a number"),
        ..family.clone()
    };
    assert!(!server.is_active(&keys.sign(&ahead)).await);
    assert!(server.is_active(&keys.sign(&family)).await);
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
        assert!(!server.is_active(token).await, "{token}");
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
        assert_eq!(without.is_active(&token).await, opaque, "{expected}");
        assert!(server.is_active(&token).await, "{expected}");
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
