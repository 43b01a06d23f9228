//! The OpenAPI document and the pages that show it. They load nothing from another host: the bundles are in
//! the binary, and each page's content security policy holds them to it.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa_swagger_ui::Config;

use super::openapi::document;
use super::page::{page, policy, respond, respond_plain};
use super::problem::{Problem, Slug};
use super::{index, reference};
use crate::flows::Flows;

/// Seconds that a browser keeps a bundle: long enough for a visit, short enough for an upgrade.
const BUNDLE_CACHE: &str = "public, max-age=3600";
/// ReDoc's bundle as released; see the README beside it.
const REDOC: &str = include_str!("../../assets/redoc/redoc.standalone.js");
/// The notices that the bundle refers to.
const REDOC_NOTICES: &str = include_str!("../../assets/redoc/redoc.standalone.js.LICENSE.txt");
/// The picture beside ReDoc's name, the one thing that it would load from elsewhere.
const REDOC_LOGO: &str = "https://cdn.redoc.ly/redoc/logo-mini.svg";
const REDOC_START: &str = "\
document.body.style.margin = 0;
Redoc.init('/openapi.json', {sanitize: true}, document.getElementById('redoc'));
";
/// The style elements that this release of ReDoc makes: one that it fills by script, and that of its
/// scrollbars. A browser's console says the hash of one that is missing here.
const REDOC_STYLES: &str = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' \
                            'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='";

type Answer = Result<HttpResponse, Problem>;

/// What is shown, made once: it depends on the environment alone.
pub struct Docs {
    title: String,
    openapi: Bytes,
    index: String,
    reference: String,
    redoc: Bytes,
    swagger: Arc<Config<'static>>,
}

impl Docs {
    /// The document and its pages, headed as the environment says.
    ///
    /// # Panics
    /// Never: what the document is made of is JSON.
    #[must_use]
    pub fn new(flows: &Flows) -> Self {
        let settings = &flows.settings;
        let document = document(&settings.title, &settings.description);
        // In the order in which the operations are written down, which a `Value` would lose.
        let openapi = serde_json::to_vec(&document).expect("JSON");
        let document = serde_json::to_value(document).expect("JSON");
        let swagger = Config::from("/openapi.json")
            // The default asks a validator elsewhere.
            .validator_url("none")
            .deep_linking(true)
            .use_base_layout();
        Self {
            title: settings.title.clone(),
            openapi: openapi.into(),
            index: index::page(&settings.title, &settings.description, &flows.public_url),
            reference: reference::page(&document),
            redoc: REDOC.replace(REDOC_LOGO, "data:,").into(),
            swagger: Arc::new(swagger),
        }
    }
}

/// `GET /`: what this service is, with a line to try for each kind of token.
pub async fn show_index(docs: web::Data<Docs>) -> HttpResponse {
    respond_plain(docs.index.clone())
}

/// `GET /reference`: every operation, without scripts.
pub async fn show_reference(docs: web::Data<Docs>) -> HttpResponse {
    respond_plain(docs.reference.clone())
}

/// `GET /openapi.json`.
pub async fn show_openapi(docs: web::Data<Docs>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(docs.openapi.clone())
}

/// `GET /docs`: Swagger UI.
pub async fn show_swagger_ui(docs: web::Data<Docs>) -> HttpResponse {
    let head = "<link rel=\"stylesheet\" href=\"/docs/swagger-ui.css\">\
                <link rel=\"stylesheet\" href=\"/docs/index.css\">";
    let content = "<noscript>This page needs scripts; <a href=\"/reference\">the reference</a> does not.</noscript>\n\
                   <div id=\"swagger-ui\"></div>\n\
                   <script src=\"/docs/swagger-ui-bundle.js\"></script>\n\
                   <script src=\"/docs/swagger-ui-standalone-preset.js\"></script>\n\
                   <script src=\"/docs/swagger-initializer.js\"></script>\n";
    let policy = policy("script-src 'self'; style-src 'self'; connect-src 'self'");
    respond(&policy, page(&docs.title, head, content))
}

/// `GET /docs/{file}`: what Swagger UI is made of.
///
/// # Errors
/// `not-found`.
pub async fn show_swagger_ui_file(request: HttpRequest, docs: web::Data<Docs>) -> Answer {
    const FILES: [&str; 5] = [
        "swagger-ui.css",
        "index.css",
        "swagger-ui-bundle.js",
        "swagger-ui-standalone-preset.js",
        "swagger-initializer.js",
    ];
    let name = request.match_info().get("file").unwrap_or_default();
    let name = FILES.iter().find(|it| **it == name).ok_or_else(no_file)?;
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&docs.swagger));
    let file = file.map_err(|error| Problem::internal(error.to_string()))?;
    let file = file.ok_or_else(|| Problem::internal("a file of Swagger UI is missing"))?;
    Ok(bundle(
        &file.content_type,
        Bytes::from(file.bytes.into_owned()),
    ))
}

/// `GET /redoc`: ReDoc.
pub async fn show_redoc(docs: web::Data<Docs>) -> HttpResponse {
    let content = "<noscript>This page needs scripts; <a href=\"/reference\">the reference</a> does not.</noscript>\n\
                   <div id=\"redoc\"></div>\n\
                   <script src=\"/redoc/redoc.standalone.js\"></script>\n\
                   <script src=\"/redoc/start.js\"></script>\n";
    // Its search runs in a worker that it makes from a blob.
    let policy = policy(&format!(
        "script-src 'self'; style-src {REDOC_STYLES}; connect-src 'self'; worker-src blob:"
    ));
    respond(&policy, page(&docs.title, "", content))
}

/// `GET /redoc/{file}`: what ReDoc is made of.
///
/// # Errors
/// `not-found`.
pub async fn show_redoc_file(request: HttpRequest, docs: web::Data<Docs>) -> Answer {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let (kind, bytes) = match request.match_info().get("file").unwrap_or_default() {
        "redoc.standalone.js" => (SCRIPT, docs.redoc.clone()),
        "start.js" => (SCRIPT, text(REDOC_START)),
        "redoc.standalone.js.LICENSE.txt" => ("text/plain; charset=utf-8", text(REDOC_NOTICES)),
        _ => return Err(no_file()),
    };
    Ok(bundle(kind, bytes))
}

fn bundle(kind: &str, bytes: Bytes) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(kind)
        .insert_header((header::CACHE_CONTROL, BUNDLE_CACHE))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .body(bytes)
}

fn no_file() -> Problem {
    Problem::new(Slug::NotFound, "there is no such file")
}
