//! `POST /token`: one path, two flows. Which of them a request means, its body says.

use actix_web::{HttpRequest, HttpResponse, web};

use super::input::no_object;
use super::problem::Problem;
use super::raw::{RawBody, RawMembers};
use super::{one_time, unified};
use crate::flows::Flows;
use crate::store::Store;

/// What a body asks for.
#[derive(Debug)]
enum Meant<'a> {
    OneTime(RawMembers<'a>),
    Unified,
}

/// `POST /token`: a new one-time token where the body is a JSON object, else a new unified one.
///
/// # Errors
/// `invalid-request`, and those of the flow meant.
pub async fn create_token(
    request: HttpRequest,
    body: RawBody,
    flows: web::Data<Flows>,
    store: web::Data<Store>,
) -> Result<HttpResponse, Problem> {
    let has_user = request.headers().contains_key(unified::USER);
    match meant(&body.bytes, body.says_json, has_user)? {
        Meant::OneTime(members) => one_time::create(members, &flows, &store).await,
        Meant::Unified => unified::create(request.headers(), &store).await,
    }
}

/// The content type decides only where the body is no object: a plain `curl -d` says that it sends a form.
fn meant(body: &[u8], says_json: bool, has_user: bool) -> Result<Meant<'_>, Problem> {
    match RawMembers::parse(body) {
        Ok(members) if has_user && !members.has("meta") => Ok(Meant::Unified),
        Ok(members) => Ok(Meant::OneTime(members)),
        Err(error) if says_json && !body.is_empty() => Err(no_object(&error)),
        Err(_) => Ok(Meant::Unified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_says_which_flow_is_meant() {
        // The body, and what it means without JSON's content type, with it, and with it and a user.
        let rows = [
            ("", "unified", "unified", "unified"),
            (r#"{"meta": {}}"#, "one-time", "one-time", "one-time"),
            (r#"{"meta": 1}"#, "one-time", "one-time", "one-time"),
            ("{}", "one-time", "one-time", "unified"),
            (r#"{"metadata": {}}"#, "one-time", "one-time", "unified"),
            ("[]", "unified", "refused", "refused"),
            ("{", "unified", "refused", "refused"),
            (" ", "unified", "refused", "refused"),
            ("a=b", "unified", "refused", "refused"),
            ("null", "unified", "refused", "refused"),
        ];
        let told =
            |body: &str, says_json, has_user| match meant(body.as_bytes(), says_json, has_user) {
                Ok(Meant::OneTime(_)) => "one-time",
                Ok(Meant::Unified) => "unified",
                Err(_) => "refused",
            };
        for (body, plain, json, user) in rows {
            assert_eq!(told(body, false, false), plain, "{body}");
            assert_eq!(told(body, true, false), json, "{body}");
            assert_eq!(told(body, true, true), user, "{body}");
        }
    }
}
