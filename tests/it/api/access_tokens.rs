//! Forged and foreign access tokens, at the two places that judge them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::ann::Tokens;
use super::rotation::key_file;
use super::{Server, flows_with};
use crate::harness::Fixture;
use crate::process::Directory;

/// What `flows` signs access tokens with.
fn secret() -> Vec<u8> {
    "JWT_SECRET".repeat(32).into_bytes()
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn decode(part: &str) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// The header and the claims.
fn read(token: &str) -> (Value, Value) {
    let parts: Vec<_> = token.split('.').collect();
    (decode(parts[0]), decode(parts[1]))
}

/// Signed with HMAC-SHA-256, whatever the header says.
fn sign(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let said = format!("{}.{}", encode(header), encode(claims));
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length");
    let signature = mac.chain_update(&said).finalize().into_bytes();
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The object with a member set, or taken away by null.
fn with(object: &Value, member: &str, value: Value) -> Value {
    let mut changed = object.clone();
    match value {
        Value::Null => drop(changed.as_object_mut().expect("an object").remove(member)),
        value => changed[member] = value,
    }
    changed
}

async fn assert_refused(server: &Server, what: &str, token: &str) {
    assert!(!server.is_valid(token).await, "{what}");
    let told = server.introspect(token).await;
    assert_eq!(told, json!({"active": false}), "{what}");
    let revoked = server.revoke(token).await;
    assert_eq!(revoked, json!({"revoked": false}), "{what}");
    server.revoke_standard(token).await;
}

#[tokio::test]
async fn a_claim_that_is_not_as_it_must_be_refuses_the_token() {
    let server = Server::with_ann().await;
    let tokens = server.login().await;
    let other = server.login().await;
    let (header, claims) = read(&tokens.access);
    let now = claims["iat"].as_u64().expect("seconds");
    // What was made by hand is taken where it is right: so each of the others is refused for what it says.
    let again = sign(&header, &claims, &secret());
    assert!(server.is_valid(&again).await);
    let cases = [
        ("aud", json!("another")),
        ("aud", Value::Null),
        ("iss", json!("http://another.test")),
        ("iss", Value::Null),
        ("sub", json!("bob")),
        ("sub", Value::Null),
        ("sid", json!("0.unknown")),
        ("sid", json!("9999.unknown")),
        ("sid", json!("unknown")),
        ("sid", Value::Null),
        ("exp", json!(now - 1)),
        ("exp", json!(0)),
        ("exp", json!("tomorrow")),
        ("exp", Value::Null),
        ("iat", json!(now + 3_600)),
        ("iat", Value::Null),
    ];
    for (member, value) in cases {
        let what = format!("{member} {value}");
        let forged = sign(&header, &with(&claims, member, value), &secret());
        assert_refused(&server, &what, &forged).await;
    }
    assert!(server.is_valid(&tokens.access).await, "nothing was revoked");
    let (_, others) = read(&other.access);
    let moved = with(&claims, "sid", others["sid"].clone());
    assert!(server.is_valid(&sign(&header, &moved, &secret())).await);
    server.logout(&other.refresh).await;
    assert!(!server.is_valid(&sign(&header, &moved, &secret())).await);
}

#[tokio::test]
async fn a_header_that_is_not_as_it_must_be_refuses_the_token() {
    let server = Server::with_ann().await;
    let tokens = server.login().await;
    let (header, claims) = read(&tokens.access);
    for alg in [
        "none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA",
    ] {
        let header = with(&header, "alg", json!(alg));
        let unsigned = format!("{}.{}.", encode(&header), encode(&claims));
        assert_refused(&server, alg, &unsigned).await;
        assert_refused(&server, alg, &sign(&header, &claims, &secret())).await;
        assert_refused(&server, alg, &sign(&header, &claims, b"")).await;
    }
    let unknown = with(&header, "kid", json!("unknown"));
    assert_refused(&server, "kid", &sign(&unknown, &claims, &secret())).await;
    let parts: Vec<_> = tokens.access.split('.').collect();
    for (what, token) in [
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("another secret", sign(&header, &claims, &[b'x'; 32])),
        (
            "refresh secret",
            sign(
                &header,
                &claims,
                "REFRESH_TOKEN_SECRET".repeat(32).as_bytes(),
            ),
        ),
        (
            "claims of no object",
            format!("{}.{}.{}", parts[0], encode(&json!(7)), parts[2]),
        ),
        ("padded", format!("{}=", tokens.access)),
        ("nothing", "..".to_owned()),
        (
            "long",
            format!("{}.{}.{}", parts[0], "A".repeat(500_000), parts[2]),
        ),
    ] {
        assert_refused(&server, what, &token).await;
    }
    assert!(server.is_valid(&tokens.access).await);
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let directory = Directory::new();
    let file = key_file(directory.path(), "jwt");
    let fixture = Fixture::new().await;
    fixture.add_user("ann").await;
    let settings = [("JWT_PRIVATE_KEY_FILE", file.as_str()), ("JWT_SECRET", "")];
    let server = Server::with_flows(fixture, |_| flows_with(&settings)).await;
    let tokens = server.login().await;
    let (header, claims) = read(&tokens.access);
    assert_eq!(header["alg"], "ES256");
    let told = server.get("/.well-known/jwks.json").await;
    let jwks = told.json(200);
    let key = &jwks["keys"][0];
    assert_eq!(key["kid"], header["kid"]);
    assert!(key.get("d").is_none(), "the private part stays here");
    let part = |name: &str| {
        let text = key[name].as_str().expect("text");
        URL_SAFE_NO_PAD.decode(text).expect("base64")
    };
    let point = [vec![4], part("x"), part("y")].concat();
    let forged = with(&header, "alg", json!("HS256"));
    let private = std::fs::read(&file).expect("the file");
    for public in [
        &point,
        told.body.as_bytes(),
        key.to_string().as_bytes(),
        &private,
        b"",
    ] {
        assert_refused(&server, "HS256", &sign(&forged, &claims, public)).await;
        assert_refused(&server, "ES256", &sign(&header, &claims, public)).await;
    }
    // And what a service with the shared secret signs is of another issuer's key.
    let twin = server.twin().await;
    let foreign = twin.login().await;
    assert_refused(&server, "another key", &foreign.access).await;
    let refreshed: Tokens = server.refresh(&foreign.refresh).await;
    assert!(server.is_valid(&refreshed.access).await);
}
