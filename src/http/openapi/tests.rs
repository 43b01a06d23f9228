//! What must hold for the document as a whole. That it says what the handlers do is tested with every answer of
//! the API's tests.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::*;

/// The OpenAPI Initiative's schema of OpenAPI 3.1 documents.
const SCHEMA: &str = include_str!("../../../assets/openapi/schema-3.1.json");
const METHODS: [&str; 5] = ["get", "post", "put", "delete", "head"];

fn told() -> Value {
    serde_json::to_value(document("Tokens", "Hands them out.")).expect("JSON")
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Each operation with where it is.
fn all(document: &Value) -> Vec<(String, &Value)> {
    let items = members(&document["paths"]);
    items
        .flat_map(|(path, item)| {
            members(item).map(move |(method, it)| (format!("{method} {path}"), it))
        })
        .collect()
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect(reference),
        None => value,
    }
}

/// Whether the example is what the schema says; `Err` says what is wrong.
fn check(document: &Value, schema: &Value, example: &Value) -> Result<(), String> {
    let schema = json!({"components": document["components"], "allOf": [schema]});
    let validator = jsonschema::validator_for(&schema).map_err(|it| it.to_string())?;
    validator
        .validate(example)
        .map_err(|it| format!("{it}: {example}"))
}

/// The examples of a media type; there must be one.
fn examples(at: &str, content: &Value) -> Vec<Value> {
    let many = members(&content["examples"]).map(|(_, it)| it["value"].clone());
    let mut found: Vec<_> = many.collect();
    found.extend(content.get("example").cloned());
    assert!(!found.is_empty(), "{at}: no example");
    found
}

#[test]
fn it_is_valid_openapi_3_1() {
    let schema = serde_json::from_str(SCHEMA).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let document = told();
    let wrong: Vec<_> = validator.iter_errors(&document).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut broken = document.clone();
    broken["info"]["title"] = json!(1);
    assert!(!validator.is_valid(&broken), "the schema checks nothing");
}

#[test]
fn every_reference_leads_somewhere_and_nothing_is_left_over() {
    fn collect(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.insert(reference.clone());
                }
                members.values().for_each(|it| collect(it, found));
            }
            Value::Array(values) => values.iter().for_each(|it| collect(it, found)),
            _ => {}
        }
    }
    let document = told();
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in &references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    // What belongs to no operation.
    let own = ["#/components/responses/method-not-allowed"];
    for (kind, components) in members(&document["components"]) {
        for (name, _) in members(components) {
            let reference = format!("#/components/{kind}/{name}");
            let used = references.contains(&reference) || own.contains(&reference.as_str());
            assert!(used, "{reference} is never used");
        }
    }
}

#[test]
fn every_operation_has_what_a_caller_must_know() {
    let document = told();
    let mut ids = BTreeSet::new();
    for (at, operation) in all(&document) {
        let id = operation["operationId"].as_str().expect(&at);
        assert!(ids.insert(id), "{at}: another operation is called {id}");
        assert!(
            operation["summary"]
                .as_str()
                .is_some_and(|it| !it.is_empty()),
            "{at}"
        );
        assert!(
            METHODS.contains(&at.split(' ').next().unwrap_or_default()),
            "{at}"
        );
        let known = document["tags"].as_array().expect("tags");
        assert!(
            known.iter().any(|tag| tag["name"] == operation["tags"][0]),
            "{at}"
        );
        let responses: Vec<_> = members(&operation["responses"]).collect();
        assert!(
            responses.iter().any(|(status, _)| status.starts_with('2')),
            "{at}"
        );
        assert!(responses.iter().any(|(status, _)| *status == "500"), "{at}");
        for (status, response) in responses {
            let response = resolved(&document, response);
            assert!(
                response["headers"].get("X-Request-Id").is_some(),
                "{at} {status}"
            );
            assert_ne!(response["description"], "", "{at} {status}");
        }
    }
}

#[test]
fn every_path_parameter_is_described() {
    let document = told();
    for (at, operation) in all(&document) {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let in_path = parameters.filter(|it| it["in"] == "path");
        let told: BTreeSet<_> = in_path.filter_map(|it| it["name"].as_str()).collect();
        let named = at.split('{').skip(1).filter_map(|it| it.split('}').next());
        assert_eq!(told, named.collect(), "{at}");
    }
}

#[test]
fn every_body_has_an_example_that_its_schema_allows() {
    let document = told();
    for (at, operation) in all(&document) {
        let request = std::iter::once(&operation["requestBody"]);
        let responses = members(&operation["responses"]).map(|(_, it)| resolved(&document, it));
        for body in request.chain(responses) {
            for (media, content) in members(&body["content"]) {
                for example in examples(&format!("{at} {media}"), content) {
                    let fits = check(&document, &content["schema"], &example);
                    assert_eq!(fits, Ok(()), "{at} {media}");
                }
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let fits = check(&document, &parameter["schema"], &parameter["example"]);
            assert_eq!(fits, Ok(()), "{at} {}", parameter["name"]);
        }
    }
}

#[test]
fn the_environment_heads_it() {
    let document = told();
    assert_eq!(document["info"]["title"], "Tokens");
    let description = document["info"]["description"].as_str().expect("text");
    assert!(
        description.starts_with("Hands them out.\n\n"),
        "{description}"
    );
}
