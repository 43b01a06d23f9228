//! Integration tests: all against a real Redis, each in a namespace of its own, all in parallel.

mod consistency;
mod harness;
mod pitfalls;
mod pools;
mod raw;
mod scripts;
mod verbs;
