//! How an operation is written down: method, path and name first, then what it takes, then what it answers.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::{
    Components, ContentBuilder, HttpMethod, Ref, RefOr, Required, ResponseBuilder, Schema,
};
use utoipa::openapi::{path::Operation, path::Parameter};

use super::problems;
use super::schemas::{Named, Shape};
use crate::http::problem::Slug;

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain";
pub const HTML: &str = "text/html";

/// The groups in which pages show the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    Tokens,
    Pools,
    Temporary,
    Token,
    Sessions,
    OAuth,
    System,
    Pages,
}

impl Tag {
    pub const ALL: [Self; 8] = [
        Self::Tokens,
        Self::Pools,
        Self::Temporary,
        Self::Token,
        Self::Sessions,
        Self::OAuth,
        Self::System,
        Self::Pages,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "Pool tokens",
            Self::Pools => "Pools",
            Self::Temporary => "Temporary tokens",
            Self::Token => "One-time and unified tokens",
            Self::Sessions => "Sessions",
            Self::OAuth => "OAuth standards",
            Self::System => "System",
            Self::Pages => "Pages",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::Tokens => "Scarce things of which each has at most one holder at a time.",
            Self::Pools => {
                "What pool tokens come from: their policies, their counts, who holds what."
            }
            Self::Temporary => {
                "Short-lived tokens, for callers who ask only whether one is still good."
            }
            Self::Token => {
                "One-time tokens carry metadata and are exchanged at each use; unified ones live a day."
            }
            Self::Sessions => {
                "Logins: a short-lived access token, and a refresh token that rotates."
            }
            Self::OAuth => {
                "For everybody else's clients: every kind of bearer token, by the standards."
            }
            Self::System => "For whoever runs the service.",
            Self::Pages => "For people, and for tools that read this document.",
        }
    }
}

/// One way in which a request succeeds, or fails in a shape of its own.
struct Answer {
    status: u16,
    description: &'static str,
    media: Option<(&'static str, RefOr<Schema>, Value)>,
}

/// One operation.
pub struct Entry {
    pub method: HttpMethod,
    pub path: &'static str,
    pub named: Vec<Named>,
    id: &'static str,
    tag: Tag,
    summary: &'static str,
    description: &'static str,
    parameters: Vec<Parameter>,
    body: Option<RequestBodyBuilder>,
    answers: Vec<Answer>,
    problems: Vec<Slug>,
}

impl Entry {
    /// An operation that can fail for reasons of our own alone; `id` is the name of its handler.
    pub fn new(
        tag: Tag,
        method: HttpMethod,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            named: Vec::new(),
            id,
            tag,
            summary,
            description: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: vec![Slug::Internal],
        }
    }

    /// What its summary does not say.
    pub fn describe(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// It takes no other query parameters than those named.
    pub fn strict_query(self) -> Self {
        self.problems(&[Slug::InvalidRequest])
    }

    /// It asks the store.
    pub fn asks_store(self) -> Self {
        self.problems(&[Slug::StoreUnavailable, Slug::OutcomeUnknown])
    }

    /// A parameter that must be in the path.
    pub fn in_path<T: ToSchema>(
        self,
        name: &str,
        description: &'static str,
        example: impl Into<Value>,
    ) -> Self {
        self.parameter::<T>(ParameterIn::Path, name, description, example)
    }

    /// A query parameter that may be absent.
    pub fn in_query<T: ToSchema>(
        self,
        name: &str,
        description: &'static str,
        example: impl Into<Value>,
    ) -> Self {
        self.parameter::<T>(ParameterIn::Query, name, description, example)
    }

    /// A header that may be absent.
    pub fn in_header<T: ToSchema>(
        self,
        name: &str,
        description: &'static str,
        example: impl Into<Value>,
    ) -> Self {
        self.parameter::<T>(ParameterIn::Header, name, description, example)
    }

    fn parameter<T: ToSchema>(
        mut self,
        within: ParameterIn,
        name: &str,
        description: &'static str,
        example: impl Into<Value>,
    ) -> Self {
        let shape = Shape::of::<T>();
        self.named.extend(shape.named);
        let required = match within {
            ParameterIn::Path => Required::True,
            _ => Required::False,
        };
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(within)
            .required(required)
            .description(Some(description))
            .schema(Some(shape.schema))
            .example(Some(example.into()));
        self.parameters.push(parameter.build());
        self
    }

    /// A JSON object as its body.
    pub fn takes(self, shape: Shape, required: Required, example: Value) -> Self {
        self.takes_media(JSON, shape, example)
            .body_required(required)
            .problems(&[Slug::InvalidRequest, Slug::UnsupportedMediaType])
    }

    /// A body of that media type; called again, another that it takes too.
    pub fn takes_media(mut self, media: &'static str, shape: Shape, example: Value) -> Self {
        let content = ContentBuilder::new()
            .schema(Some(shape.schema))
            .example(Some(example))
            .build();
        self.named.extend(shape.named);
        let body = self.body.unwrap_or_default().content(media, content);
        self.body = Some(body);
        // Whatever has a body can be too slow or too large.
        self.problems(&[Slug::RequestTimeout, Slug::PayloadTooLarge])
    }

    fn body_required(mut self, required: Required) -> Self {
        self.body = self.body.map(|body| body.required(Some(required)));
        self
    }

    /// An answer with a body of JSON.
    pub fn answers<T: ToSchema>(
        self,
        status: u16,
        description: &'static str,
        example: Value,
    ) -> Self {
        self.answers_shape(status, description, JSON, Shape::of::<T>(), example)
    }

    /// An answer with text of that media type.
    pub fn answers_text(
        self,
        status: u16,
        description: &'static str,
        media: &'static str,
        example: &'static str,
    ) -> Self {
        self.answers_shape(status, description, media, Shape::text(), example.into())
    }

    /// An answer of whatever shape.
    pub fn answers_shape(
        mut self,
        status: u16,
        description: &'static str,
        media: &'static str,
        shape: Shape,
        example: Value,
    ) -> Self {
        self.named.extend(shape.named);
        self.answers.push(Answer {
            status,
            description,
            media: Some((media, shape.schema, example)),
        });
        self
    }

    /// An answer without a body.
    pub fn answers_empty(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push(Answer {
            status,
            description,
            media: None,
        });
        self
    }

    /// Problems that it can answer.
    pub fn problems(mut self, slugs: &[Slug]) -> Self {
        for slug in slugs {
            if !self.problems.contains(slug) {
                self.problems.push(*slug);
            }
        }
        self
    }

    /// The operation of the document. Answers that are problems and nothing else are shared: they go to the
    /// components.
    pub fn operation(self, components: &mut Components) -> Operation {
        let mut answers: BTreeMap<u16, ResponseBuilder> = BTreeMap::new();
        for answer in self.answers {
            let known = answers.remove(&answer.status);
            let known = known.unwrap_or_else(|| problems::response(answer.description));
            let known = match answer.media {
                Some((media, schema, example)) => known.content(
                    media,
                    ContentBuilder::new()
                        .schema(Some(schema))
                        .example(Some(example))
                        .build(),
                ),
                None => known,
            };
            answers.insert(answer.status, known);
        }
        let mut operation = OperationBuilder::new()
            .operation_id(Some(self.id))
            .tag(self.tag.name())
            .summary(Some(self.summary))
            .request_body(self.body.map(RequestBodyBuilder::build));
        if !self.description.is_empty() {
            operation = operation.description(Some(self.description));
        }
        if !self.parameters.is_empty() {
            operation = operation.parameters(Some(self.parameters));
        }
        for (status, slugs) in problems::by_status(&self.problems) {
            match answers.remove(&status) {
                Some(own) => {
                    let own = own.content(problems::MEDIA, problems::content(&slugs));
                    answers.insert(status, own);
                }
                None => {
                    let name = problems::share(&slugs, components);
                    let shared = Ref::from_response_name(name);
                    operation = operation.response(status.to_string(), shared);
                }
            }
        }
        for (status, answer) in answers {
            operation = operation.response(status.to_string(), answer.build());
        }
        operation.build()
    }
}
