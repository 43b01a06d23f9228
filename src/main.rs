//! The `tokend` binary: the server and its command line in one.

use std::process::ExitCode;

use clap::Parser as _;
use tokend::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
