//! The body of an OAuth request: form-encoded, each parameter once (RFC 6749, section 3.2). Parameters that nobody
//! knows are ignored, as the standard has it; mistakes are problems with the standard's own members besides.

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;

use super::fields::Fields;
use super::input::read_body;
use super::problem::{Problem, Slug};
use crate::token::{Invalid, Kind};

/// The one media type that forms have.
const FORM: &str = "application/x-www-form-urlencoded";

/// The parameters of a form. Debug is not derived: nobody shall print it.
pub struct TokenForm {
    /// `token`.
    pub token: String,
    /// `token_type_hint`, where it names a kind of ours.
    pub hint: Option<Kind>,
}

impl FromRequest for TokenForm {
    type Error = Problem;
    type Future = LocalBoxFuture<'static, Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = read_body(request, payload.take());
        let media = request.content_type().eq_ignore_ascii_case(FORM);
        let query = !request.query_string().is_empty();
        async move {
            let body = body.await?;
            if !media {
                let told = "the body must be application/x-www-form-urlencoded";
                return Err(refused(
                    Problem::new(Slug::UnsupportedMediaType, told),
                    told,
                ));
            }
            if query {
                // Where it would be in the log of every proxy.
                let told = "parameters belong into the body";
                return Err(refused(Problem::field("query", told), told));
            }
            parse(&body)
        }
        .boxed_local()
    }
}

fn parse(body: &[u8]) -> Result<TokenForm, Problem> {
    let told = "the parameter token must be given, and each parameter at most once";
    let mistake = |problem| refused(problem, told);
    let text = std::str::from_utf8(body).unwrap_or("%");
    let mut fields = Fields::from_query(text);
    // A parameter without a value counts as absent (RFC 6749, section 3.2).
    let read = |value: &serde_json::Value| match value.as_str() {
        Some(token) if !token.is_empty() => Ok(token.to_owned()),
        _ => Err(Invalid("is missing".to_owned())),
    };
    let token = fields.required("token", read);
    let hint = fields.optional("token_type_hint", |value| {
        Ok(value.as_str().and_then(Kind::of_hint))
    });
    let hint = hint.flatten();
    fields.ignore_unread();
    let form = token.map(|token| TokenForm { token, hint });
    fields.finish(form).map_err(mistake)
}

/// Adds the members of OAuth's own errors (RFC 6749, section 5.2). `description` must be a fixed text: a quote
/// or a backslash is not allowed in it.
fn refused(problem: Problem, description: &'static str) -> Problem {
    problem
        .with_member("error", "invalid_request")
        .with_member("error_description", description)
}

/// See `crate::fuzzing`.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    /// A form says what was written into it, and a token once.
    ///
    /// # Panics
    /// When that does not hold.
    pub fn form(data: &[u8]) {
        if let Ok(form) = super::parse(data) {
            assert!(!form.token.is_empty());
        }
        let given = String::from_utf8_lossy(data);
        let escaped: String = given.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let one = super::parse(format!("a=b&token={escaped}").as_bytes());
        assert_eq!(
            one.ok().map(|form| form.token).as_deref(),
            Some(&*given).filter(|it| !it.is_empty())
        );
        let twice = format!("token={escaped}&x=1&token={escaped}");
        assert!(super::parse(twice.as_bytes()).is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_its_token_once() {
        for (body, expected) in [
            ("token=a", "a"),
            ("token=a%3Ab%2Bc&token_type_hint=access_token", "a:b+c"),
            ("client_id=x&token=a+b", "a b"),
        ] {
            let form = parse(body.as_bytes());
            assert_eq!(form.ok().map(|it| it.token).as_deref(), Some(expected));
        }
        for bad in [
            "",
            "token",
            "token=",
            "Token=a",
            "token=a&token=a",
            "token=a&x=1&x=2",
            "token=%zz",
            "token=%ff",
            "{\"token\":\"a\"}",
        ] {
            let problem = parse(bad.as_bytes()).err().expect(bad);
            assert_eq!(problem.slug(), Slug::InvalidRequest, "{bad}");
        }
        assert!(parse(b"token=\xff").is_err());
    }

    #[test]
    fn a_hint_may_name_a_kind() {
        for (body, expected) in [
            ("token=a", None),
            ("token=a&token_type_hint=", None),
            ("token=a&token_type_hint=another", None),
            ("token=a&token_type_hint=refresh_token", Some(Kind::Refresh)),
        ] {
            let form = parse(body.as_bytes()).ok();
            assert_eq!(form.map(|form| form.hint), Some(expected), "{body}");
        }
    }
}
