//! How tests ask the service.

use std::sync::Once;

/// A client without proxies, redirects or retries.
pub fn http_client() -> reqwest::Client {
    static TLS: Once = Once::new();
    TLS.call_once(|| {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .build()
        .expect("a client")
}
