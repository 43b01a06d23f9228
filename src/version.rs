//! Which build this is: the same in `tokend --version`, in the log and in the metrics.

use std::sync::LazyLock;

/// The version in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that this was built from, as whoever built it said by `TOKEND_REVISION` (the Makefile and the Dockerfile
/// do); without it `unknown`. No build script asks git and nothing tells the time, so that two builds of one commit
/// give the same bytes.
pub const REVISION: &str = match option_env!("TOKEND_REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// Both, as `0.1.0 (REVISION)`.
#[must_use]
pub fn version() -> &'static str {
    static BOTH: LazyLock<String> = LazyLock::new(|| format!("{VERSION} ({REVISION})"));
    &BOTH
}
