//! The keys of access tokens: read from PEM files, or made of a secret.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use crate::token::rotating::key_id;

/// Most bytes of a file: a key has some 250.
const FILE_BYTES_MAX: u64 = 64 * 1_024;
/// Characters of a line of PEM (RFC 7468, section 2).
const PEM_LINE_CHARS: usize = 64;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// What a key may be, for whoever gave another one.
const WANTED: &str = "it must be a PKCS#8 private key (BEGIN PRIVATE KEY), Ed25519 or P-256: \
    openssl genpkey -algorithm ed25519, or -algorithm EC -pkeyopt ec_paramgen_curve:P-256";

/// One key: what it signs with and what it verifies with, under one algorithm.
pub(super) struct Key {
    /// The thumbprint of the public key (RFC 7638), or a hash of the secret.
    pub id: String,
    pub algorithm: Algorithm,
    pub signs: EncodingKey,
    pub verifies: DecodingKey,
    /// For the JWK Set; a secret has none.
    pub public: Option<Jwk>,
}

impl Key {
    /// HS256.
    pub fn from_secret(secret: &[u8]) -> Self {
        Self {
            id: key_id(secret),
            algorithm: Algorithm::HS256,
            signs: EncodingKey::from_secret(secret),
            verifies: DecodingKey::from_secret(secret),
            public: None,
        }
    }

    /// A block of PEM. The error is what is wrong with it.
    fn from_pem(block: &str) -> Result<Self, String> {
        let pem = block.as_bytes();
        if let Ok(signs) = EncodingKey::from_ed_pem(pem) {
            let pair = Ed25519KeyPair::from_pkcs8(signs.as_bytes())
                .map_err(|_| format!("is a damaged Ed25519 key; {WANTED}"))?;
            let verifies = DecodingKey::from_ed_der(pair.public_key().as_ref());
            return Self::asymmetric(Algorithm::EdDSA, signs, verifies);
        }
        if let Ok(signs) = EncodingKey::from_ec_pem(pem) {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, signs.as_bytes())
                .map_err(|_| {
                    format!("is an EC key on another curve than P-256, or damaged; {WANTED}")
                })?;
            let verifies = DecodingKey::from_ec_der(pair.public_key().as_ref());
            return Self::asymmetric(Algorithm::ES256, signs, verifies);
        }
        let label = block.strip_prefix(BEGIN).unwrap_or_default();
        let label = label.split(DASHES).next().unwrap_or_default();
        Err(match label {
            "PRIVATE KEY" if EncodingKey::from_rsa_pem(pem).is_ok() => {
                format!("is an RSA key; {WANTED}")
            }
            "PRIVATE KEY" => format!("is of another kind, or damaged; {WANTED}"),
            label => {
                let shown: String = label.chars().filter(|c| !c.is_control()).take(40).collect();
                format!("begins with BEGIN {shown}; {WANTED}")
            }
        })
    }

    fn asymmetric(
        algorithm: Algorithm,
        signs: EncodingKey,
        verifies: DecodingKey,
    ) -> Result<Self, String> {
        let jwk = || -> jsonwebtoken::errors::Result<Jwk> {
            let mut jwk = Jwk::from_decoding_key(&verifies, Some(algorithm))?;
            jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256)?);
            jwk.common.public_key_use = Some(PublicKeyUse::Signature);
            Ok(jwk)
        };
        let jwk = jwk().map_err(|error| format!("has no public key: {error}"))?;
        Ok(Self {
            id: jwk.common.key_id.clone().unwrap_or_default(),
            algorithm,
            signs,
            verifies,
            public: Some(jwk),
        })
    }
}

/// The keys of a file, one or more, in their order.
///
/// # Errors
/// A sentence for the log.
pub(super) fn read(file: &Path) -> Result<Vec<Key>, String> {
    let shown = file.display();
    let text = || -> std::io::Result<String> {
        let mut text = String::new();
        File::open(file)?
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let text = text().map_err(|error| format!("JWT_PRIVATE_KEY_FILE {shown}: {error}"))?;
    let keys = parse(&text);
    keys.map_err(|why| format!("JWT_PRIVATE_KEY_FILE {shown}: {why}"))
}

fn parse(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BEGIN) {
        let count = keys.len() + 1;
        let block = &rest[at..];
        let end = block.find(END).and_then(|end| {
            let label = end + END.len();
            Some(label + block[label..].find(DASHES)? + DASHES.len())
        });
        let end = end.ok_or_else(|| format!("key {count} has no end; {WANTED}"))?;
        let key = Key::from_pem(&block[..end]).map_err(|why| format!("key {count} {why}"))?;
        keys.push(key);
        rest = &block[end..];
    }
    if keys.is_empty() {
        return Err(format!("it holds no key; {WANTED}"));
    }
    Ok(keys)
}

/// A new private key for ES256, as PEM.
///
/// # Errors
/// When the system has no randomness to give.
pub fn new_private_key() -> Result<String, String> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
    let key = key.map_err(|error| format!("making a key: {error}"))?;
    Ok(pem(key.as_ref()))
}

/// PKCS#8 as PEM.
pub(super) fn pem(pkcs8: &[u8]) -> String {
    let base64 = STANDARD.encode(pkcs8);
    let mut pem = format!("{BEGIN}PRIVATE KEY{DASHES}\n");
    for line in base64.as_bytes().chunks(PEM_LINE_CHARS) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(END);
    pem.push_str("PRIVATE KEY");
    pem.push_str(DASHES);
    pem.push('\n');
    pem
}
