//! `DATA_DIR`: made for this user alone, locked, and with a place for the socket.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::StartError;
use super::supervisor::Shared;

/// Longest path of a Unix socket on Linux: 108 bytes with the closing NUL (`man 7 unix`); 104 on the
/// BSDs and macOS, which is what we keep to.
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// How often a lock that is held is tried again.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// A directory that is ours until the lock is dropped, by us and by every process that inherited it.
pub(super) struct Directory {
    /// Absolute, without symbolic links.
    pub path: PathBuf,
    pub lock: File,
    pub socket: PathBuf,
}

impl Directory {
    /// Makes the directory if it is not there and takes its lock.
    pub fn open(path: &Path, lock_wait: Duration, shared: &Shared) -> Result<Self, StartError> {
        let shown = path.display();
        // Only what is made here is closed to others: a directory that was there before (a mounted
        // volume, /tmp by mistake) keeps its mode. What Redis writes is always closed to others.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(StartError::io(format!("making DATA_DIR {shown}")))?;
        let path = path
            .canonicalize()
            .map_err(StartError::io(format!("DATA_DIR {shown}")))?;
        let lock = lock(&path, lock_wait, shared)?;
        let socket = socket(&path)?;
        Ok(Self { path, lock, socket })
    }

    pub fn url(&self) -> String {
        url(&self.socket)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
        if let Some(parent) = self.socket.parent().filter(|parent| *parent != self.path) {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn lock(directory: &Path, wait: Duration, shared: &Shared) -> Result<File, StartError> {
    let path = directory.join("lock");
    let failed = || StartError::io(format!("locking {}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed())?;
    let deadline = Instant::now() + wait;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        let holder = holder(&mut file);
        if Instant::now() >= deadline || shared.stop_asked_within(LOCK_POLL) {
            let directory = directory.to_owned();
            return Err(StartError::InUse { directory, holder });
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(
                "{} still belongs to a tokend (pid {holder}) or to its redis-server: waiting up to {wait:?} for them to end",
                directory.display()
            );
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed())?;
    Ok(file)
}

/// The pid that the lock's holder wrote into it.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    match text.trim() {
        "" => "unknown".to_owned(),
        pid => pid.to_owned(),
    }
}

/// The URL of the Redis that runs on a directory, of this user's; `None` where none listens.
pub(super) fn running(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let socket = place(&directory);
    if let Some(parent) = socket.parent().filter(|parent| *parent != directory) {
        check_ours(parent).ok()?;
    }
    UnixStream::connect(&socket).ok()?;
    Some(url(&socket))
}

fn url(socket: &Path) -> String {
    format!("redis+unix://{}", socket.display())
}

/// In the directory, or, if that path is too long or has characters that a URL would escape, in one
/// under /tmp that only this user can enter. Its name depends on `directory` alone, so that crashes
/// leave no trail of them.
fn place(directory: &Path) -> PathBuf {
    let socket = directory.join("redis.sock");
    if fits(&socket) {
        return socket;
    }
    let digest = Sha256::digest(directory.as_os_str().as_bytes());
    let name: String = digest.iter().take(8).map(|b| format!("{b:02x}")).collect();
    let user = rustix::process::getuid();
    PathBuf::from(format!("/tmp/tokend-{}-{name}", user.as_raw())).join("redis.sock")
}

/// The socket's place, made where it is not in the directory itself.
fn socket(directory: &Path) -> Result<PathBuf, StartError> {
    let socket = place(directory);
    if let Some(short) = socket.parent().filter(|parent| *parent != directory) {
        let failed = || StartError::io(format!("making {} for the socket", short.display()));
        match DirBuilder::new().mode(0o700).create(short) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                check_ours(short).map_err(failed())?;
            }
            made => made.map_err(failed())?,
        }
    }
    Ok(socket)
}

/// Anybody may make a directory of that name in /tmp: take it only if it is surely ours.
fn check_ours(directory: &Path) -> std::io::Result<()> {
    let found = std::fs::symlink_metadata(directory)?;
    let user = rustix::process::getuid().as_raw();
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        let why = "it is there already and open to others";
        return Err(std::io::Error::other(why));
    }
    Ok(())
}

/// The Redis client takes the path from the URL as it stands, without unescaping.
fn fits(socket: &Path) -> bool {
    let bytes = socket.as_os_str().as_bytes();
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-~+,:=@".contains(b);
    bytes.len() <= SOCKET_PATH_BYTES_MAX && bytes.iter().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_long_or_odd_does_not_fit() {
        assert!(fits(Path::new("/var/lib/tokend/redis.sock")));
        assert!(!fits(Path::new("/my data/redis.sock")));
        assert!(!fits(Path::new("/dätä/redis.sock")));
        assert!(!fits(Path::new(&format!(
            "/{}",
            "x".repeat(SOCKET_PATH_BYTES_MAX)
        ))));
    }
}
