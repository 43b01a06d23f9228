//! What is asked by whoever runs the service, and the pages.

use serde_json::json;
use utoipa::openapi::HttpMethod;

use super::entry::{Entry, HTML, JSON, TEXT, Tag};
use super::schemas::Shape;
use super::values::Text;
use crate::http::problem::Slug;
use crate::http::system::{Live, Ready};

const PAGE: &str = "<!doctype html>…";

pub fn entries() -> Vec<Entry> {
    [system(), pages(), assets()]
        .into_iter()
        .flatten()
        .collect()
}

fn get(tag: Tag, path: &'static str, id: &'static str, summary: &'static str) -> Entry {
    Entry::new(tag, HttpMethod::Get, path, id, summary)
}

fn system() -> Vec<Entry> {
    let get = |path, id, summary| get(Tag::System, path, id, summary);
    vec![
        get("/livez", "show_livez", "Whether the process answers")
            .describe("Never asks Redis.")
            .answers::<Live>(200, "It does.", json!({"status": "alive"})),
        get("/readyz", "show_readyz", "Whether requests can be served here now")
            .answers::<Ready>(
                200,
                "They can.",
                json!({
                    "status": "ready",
                    "checks": {"redis": true, "scripts": true, "not_shutting_down": true},
                }),
            )
            .problems(&[Slug::NotReady]),
        get("/metrics", "show_metrics", "Metrics in the Prometheus text format").answers_text(
            200,
            "All metrics.",
            TEXT,
            "# TYPE tokend_pool_tokens gauge\ntokend_pool_tokens{pool=\"default\",state=\"free\"} 3\n",
        ),
    ]
}

fn pages() -> Vec<Entry> {
    let page = |path, id, summary| {
        get(Tag::Pages, path, id, summary).answers_text(200, "The page.", HTML, PAGE)
    };
    let document = Shape::of::<super::AnyObject>();
    vec![
        page("/", "show_index", "What this service is"),
        page(
            "/reference",
            "show_reference",
            "This reference, without scripts",
        ),
        page(
            "/docs",
            "show_swagger_ui",
            "This reference in Swagger UI, to try it out",
        ),
        page("/redoc", "show_redoc", "This reference in ReDoc"),
        get(Tag::Pages, "/openapi.json", "show_openapi", "This document").answers_shape(
            200,
            "OpenAPI 3.1.",
            JSON,
            document,
            json!({"openapi": "3.1.0"}),
        ),
        page("/problems", "list_problems", "Every kind of problem"),
        page(
            "/problems/{slug}",
            "show_problem",
            "What a kind of problem means",
        )
        .in_path::<Text>(
            "slug",
            "The end of a problem's `type`.",
            "no-token-available",
        )
        .problems(&[Slug::NotFound]),
    ]
}

/// What the pages above load.
fn assets() -> Vec<Entry> {
    let asset = |path, id, summary, example: &'static str| {
        get(Tag::Pages, path, id, summary)
            .in_path::<Text>("file", "Its name.", example)
            .answers_text(200, "A script.", "text/javascript", "…")
            .problems(&[Slug::NotFound])
    };
    vec![
        asset(
            "/docs/{file}",
            "show_swagger_ui_file",
            "A file of Swagger UI",
            "swagger-ui.css",
        )
        .answers_text(200, "A style sheet.", "text/css", "…"),
        asset(
            "/redoc/{file}",
            "show_redoc_file",
            "A file of ReDoc",
            "redoc.standalone.js",
        )
        .answers_text(200, "The notices of what is in it.", TEXT, "…"),
    ]
}
