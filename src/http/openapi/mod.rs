//! What this service's routes take and answer, as an OpenAPI 3.1 document: `/openapi.json`, and from it
//! `/docs`, `/redoc` and `/reference`.
//!
//! Reading order: `entry` (how an operation is written down), then a file per kind of routes. The schemas
//! of answers are those of the structs that the handlers answer with; what requests may hold is written
//! here, since handlers read their members one by one.
//!
//! **Architecture Invariant:** nothing here acts. The tests of the API check every answer that they get
//! against this document, so it cannot say something else than the handlers do.

mod entry;
mod flows;
mod pools;
mod problems;
mod schemas;
mod sessions;
mod system;
mod values;
mod verbs;

use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Info, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
    PathItem, Paths, RefOr, Schema, Server,
};
use utoipa::{PartialSchema, ToSchema};

use entry::{Entry, Tag};
use schemas::Schemas;

/// What holds for every operation, so that none has to repeat it.
const COMMON: &str = "\
Requests and answers are JSON where nothing else is said. An unknown member or query parameter is refused with \
400: it is usually a misspelt option.

Whatever is not a success is a **problem** (RFC 9457, `application/problem+json`); its `type` is the path of a page \
that says what to do about it, and `/problems` lists all. A path answers methods that it does not have with 405 \
and `Allow`, and OPTIONS with 204 and `Allow`. Every GET answers HEAD too, and ignores one slash at the end of its path; \
other methods do not.

Every answer carries `X-Request-Id`: the caller's, if it sends a sane one, else a new one. The log has it too. Where \
traces are on, a request goes on with its caller's (`traceparent`, `tracestate`), and its answer carries `traceresponse` \
(W3C Trace Context).";

/// Every operation, in the order in which pages show them.
fn entries() -> Vec<Entry> {
    [
        verbs::entries(),
        pools::entries(),
        flows::entries(),
        sessions::entries(),
        system::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The document, headed by what the environment says.
#[must_use]
pub fn document(title: &str, description: &str) -> OpenApi {
    let mut paths = Paths::new();
    let mut schemas = Schemas::default();
    let mut components = Components::new();
    problems::add_components(&mut schemas, &mut components);
    for entry in entries() {
        schemas.extend(entry.named.iter().cloned());
        let (path, method) = (entry.path, entry.method.clone());
        let operation = entry.operation(&mut components);
        paths.add_path_operation(path, vec![method], operation);
    }
    components.schemas.extend(schemas.closed());
    OpenApiBuilder::new()
        .info(info(title, description))
        .servers(Some([Server::new("/")]))
        .paths(paths)
        .components(Some(components))
        .tags(Some(Tag::ALL.map(|tag| {
            TagBuilder::new()
                .name(tag.name())
                .description(Some(tag.description()))
                .build()
        })))
        .build()
}

fn info(title: &str, description: &str) -> Info {
    InfoBuilder::new()
        .title(title)
        .version(crate::version::VERSION)
        .description(Some(format!("{description}\n\n{COMMON}")))
        .license(Some(
            LicenseBuilder::new()
                .name("MIT")
                .identifier(Some("MIT"))
                .build(),
        ))
        .build()
}

/// The path and the method of each operation.
#[must_use]
pub fn operations(document: &OpenApi) -> Vec<(String, &'static str)> {
    let methods = |item: &PathItem| {
        let all = [
            ("GET", item.get.is_some()),
            ("POST", item.post.is_some()),
            ("PUT", item.put.is_some()),
            ("DELETE", item.delete.is_some()),
            ("HEAD", item.head.is_some()),
        ];
        all.into_iter().filter(|(_, there)| *there)
    };
    let paths = document.paths.paths.iter();
    paths
        .flat_map(|(path, item)| methods(item).map(|(method, _)| (path.clone(), method)))
        .collect()
}

/// A JSON object of whatever members.
struct AnyObject;

impl PartialSchema for AnyObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .description(Some("An object of whatever members."))
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
            .into()
    }
}

impl ToSchema for AnyObject {}

#[cfg(test)]
mod tests;
