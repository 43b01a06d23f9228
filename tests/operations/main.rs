//! What people run tokend with, tried with the real programs: manifests, alert rules, dashboards, proxies, containers.
//! A test whose program can't be had here says so and is listed as skipped.

mod manifests;
mod process;
mod restore;
#[path = "../support/mod.rs"]
mod support;
