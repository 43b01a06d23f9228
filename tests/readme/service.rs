//! The service that the tour talks to: as a reader starts it, with an embedded Redis.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Killed when dropped, and its directory with it.
pub struct Service {
    pub url: String,
    child: Child,
    directory: PathBuf,
}

impl Service {
    pub fn start() -> Self {
        let directory = std::env::temp_dir().join(format!("tokend-readme-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tokend"))
            .args(["serve", "--port", "0"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tokend starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut log = Vec::new();
        // Announced once it serves; the log ends if it can't.
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("tokend does not start: {log:#?}");
            };
            if let Some((_, rest)) = line.split_once(" serves ") {
                break rest.split_whitespace().next().expect("a URL").to_owned();
            }
            log.push(line);
        };
        // A full pipe would stop the service.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            url,
            child,
            directory,
        }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
