//! Access tokens: JWTs (RFC 9068) that anybody can verify who has our public keys.
//!
//! The key is found by its id, and each key verifies by its own algorithms alone: one, or for an RSA key RS256 and PS256.
//! A header that names another is refused, so that a public key can't be passed off as a secret. Time is not looked at
//! here: it is Redis's, and [`Claims::is_current`] takes it.

#[cfg(test)]
mod attacks;
mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::keys::Key;
pub use self::keys::new_private_key;
use crate::config::Secrets;
use crate::token::KeyIds;

/// Longest token: ours have some 500 bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Most characters of a key's id that a line shows: a thumbprint has 43.
const KEY_ID_CHARS_MAX: usize = 64;
/// Which kind of JWT these are (RFC 9068, section 2.1): no other that one of our keys may have signed.
const TYP: &str = "at+jwt";
/// How far `iat` may lie ahead: after a failover Redis's clock may be another one.
const LEEWAY_MS: u64 = 1_000;
const MS: u64 = 1_000;

/// What an access token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// `PUBLIC_URL`.
    pub iss: String,
    /// The user's name.
    pub sub: String,
    /// `JWT_AUDIENCE`.
    pub aud: String,
    /// Seconds since the epoch by Redis's clock, as is `iat`.
    pub exp: u64,
    pub iat: u64,
    /// Ours have none, but a token that the same key has signed elsewhere may (RFC 7519, section 4.1.5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Each token's own.
    pub jti: String,
    /// The session that it belongs to and dies with.
    pub sid: String,
}

impl Claims {
    /// Whether it is good at this moment of Redis's clock.
    #[must_use]
    pub fn is_current(&self, now_ms: u64) -> bool {
        let begun = self.iat.saturating_mul(MS) <= now_ms.saturating_add(LEEWAY_MS);
        let allowed = self
            .nbf
            .is_none_or(|nbf| nbf.saturating_mul(MS) <= now_ms.saturating_add(LEEWAY_MS));
        begun && allowed && now_ms < self.exp.saturating_mul(MS)
    }
}

/// By which RSA keys sign. They verify by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaAlgorithm {
    /// RSASSA-PKCS1-v1_5, which every verifier of access tokens must know (RFC 9068, section 2.1).
    Rs256,
    /// RSASSA-PSS.
    Ps256,
}

impl RsaAlgorithm {
    fn signs(self) -> Algorithm {
        match self {
            Self::Rs256 => Algorithm::RS256,
            Self::Ps256 => Algorithm::PS256,
        }
    }
}

/// A token just signed. It has no Debug.
pub struct Issued {
    pub token: String,
    pub expires_in_s: u64,
}

/// The keys that sign and verify. Debug shows their ids alone.
pub struct JwtKeys {
    /// The first signs, all verify. Never empty.
    keys: Vec<Key>,
    issuer: String,
    audience: String,
    lifetime_s: u64,
}

/// The id of the key that has signed a text, if that has the form of an access token of ours.
fn key_named_by(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX || token.split('.').count() != 3 {
        return None;
    }
    let header = jsonwebtoken::decode_header(token).ok()?;
    // What is critical must be understood (RFC 7515, section 4.1.11), and we understand nothing.
    if header.typ.as_deref() != Some(TYP) || header.crit.is_some() {
        return None;
    }
    header.kid
}

fn claims(token: &str, key: &Key, validation: &Validation) -> Option<Claims> {
    let decoded = jsonwebtoken::decode::<Claims>(token, &key.verifies, validation);
    decoded.ok().map(|decoded| decoded.claims)
}

impl fmt::Debug for JwtKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.id))
            .finish()
    }
}

impl JwtKeys {
    /// The private keys of the files, then the secrets: the first of all signs.
    ///
    /// # Errors
    /// A sentence for the log: when a file can't be read or holds another kind of key, or there is no key.
    pub fn new(
        files: &[PathBuf],
        rsa: RsaAlgorithm,
        secrets: &Secrets,
        issuer: String,
        audience: String,
        lifetime: Duration,
    ) -> Result<Self, String> {
        let mut all = Vec::new();
        for (file, item) in files.iter().zip(1..) {
            all.extend(keys::read(file, item, rsa)?);
        }
        all.extend(secrets.0.iter().map(|secret| Key::from_secret(secret)));
        if all.is_empty() {
            return Err("there is no key to sign access tokens with".to_owned());
        }
        let keys = Self {
            keys: all,
            issuer,
            audience,
            lifetime_s: lifetime.as_secs().max(1),
        };
        // Later nothing can fail, for it has been done once.
        for key in &keys.keys {
            let signed = keys.sign(key, &keys.claims("", "", 0, MS));
            signed
                .ok()
                .and_then(|token| keys.verify(&token))
                .ok_or_else(|| format!("the key {} signs what it does not verify", key.id))?;
        }
        Ok(keys)
    }

    /// A new token, for its lifetime or until its session ends. Both are moments of Redis's clock.
    ///
    /// # Panics
    /// Never: the key has signed before.
    #[must_use]
    pub fn issue(&self, subject: &str, session: &str, now_ms: u64, until_ms: u64) -> Issued {
        let claims = self.claims(subject, session, now_ms, until_ms);
        let signed = self.sign(&self.keys[0], &claims);
        Issued {
            token: signed.expect("a key that has signed signs again"),
            expires_in_s: claims.exp - claims.iat,
        }
    }

    fn claims(&self, subject: &str, session: &str, now_ms: u64, until_ms: u64) -> Claims {
        let iat = now_ms / MS;
        Claims {
            iss: self.issuer.clone(),
            sub: subject.to_owned(),
            aud: self.audience.clone(),
            // A service that looks at the signature alone must not honour it for longer than the session.
            exp: (iat + self.lifetime_s).min((until_ms / MS).max(iat)),
            iat,
            nbf: None,
            jti: uuid::Uuid::new_v4().to_string(),
            sid: session.to_owned(),
        }
    }

    fn sign(&self, key: &Key, claims: &Claims) -> jsonwebtoken::errors::Result<String> {
        let mut header = Header::new(key.algorithm);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, claims, &key.signs)
    }

    /// What a token says, if one of our keys signed it for this audience. Whether it is current and its session
    /// lives is for the caller to ask.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<Claims> {
        let (key, mut validation) = self.key(&key_named_by(token)?)?;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        claims(token, key, &validation)
    }

    /// Why a text that has the form of an access token is none of ours, in words for the log.
    #[must_use]
    pub fn why_foreign(&self, token: &str) -> Option<String> {
        let id = key_named_by(token)?;
        let Some((key, mut validation)) = self.key(&id) else {
            // What a stranger writes there must not become a long line.
            let shown: String = id.escape_debug().take(KEY_ID_CHARS_MAX).collect();
            return Some(format!(
                "it is signed with key {shown}, which is unknown here"
            ));
        };
        validation.validate_aud = false;
        let claims = claims(token, key, &validation)?;
        let wrong = [
            ("issuer", "PUBLIC_URL", claims.iss != self.issuer),
            ("audience", "JWT_AUDIENCE", claims.aud != self.audience),
        ];
        let (what, variable, _) = wrong.into_iter().find(|(_, _, wrong)| *wrong)?;
        Some(format!("its {what} is not the {variable} of this replica"))
    }

    /// A key of ours, and what each token that it has signed must hold.
    fn key(&self, id: &str) -> Option<(&Key, Validation)> {
        let key = self.keys.iter().find(|key| key.id == id)?;
        let mut validation = Validation::new(key.algorithm);
        validation.algorithms = key.accepts.to_vec();
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
        Some((key, validation))
    }

    /// The ids of the private keys of files. The first signs.
    #[must_use]
    pub fn ids_of_files(&self) -> KeyIds {
        self.ids(true)
    }

    /// The ids of the secrets. The first signs where there is no private key.
    #[must_use]
    pub fn ids_of_secrets(&self) -> KeyIds {
        self.ids(false)
    }

    fn ids(&self, have_public: bool) -> KeyIds {
        let of_kind = |key: &&Key| key.public.is_some() == have_public;
        let ids = |keys: &[Key]| {
            keys.iter()
                .filter(of_kind)
                .map(|key| key.id.clone())
                .collect()
        };
        let first: Vec<_> = ids(&self.keys[..1]);
        KeyIds {
            signs: first.into_iter().next(),
            verifies: ids(&self.keys),
        }
    }

    /// The public keys as a JWK Set (RFC 7517). Secrets are none of them.
    #[must_use]
    pub fn jwks(&self) -> Value {
        let public = self.keys.iter().filter_map(|key| key.public.as_ref());
        json!({ "keys": public.collect::<Vec<_>>() })
    }

    /// The algorithms that tokens are signed with.
    #[must_use]
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for key in &self.keys {
            let name = match key.algorithm {
                Algorithm::EdDSA => "EdDSA",
                Algorithm::ES256 => "ES256",
                Algorithm::RS256 => "RS256",
                Algorithm::PS256 => "PS256",
                _ => "HS256",
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}
