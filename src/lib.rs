//! tokend hands out scarce tokens, each to at most one holder at a time, and takes them back when the
//! holder lets go, goes quiet or dies.

pub mod http;
pub mod metrics;
pub mod server;
pub mod store;
pub mod token;
