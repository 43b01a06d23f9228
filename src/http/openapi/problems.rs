//! The answers that are no success, from the table of slugs.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{AllOfBuilder, Schema, Type};
use utoipa::openapi::{
    Components, Content, ContentBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder,
};

use super::schemas::{Schemas, Shape};
use crate::http::problem::{FieldError, Slug};
use crate::http::system::Checks;

/// The media type of problems.
pub const MEDIA: &str = "application/problem+json";

/// An answer that is not a success (RFC 9457).
#[derive(ToSchema)]
#[allow(dead_code)] // for its schema; `Problem::respond` makes the real ones
struct Problem {
    /// The path of a page about this kind of problem.
    #[schema(rename = "type", pattern = "^/problems/[a-z-]+$")]
    kind: String,
    /// The same for every occurrence.
    title: String,
    /// That of the answer.
    status: u16,
    /// What is special about this occurrence.
    detail: String,
    /// As in `X-Request-Id` and in the log.
    request_id: String,
    /// The fields that are not as they must be.
    errors: Option<Vec<FieldError>>,
    /// `status`, for clients of older services.
    #[schema(rename = "statusCode")]
    status_code: u16,
    /// `detail`, for clients of older services.
    message: String,
    /// Of `pool-full`: the pool's limit.
    max_tokens: Option<u64>,
    /// Of `pool-full`: how many tokens the pool has.
    total: Option<u64>,
    /// Of `not-ready`.
    checks: Option<Checks>,
    /// For OAuth's clients: the standard's own code.
    error: Option<String>,
    /// For OAuth's clients: what is wrong.
    error_description: Option<String>,
}

/// Headers that answers share: their names, types and meanings.
const HEADERS: &[(&str, Type, &str)] = &[
    (
        "X-Request-Id",
        Type::String,
        "The caller's request id, if it sent a sane one, else a new one.",
    ),
    (
        "Retry-After",
        Type::Integer,
        "Whole seconds after which it is worth trying again. Absent where nobody can know.",
    ),
    ("Allow", Type::String, "The methods that the path takes."),
    (
        "WWW-Authenticate",
        Type::String,
        "Which credentials are expected.",
    ),
    (
        "RateLimit-Limit",
        Type::Integer,
        "How many requests are allowed in a period.",
    ),
    (
        "RateLimit-Remaining",
        Type::Integer,
        "How many of them are left.",
    ),
    (
        "RateLimit-Reset",
        Type::Integer,
        "Whole seconds until there are more.",
    ),
];

/// The headers that a problem of that kind has, beside the request id.
fn headers_of(slug: Slug) -> &'static [&'static str] {
    match slug {
        Slug::NoTokenAvailable | Slug::NotFree | Slug::StoreUnavailable | Slug::Overloaded => {
            &["Retry-After"]
        }
        Slug::MethodNotAllowed => &["Allow"],
        Slug::Unauthorized | Slug::InvalidCredentials | Slug::InvalidGrant | Slug::TokenReused => {
            &["WWW-Authenticate"]
        }
        Slug::RateLimited => &[
            "Retry-After",
            "RateLimit-Limit",
            "RateLimit-Remaining",
            "RateLimit-Reset",
        ],
        _ => &[],
    }
}

fn header(name: &str) -> Ref {
    Ref::new(format!("#/components/headers/{name}"))
}

/// What all operations share: the schema of problems, the headers, and the answer to a method that a path
/// does not have, which belongs to no operation.
pub fn add_components(schemas: &mut Schemas, components: &mut Components) {
    schemas.extend(Shape::of::<Problem>().named);
    for (name, kind, description) in HEADERS {
        let header = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(kind.clone())))
            .description(Some(*description));
        let header = RefOr::T(header.build());
        components.headers.insert((*name).to_owned(), header);
    }
    share(&[Slug::MethodNotAllowed], components);
}

/// A response with what each has.
pub fn response(description: &str) -> ResponseBuilder {
    ResponseBuilder::new()
        .description(description)
        .header_ref("X-Request-Id", header("X-Request-Id"))
}

/// The kinds of problems under their statuses.
pub fn by_status(slugs: &[Slug]) -> BTreeMap<u16, Vec<Slug>> {
    let mut statuses: BTreeMap<u16, Vec<Slug>> = BTreeMap::new();
    // In the order of the table, so that the same set has one name.
    for slug in Slug::ALL.iter().filter(|it| slugs.contains(it)) {
        let status = slug.status().as_u16();
        statuses.entry(status).or_default().push(*slug);
    }
    statuses
}

/// Puts the response for these kinds, which have one status, among the components, and says its name.
pub fn share(slugs: &[Slug], components: &mut Components) -> String {
    let name = joined(slugs, ".", Slug::as_str);
    let response = RefOr::T(shared(slugs));
    components.responses.entry(name.clone()).or_insert(response);
    name
}

fn shared(slugs: &[Slug]) -> Response {
    let title = joined(slugs, ", or: ", Slug::title);
    let names = slugs.iter().flat_map(|slug| headers_of(*slug));
    let response = names.fold(response(&title), |response, name| {
        response.header_ref(*name, header(name))
    });
    response.content(MEDIA, content(slugs)).build()
}

fn joined(slugs: &[Slug], between: &str, part: impl Fn(Slug) -> &'static str) -> String {
    let parts: Vec<_> = slugs.iter().map(|slug| part(*slug)).collect();
    parts.join(between)
}

/// A problem of one of these kinds.
pub fn content(slugs: &[Slug]) -> Content {
    let kinds = slugs.iter().map(|slug| path(*slug));
    let kind = ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(kinds));
    let narrowed = ObjectBuilder::new().property("type", kind.build()).build();
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(Schema::from(narrowed))
        .build();
    let examples = slugs.iter().map(|slug| {
        let example = ExampleBuilder::new()
            .summary(slug.title())
            .value(Some(example(*slug)));
        (slug.as_str(), example.build())
    });
    ContentBuilder::new()
        .schema(Some(Schema::from(schema)))
        .examples_from_iter(examples)
        .build()
}

fn path(slug: Slug) -> String {
    format!("/problems/{}", slug.as_str())
}

fn example(slug: Slug) -> Value {
    let (status, detail) = (slug.status().as_u16(), detail(slug));
    let mut body = json!({
        "type": path(slug), "title": slug.title(), "status": status, "detail": detail,
        "request_id": "3f0e7a39-91f0-4a8e-9d50-0e6c7a2f2d41", "statusCode": status, "message": detail,
    });
    let own = match slug {
        Slug::InvalidRequest => json!({"errors": [{"field": "count", "detail": "is missing"}]}),
        Slug::PoolFull => json!({"max_tokens": 10, "total": 8}),
        Slug::NotReady => {
            json!({"checks": {"redis": false, "scripts": true, "not_shutting_down": true}})
        }
        _ => json!({}),
    };
    for (name, value) in own.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

fn detail(slug: Slug) -> &'static str {
    match slug {
        Slug::InvalidRequest => "count: is missing",
        // Every kind says what it is; what else an occurrence would say is not in the table.
        other => other.title(),
    }
}
