//! tokend hands out scarce tokens, each to at most one holder at a time, and takes them back when the
//! holder lets go, goes quiet or dies.
//!
//! Reading order: [`token`] is the domain, without I/O; [`store`] binds one Lua script per verb, and all
//! state lies behind it in Redis; [`http`] and [`server`] are the contract; [`serve`] makes a process of
//! them, out of [`config`], the keys in [`flows`], what all replicas must have alike in [`shared`], and perhaps an
//! [`embedded`] Redis; [`auth`] is passwords and
//! access tokens; [`traces`] tells a collector; [`cli`] is the client for people and scripts, [`users`] keeps who may
//! log in, [`doctor`] looks at the Redis, and [`healthcheck`] asks whether the service on this machine is well.
//! `ARCHITECTURE.md` traces an assign, a lapse, an exchange and a Redis outage through them.

pub mod auth;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod embedded;
pub mod flows;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod healthcheck;
pub mod http;
pub mod listener;
pub mod metrics;
pub mod secrets;
pub mod serve;
pub mod server;
pub mod shared;
pub mod store;
pub mod telemetry;
mod text;
pub mod token;
pub mod traces;
pub mod users;
pub mod version;
