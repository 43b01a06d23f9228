//! The keys of access tokens: read from PEM files, or made of a secret.

use std::ops::RangeInclusive;
use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING as P256, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use pem::{EncodeConfig, LineEnding, Pem};

use super::RsaAlgorithm;
use crate::text::Text;
use crate::token::rotating::key_id;

/// Most bytes of a file: a key has 120 to 6,500.
const FILE_BYTES_MAX: u64 = 64 * 1_024;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
/// What `openssl ecparam -genkey` writes in front of the key.
const PARAMETERS: &str = "EC PARAMETERS";
/// Sizes of RSA keys that aws-lc signs with.
const RSA_BITS: RangeInclusive<u32> = 2_048..=8_192;
/// What an RSA key verifies by, whichever it signs by: so that one can be changed for the other while tokens are alive.
const RSA_ALGORITHMS: [Algorithm; 2] = [Algorithm::RS256, Algorithm::PS256];
/// What a key may be.
const WANTED: &str = "it must be an unencrypted private key in PEM: Ed25519, EC on P-256, or RSA of 2048 to 8192 bits \
    (openssl genpkey -algorithm ed25519)";
const ENCRYPTED: &str = "is encrypted: openssl pkey -in FILE -out PLAIN decrypts it";
const OTHER_CURVE: &str = "is an EC key on another curve than P-256, or damaged";

/// One key: what it signs with and what it verifies with.
pub(super) struct Key {
    /// The thumbprint of the public key (RFC 7638), or a hash of the secret.
    pub id: String,
    /// By which it signs.
    pub algorithm: Algorithm,
    /// By which it verifies: all of one family, which is the key's.
    pub accepts: &'static [Algorithm],
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
            accepts: &[Algorithm::HS256],
            signs: EncodingKey::from_secret(secret),
            verifies: DecodingKey::from_secret(secret),
            public: None,
        }
    }

    /// A block of PEM. The error is what is wrong with it, as a sentence's end.
    fn from_pem(block: &Pem, rsa: RsaAlgorithm) -> Result<Self, String> {
        if block.headers().iter().next().is_some() {
            return Err(ENCRYPTED.to_owned()); // only the old form of encryption has headers
        }
        match block.tag() {
            "PRIVATE KEY" => Self::from_pkcs8(block, rsa),
            "EC PRIVATE KEY" => {
                let pair = EcdsaKeyPair::from_private_key_der(&P256, block.contents());
                let pkcs8 = pair.and_then(|pair| Ok(pair.to_pkcs8v1()?));
                let pkcs8 = pkcs8.map_err(|_| OTHER_CURVE.to_owned())?;
                Self::from_p256(pkcs8.as_ref())
            }
            "RSA PRIVATE KEY" => Self::from_rsa(block, rsa),
            "ENCRYPTED PRIVATE KEY" => Err(ENCRYPTED.to_owned()),
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Err("is a public key".to_owned()),
            "CERTIFICATE" => Err("is a certificate".to_owned()),
            _ => Err("is of another kind".to_owned()),
        }
    }

    fn from_pkcs8(block: &Pem, rsa: RsaAlgorithm) -> Result<Self, String> {
        let der = block.contents();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let verifies = DecodingKey::from_ed_der(pair.public_key().as_ref());
            let signs = EncodingKey::from_ed_der(der);
            return Self::asymmetric(Algorithm::EdDSA, &[Algorithm::EdDSA], signs, verifies);
        }
        if EcdsaKeyPair::from_pkcs8(&P256, der).is_ok() {
            return Self::from_p256(der);
        }
        let text = pem::encode(block);
        if EncodingKey::from_ec_pem(text.as_bytes()).is_ok() {
            return Err(OTHER_CURVE.to_owned());
        }
        Self::from_rsa(block, rsa)
    }

    fn from_p256(pkcs8: &[u8]) -> Result<Self, String> {
        let pair = EcdsaKeyPair::from_pkcs8(&P256, pkcs8).map_err(|_| OTHER_CURVE.to_owned())?;
        let verifies = DecodingKey::from_ec_der(pair.public_key().as_ref());
        let signs = EncodingKey::from_ec_der(pkcs8);
        Self::asymmetric(Algorithm::ES256, &[Algorithm::ES256], signs, verifies)
    }

    fn from_rsa(block: &Pem, rsa: RsaAlgorithm) -> Result<Self, String> {
        let signs = EncodingKey::from_rsa_pem(pem::encode(block).as_bytes());
        let signs = signs.map_err(|_| "is of another kind, or damaged".to_owned())?;
        let pair = RsaKeyPair::from_der(signs.as_bytes());
        let pair = pair.map_err(|_| {
            let (min, max) = (RSA_BITS.start(), RSA_BITS.end());
            format!("is an RSA key that does not have {min} to {max} bits, or is damaged")
        })?;
        let verifies = DecodingKey::from_rsa_der(pair.public_key().as_ref());
        Self::asymmetric(rsa.signs(), &RSA_ALGORITHMS, signs, verifies)
    }

    fn asymmetric(
        algorithm: Algorithm,
        accepts: &'static [Algorithm],
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
            accepts,
            signs,
            verifies,
            public: Some(jwk),
        })
    }
}

/// The keys of a file, one or more, in their order; `-` is stdin.
///
/// # Errors
/// A sentence for the log. It shows the path only of a file that is there: else it may be a key, put in a path's place.
pub(super) fn read(file: &Path, item: usize, rsa: RsaAlgorithm) -> Result<Vec<Key>, String> {
    let text = Text::read(file, FILE_BYTES_MAX).and_then(Text::whole);
    let text =
        text.map_err(|error| format!("JWT_PRIVATE_KEY_FILE, file {item}: can't be read: {error}"))?;
    let shown = file.display();
    parse(&text, rsa).map_err(|why| format!("JWT_PRIVATE_KEY_FILE {shown}: {why}"))
}

fn parse(text: &str, rsa: RsaAlgorithm) -> Result<Vec<Key>, String> {
    // Manifests and here-documents indent.
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let text = lines.join("\n");
    let mut keys = Vec::new();
    let mut rest = text.split_once(BEGIN).map(|(_, rest)| rest);
    while let Some(block) = rest {
        let (block, behind) = match block.split_once(BEGIN) {
            Some((block, behind)) => (block, Some(behind)),
            None => (block, None),
        };
        rest = behind;
        let key = || match pem::parse(format!("{BEGIN}{block}")) {
            Ok(block) if block.tag() == PARAMETERS => Ok(None),
            Ok(block) => Key::from_pem(&block, rsa).map(Some),
            Err(_) if !block.contains(END) => Err("has no end".to_owned()),
            Err(_) => Err("is damaged".to_owned()),
        };
        let key = key().map_err(|why| format!("key {} {why}; {WANTED}", keys.len() + 1))?;
        keys.extend(key);
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
    let key = EcdsaKeyPair::generate_pkcs8(&P256, &random);
    let key = key.map_err(|error| format!("making a key: {error}"))?;
    Ok(pem(key.as_ref()))
}

/// PKCS#8 as PEM.
pub(super) fn pem(pkcs8: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("PRIVATE KEY", pkcs8), config)
}
