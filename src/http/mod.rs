//! HTTP: parse, validate, call the store, answer. One file per resource; `server.rs` has the routes.
//!
//! **Architecture Invariant:** nothing here names Redis or its client. A handler answers
//! `Result<HttpResponse, Problem>`; only [`observe`] turns a [`problem::Problem`] into bytes, since
//! only it knows the request id.

pub mod answer;
pub mod client;
pub mod closing;
pub mod cors;
pub mod docs;
pub mod dump;
pub mod fields;
pub mod foreign;
pub mod form;
mod index;
pub mod input;
pub mod live;
pub mod login;
pub mod oauth;
pub mod observe;
pub mod one_time;
pub mod openapi;
mod page;
pub mod pools;
pub mod problem;
pub mod raw;
mod reference;
pub mod sessions;
pub mod slash;
pub mod slugs;
pub mod system;
pub mod temporary;
pub mod token;
pub mod tokens;
pub mod trace;
pub mod unified;
