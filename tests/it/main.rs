//! Integration tests: all against a real Redis, each in a namespace of its own, all in parallel.

// Counts of a test are small, and its futures are few.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::large_futures
)]

mod api;
mod batching;
mod consistency;
mod duty;
mod faults;
mod flows;
mod harness;
mod history;
mod lifecycle;
mod model;
mod model_flows;
mod pitfalls;
mod pools;
mod primaries;
mod process;
mod races;
mod races_flows;
mod raw;
mod refusing;
mod replicas;
mod scripts;
mod settings;
mod shards;
mod spelling;
#[path = "../support/mod.rs"]
mod support;
mod topologies;
mod users;
mod verbs;
mod waiting;
