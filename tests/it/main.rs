//! Integration tests: all against a real Redis, each in a namespace of its own, all in parallel.

mod harness;
mod smoke;
