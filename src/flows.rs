//! What the bearer flows run with: their settings and their keys.

use std::path::Path;

use crate::config::{FlowSettings, Secrets};
use crate::secrets::kept;
use crate::token::Flow;
use crate::token::bearer;
use crate::token::rotating::Keys;

/// A flow that can't be used, and the variable that would turn it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowOff {
    pub variable: &'static str,
}

/// What handlers of the flows need besides the store.
#[derive(Debug)]
pub struct Flows {
    pub settings: FlowSettings,
    /// Where the service is seen from outside, without a slash at its end.
    pub public_url: String,
    /// Signs one-time tokens.
    pub one_time: Result<Keys, FlowOff>,
}

impl Flows {
    /// The flows as the settings have them; `data_dir` keeps secrets that were not given, and is there with the
    /// embedded Redis alone: replicas that share a Redis must share their secrets too.
    ///
    /// # Errors
    /// A sentence for the log: when a secret can't be kept.
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
        let flows = Self {
            one_time: one_time.map(|secrets| keys(Flow::OneTime, &secrets)),
            public_url: settings.public_url.clone().unwrap_or(public_url),
            settings,
        };
        flows.tell_what_is_off();
        Ok(flows)
    }

    fn tell_what_is_off(&self) {
        if let Err(off) = &self.one_time {
            tracing::warn!("one-time tokens are off: {} is not set", off.variable);
        }
    }
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
            let secret = kept(directory, name, || bearer::random().into_bytes())?;
            Ok(Ok(Secrets(vec![secret])))
        }
        None => Ok(Err(FlowOff { variable })),
    }
}

fn keys(flow: Flow, secrets: &Secrets) -> Keys {
    Keys::new(flow, &secrets.0).expect("the configuration has checked their length")
}
