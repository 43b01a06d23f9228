//! The bearer flows of a test's server.

use tokend::config::Config;
use tokend::flows::Flows;

/// The flows of a test's server, with secrets that any server of this run shares.
pub fn flows() -> Flows {
    flows_with(&[])
}

/// The same, with these variables set; an empty one is not set.
pub fn flows_with(settings: &[(&str, &str)]) -> Flows {
    let secrets = ["SECRET_KEY", "REFRESH_TOKEN_SECRET", "JWT_SECRET"];
    let secret = |name: &str| (name.to_owned(), name.repeat(32));
    let set = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables = secrets.map(secret).into_iter();
    flows_of(variables.chain(settings.iter().map(set)))
}

/// The flows as these variables make them, without a directory that keeps secrets.
pub fn flows_of(variables: impl IntoIterator<Item = (impl Into<String>, String)>) -> Flows {
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name.into(), value));
    let config = Config::from_vars(variables.collect());
    let url = "http://tokend.test".to_owned();
    Flows::new(config.expect("a configuration").flows, url, None).expect("flows")
}
