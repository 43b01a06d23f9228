//! `GET /reference`: the OpenAPI document as plain HTML, for people without scripts and for whoever searches.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use super::page::{escape, marked_up, plain};

static NONE: Value = Value::Null;

/// The page: by tag, then by path.
///
/// # Panics
/// Never: writing to a String cannot fail.
pub fn page(document: &Value) -> String {
    let mut content = String::new();
    write_all(&mut content, document).expect("a String takes everything");
    plain(
        &format!("{}: reference", text(&document["info"]["title"])),
        &content,
    )
}

fn write_all(out: &mut String, document: &Value) -> fmt::Result {
    let info = &document["info"];
    writeln!(
        out,
        "<p><a href=\"/\">Start</a></p>\n<h1>{}: reference</h1>",
        escape(text(&info["title"]))
    )?;
    for paragraph in text(&info["description"]).split("\n\n") {
        writeln!(out, "<p>{}</p>", marked_up(paragraph))?;
    }
    let tags = || document["tags"].as_array().into_iter().flatten();
    writeln!(out, "<nav aria-label=\"Operations\">")?;
    for tag in tags() {
        let name = text(&tag["name"]);
        writeln!(
            out,
            "<p><a href=\"#{}\">{}</a></p>\n<ul>",
            anchor(name),
            escape(name)
        )?;
        for (path, method, operation) in operations(document, name) {
            let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
            writeln!(
                out,
                "<li><a href=\"#{id}\"><code>{method} {path}</code></a> {}</li>",
                escape(summary)
            )?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</nav>")?;
    for tag in tags() {
        let name = text(&tag["name"]);
        writeln!(out, "<h2 id=\"{}\">{}</h2>", anchor(name), escape(name))?;
        writeln!(out, "<p>{}</p>", marked_up(text(&tag["description"])))?;
        for (path, method, operation) in operations(document, name) {
            write_operation(out, document, (path, &method), operation)?;
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn anchor(name: &str) -> String {
    name.to_ascii_lowercase().replace(' ', "-")
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Path, method and operation of each that has that tag.
fn operations<'a>(
    document: &'a Value,
    tag: &'a str,
) -> impl Iterator<Item = (&'a String, String, &'a Value)> {
    members(&document["paths"])
        .flat_map(|(path, item)| members(item).map(move |(method, it)| (path, method, it)))
        .filter(move |(_, _, operation)| operation["tags"][0] == tag)
        .map(|(path, method, operation)| (path, method.to_uppercase(), operation))
}

fn write_operation(
    out: &mut String,
    document: &Value,
    (path, method): (&str, &str),
    operation: &Value,
) -> fmt::Result {
    let (id, summary) = (text(&operation["operationId"]), text(&operation["summary"]));
    writeln!(
        out,
        "<section aria-labelledby=\"{id}\">\n<h3 id=\"{id}\">{}</h3>",
        escape(summary)
    )?;
    writeln!(out, "<p><code>{method} {}</code></p>", escape(path))?;
    let description = text(&operation["description"]);
    if !description.is_empty() {
        writeln!(out, "<p>{}</p>", marked_up(description))?;
    }
    write_parameters(out, &operation["parameters"])?;
    let content = &operation["requestBody"]["content"];
    for (media, body) in members(content) {
        writeln!(out, "<p>Body, <code>{media}</code>:</p>")?;
        write_example(out, &body["example"])?;
    }
    writeln!(
        out,
        "<table><caption>Answers</caption>\n<tr><th scope=\"col\">Status</th><th scope=\"col\">Answer</th></tr>"
    )?;
    for (status, response) in members(&operation["responses"]) {
        let response = resolved(document, response);
        writeln!(out, "<tr><th scope=\"row\">{status}</th><td>")?;
        write_response(out, response)?;
        writeln!(out, "</td></tr>")?;
    }
    writeln!(out, "</table>\n</section>")
}

fn write_parameters(out: &mut String, parameters: &Value) -> fmt::Result {
    let Some(parameters) = parameters.as_array() else {
        return Ok(());
    };
    writeln!(
        out,
        "<table><caption>Parameters</caption>\n\
         <tr><th scope=\"col\">Name</th><th scope=\"col\">In</th><th scope=\"col\">Meaning</th></tr>"
    )?;
    for parameter in parameters {
        writeln!(
            out,
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td></tr>",
            text(&parameter["name"]),
            text(&parameter["in"]),
            marked_up(text(&parameter["description"]))
        )?;
    }
    writeln!(out, "</table>")
}

fn write_response(out: &mut String, response: &Value) -> fmt::Result {
    let content = &response["content"];
    let problem = &content["application/problem+json"]["examples"];
    let others = members(content).filter(|(media, _)| *media != "application/problem+json");
    let others: Vec<_> = others.collect();
    if problem.is_null() || !others.is_empty() {
        writeln!(out, "{}", marked_up(text(&response["description"])))?;
    }
    for (media, body) in others {
        writeln!(out, "<p><code>{media}</code></p>")?;
        write_example(out, &body["example"])?;
    }
    for (slug, example) in members(problem) {
        let summary = escape(text(&example["summary"]));
        writeln!(
            out,
            "<p><a href=\"/problems/{slug}\"><code>{slug}</code></a>: {summary}</p>"
        )?;
    }
    Ok(())
}

fn write_example(out: &mut String, example: &Value) -> fmt::Result {
    let example = match example {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).map_err(|_| fmt::Error)?,
    };
    writeln!(out, "<pre><code>{}</code></pre>", escape(&example))
}

/// What a reference within the document refers to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str().and_then(|it| it.strip_prefix('#')) {
        Some(pointer) => document.pointer(pointer).unwrap_or(&NONE),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::openapi::document;

    #[test]
    fn it_has_every_operation_and_nothing_unescaped() {
        let document = document("<T>", "**a** & b");
        let document = serde_json::to_value(document).expect("JSON");
        let page = page(&document);
        assert!(page.contains("<h1>&lt;T&gt;: reference</h1>"));
        for (path, item) in members(&document["paths"]) {
            for (method, operation) in members(item) {
                let method = method.to_uppercase();
                assert!(
                    page.contains(&format!("<code>{method} {path}</code>")),
                    "{path}"
                );
                let id = text(&operation["operationId"]);
                assert!(page.contains(&format!("<h3 id=\"{id}\">")), "{id}");
            }
        }
        assert!(!page.contains("<T>") && !page.contains("<script"));
    }
}
