//! What the bearer flows run with: their settings and their keys.

use std::path::Path;

use crate::auth::jwt::{JwtKeys, new_private_key};
use crate::auth::password::Passwords;
use crate::config::{FlowSettings, Secrets};
use crate::secrets::kept;
use crate::token::Flow;
use crate::token::bearer;
use crate::token::rotating::Keys;

/// The file in `DATA_DIR` that keeps the key of access tokens.
const JWT_KEY_NAME: &str = "jwt.pem";
const JWT_PRIVATE_KEY_FILE: &str = "JWT_PRIVATE_KEY_FILE";
const BOTH: &str = "REFRESH_TOKEN_SECRET and JWT_PRIVATE_KEY_FILE (or JWT_SECRET)";

/// A flow that can't be used, and the variable that would turn it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowOff {
    pub variable: &'static str,
}

impl FlowOff {
    /// The variable, and what could be set in its place.
    #[must_use]
    pub fn told(&self) -> &'static str {
        match self.variable {
            JWT_PRIVATE_KEY_FILE => "JWT_PRIVATE_KEY_FILE (or JWT_SECRET)",
            variable => variable,
        }
    }
}

/// What logins run with.
#[derive(Debug)]
pub struct Sessions {
    /// Signs refresh tokens.
    pub refresh: Keys,
    /// Signs access tokens.
    pub jwt: JwtKeys,
    /// Bounds how many passwords are verified at once.
    pub passwords: Passwords,
}

/// What handlers of the flows need besides the store.
#[derive(Debug)]
pub struct Flows {
    pub settings: FlowSettings,
    /// Where the service is seen from outside, without a slash at its end.
    pub public_url: String,
    /// Signs one-time tokens.
    pub one_time: Result<Keys, FlowOff>,
    pub sessions: Result<Sessions, FlowOff>,
}

impl Flows {
    /// The flows as the settings have them; `data_dir` keeps secrets that were not given, and is there with the
    /// embedded Redis alone: replicas that share a Redis must share their secrets too.
    ///
    /// # Errors
    /// A sentence for the log: when a secret can't be kept, or a key file can't be used.
    pub fn new(
        settings: FlowSettings,
        public_url: String,
        data_dir: Option<&Path>,
    ) -> Result<Self, String> {
        let one_time = secrets(
            &settings.one_time_secrets,
            "SECRET_KEY",
            "one-time.key",
            data_dir,
        )?;
        let public_url = settings.public_url.clone().unwrap_or(public_url);
        let flows = Self {
            one_time: one_time.map(|secrets| keys(Flow::OneTime, &secrets)),
            sessions: sessions(&settings, &public_url, data_dir)?,
            public_url,
            settings,
        };
        flows.tell_what_is_off();
        Ok(flows)
    }

    fn tell_what_is_off(&self) {
        if let Err(off) = &self.one_time {
            tracing::warn!("one-time tokens are off: {} is not set", off.variable);
        }
        if let Err(off) = &self.sessions {
            tracing::warn!("logins are off: {} is not set", off.told());
        }
    }
}

/// Needs both a secret for refresh tokens and a key for access tokens.
fn sessions(
    settings: &FlowSettings,
    issuer: &str,
    data_dir: Option<&Path>,
) -> Result<Result<Sessions, FlowOff>, String> {
    // First, so that a bad key file is told even where the secret is missing.
    let jwt = match jwt_keys(settings, issuer, data_dir)? {
        Ok(jwt) => jwt,
        Err(_) if settings.refresh_secrets.0.is_empty() => {
            return Ok(Err(FlowOff { variable: BOTH }));
        }
        Err(off) => return Ok(Err(off)),
    };
    let given = &settings.refresh_secrets;
    let refresh = secrets(given, "REFRESH_TOKEN_SECRET", "refresh.key", data_dir)?;
    Ok(refresh.map(|refresh| Sessions {
        refresh: keys(Flow::Session, &refresh),
        jwt,
        passwords: Passwords::new(settings.passwords_at_once),
    }))
}

fn jwt_keys(
    settings: &FlowSettings,
    issuer: &str,
    data_dir: Option<&Path>,
) -> Result<Result<JwtKeys, FlowOff>, String> {
    let mut files = settings.jwt_key_files.0.clone();
    if files.is_empty() && settings.jwt_secrets.0.is_empty() {
        let Some(directory) = data_dir else {
            return Ok(Err(FlowOff {
                variable: JWT_PRIVATE_KEY_FILE,
            }));
        };
        kept(directory, JWT_KEY_NAME, || {
            new_private_key().map(String::into_bytes)
        })?;
        files.push(directory.join(JWT_KEY_NAME));
    }
    let (issuer, audience) = (issuer.to_owned(), settings.audience.clone());
    let lifetime = settings.access_token_lifetime;
    let (rsa, secrets) = (settings.jwt_rsa_algorithm, &settings.jwt_secrets);
    JwtKeys::new(&files, rsa, secrets, issuer, audience, lifetime).map(Ok)
}

/// The secrets given, or one that is kept.
fn secrets(
    given: &Secrets,
    variable: &'static str,
    name: &str,
    data_dir: Option<&Path>,
) -> Result<Result<Secrets, FlowOff>, String> {
    match data_dir {
        _ if !given.0.is_empty() => Ok(Ok(given.clone())),
        Some(directory) => {
            let secret = kept(directory, name, || Ok(bearer::random().into_bytes()))?;
            Ok(Ok(Secrets(vec![secret])))
        }
        None => Ok(Err(FlowOff { variable })),
    }
}

fn keys(flow: Flow, secrets: &Secrets) -> Keys {
    Keys::new(flow, &secrets.0).expect("the configuration has checked their length")
}
