//! What people run tokend with, tried with the real programs: manifests, alert rules, dashboards, proxies, containers.
//! A test whose program can't be had here says so and is listed as skipped.

mod alerting;
mod compose;
mod dashboards;
mod docker;
mod image;
mod machine;
mod manifests;
mod panels;
mod prometheus;
mod restore;
mod rolling;
mod rules;
#[path = "../support/mod.rs"]
mod support;
mod tracing;
