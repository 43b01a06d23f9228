//! tokend hands out scarce tokens, each to at most one holder at a time, and takes them back when the
//! holder lets go, goes quiet or dies.

pub mod config;
pub mod embedded;
pub mod http;
pub mod metrics;
pub mod serve;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod token;
