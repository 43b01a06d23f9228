//! A document is found with a slash at the end of its path too: `/docs/` is `/docs`.
//!
//! Only for GET and HEAD, which change nothing, and only where a GET is answered: `POST /tokens/assign/`
//! is a misspelt path, and grants nothing. The answer is the document itself. A redirect would be a success to a probe
//! of `/readyz/`, whatever the state of the service, and an error to a client that does not follow it.

use std::collections::HashSet;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::uri::PathAndQuery;
use actix_web::http::{Method, Uri};
use actix_web::middleware::Next;
use actix_web::{Error, web};

/// The patterns of the paths that answer a GET.
pub struct Documents(pub HashSet<&'static str>);

/// Takes the slash away before anybody looks at the path.
///
/// # Errors
/// Those of the wrapped service.
pub async fn trim_slash(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if let Some(uri) = without_slash(&request) {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
    next.call(request).await
}

/// The address of the document, where the path as it stands is unknown.
fn without_slash(request: &ServiceRequest) -> Option<Uri> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !safe || request.match_pattern().is_some() {
        return None;
    }
    let path = request.path().strip_suffix('/')?;
    let pattern = request.resource_map().match_pattern(path)?;
    let documents = request.app_data::<web::Data<Documents>>()?;
    if !documents.0.contains(pattern.as_str()) {
        return None;
    }
    let path_and_query: PathAndQuery = match request.uri().query() {
        Some(query) => format!("{path}?{query}").parse().ok()?,
        None => path.parse().ok()?,
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path_and_query);
    Uri::from_parts(parts).ok()
}
