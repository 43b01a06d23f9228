//! The `tokend` binary: the server and its command line in one.

use std::process::ExitCode;

use tokend::cli;

fn main() -> ExitCode {
    cli::run(cli::parse())
}
