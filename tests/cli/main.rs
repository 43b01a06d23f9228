//! The `tokend` binary against a small server that answers as the contract says.
//!
//! The server is a function from request to answer, so each test says in one place what the
//! service does. Nothing here needs Redis, and nothing waits for luck: where a test has to wait,
//! it waits for the thing itself.

mod lease;
mod service;
mod verbs;
