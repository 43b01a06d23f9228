//! Which server to run: the first on PATH that is new enough.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::StartError;

/// In the order of preference.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
/// The oldest Redis that has what the scripts need (`#!lua` flags).
const REDIS_MAJOR_MIN: u32 = 7;

/// # Errors
/// When there is none, or only one that is too old or can't be run.
pub(super) fn find(search: &OsStr) -> Result<PathBuf, StartError> {
    let mut refused = None;
    for name in NAMES {
        let path = std::env::split_paths(search)
            // An empty entry means the working directory, which must not decide what is run.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(|path| is_executable(path));
        match path.map(|path| check(&path).map(|()| path)) {
            Some(Ok(path)) => return Ok(path),
            Some(Err(error)) => refused = refused.or(Some(error)),
            None => {}
        }
    }
    Err(refused.unwrap_or(StartError::NoBinary))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn check(path: &Path) -> Result<(), StartError> {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(StartError::io(format!("running {}", path.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if new_enough(&text) {
        return Ok(());
    }
    let version = version(&text).unwrap_or("unknown").to_owned();
    Err(StartError::TooOld {
        path: path.to_owned(),
        version,
    })
}

/// `7.0.15` of `Redis server v=7.0.15 sha=…`.
fn version(text: &str) -> Option<&str> {
    text.split_whitespace()
        .find_map(|word| word.strip_prefix("v="))
}

/// Valkey began at Redis 7.2's features, so any will do.
fn new_enough(text: &str) -> bool {
    let major = version(text).and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    text.starts_with("Valkey") || major.is_some_and(|major| major >= REDIS_MAJOR_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_from_7_on_and_any_valkey_will_do() {
        assert!(new_enough(
            "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"
        ));
        assert!(new_enough("Redis server v=10.2.0 sha=0"));
        assert!(new_enough("Valkey server v=8.1.1 sha=0"));
        assert!(!new_enough("Redis server v=6.2.14 sha=0"));
        assert!(!new_enough("something else"));
        assert!(!new_enough(""));
    }
}
