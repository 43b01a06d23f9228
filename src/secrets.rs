//! Secrets that nobody gave us: made once, and kept in `DATA_DIR` for this user alone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Most bytes of a kept secret: a PEM file has a few hundred.
const KEPT_BYTES_MAX: u64 = 16 * 1024;

/// The secret of that name, made by `make` if it is not there. Only one process at a time has the directory.
///
/// # Errors
/// A sentence for the log: when it can't be read or written, or others may read it.
pub fn kept(
    directory: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, String>,
) -> Result<Vec<u8>, String> {
    let path = directory.join(name);
    let told = |error: std::io::Error| format!("the secret {}: {error}", path.display());
    match File::open(&path) {
        Ok(file) => {
            let about = file.metadata().map_err(told)?;
            if about.mode() & 0o077 != 0 {
                return Err(format!(
                    "the secret {} is open to others: chmod 600 it",
                    path.display()
                ));
            }
            let mut secret = Vec::new();
            file.take(KEPT_BYTES_MAX + 1)
                .read_to_end(&mut secret)
                .map_err(told)?;
            if secret.len() as u64 > KEPT_BYTES_MAX {
                return Err(format!(
                    "the secret {} is larger than {KEPT_BYTES_MAX} bytes: tokend did not make it",
                    path.display()
                ));
            }
            if secret.is_empty() {
                return Err(format!(
                    "the secret {} is empty: delete it, and another is made",
                    path.display()
                ));
            }
            Ok(secret)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let secret = make()?;
            // Written beside and renamed: a crash leaves all of it or nothing.
            let beside = directory.join(format!("{name}.new"));
            let write = || -> std::io::Result<()> {
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&beside)?;
                file.write_all(&secret)?;
                file.sync_all()?;
                std::fs::rename(&beside, &path)?;
                File::open(directory)?.sync_all()
            };
            write().map_err(told)?;
            Ok(secret)
        }
        Err(error) => Err(told(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_kept_closed() {
        let directory = std::env::temp_dir().join(format!("tokend-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let first = kept(&directory, "a.key", || Ok(b"one".to_vec()));
        assert_eq!(first.as_deref(), Ok(b"one".as_slice()));
        assert_eq!(kept(&directory, "a.key", || Ok(b"two".to_vec())), first);
        let path = directory.join("a.key");
        let mode = std::fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(
            kept(&directory, "a.key", || Ok(b"two".to_vec()))
                .is_err_and(|why| why.contains("chmod 600"))
        );
        std::fs::remove_file(&path).expect("it is there");
        let long = usize::try_from(KEPT_BYTES_MAX).expect("small") + 1;
        assert!(kept(&directory, "a.key", || Ok(vec![b'x'; long])).is_ok());
        assert!(
            kept(&directory, "a.key", || Ok(Vec::new())).is_err_and(|why| why.contains("larger"))
        );
        std::fs::remove_dir_all(&directory).expect("cleaned up");
    }
}
