//! The processes that drills start, and kill.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use crate::support::{Directory, free_port, program};

/// Longest that a process may take to answer.
const UP_S_MAX: u64 = 20;

/// fsync that waits while a file is there: a disk that stalls.
pub const STALLING_FSYNC: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void stall(void) {
  const char *flag = getenv("STALL_FLAG");
  while (flag && access(flag, F_OK) == 0) usleep(10000);
}
int fsync(int fd) { stall(); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
int fdatasync(int fd) { stall(); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
"#;

/// A clock of the day that is off by so many seconds.
pub const WRONG_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long off(void) { const char *s = getenv("CLOCK_OFF_S"); return s ? atol(s) : 0; }
int gettimeofday(struct timeval *restrict tv, void *restrict tz) {
  struct timespec now;
  (void)tz;
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
  tv->tv_sec = now.tv_sec + off();
  tv->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timeval tv;
  gettimeofday(&tv, 0);
  if (t) *t = tv.tv_sec;
  return tv.tv_sec;
}
"#;

/// Compiles one of these into a library to be preloaded; `None` where there is no C compiler.
pub fn build_shim(dir: &Path, code: &str) -> Option<String> {
    let (source, shim) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, code).ok()?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"])
        .arg(&shim)
        .arg(&source)
        .arg("-ldl");
    let built = cc.status().ok()?.success();
    built.then(|| shim.to_str().expect("UTF-8").to_owned())
}

/// A process that is killed when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self {
            child: child.expect("the program starts"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and kill -9 for one that does not end within that.
    pub async fn terminate(&mut self, ms_max: u64) {
        crate::support::signal(self.child.id(), "TERM");
        let until = Instant::now() + Duration::from_millis(ms_max);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A redis-server without persistence, up.
pub async fn redis(port: u16, dir: &Path) -> Process {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--loglevel", "warning"])
        .arg("--dir")
        .arg(dir)
        .stdout(Stdio::null());
    let process = Process::start(&mut command);
    let until = Instant::now() + Duration::from_secs(UP_S_MAX);
    while tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .is_err()
    {
        assert!(Instant::now() < until, "redis-server never came up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process
}

/// A replica. Not as tests start theirs: it inherits our environment, comes back on the same port, and is not waited for.
pub fn tokend(port: u16, env: &[(&str, &str)]) -> Process {
    let mut command = Command::new(program());
    command
        .arg("serve")
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("LOG_LEVEL", "error")
        .envs(env.iter().copied());
    Process::start(&mut command)
}

/// Waits until `/readyz` is 200.
pub async fn ready(client: &reqwest::Client, port: u16) {
    let url = format!("http://127.0.0.1:{port}/readyz");
    let until = Instant::now() + Duration::from_secs(UP_S_MAX);
    loop {
        let answer = client.get(&url).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        assert!(
            Instant::now() < until,
            "tokend on port {port} never got ready"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .expect("an HTTP client")
}
