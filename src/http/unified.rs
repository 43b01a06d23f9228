//! `POST /token` without a JSON object: an opaque token of one fixed lifetime, for any service to introspect.

use actix_web::HttpResponse;
use actix_web::http::header::HeaderMap;
use serde::Serialize;

use super::answer::{NO_STORE, Timestamp};
use super::problem::Problem;
use crate::store::Store;
use crate::token::{Flow, Holder, Invalid, bearer};

/// The header that says whose the token is.
pub const USER: &str = "user";
/// Most bytes of a user: those of a mail address (RFC 5321, section 4.5.3.1.3, without its brackets).
const USER_BYTES_MAX: usize = 254;

/// Every answer's shape; its callers read the status from the body, as text.
#[derive(Serialize)]
struct Told<P> {
    status: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<P>,
}

#[derive(Serialize)]
struct Issued {
    token: String,
    created: Timestamp,
    expires: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Holder>,
}

/// `POST /token` with anything but a JSON object. A bad user is answered in this flow's own shape.
///
/// # Errors
/// `flow-full`, and the store's.
pub(super) async fn create(headers: &HeaderMap, store: &Store) -> Result<HttpResponse, Problem> {
    let user = match user(headers) {
        Ok(user) => user,
        Err(invalid) => return Ok(user_not_valid(&invalid)),
    };
    let made = store.create_opaque(Flow::Unified, bearer::random, user.clone(), None);
    let (token, times) = made
        .await?
        .ok_or_else(|| Problem::flow_full("UNIFIED_MAX"))?;
    let payload = Issued {
        token,
        created: Timestamp(times.created_at_ms),
        expires: Timestamp(times.expires_at_ms),
        user,
    };
    Ok(HttpResponse::Ok().insert_header(NO_STORE).json(Told {
        status: "200",
        message: "Token created".to_owned(),
        payload: Some(payload),
    }))
}

fn user_not_valid(invalid: &Invalid) -> HttpResponse {
    HttpResponse::BadRequest().json(Told::<()> {
        status: "400",
        message: format!("User not valid: {invalid}"),
        payload: None,
    })
}

/// The header `user`, if there is one.
fn user(headers: &HeaderMap) -> Result<Option<Holder>, Invalid> {
    let mut given = headers.get_all(USER);
    let Some(value) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return Err(Invalid("the header is given more than once".to_owned()));
    }
    // What is not ASCII text fails in the same way as an empty one.
    parse_user(value.to_str().unwrap_or_default()).map(Some)
}

/// `name@host`, both of visible ASCII: what stands in a header has no other spelling on which all agree.
fn parse_user(text: &str) -> Result<Holder, Invalid> {
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    match text.split_once('@') {
        Some((name, host))
            if visible
                && !name.is_empty()
                && !host.is_empty()
                && !host.contains('@')
                && text.len() <= USER_BYTES_MAX =>
        {
            Holder::parse(text)
        }
        _ => Err(Invalid(format!(
            "must be name@host, at most {USER_BYTES_MAX} visible ASCII characters"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_name_at_a_host() {
        let longest = format!("a@{}", "h".repeat(USER_BYTES_MAX - 2));
        for good in [
            "a@b",
            "ann.o'neil+x@mail.example.com",
            "svc@[::1]",
            &longest,
        ] {
            assert!(parse_user(good).is_ok(), "{good}");
        }
        let too_long = format!("{longest}h");
        for bad in [
            "",
            "@",
            "a@",
            "@b",
            "ab",
            "a@b@c",
            "a b@c",
            "a@b ",
            "a@b\tc",
            "é@b",
            "a@b\u{7f}",
            &too_long,
        ] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
