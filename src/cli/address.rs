//! The address of a service. It may carry a password, so no message and no Debug shows it.

use std::ffi::OsString;
use std::fmt;

use reqwest::Url;

use crate::token::Invalid;

/// # Errors
/// When it is no `http` or `https` URL with a host.
pub fn parse_url(text: &str) -> Result<Url, Invalid> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(Invalid("write it like http://127.0.0.1:3000".to_owned())),
    }
}

/// An address as it was given. It may carry a password, so Debug does not show it.
#[derive(Clone)]
pub struct ServiceUrl(pub OsString);

impl fmt::Debug for ServiceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceUrl")
    }
}

impl ServiceUrl {
    /// # Errors
    /// As [`parse_url`].
    pub fn parse(&self) -> Result<Url, Invalid> {
        parse_url(&self.0.to_string_lossy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_urls_are_taken() {
        assert!(parse_url("http://127.0.0.1:3000").is_ok());
        assert!(parse_url("https://tokens.example.com/prefix/").is_ok());
        for text in ["", "127.0.0.1:3000", "ftp://x", "redis://x", "http://"] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_with_a_password_is_shown_nowhere() {
        let given = ServiceUrl("http://u:hush@localhost:1".into());
        let client = super::super::client::Client::new(given.parse().unwrap()).unwrap();
        assert!(!format!("{given:?} {client:?}").contains("hush"));
        let bad = ServiceUrl("hush://u:hush@localhost".into());
        assert!(!bad.parse().unwrap_err().to_string().contains("hush"));
    }
}
