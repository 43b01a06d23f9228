//! Every kind of key.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING as P256, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::keys::pem;
use super::*;

pub(super) const NOW_MS: u64 = 1_790_000_000_123;
/// An end of the session that is of no matter.
const FAR_MS: u64 = 2 * NOW_MS;
pub(super) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER: &[u8] = b"fedcba9876543210fedcba9876543210";

/// Made by `openssl genrsa 1024`: aws-lc makes none that short.
const RSA_1024: &str = "\
-----BEGIN PRIVATE KEY-----
MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAJ/yZluO0lFaypg2
IdTD5NvvNDtsiRWxfUcPfUxzuBCi1y3BcblhLG+TuemrrUa1gOhQOn6yaiZ8AFEG
HJ9vTlSyjMJwnRm4BxGtt6L+OpHQjuLenN53OwXq8I18ls8bKgPDoOcwcwzEfs4b
wDMpBJOOQJmJJ8KiBEf5dO4IjenNAgMBAAECgYAShXpO3eIC47WUHKicP7bvtOpi
ezYAmhX8tZF32eqVmpW6Sa1GnzcLEJs1sNiW2Iu92xR6+WQLYs6Sk1ebKsNyIoGL
vq7GgDFXyM7BkFPho+BOZHfUQsPMgZpvlVgdlbcssttxwTrR3M5SzAbBD3F0wBwx
nVUF+NmLBugBMr+RrQJBAMsSGyMMG9q6AFwEfn5tnQmP6YbzUEXO7um85zMwwo2Q
PpiJHB30DF8wm4abOJh6V0wienf7B98Jmx8PFOKeqwcCQQDJotrW4EIS39dCbyhx
cvUfciEnr7zcCrooZshUrPVRF3qvSbKPMBApY6pKEeIItp8cVqrOKM5mBv3uovgO
VEuLAkEApIMdku4LXs5S3jkR1RCuKQH6mUZioLs9GATedL0q0A6sd1yUd7uvjipN
xOXZGsX6FQbVmn+257zbe3T3YYRTXwJBAMF0jH4ov3wYYxEMUUM3xlKbT5AiHhMH
/7+PjZkgMGXTHxRaowSaWoc7ZkCWk8VEYbfwtwQBRrXA85UnqtMksS0CQDSfNVZC
RDv2+yCLMpQAnQtPCfceikAmio5vZD8BnIIWCupcz6wk8hzw4SrwieNk2B+TWDvM
sUrF/tFQvZTFFzI=
-----END PRIVATE KEY-----\n";

/// A file that goes with its test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("tokend-jwt-{}-{number}.pem", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn try_keys_by(rsa: RsaAlgorithm, pems: &[&str], secrets: &[&[u8]]) -> Result<JwtKeys, String> {
    let files: Vec<_> = pems.iter().map(|text| TempFile::new(text)).collect();
    let paths: Vec<_> = files.iter().map(|file| file.0.clone()).collect();
    let secrets = Secrets(secrets.iter().map(|secret| secret.to_vec()).collect());
    let (issuer, audience) = ("https://tokens.example".to_owned(), "api".to_owned());
    let lifetime = Duration::from_secs(900);
    JwtKeys::new(&paths, rsa, &secrets, issuer, audience, lifetime)
}

pub(super) fn try_keys(pems: &[&str], secrets: &[&[u8]]) -> Result<JwtKeys, String> {
    try_keys_by(RsaAlgorithm::Rs256, pems, secrets)
}

pub(super) fn keys(pems: &[&str], secrets: &[&[u8]]) -> JwtKeys {
    try_keys(pems, secrets).expect("good keys")
}

pub(super) fn es256() -> String {
    new_private_key().expect("a key")
}

/// PKCS#8 as OpenSSL writes it: without the public key.
pub(super) fn ed25519() -> String {
    let seed: [u8; 32] = rand::random();
    let head = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    pem(&[&head[..], &seed[..]].concat())
}

/// PKCS#8 version 2: with the public key.
fn ed25519_v2() -> String {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    pem(key.as_ref())
}

/// Made once: it takes a while.
pub(super) fn rsa() -> RsaKeyPair {
    static DER: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)
            .expect("DER")
            .as_ref()
            .to_vec()
    });
    RsaKeyPair::from_pkcs8(&DER).expect("a key")
}

pub(super) fn rsa_pem() -> String {
    pem(AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa())
        .expect("DER")
        .as_ref())
}

pub(super) fn ps256(pems: &[&str], secrets: &[&[u8]]) -> JwtKeys {
    try_keys_by(RsaAlgorithm::Ps256, pems, secrets).expect("good keys")
}

pub(super) fn issued(keys: &JwtKeys) -> String {
    keys.issue("ann", "session-1", NOW_MS, FAR_MS).token
}

pub(super) fn part(token: &str, at: usize) -> Value {
    let part = token.split('.').nth(at).expect("a part");
    let json = URL_SAFE_NO_PAD.decode(part).expect("base64");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn what_a_key_of_each_kind_signs_it_verifies() {
    for (keys, algorithm) in [
        (keys(&[&es256()], &[]), "ES256"),
        (keys(&[&ed25519()], &[]), "EdDSA"),
        (keys(&[&ed25519_v2()], &[]), "EdDSA"),
        (keys(&[&rsa_pem()], &[]), "RS256"),
        (ps256(&[&rsa_pem()], &[]), "PS256"),
        (keys(&[], &[SECRET]), "HS256"),
    ] {
        let issued = keys.issue("ann", "session-1", NOW_MS, FAR_MS);
        assert_eq!(issued.expires_in_s, 900);
        let header = part(&issued.token, 0);
        let expected = json!({"typ": "at+jwt", "alg": algorithm, "kid": keys.keys[0].id});
        assert_eq!(header, expected);
        let claims = keys.verify(&issued.token).expect("it is good");
        assert_eq!(
            (claims.sub.as_str(), claims.sid.as_str()),
            ("ann", "session-1")
        );
        assert_eq!(
            (claims.iss.as_str(), claims.aud.as_str()),
            ("https://tokens.example", "api")
        );
        assert_eq!((claims.iat, claims.exp), (1_790_000_000, 1_790_000_900));
        let second = keys
            .verify(&keys.issue("ann", "s", NOW_MS, FAR_MS).token)
            .expect("good");
        assert_ne!(claims.jti, second.jti);
        assert_eq!(keys.algorithms(), [algorithm]);
    }
}

/// Old forms, and files as editors and manifests leave them, hold the same keys.
#[test]
fn a_key_is_the_same_in_every_form_of_pem() {
    let ec = EcdsaKeyPair::generate(&P256).expect("a key");
    let private = ec.private_key();
    let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&private).expect("DER");
    let pkcs8 = ec.to_pkcs8v1().expect("DER");
    let labelled = |label: &str, der: &[u8]| ::pem::encode(&::pem::Pem::new(label, der));
    let parameters = labelled("EC PARAMETERS", &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7]);
    let sec1 = labelled("EC PRIVATE KEY", sec1.as_ref());
    let pkcs1 = EncodingKey::from_rsa_pem(rsa_pem().as_bytes()).expect("RSA");
    let pkcs1 = labelled("RSA PRIVATE KEY", pkcs1.as_bytes());
    for (plain, others) in [
        (
            pem(pkcs8.as_ref()),
            vec![sec1.clone(), format!("{parameters}{sec1}")],
        ),
        (rsa_pem(), vec![pkcs1]),
        (ed25519(), Vec::new()),
    ] {
        let id = |text: &str| {
            let keys = keys(&[text], &[]);
            assert_eq!(keys.keys.len(), 1, "{text}");
            keys.keys[0].id.clone()
        };
        for other in [
            format!("\u{feff}{}", plain.replace('\n', "\r\n")),
            format!("# made by hand\n  {}", plain.replace('\n', "\n  ")),
            plain.trim_end().to_owned(),
        ]
        .into_iter()
        .chain(others)
        {
            assert_eq!(id(&other), id(&plain), "{other}");
        }
    }
}

#[test]
fn an_rsa_key_verifies_by_both_of_its_algorithms_whichever_it_signs_by() {
    let key = rsa_pem();
    let (rs, ps) = (keys(&[&key], &[]), ps256(&[&key], &[]));
    assert_eq!(rs.keys[0].id, ps.keys[0].id);
    for token in [issued(&rs), issued(&ps)] {
        assert!(rs.verify(&token).is_some() && ps.verify(&token).is_some());
    }
    for (keys, alg) in [(&rs, "RS256"), (&ps, "PS256")] {
        let jwk = &keys.jwks()["keys"][0];
        assert_eq!((&jwk["kty"], &jwk["alg"]), (&json!("RSA"), &json!(alg)));
        assert_eq!(jwk["e"], "AQAB");
        let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().expect("n"));
        assert_eq!(modulus.expect("base64").len(), 256);
        let members = format!(r#"{{"e":{},"kty":"RSA","n":{}}}"#, jwk["e"], jwk["n"]);
        let hash = <sha2::Sha256 as sha2::Digest>::digest(members.as_bytes());
        assert_eq!(jwk["kid"], URL_SAFE_NO_PAD.encode(hash));
        for secret in ["d", "p", "q", "dp", "dq", "qi"] {
            assert!(jwk.get(secret).is_none(), "{secret}");
        }
    }
}

#[test]
fn a_token_that_is_not_good_before_some_moment_is_not_good_before_it() {
    let mut claims = keys(&[], &[SECRET]).claims("ann", "s", NOW_MS, FAR_MS);
    assert!(claims.is_current(NOW_MS));
    claims.nbf = Some(claims.iat + 3);
    assert!(!claims.is_current(NOW_MS));
    assert!(claims.is_current(NOW_MS + 3_000));
}

#[test]
fn a_token_does_not_outlive_its_session() {
    let keys = keys(&[], &[SECRET]);
    for (left_ms, lives_s) in [(60_000, 60), (900_000, 900), (800, 0), (0, 0)] {
        let issued = keys.issue("ann", "s", NOW_MS, NOW_MS + left_ms);
        assert_eq!(issued.expires_in_s, lives_s, "{left_ms}");
        let claims = keys.verify(&issued.token).expect("signed");
        assert_eq!(claims.exp - claims.iat, lives_s, "{left_ms}");
    }
}

#[test]
fn the_first_key_signs_and_all_verify() {
    let (a, b) = (es256(), ed25519());
    let together = format!("comment\n{a}\n{b}");
    let all = keys(&[&together, &ed25519_v2()], &[SECRET, OTHER]);
    assert_eq!(all.algorithms(), ["ES256", "EdDSA", "HS256"]);
    assert_eq!(part(&issued(&all), 0)["alg"], "ES256");
    for other in [
        keys(&[&a], &[]),
        keys(&[&b], &[]),
        keys(&[], &[SECRET]),
        keys(&[], &[OTHER]),
    ] {
        assert!(all.verify(&issued(&other)).is_some(), "{other:?}");
    }
    assert!(keys(&[&b], &[]).verify(&issued(&all)).is_none());
    assert!(keys(&[&es256()], &[]).verify(&issued(&all)).is_none());
}

#[test]
fn public_keys_are_shown_under_their_thumbprints_and_secrets_never() {
    let all = keys(&[&es256(), &ed25519()], &[SECRET]);
    let jwks = all.jwks();
    let shown = jwks["keys"].as_array().expect("a list");
    assert_eq!(shown.len(), 2);
    for (jwk, (kty, crv, alg)) in shown
        .iter()
        .zip([("EC", "P-256", "ES256"), ("OKP", "Ed25519", "EdDSA")])
    {
        assert_eq!(
            (&jwk["kty"], &jwk["crv"], &jwk["alg"], &jwk["use"]),
            (&json!(kty), &json!(crv), &json!(alg), &json!("sig"))
        );
        // RFC 7638, made by hand.
        let (x, y) = (&jwk["x"], &jwk["y"]);
        let members = if kty == "EC" {
            format!(r#"{{"crv":"P-256","kty":"EC","x":{x},"y":{y}}}"#)
        } else {
            format!(r#"{{"crv":"Ed25519","kty":"OKP","x":{x}}}"#)
        };
        let hash = <sha2::Sha256 as sha2::Digest>::digest(members.as_bytes());
        assert_eq!(jwk["kid"], URL_SAFE_NO_PAD.encode(hash));
        assert!(jwk.get("d").is_none() && jwk.get("k").is_none());
    }
    let ids = format!("{all:?}");
    assert!(
        !ids.contains("0123456789abcdef") && !jwks.to_string().contains("oct"),
        "{ids}"
    );
    assert_eq!(keys(&[], &[SECRET]).jwks(), json!({"keys": []}));
}

#[test]
fn an_ed25519_key_signs_as_rfc_8037_says() {
    let seed = URL_SAFE_NO_PAD
        .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
        .expect("base64");
    let head = STANDARD.decode("MC4CAQAwBQYDK2VwBCIEIA==").expect("base64");
    let keys = keys(&[&pem(&[head, seed].concat())], &[]);
    assert_eq!(
        keys.keys[0].id,
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
    let signed = jsonwebtoken::crypto::sign(
        b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        &keys.keys[0].signs,
        Algorithm::EdDSA,
    );
    assert_eq!(
        signed.expect("signed"),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

#[test]
fn other_keys_are_refused_with_a_reason() {
    let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new());
    let p384 = pem(p384.expect("a key").as_ref());
    let good = es256();
    for (text, why) in [
        (p384, "another curve"),
        (RSA_1024.to_owned(), "2048 to 8192 bits"),
        (String::new(), "no key"),
        ("just text".to_owned(), "no key"),
        (
            good.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            "is encrypted: openssl pkey",
        ),
        (
            good.replace("-----\nM", "-----\nProc-Type: 4,ENCRYPTED\n\nM"),
            "is encrypted: openssl pkey",
        ),
        (good.replace("PRIVATE KEY", "PUBLIC KEY"), "a public key"),
        (good.replace("PRIVATE KEY", "CERTIFICATE"), "a certificate"),
        (
            good.replacen("PRIVATE KEY-----", "PRIVATE KEY", 1),
            "damaged",
        ),
        (good.replace("-----END", "END"), "no end"),
        (pem(b"nothing"), "damaged"),
        (format!("{good}\n{}", pem(b"nothing")), "key 2"),
    ] {
        let told = try_keys(&[&text], &[SECRET]).expect_err(why);
        assert!(
            told.contains(why) && told.contains("JWT_PRIVATE_KEY_FILE"),
            "{told}"
        );
        let body = text.lines().nth(1).unwrap_or("nothing to see");
        assert!(!told.contains(body), "{told}");
    }
    // A key may have been put in the place of a path.
    let nowhere = [PathBuf::from("/nowhere/jwt.pem"), PathBuf::from(&good)];
    for (at, item) in [(0, 1), (1, 1)] {
        let none = JwtKeys::new(
            &nowhere[at..],
            RsaAlgorithm::Rs256,
            &Secrets::default(),
            String::new(),
            String::new(),
            Duration::ZERO,
        );
        let told = none.expect_err("no such file");
        assert!(
            told.contains(&format!("file {item}: can't be read")),
            "{told}"
        );
        assert!(
            !told.contains("nowhere") && !told.contains("PRIVATE KEY-"),
            "{told}"
        );
    }
    assert!(try_keys(&[], &[]).is_err_and(|why| why.contains("no key")));
}
