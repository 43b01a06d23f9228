//! `/token` for one-time tokens: each use gives a token in and takes its successor out, with its metadata.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use super::answer::NO_STORE;
use super::foreign::Revocations;
use super::live::unknown_key;
use super::problem::{Problem, Slug};
use super::raw::{RawBody, RawMembers};
use crate::flows::Flows;
use crate::store::{ExchangeRequest, Store};
use crate::token::bearer::BEARER_BYTES_MAX;
use crate::token::rotating::{Keys, Rotating};
use crate::token::{ExchangeOutcome, Flow, METADATA_BYTES_MAX, Metadata};

type Answer = Result<HttpResponse, Problem>;

/// What `PUT /token` answers; the shape of a Rust `Result`, as its callers parse it.
#[derive(Serialize)]
enum Exchange {
    Ok { token: String, meta: Metadata },
    Err(&'static str),
}

/// `POST /token` with a JSON object: a new token with that metadata.
///
/// # Errors
/// `invalid-request`, `invalid-metadata`, `payload-too-large`, `flow-off`, `flow-full`, and the store's.
pub(super) async fn create(members: RawMembers<'_>, flows: &Flows, store: &Store) -> Answer {
    let keys = keys(flows)?;
    let members = members.each_once()?;
    let Some(meta) = members.get("meta") else {
        return Err(Problem::new(Slug::InvalidMetadata, "meta: is missing"));
    };
    let metadata = metadata(meta)?;
    let made = store.create_family(Flow::OneTime, None, metadata).await?;
    let (token, _) = made.ok_or_else(|| Problem::flow_full("ONE_TIME_MAX"))?;
    Ok(HttpResponse::Ok()
        .insert_header(NO_STORE)
        .content_type("text/plain; charset=utf-8")
        .body(keys.sign(&token)))
}

/// `PUT /token`: the token given in is dead, and its successor lives a full lifetime.
///
/// # Errors
/// `invalid-request`, `invalid-metadata`, `payload-too-large`, `unsupported-media-type`, `flow-off`, and the
/// store's. A token that is not good is none: it is answered in a shape of its own.
pub async fn exchange_token(
    body: RawBody,
    flows: web::Data<Flows>,
    store: web::Data<Store>,
) -> Answer {
    let keys = keys(&flows)?;
    let members = body.members()?;
    let token = members.text("token")?;
    let metadata = match members.get("meta") {
        Some(meta) => metadata(meta)?,
        None => Metadata::default(),
    };
    let Some(token) = verified(keys, &token) else {
        return Ok(told(&Exchange::Err("InvalidToken")));
    };
    let request = ExchangeRequest {
        token,
        metadata,
        retry: flows.settings.rotation_retry,
        renew: true,
        revoke_on_reuse: false,
    };
    match store.exchange(Flow::OneTime, &request).await? {
        ExchangeOutcome::Exchanged(it) => {
            let number = it.number;
            let token = keys.sign(&Rotating {
                number,
                ..request.token
            });
            let meta = it.metadata;
            Ok(told(&Exchange::Ok { token, meta }))
        }
        ExchangeOutcome::TooLarge => Err(too_large()),
        ExchangeOutcome::Spent | ExchangeOutcome::Reused | ExchangeOutcome::Absent => {
            Ok(told(&Exchange::Err("InvalidToken")))
        }
    }
}

fn told(exchange: &Exchange) -> HttpResponse {
    HttpResponse::Ok().insert_header(NO_STORE).json(exchange)
}

/// `DELETE /token`: from here on neither this token nor any of its line is good. That there was none is no
/// mistake: whoever deletes wants it gone.
///
/// # Errors
/// `invalid-request`, `unsupported-media-type`, `flow-off`, and the store's.
pub async fn delete_token(
    body: RawBody,
    flows: web::Data<Flows>,
    store: web::Data<Store>,
    done: Revocations,
) -> Answer {
    let keys = keys(&flows)?;
    let token = body.members()?.text("token")?;
    if let Some(token) = verified(keys, &token) {
        let (partition, family) = (token.partition, &token.family);
        store
            .delete_family(Flow::OneTime, partition, family)
            .await?;
    } else if let Some(why) = unknown_key(&token, [keys].into_iter()) {
        done.did_nothing(&why);
    }
    Ok(HttpResponse::Accepted().finish())
}

pub(super) fn keys(flows: &Flows) -> Result<&Keys, Problem> {
    flows
        .one_time
        .as_ref()
        .map_err(|off| Problem::flow_off(*off))
}

/// What the token says, if it is one of ours.
fn verified(keys: &Keys, token: &str) -> Option<Rotating> {
    if token.len() > BEARER_BYTES_MAX {
        return None;
    }
    keys.verify(token)
}

/// From the JSON text of `meta`.
fn metadata(meta: &str) -> Result<Metadata, Problem> {
    if !meta.starts_with('{') {
        let detail = "meta: must be a JSON object";
        return Err(Problem::new(Slug::InvalidMetadata, detail));
    }
    let metadata: Metadata = serde_json::from_str(meta).map_err(|error| {
        // The text is JSON, so what is left is a mistake in a name.
        let detail = if error.is_data() {
            "has a member that is given more than once"
        } else {
            "has a member whose name is not Unicode"
        };
        Problem::field("meta", detail)
    })?;
    if metadata.bytes() > METADATA_BYTES_MAX {
        return Err(too_large());
    }
    Ok(metadata)
}

fn too_large() -> Problem {
    let detail = format!("the metadata is over {METADATA_BYTES_MAX} bytes");
    Problem::new(Slug::PayloadTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_an_object_whose_names_are_given_once() {
        assert!(metadata(r#"{"a": {"b": 1, "b": 2}}"#).is_ok_and(|it| it.len() == 1));
        for (meta, slug) in [
            ("[]", Slug::InvalidMetadata),
            ("null", Slug::InvalidMetadata),
            ("\"{}\"", Slug::InvalidMetadata),
            (r#"{"a":1,"\u0061":2}"#, Slug::InvalidRequest),
            (r#"{"\ud800":1}"#, Slug::InvalidRequest),
        ] {
            let refused = metadata(meta).map_err(|problem| problem.slug());
            assert_eq!(refused, Err(slug), "{meta}");
        }
    }

    #[test]
    fn metadata_of_just_64_kib_fits() {
        let of = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
        assert!(metadata(&of(METADATA_BYTES_MAX)).is_ok());
        let over = metadata(&of(METADATA_BYTES_MAX + 1)).map_err(|problem| problem.slug());
        assert_eq!(over, Err(Slug::PayloadTooLarge));
    }
}
