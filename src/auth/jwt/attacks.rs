//! Every attack on a token.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::tests::{
    NOW_MS, SECRET, ed25519, es256, issued, keys, part, ps256, rsa, rsa_pem, try_keys,
};
use super::*;

/// Signs any header and any payload, as texts.
fn forged(keys: &JwtKeys, header: &str, payload: &str) -> String {
    let message = [header, payload].map(|text| URL_SAFE_NO_PAD.encode(text));
    let message = message.join(".");
    let key = &keys.keys[0];
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key.signs, key.algorithm);
    format!("{message}.{}", signature.expect("signed"))
}

#[test]
fn a_header_decides_nothing() {
    for keys in [
        keys(&[&es256()], &[]),
        keys(&[&ed25519()], &[]),
        keys(&[&rsa_pem()], &[]),
        ps256(&[&rsa_pem()], &[]),
        keys(&[], &[SECRET]),
    ] {
        let good = issued(&keys);
        let (header, payload) = (part(&good, 0), part(&good, 1).to_string());
        assert!(
            keys.verify(&forged(&keys, &header.to_string(), &payload))
                .is_some()
        );
        let with = |name: &str, value: Value| {
            let mut header = header.clone();
            header[name] = value;
            forged(&keys, &header.to_string(), &payload)
        };
        for bad in [
            with("alg", json!("none")),
            with("alg", json!("None")),
            with("alg", other_rsa(&header)),
            with("alg", json!("RS384")),
            with("alg", json!("RS512")),
            with("alg", json!("PS384")),
            with("alg", json!("PS512")),
            with("alg", json!("ES384")),
            with("alg", json!("HS512")),
            with("alg", json!(null)),
            with("kid", json!("unknown")),
            with("kid", json!(null)),
            with("kid", json!("../../dev/null")),
            with("typ", json!("JWT")),
            with("typ", json!(null)),
            with("crit", json!(["exp"])),
            forged(&keys, "{}", &payload),
            forged(&keys, "not json", &payload),
        ] {
            assert!(keys.verify(&bad).is_none(), "{}", part_or_text(&bad));
        }
    }
}

/// The one of an RSA key's algorithms that the token was not signed by.
fn other_rsa(header: &Value) -> Value {
    json!(if header["alg"] == "RS256" {
        "PS256"
    } else {
        "RS256"
    })
}

/// A signature is good for the algorithm that made it alone, though its key verifies by both.
#[test]
fn an_rsa_key_takes_no_algorithm_outside_its_family() {
    let all = keys(&[&rsa_pem(), &es256(), &ed25519()], &[SECRET]);
    let good = issued(&all);
    let payload = part(&good, 1).to_string();
    let (rsa_id, others) = (&all.keys[0].id, &all.keys[1..]);
    for other in others {
        let name = serde_json::to_value(other.algorithm).expect("a name");
        // Signed by another key of ours under its own algorithm, and named as the RSA key's; and the reverse.
        for (signer, alg, kid) in [
            (other, &name, rsa_id),
            (&all.keys[0], &json!("RS256"), &other.id),
        ] {
            let header = json!({"typ": "at+jwt", "alg": alg, "kid": kid}).to_string();
            let message = [&header, &payload]
                .map(|text| URL_SAFE_NO_PAD.encode(text))
                .join(".");
            let signature =
                jsonwebtoken::crypto::sign(message.as_bytes(), &signer.signs, signer.algorithm);
            let token = format!("{message}.{}", signature.expect("signed"));
            assert!(all.verify(&token).is_none(), "{header}");
        }
    }
}

fn part_or_text(token: &str) -> String {
    let head = token.split('.').next().unwrap_or_default();
    String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(head).unwrap_or_default()).into_owned()
}

#[test]
fn an_unsigned_token_is_refused() {
    let keys = keys(&[&es256()], &[SECRET]);
    let good = issued(&keys);
    let (_, payload) = (part(&good, 0), good.split('.').nth(1).expect("a payload"));
    let header = json!({"typ": "at+jwt", "alg": "none", "kid": keys.keys[0].id}).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    for bad in [
        format!("{header}.{payload}."),
        format!("{header}.{payload}"),
    ] {
        assert!(keys.verify(&bad).is_none());
    }
    let message = good.rsplit_once('.').expect("a signature").0;
    assert!(keys.verify(&format!("{message}.")).is_none());
}

#[test]
fn a_public_key_is_no_secret() {
    // As certificates and `openssl rsa -pubout` have it: not in PKCS#1 alone.
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa().public_key()).expect("DER");
    for private in [es256(), ed25519(), rsa_pem()] {
        let keys = keys(&[&private], &[SECRET]);
        let public = keys.keys[0]
            .verifies
            .try_get_as_bytes()
            .expect("bytes")
            .to_vec();
        let jwk = serde_json::to_string(&keys.jwks()["keys"][0]).expect("JSON");
        let as_pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            STANDARD.encode(&public)
        );
        let good = issued(&keys);
        let payload = part(&good, 1).to_string();
        let spki_pem =
            ::pem::encode(&::pem::Pem::new("PUBLIC KEY", spki.as_ref())).replace("\r\n", "\n");
        let modulus =
            URL_SAFE_NO_PAD.decode(keys.jwks()["keys"][0]["n"].as_str().unwrap_or_default());
        for secret in [
            public,
            jwk.into_bytes(),
            as_pem.into_bytes(),
            spki.as_ref().to_vec(),
            spki_pem.into_bytes(),
            modulus.expect("base64"),
        ] {
            let attacker = try_keys(&[], &[&secret]).expect("a secret");
            for kid in [&keys.keys[0].id, &keys.keys[1].id] {
                let header = json!({"typ": "at+jwt", "alg": "HS256", "kid": kid}).to_string();
                assert!(keys.verify(&forged(&attacker, &header, &payload)).is_none());
            }
        }
    }
}

#[test]
fn the_wrong_claims_are_refused() {
    let keys = keys(&[&es256()], &[]);
    let good = issued(&keys);
    let (header, payload) = (part(&good, 0).to_string(), part(&good, 1));
    let with = |name: &str, value: Value| {
        let mut payload = payload.clone();
        payload[name] = value;
        forged(&keys, &header, &payload.to_string())
    };
    for (name, value) in [
        ("iss", json!("https://other.example")),
        (
            "iss",
            json!(["https://tokens.example", "https://other.example"]),
        ),
        ("iss", json!(null)),
        ("aud", json!("another")),
        ("aud", json!(["another"])),
        ("aud", json!(["api", "another"])),
        ("aud", json!(null)),
        ("sub", json!(null)),
        ("sid", json!(null)),
        ("exp", json!("1790000900")),
        ("exp", json!(-1)),
        ("iat", json!(1.5)),
    ] {
        let bad = with(name, value.clone());
        assert!(keys.verify(&bad).is_none(), "{name}: {value}");
    }
    for twice in ["iss", "sub", "aud", "exp", "iat", "jti", "sid"] {
        let text = payload.to_string();
        let again = format!(
            "{},\"{twice}\":{}}}",
            &text[..text.len() - 1],
            payload[twice]
        );
        assert!(
            keys.verify(&forged(&keys, &header, &again)).is_none(),
            "{twice}"
        );
    }
    let twice = format!(
        "{},\"kid\":\"{}\"}}",
        &header[..header.len() - 1],
        keys.keys[0].id
    );
    assert!(
        keys.verify(&forged(&keys, &twice, &payload.to_string()))
            .is_none()
    );
}

#[test]
fn no_character_can_be_changed() {
    let keys = keys(&[&ed25519()], &[]);
    let good = issued(&keys);
    for at in 0..good.len() {
        for other in ["A", "b", "."] {
            let mut bad = good.clone();
            bad.replace_range(at..=at, other);
            assert!(bad == good || keys.verify(&bad).is_none(), "{at}");
        }
    }
}

#[test]
fn what_is_no_token_is_refused() {
    let keys = keys(&[&es256()], &[SECRET]);
    let good = issued(&keys);
    let message = good.rsplit_once('.').expect("a signature").0;
    let mut claims = keys.claims("ann", "session", NOW_MS, 2 * NOW_MS);
    claims.sub = "x".repeat(TOKEN_BYTES_MAX);
    let huge = keys.sign(&keys.keys[0], &claims).expect("signed");
    for bad in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "ä.ö.ü",
        message,
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}.a"),
        &format!("{good}.a.b"),
        &format!("{good}="),
        &format!(" {good}"),
        &format!("{good}\n"),
        &"a".repeat(TOKEN_BYTES_MAX + 1),
        &huge,
        "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOM.48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6ji.XFBoMYUZodetZdvTiFvSkQ",
    ] {
        assert!(keys.verify(bad).is_none(), "{}", bad.len());
    }
}

#[test]
fn a_token_is_current_from_its_first_second_until_it_expires() {
    let keys = keys(&[], &[SECRET]);
    let claims = keys.verify(&issued(&keys)).expect("good");
    assert!(claims.is_current(NOW_MS));
    assert!(claims.is_current(1_790_000_899_999));
    assert!(!claims.is_current(1_790_000_900_000));
    assert!(
        claims.is_current(1_789_999_999_000),
        "a clock that is a second behind"
    );
    assert!(!claims.is_current(1_789_999_998_999));
    let forever = Claims {
        exp: u64::MAX,
        iat: u64::MAX,
        ..claims
    };
    assert!(!forever.is_current(NOW_MS));
}
