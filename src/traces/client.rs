//! What the exporter sends by: the HTTP client that tokend has anyway, with exactly the headers and the compression of the
//! settings. The exporter would read both from the process's environment as well, which need not be the settings.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use flate2::write::GzEncoder;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::runtime::Handle;

use super::export::locked;
use crate::cli::client::{builder_for, root_cause};
use crate::config::{Exporting, TraceSettings};

/// Why the last try to send had no answer; none where it had one.
pub(super) type Broken = Arc<Mutex<Option<String>>>;

/// The HTTP client that tokend has anyway, on the runtime that it needs: the thread that exports is outside of it.
#[derive(Debug)]
pub(super) struct OnRuntime {
    http: reqwest::Client,
    /// All that a request has besides its body.
    headers: HeaderMap,
    gzip: bool,
    runtime: Handle,
    broken: Broken,
}

impl OnRuntime {
    pub(super) fn new(settings: &TraceSettings, broken: Broken) -> Result<Self, reqwest::Error> {
        let url = reqwest::Url::parse(settings.endpoint.expose()).ok();
        let host = url.as_ref().and_then(|url| url.host_str());
        let builder = builder_for(host).timeout(settings.exporting.timeout);
        Ok(Self {
            http: builder.build()?,
            headers: headers(&settings.exporting),
            gzip: settings.exporting.gzip,
            runtime: Handle::current(),
            broken,
        })
    }
}

fn headers(exporting: &Exporting) -> HeaderMap {
    let mut headers = exporting.headers.expose().clone();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-protobuf"),
    );
    if exporting.gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
}

fn zipped(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let http = self.http.clone();
        let mut request = if self.gzip {
            let (head, body) = request.into_parts();
            Request::from_parts(head, zipped(&body)?)
        } else {
            request
        };
        // The exporter's are those of the process's environment, which may be meant for another receiver.
        *request.headers_mut() = self.headers.clone();
        let sent = self
            .runtime
            .spawn(async move { http.send_bytes(request).await });
        let sent = sent.await?;
        // The exporter says no more than that the network failed.
        let why = sent.as_ref().err().map(|error| {
            let ours = error.downcast_ref::<reqwest::Error>();
            ours.map_or_else(|| error.to_string(), root_cause)
        });
        *locked(&self.broken) = why;
        sent
    }
}
