//! Every answer that a test of the API gets is checked against the OpenAPI document: what the handlers say and
//! what the document says are one thing.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokend::http::openapi::document;

/// An answer, as far as the document speaks of it.
pub struct Seen<'a> {
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub body: &'a str,
}

/// What the document says of an answer: either where its media types are, or that there is nothing to check.
enum Told {
    At(String),
    Exempt,
}

struct Checker {
    document: Value,
    /// By the pointer of the media type; compiled once.
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

/// Panics where the document says something else.
pub fn check(seen: &Seen<'_>) {
    static CHECKER: LazyLock<Checker> = LazyLock::new(Checker::new);
    if let Err(wrong) = CHECKER.check(seen) {
        let Seen {
            method,
            path,
            status,
            body,
            ..
        } = seen;
        panic!("{method} {path} answered {status}, but {wrong}\n{body}");
    }
}

/// As a part of a JSON pointer.
fn part(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// How many segments of the pattern are literal, if the path fits it.
fn fits(pattern: &str, path: &str) -> Option<usize> {
    let (pattern, path) = (pattern.split('/'), path.split('/'));
    if pattern.clone().count() != path.clone().count() {
        return None;
    }
    let parameter = |it: &str| it.starts_with('{');
    let mut pairs = pattern.clone().zip(path);
    let fits = pairs.all(|(told, seen)| told == seen || (parameter(told) && !seen.is_empty()));
    fits.then(|| pattern.filter(|it| !parameter(it)).count())
}

impl Checker {
    fn new() -> Self {
        let document = serde_json::to_value(document("tokend", "")).expect("JSON");
        Self {
            document,
            validators: Mutex::default(),
        }
    }

    fn check(&self, seen: &Seen<'_>) -> Result<(), String> {
        let content = match self.told(seen)? {
            Told::At(content) => content,
            Told::Exempt => return Ok(()),
        };
        let told = self.document.pointer(&content).and_then(Value::as_object);
        if seen.body.is_empty() {
            return match told.is_none_or(Map::is_empty) || seen.method == "HEAD" {
                true => Ok(()),
                false => Err("a body is documented".to_owned()),
            };
        }
        let media = seen.content_type.unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default();
        if !told.is_some_and(|told| told.contains_key(media)) {
            return Err(format!("the content type {media} is not documented"));
        }
        if !media.ends_with("json") {
            return Ok(());
        }
        let body = match serde_json::from_str(seen.body) {
            Ok(body) => body,
            // A number that no double holds, as metadata may have: JSON all the same.
            Err(_) if serde_json::from_str::<&RawValue>(seen.body).is_ok() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let validator = self.validator(&format!("{content}/{}", part(media)));
        let valid = validator.validate(&body);
        valid.map_err(|error| format!("the schema says: {error}, at {}", error.instance_path()))
    }

    /// Where the document tells the content of such an answer.
    fn told(&self, seen: &Seen<'_>) -> Result<Told, String> {
        let paths = self.document["paths"].as_object().expect("paths");
        let fitting = paths
            .keys()
            .filter_map(|it| Some((fits(it, seen.path)?, it)));
        let Some((_, path)) = fitting.max() else {
            // A path that the service does not have.
            return Ok(Told::Exempt);
        };
        let item = &paths[path];
        let method = seen.method.to_ascii_lowercase();
        let method = match method.as_str() {
            // Every GET answers HEAD too.
            "head" if item.get("head").is_none() => "get",
            other => other,
        };
        let at = format!("/paths/{}/{method}/responses/{}", part(path), seen.status);
        if item.get(method).is_none() {
            return match seen.status {
                405 => Ok(Told::At(
                    "/components/responses/method-not-allowed/content".to_owned(),
                )),
                // What a browser asks before it calls from another page; and a path that is turned off.
                200 | 204 | 400 if method == "options" => Ok(Told::Exempt),
                404 => Ok(Told::At(
                    "/components/responses/not-found/content".to_owned(),
                )),
                _ => Err("this method of the path is not documented".to_owned()),
            };
        }
        let response = self.document.pointer(&at);
        let response = response.ok_or("this status is not documented")?;
        let at = match response["$ref"].as_str() {
            Some(reference) => reference.trim_start_matches('#').to_owned(),
            None => at,
        };
        Ok(Told::At(format!("{at}/content")))
    }

    fn validator(&self, media: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().expect("not poisoned");
        let known = validators.entry(media.to_owned());
        let validator = known.or_insert_with(|| {
            let schema = self.document.pointer(media).map(|it| it["schema"].clone());
            let schema = schema.unwrap_or(json!(false));
            // Where its references lead.
            let schema = json!({"components": self.document["components"], "allOf": [schema]});
            Arc::new(jsonschema::validator_for(&schema).expect("a schema"))
        });
        Arc::clone(validator)
    }
}

#[test]
fn an_answer_that_the_document_does_not_describe_is_found() {
    let checker = Checker::new();
    let deleted = r#"{"token": "a", "state": "deleted"}"#;
    let good = || Seen {
        method: "DELETE",
        path: "/v1/pools/seats/delete",
        status: 200,
        content_type: Some("application/json"),
        body: deleted,
    };
    assert_eq!(checker.check(&good()), Ok(()));
    let planted = [
        (
            "status",
            Seen {
                status: 202,
                ..good()
            },
        ),
        (
            "method",
            Seen {
                method: "PUT",
                ..good()
            },
        ),
        (
            "content type",
            Seen {
                content_type: Some("text/plain"),
                ..good()
            },
        ),
        (
            "content type",
            Seen {
                content_type: None,
                ..good()
            },
        ),
        ("body", Seen { body: "", ..good() }),
        (
            "schema",
            Seen {
                body: r#"{"token": "a"}"#,
                ..good()
            },
        ),
        (
            "schema",
            Seen {
                body: r#"{"token": 1, "state": "deleted"}"#,
                ..good()
            },
        ),
        (
            "schema",
            Seen {
                body: r#"{"token": "a", "state": "deleted", "x": 1}"#,
                ..good()
            },
        ),
    ];
    for (what, seen) in planted {
        let wrong = checker.check(&seen).expect_err(what);
        assert!(wrong.contains(what), "{what}: {wrong}");
    }
}

#[test]
fn a_problem_that_an_operation_does_not_name_is_found() {
    let checker = Checker::new();
    let problem = |slug: &str| {
        json!({
            "type": format!("/problems/{slug}"), "title": "t", "status": 404, "detail": "d",
            "request_id": "r", "statusCode": 404, "message": "d",
        })
        .to_string()
    };
    let seen = |path, body| {
        let seen = Seen {
            method: "POST",
            path,
            status: 404,
            content_type: Some("application/problem+json"),
            body,
        };
        checker.check(&seen)
    };
    let (named, other) = (problem("token-not-found"), problem("no-token-available"));
    assert_eq!(seen("/tokens/unblock", &named), Ok(()));
    assert!(seen("/tokens/unblock", &other).is_err());
    assert_eq!(
        seen("/nowhere", "{}"),
        Ok(()),
        "a path that the service does not have"
    );
}

#[test]
fn the_most_literal_pattern_is_the_one_that_fits() {
    assert_eq!(fits("/v1/pools/{pool}", "/v1/pools/a"), Some(3));
    assert_eq!(fits("/v1/pools/{pool}", "/v1/pools/"), None);
    assert_eq!(fits("/v1/pools/{pool}", "/v1/pools/a/tokens"), None);
    assert!(fits("/docs/x", "/docs/x") > fits("/docs/{file}", "/docs/x"));
}
